"""What the kernels read of a Gaussian: its roots in units that make exp(-power) a power of two."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu.layout import TABLE_COLUMNS, padded
from jsplat.kernels.blend.splats import Splats

SCALE = math.sqrt(0.5 / math.log(2.0))  # of the roots: their squares then hold log2(e) / 2
LEAST_OPACITY = 1e-30


def gaussian_table(splats: Splats) -> Float[Array, "g 8"]:
    """(u, v, w, log2 opacity, x, y, depth, 0) of all Gaussians; u, v, w are scaled."""
    u, v, w = jnp.moveaxis(SCALE * splats.conic_roots, -1, 0)
    depths = jnp.where(jnp.isfinite(splats.depths), splats.depths, 0.0)
    log2_opacities = jnp.log2(jnp.maximum(splats.opacities, LEAST_OPACITY))
    columns = [u, v, w, log2_opacities, splats.means2d[..., 0], splats.means2d[..., 1], depths, jnp.zeros_like(depths)]
    return jnp.stack(columns, -1).reshape(-1, TABLE_COLUMNS)


def unscaled(moments: Float[Array, "*b 6"]) -> Float[Array, "*b 6"]:
    """The `root_moments` of the roots themselves from those of the table's."""
    return moments / jnp.asarray([1.0] + [SCALE] * 5, moments.dtype)


def feature_table(features: Float[Array, "f n c"]) -> Float[Array, "s p"]:
    """Features of the Gaussians of all sets, padded to a multiple of 16 bytes."""
    channels = features.shape[-1]
    return jnp.pad(features.reshape(-1, channels), ((0, 0), (0, padded(channels) - channels)))
