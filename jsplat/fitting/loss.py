"""Losses between a render and a photograph."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jsplat.labelsets.labelset import IGNORE

_WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()


def _blur(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Gaussian window of 11 pixels, sigma 1.5, zero outside; shifted sums, which XLA fuses into one pass an axis."""
    for axis in (x.ndim - 3, x.ndim - 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(5, 5) if a == axis else (0, 0) for a in range(x.ndim)])
        x = sum(w * jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k, w in enumerate(_WINDOW.tolist()))  # type: ignore[assignment]
    return x


def ssim(a: Float[Array, "*b h w c"], b: Float[Array, "*b h w c"]) -> Float[Array, "*b"]:
    """Structural similarity (Wang et al. 2004) of pictures in [0, 1], mean over pixels and channels."""
    return ssim_map(a, b).mean((-3, -2, -1))


def ssim_map(a: Float[Array, "*b h w c"], b: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Structural similarity at each pixel and channel."""
    stacked = _blur(jnp.concatenate([a, b, a * a, b * b, a * b], -1))
    mean_a, mean_b, aa, bb, ab = jnp.split(stacked, 5, -1)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def photo_loss(
    render: Float[Array, "*b h w 3"], photo: Float[Array, "*b h w 3"], ssim_weight: float
) -> Float[Array, "*b"]:
    """(1 - s) L1 + s (1 - SSIM) / 2, as Kerbl et al. 2023."""
    l1 = jnp.abs(render - photo).mean((-3, -2, -1))
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - ssim(render, photo)) / 2


def label_loss(probabilities: Float[Array, "*b h w k"], labels: Integer[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Mean cross-entropy of a class mixture; `IGNORE` does not count."""
    valid = labels != IGNORE
    # A mask instead of a gather, whose gradient would be a scatter into an array of zeros: two more passes on GPUs.
    own = labels[..., None] == jnp.arange(probabilities.shape[-1])
    chosen = jnp.where(own, probabilities, 0).sum(-1)
    losses = -jnp.log(jnp.maximum(chosen, 1e-4)) * valid
    return losses.sum((-2, -1)) / jnp.maximum(valid.sum((-2, -1)), 1)
