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


def rotated(matrix: jax.Array, vectors: jax.Array) -> jax.Array:
    """Many vectors, each multiplied from the left by one matrix of 3 x 3.

    On GPUs three scaled columns: a product would be a library's, chosen by how fast it happens to be, so that two
    processes could round differently. On processors the product is the faster one.
    """

    def columns(matrix, vectors):
        first, second, third = (matrix[..., k] * vectors[..., k : k + 1] for k in range(3))
        return first + second + third

    return jax.lax.platform_dependent(
        matrix, vectors, cpu=functools.partial(einsum, "...ij,...j->...i"), default=columns
    )


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
