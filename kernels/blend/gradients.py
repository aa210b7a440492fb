"""What every backward pass does before and after its loop over pairs: one place for the formulas that they share."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jsplat.kernels.constants import ALPHA_FLOOR


def whole_sum(
    image: Float[Array, "..."], grad: Float[Array, "..."], shape_channels: int, *, axis: int = -1
) -> Float[Array, "..."]:
    """image . grad over the channels that may move the geometry: the first ones, depth and alpha; keeps the axis.

    One channel after the other: how a reduction groups its sums may depend on the size of the batch.
    """
    channels = image.shape[axis] - 2
    parts = [
        lax.index_in_dim(image, k, axis) * lax.index_in_dim(grad, k, axis)
        for k in (*range(shape_channels), channels, channels + 1)
    ]
    return functools.reduce(jnp.add, parts)


def about_means(moments: Float[Array, "*b 6"], u: Float[Array, "*b"], v: Float[Array, "*b"]) -> Float[Array, "*b 6"]:
    """Moments (1, x, y, xx, xy, yy) of mean (u, v) minus pixel, from those of the pixel about the same origin."""
    m, mx, my, mxx, mxy, myy = jnp.moveaxis(moments, -1, 0)
    x, y = u * m - mx, v * m - my
    xx, yy = u * u * m - 2 * u * mx + mxx, v * v * m - 2 * v * my + myy
    return jnp.stack([m, x, y, xx, u * v * m - u * my - v * mx + mxy, yy], -1)


def shape_gradients(
    moments: Float[Array, "*b 6"], conics: Float[Array, "*b 3"], opacities: Float[Array, "*b"]
) -> Float[Array, "*b 6"]:
    """Gradients of (x, y, a, b, c, opacity) from the moments, about the means, of the power's gradient."""
    m, x, y, xx, xy, yy = jnp.moveaxis(moments, -1, 0)
    a, b, c = jnp.moveaxis(conics, -1, 0)
    light = jnp.where(opacities > 0, -m / jnp.maximum(opacities, ALPHA_FLOOR), 0.0)
    return jnp.stack([_times(a, x) + _times(b, y), _times(b, x) + _times(c, y), 0.5 * xx, xy, 0.5 * yy, light], -1)


def _times(factor, sums):
    """Zero where there is no sum, whatever a hidden Gaussian's factor is."""
    return jnp.where(sums == 0, 0.0, factor * sums)
