"""The reference: windows as sums of shifted planes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
WINDOW /= WINDOW.sum()
C1, C2 = 0.01**2, 0.03**2


def _blur(x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
    """Gaussian window of 11 pixels, sigma 1.5, zero outside; symmetric, thus its own transpose."""
    # Barriers: fused into the eleven reads the padding keeps XLA's loops on processors from being vectorised, and with
    # both axes in one loop each pixel reads 121.
    x = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(5, 5), (5, 5)]))
    for axis in (x.ndim - 1, x.ndim - 2):
        at = functools.partial(jax.lax.slice_in_dim, jax.lax.optimization_barrier(x), axis=axis)
        size = x.shape[axis] - 10
        pairs = (w * (at(k, k + size) + at(10 - k, 10 - k + size)) for k, w in enumerate(WINDOW[:5].tolist()))
        x = sum(pairs, start=float(WINDOW[5]) * at(5, 5 + size))
    return x


def _similarity(a: Float[Array, "*b h w"], b: Float[Array, "*b h w"]):
    """SSIM at each pixel of planes, and its derivatives in the window's means of a, a a and a b."""
    mean_a, mean_b, aa, bb, ab = _blur(jnp.stack([a, b, a * a, b * b, a * b]))
    n1, n2 = 2 * mean_a * mean_b + C1, 2 * (ab - mean_a * mean_b) + C2
    d1, d2 = mean_a**2 + mean_b**2 + C1, (aa - mean_a**2) + (bb - mean_b**2) + C2
    scale = 1 / (d1 * d2)
    similarity = n1 * n2 * scale
    in_mean = 2 * (mean_b * (n2 - n1) - mean_a * similarity * (d2 - d1)) * scale
    return similarity, (in_mean, -similarity * d1 * scale, 2 * n1 * scale)


def _planes(x: Float[Array, "*b h w c"]) -> Float[Array, "*b c h w"]:
    return jnp.moveaxis(x, -1, -3)


def similarity_map(a: Float[Array, "*b h w c"], b: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Structural similarity (Wang et al. 2004) at each pixel and channel of pictures in [0, 1]."""
    return jnp.moveaxis(_similarity(_planes(a), _planes(b))[0], -3, -1)


def photo_loss_and_slope(
    render: Float[Array, "*b h w 3"], photo: Float[Array, "*b h w 3"], ssim_weight: float
) -> tuple[Float[Array, "*b"], Float[Array, "*b h w 3"]]:
    """The loss, and its gradient in the render: both need the same windows."""
    a, b = _planes(render), _planes(photo)
    similarity, inner = _similarity(a, b)
    mean, aa, ab = _blur(jnp.stack(inner))
    error = a - b
    loss = ((1 - ssim_weight) * jnp.abs(error) + ssim_weight / 2 * (1 - similarity)).mean((-3, -2, -1))
    slope = (1 - ssim_weight) * jnp.sign(error) - ssim_weight / 2 * (mean + 2 * a * aa + b * ab)
    return loss, jnp.moveaxis(slope, -3, -1) / math.prod(render.shape[-3:])
