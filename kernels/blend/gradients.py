"""What every backward pass does before and after its loop over pairs: one place for the formulas that they share."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jsplat.kernels.constants import ALPHA_FLOOR


def image_dot_grad(
    image: Float[Array, "..."], grad_image: Float[Array, "..."], shape_channels: int, *, axis: int = -1
) -> Float[Array, "..."]:
    """image . gradient over the channels that may move the geometry: the first ones, depth and alpha; keeps the axis.

    One channel after the other: how a reduction groups its sums may depend on the size of the batch.
    """
    channels = image.shape[axis] - 2
    parts = [
        lax.index_in_dim(image, k, axis) * lax.index_in_dim(grad_image, k, axis)
        for k in (*range(shape_channels), channels, channels + 1)
    ]
    return functools.reduce(jnp.add, parts)


def root_moments(
    moments: Float[Array, "*b 6"], means: Float[Array, "*b 2"], roots: Float[Array, "*b 3"]
) -> Float[Array, "*b 6"]:
    """Moments (1, p, q, p x, p y, q y) with p = u x + v y, q = w y and (x, y) a pixel minus the mean.

    A needle's p is small where it shows, but x and y are not: what cancels does so here, tile by tile, where the pixels
    lie within a few units of the origin.

    Args:
        moments: (1, x, y, xx, xy, yy) of pixels about some origin near them.
        means: about the same origin.
        roots: (u, v, w).
    """
    m, mx, my, mxx, mxy, myy = jnp.moveaxis(moments, -1, 0)
    x, y = jnp.moveaxis(means, -1, 0)
    u, v, w = jnp.moveaxis(roots, -1, 0)
    p, q = -(u * x + v * y), -(w * y)  # at the origin
    mp, mq = p * m + u * mx + v * my, q * m + w * my
    mpx, mpy = p * mx + u * mxx + v * mxy, p * my + u * mxy + v * myy
    return jnp.stack([m, mp, mq, mpx - x * mp, mpy - y * mp, q * my + w * myy - y * mq], -1)


def shape_gradients(
    moments: Float[Array, "*b 6"], roots: Float[Array, "*b 3"], opacities: Float[Array, "*b"]
) -> Float[Array, "*b 6"]:
    """Gradients of (x, y, u, v, w, opacity) from the `root_moments` of the powers' gradients."""
    m, mp, mq, *grad_roots = jnp.moveaxis(moments, -1, 0)
    u, v, w = jnp.moveaxis(roots, -1, 0)
    grad_opacity = jnp.where(opacities > 0, -m / jnp.maximum(opacities, ALPHA_FLOOR), 0.0)
    return jnp.stack([-_times(u, mp), -_times(v, mp) - _times(w, mq), *grad_roots, grad_opacity], -1)


def _times(factor, sums):
    """Zero where the sum is zero, whatever a hidden Gaussian's factor is."""
    return jnp.where(sums == 0, 0.0, factor * sums)
