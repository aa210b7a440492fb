"""`blend` by kernels of our own for NVIDIA GPUs of compute capability 9.0 and 10.x, through Pallas' Mosaic GPU.

`forward` and `backward` have the form that `jsplat.kernels.blend` asks of an implementation, in float32 only.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend.gradients import shape_gradients, whole_sum
from jsplat.kernels.blend.mosaic_gpu.backward import gradient_rows
from jsplat.kernels.blend.mosaic_gpu.forward import blend_tiles
from jsplat.kernels.blend.mosaic_gpu.layout import (
    MOMENTS,
    MOST_CHANNELS,
    TILE,
    from_planes,
    matrix_tiles,
    to_planes,
)
from jsplat.kernels.blend.mosaic_gpu.table import feature_table, table, unscaled
from jsplat.kernels.blend.mosaic_gpu.walk import Lists
from jsplat.kernels.collect import collect, sum_over_images
from jsplat.kernels.tiling import bin_tiles, tile_grid


@functools.partial(jax.jit, static_argnames=("size", "capacity", "interpret"))
def forward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    *,
    size: tuple[int, int],
    capacity: int,
    interpret: Any = None,
) -> tuple[Float[Array, "i h w c+2"], Int[Array, " i"]]:
    """The blend of features, depth and 1, and the tile hits each image needed; see `jsplat.kernels.blend`.

    Args:
        interpret: parameters of Pallas' interpreter, to run without a GPU.

    Raises:
        ValueError: an array is not float32, or there are no or more than 64 channels.
    """
    _check(means2d, conic_roots, opacities, depths, features)
    lists, hits = _lists(means2d, conic_roots, opacities, depths, features, owner, size, capacity)
    planes = blend_tiles(lists, channels=features.shape[-1], grid=tile_grid(size, TILE), interpret=interpret)
    return from_planes(planes, size=size), hits.needed


def _bfloat16(x):
    """Float32 rounded to what bfloat16 holds. As integers: XLA may leave a conversion there and back out."""
    bits = (lax.bitcast_convert_type(x, jnp.int32) + 0x8000) & -0x10000
    return lax.bitcast_convert_type(bits, jnp.float32)


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels", "interpret"))
def backward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    image: Float[Array, "i h w c+2"],
    grad: Float[Array, "i h w c+2"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
    interpret: Any = None,
) -> tuple[
    Float[Array, "i n 2"], Float[Array, "i n 3"], Float[Array, "i n"], Float[Array, "i n"], Float[Array, "f n c"]
]:
    """Gradients of sum(image * grad) for all but `owner`; the same bits on every run of the same program.

    Args and errors as those of `forward`; `image` is what it gave.
    """
    _check(means2d, conic_roots, opacities, depths, features)
    # Under one jit XLA merges this binning with the forward pass's own.
    lists, hits = _lists(means2d, conic_roots, opacities, depths, features, owner, size, capacity)
    (images, count), channels = opacities.shape, features.shape[-1]
    planes = to_planes(grad)
    # The kernel multiplies by these two parts, so the whole sum has to be made of them too: what is left of it
    # behind the last Gaussian is divided by 1 - alpha.
    high = _bfloat16(planes)
    low = _bfloat16(planes - high)
    rounded = high + low
    used = jnp.concatenate([rounded[:, :-1], planes[:, -1:]], 1)
    whole = whole_sum(to_planes(image), used, shape_channels, axis=1)
    rows = gradient_rows(
        lists,
        jnp.concatenate([matrix_tiles(part[:, : channels + 1].astype(jnp.bfloat16)) for part in (high, low)], 1),
        jnp.concatenate([planes[:, -1:], whole], 1),
        channels=channels,
        shape_channels=shape_channels,
        grid=tile_grid(size, TILE),
        interpret=interpret,
    )
    sums = collect(rows, hits, images * count).reshape(images, count, -1)
    shape = shape_gradients(unscaled(sums[..., :6]), conic_roots, opacities)
    painted = sums[..., MOMENTS : MOMENTS + channels + 1]
    learned = sum_over_images(painted[..., :-1], owner, features.shape[0])
    return shape[..., :2], shape[..., 2:5], shape[..., 5], painted[..., -1], learned


def _lists(means2d, conic_roots, opacities, depths, features, owner, size, capacity):
    hits = bin_tiles(means2d, conic_roots, opacities, depths, size=size, tile=TILE, capacity=capacity)
    images, count = opacities.shape
    shifts = (owner.astype(jnp.int32) - jnp.arange(images, dtype=jnp.int32)) * count
    rows = table(means2d, conic_roots, opacities, depths)
    return Lists(rows, feature_table(features), hits.ids, hits.starts, shifts), hits


def _check(*args):
    for name, x in zip(("means2d", "conic_roots", "opacities", "depths", "features"), args):
        if x.dtype != jnp.float32:
            raise ValueError(f"blend: mosaic_gpu: {name}: wanted float32, got {x.dtype}; backend='xla' takes float64")
    if not 1 <= args[-1].shape[-1] <= MOST_CHANNELS:
        raise ValueError(f"blend: mosaic_gpu: features: wanted 1 to {MOST_CHANNELS} channels, got {args[-1].shape[-1]}")
