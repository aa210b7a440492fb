"""What this code means by adding arrays of two types or ranks, whatever the program around it has set."""

import functools
import typing
from collections.abc import Callable

import jax

P = typing.ParamSpec("P")
T = typing.TypeVar("T")


def by_own_rules(function: Callable[P, T]) -> Callable[P, T]:
    """JAX's usual rules of promotion within `function`; others' tests are often stricter about their own code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return run
