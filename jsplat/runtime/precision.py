"""In which precision this code computes, whatever the program around it has set."""

import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp

P = typing.ParamSpec("P")
T = typing.TypeVar("T")

# Products outside the parser, in all bits of their factors: by default GPUs round float32 factors to 10 bits (TF32).
einsum = functools.partial(jnp.einsum, precision="highest")
matmul = functools.partial(jnp.matmul, precision="highest")


def by_own_rules(function: Callable[P, T]) -> Callable[P, T]:
    """JAX's usual rules of promotion within `function`; others' tests are often stricter about their own code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return run


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """`function` without JAX's 64-bit types: fits and parsers compute in 32 bits also in a program that has both."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return run
