"""`blend` by kernels of our own for NVIDIA GPUs of compute capability 9.0 and 10.x, through Pallas' Mosaic GPU.

`forward` and `backward` have the form that `jsplat.kernels.blend` asks of an implementation, in float32 only.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from jsplat.kernels.blend.gradients import image_dot_grad, shape_gradients
from jsplat.kernels.blend.mosaic_gpu.backward import hit_gradients
from jsplat.kernels.blend.mosaic_gpu.forward import blend_tiles
from jsplat.kernels.blend.mosaic_gpu.layout import (
    MOMENTS,
    MOST_CHANNELS,
    TILE,
    from_planes,
    matrix_tiles,
    to_planes,
)
from jsplat.kernels.blend.mosaic_gpu.searches import SEARCHES
from jsplat.kernels.blend.mosaic_gpu.sums import collect, sum_over_images
from jsplat.kernels.blend.mosaic_gpu.table import feature_table, gaussian_table, unscaled
from jsplat.kernels.blend.mosaic_gpu.walk import Lists
from jsplat.kernels.blend.splats import Shown, Splats, nan_gradients, nan_where
from jsplat.kernels.tiling import TileHits, bin_tiles


@functools.partial(jax.jit, static_argnames=("size", "capacity", "interpret"))
def forward(
    splats: Splats, set_ids: Int[Array, " i"], *, size: tuple[int, int], capacity: int, interpret: Any = None
) -> tuple[Shown, Int[Array, " i"]]:
    """What the Gaussians show, and the tile hits each image needed; see `jsplat.kernels.blend`.

    Args:
        interpret: parameters of Pallas' interpreter, to run without a GPU.

    Raises:
        ValueError: an array is not float32, or there are no or more than 64 channels.
    """
    _check(splats)
    lists, hits = listed(splats, set_ids, size, capacity, interpret)
    planes = blend_tiles(lists, channels=splats.features.shape[-1], size=size, interpret=interpret)
    return Shown.of(nan_where(hits.needed > capacity, from_planes(planes, size=size))), hits.needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels", "interpret"))
def backward(
    splats: Splats,
    set_ids: Int[Array, " i"],
    shown: Shown,
    grad_shown: Shown,
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
    interpret: Any = None,
) -> Splats:
    """Gradients of sum(shown * grad_shown); the same bits on every run of the same program.

    Args and errors as those of `forward`; `shown` is what it gave.
    """
    _check(splats)
    # Under one jit XLA merges this binning with the forward pass's own.
    lists, hits = listed(splats, set_ids, size, capacity, interpret)
    (images, count), channels = splats.opacities.shape, splats.features.shape[-1]
    grad_planes = to_planes(grad_shown.image)
    # In a product of matrices NaN times nothing is NaN: it goes with the gradient of alpha, which no product takes.
    finite = jnp.isfinite(grad_planes).all(1, keepdims=True)
    grad_planes = jnp.where(finite, grad_planes, 0.0)
    # The kernel multiplies by these two parts, so the whole sum has to be made of them too: what is left of it
    # behind the last Gaussian is divided by 1 - alpha.
    high = _bfloat16(grad_planes)
    low = _bfloat16(grad_planes - high)
    rounded = high + low
    used = jnp.concatenate([rounded[:, :-1], grad_planes[:, -1:]], 1)
    whole = image_dot_grad(to_planes(shown.image), used, shape_channels, axis=1)
    hit_grads = hit_gradients(
        lists,
        jnp.concatenate([matrix_tiles(part[:, : channels + 1].astype(jnp.bfloat16)) for part in (high, low)], 1),
        jnp.concatenate([jnp.where(finite, grad_planes[:, -1:], jnp.nan), whole], 1),
        channels=channels,
        shape_channels=shape_channels,
        size=size,
        interpret=interpret,
    )
    sums = collect(hit_grads, hits, images * count, interpret).reshape(images, count, -1)
    shape = shape_gradients(unscaled(sums[..., :6]), splats.conic_roots, splats.opacities)
    grad_values = sums[..., MOMENTS : MOMENTS + channels + 1]  # of features and depth
    grad_features = sum_over_images(grad_values[..., :-1], set_ids, splats.features.shape[0], interpret)
    gradients = Splats(shape[..., :2], shape[..., 2:5], shape[..., 5], grad_values[..., -1], grad_features)
    return nan_gradients(hits.needed > capacity, set_ids, gradients)


def listed(
    splats: Splats, set_ids: Int[Array, " i"], size: tuple[int, int], capacity: int, interpret: Any = None
) -> tuple[Lists, TileHits]:
    """What both kernels read, and the tile hits; where Pallas interprets, XLA searches."""
    searches = SEARCHES if interpret is None else None
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity, searches=searches)
    images, count = splats.opacities.shape
    shifts = (set_ids.astype(jnp.int32) - jnp.arange(images, dtype=jnp.int32)) * count
    table, features = gaussian_table(splats), feature_table(splats.features)
    return Lists(table, features, hits.gaussian_ids, hits.tile_offsets, shifts), hits


def _bfloat16(x):
    """Float32 rounded to what bfloat16 holds. As integers: XLA may leave a conversion there and back out."""
    bits = (lax.bitcast_convert_type(x, jnp.int32) + 0x8000) & -0x10000
    return lax.bitcast_convert_type(bits, jnp.float32)


def _check(splats):
    for name, x in splats._asdict().items():
        if x.dtype != jnp.float32:
            raise ValueError(f"blend: mosaic_gpu: {name}: wanted float32, got {x.dtype}; backend='xla' takes float64")
    channels = splats.features.shape[-1]
    if not 1 <= channels <= MOST_CHANNELS:
        wanted = f"blend: mosaic_gpu: features: wanted 1 to {MOST_CHANNELS} channels"
        raise ValueError(f"{wanted}, got {channels}; backend='xla' takes more")
