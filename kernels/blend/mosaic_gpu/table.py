"""What the kernels read of a Gaussian: its form in units that make the power one of two."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu.layout import GEOMETRY, padded

_SCALE = math.sqrt(0.5 / math.log(2.0))  # a square times log2(e) / 2
LEAST_OPACITY = 1e-30


def table(
    means2d: Float[Array, "i n 2"], conic_roots: Float[Array, "i n 3"], opacities: Float[Array, "i n"], depths
) -> Float[Array, "g 8"]:
    """Rows (u, v, w, log2 opacity, x, y, depth, 0) of all Gaussians."""
    u, v, w = jnp.moveaxis(_SCALE * conic_roots, -1, 0)
    depths = jnp.where(jnp.isfinite(depths), depths, 0.0)
    light = jnp.log2(jnp.maximum(opacities, LEAST_OPACITY))
    columns = [u, v, w, light, means2d[..., 0], means2d[..., 1], depths, jnp.zeros_like(depths)]
    return jnp.stack(columns, -1).reshape(-1, GEOMETRY)


def unscaled(moments: Float[Array, "*b 6"]) -> Float[Array, "*b 6"]:
    """The `root_moments` of the roots themselves from those of the table's."""
    return moments / jnp.asarray([1.0] + [_SCALE] * 5, moments.dtype)


def feature_table(features: Float[Array, "f n c"]) -> Float[Array, "s p"]:
    """Rows of all sets, padded to a multiple of 16 bytes."""
    channels = features.shape[-1]
    return jnp.pad(features.reshape(-1, channels), ((0, 0), (0, padded(channels) - channels)))
