"""What the kernels read of a Gaussian: the power as a sum of two squares, in units that make exp2 of it."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu.layout import GEOMETRY, padded

_SCALE = math.sqrt(0.5 / math.log(2.0))  # a square times log2(e) / 2
_HEAD_BITS = 0xFFFFF000  # keeps 12 bits of a mantissa: products of such numbers are exact
LEAST_OPACITY = 1e-30


def table(
    means2d: Float[Array, "i n 2"], conics: Float[Array, "i n 3"], opacities: Float[Array, "i n"], depths
) -> Float[Array, "g 8"]:
    """Rows (u, v, w, log2 opacity, x, y, depth, 0) of all Gaussians.

    With u = sqrt(a), v = b / sqrt(a), w = sqrt(c - b^2 / a) the power (a dx^2 + 2 b dx dy + c dy^2) / 2 is
    ((u dx + v dy)^2 + (w dy)^2) / 2: fewer operations a pixel, and no difference of large numbers in them, so that a
    needle's power is as good as its conic.
    """
    a, b, c = (conics[..., k] for k in range(3))
    root = jnp.sqrt(jnp.maximum(a, 1e-37))
    height = jnp.sqrt(jnp.maximum(_schur(a, b, c), 0.0))
    depths = jnp.where(jnp.isfinite(depths), depths, 0.0)
    light = jnp.log2(jnp.maximum(opacities, LEAST_OPACITY))
    columns = [_SCALE * root, _SCALE * b / root, _SCALE * height, light, means2d[..., 0], means2d[..., 1], depths]
    return jnp.stack([*columns, jnp.zeros_like(a)], -1).reshape(-1, GEOMETRY)


def feature_table(features: Float[Array, "f n c"]) -> Float[Array, "s p"]:
    """Rows of all sets, padded to a multiple of 16 bytes."""
    channels = features.shape[-1]
    return jnp.pad(features.reshape(-1, channels), ((0, 0), (0, padded(channels) - channels)))


def _schur(a, b, c):
    """c - b^2 / a to full precision: for a needle it is a small difference of large numbers (Dekker 1971)."""
    ratio = b / a
    head, tail = _product(ratio, b)
    back, rest = _product(ratio, a)
    missing = ((b - back) - rest) / a  # what the rounded ratio lacks
    return ((c - head) - tail) - missing * b


def _product(x, y):
    """x * y and its rounding error."""
    head = x * y
    xs, ys = _split(x), _split(y)
    tail = ((xs[0] * ys[0] - head) + xs[0] * ys[1] + xs[1] * ys[0]) + xs[1] * ys[1]
    return head, tail


def _split(x):
    bits = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(_HEAD_BITS)
    head = lax.bitcast_convert_type(bits, jnp.float32)
    return head, x - head
