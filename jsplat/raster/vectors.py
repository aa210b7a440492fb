"""Small vectors as a list of arrays, one a component.

An axis of 3 neither vectorises on processors nor fuses on GPUs, where each sum over it is a kernel of its own.
"""

import functools
import operator
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

T = typing.TypeVar("T")
Components = Sequence[Float[Array, "..."]]


@jax.custom_vjp
def components(vectors: Float[Array, "*b d"]) -> list[Float[Array, "*b"]]:
    """The components of vectors."""
    return [vectors[..., k] for k in range(vectors.shape[-1])]


# The gradient of a slice is a padded array, and those of all slices would be added up.
components.defvjp(lambda vectors: (components(vectors), None), lambda _, slopes: (jnp.stack(slopes, -1),))


def dot(a: Components, b: Components) -> Float[Array, "..."]:
    """The scalar product."""
    return functools.reduce(operator.add, (x * y for x, y in zip(a, b, strict=True)))


def cross(a: Components, b: Components) -> list[Float[Array, "..."]]:
    """The vector product of vectors of 3 components."""
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def largest(vectors: Components) -> Float[Array, "..."]:
    """The largest absolute value of a component."""
    return functools.reduce(jnp.maximum, map(jnp.abs, vectors))


def is_direction(vectors: Components) -> Bool[Array, "..."]:
    """Which vectors have a direction: they are not zero, and finite as their inverse is."""
    length, least = largest(vectors), jnp.finfo(vectors[0].dtype).tiny
    return (length < 1 / least) & (length > least)


def unit(vectors: Components, otherwise: tuple[float, ...]) -> list[Float[Array, "..."]]:
    """Vectors of length 1; `otherwise`, which sends no gradient, for those without a direction.

    Neither very short nor very long ones lose theirs: the squares are of numbers of at most 1.
    """
    valid = is_direction(vectors)
    vectors = [jnp.where(valid, x, jnp.asarray(instead, x.dtype)) for x, instead in zip(vectors, otherwise)]
    scale = 1 / jax.lax.stop_gradient(largest(vectors))
    vectors = [x * scale for x in vectors]
    scale = jax.lax.rsqrt(dot(vectors, vectors))
    return [x * scale for x in vectors]


@jax.custom_vjp
def computed_once(values: T) -> T:
    """Arrays of one shape as they are; on processors they, and in the gradient their slopes, are written down here.

    XLA's loops there compute what they read anew for each of their readers, and for each reader of these.
    """
    arrays, structure = jax.tree.flatten(values)
    keep = functools.partial(jax.lax.platform_dependent, cpu=jax.lax.optimization_barrier, default=lambda x: x)
    # A barrier alone is gone when XLA fuses; what it keeps apart is the array of them all and the slices of that.
    return jax.tree.unflatten(structure, [*keep(jnp.stack(arrays))])


computed_once.defvjp(lambda values: (computed_once(values), None), lambda _, slopes: (computed_once(slopes),))
