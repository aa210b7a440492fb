"""Training pictures on the device, and how a batch is drawn from them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from jsplat.raster.pytree import pytree


@pytree
class Pool:
    """A training set on the device, as it was stored."""

    images: UInt8[Array, "n h w 3"]
    labels: UInt8[Array, "n h w"]
    weights: Float[Array, " n"]


def draw(key: Key[Array, ""], pool: Pool, count: int) -> Pool:
    """`count` pictures at random, none twice as long as the pool has that many."""
    n = len(pool.images)
    chosen = jax.random.permutation(key, n)[jnp.arange(count) % n]
    return jax.tree.map(lambda x: x[chosen], pool)
