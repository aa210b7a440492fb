"""The backward kernel: the tile's list front to back once more, gradients summed over the pixels by matrix products."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, BFloat16, Float

from jsplat.kernels.blend.mosaic_gpu.forward import settings
from jsplat.kernels.blend.mosaic_gpu.layout import (
    CHUNK,
    COLUMNS,
    DEPTH,
    FEATURES,
    PIXELS,
    STAGE_PITCH,
    column_tiles,
    hit_grads_width,
    matrix_tiles,
    monomials,
)
from jsplat.kernels.blend.mosaic_gpu.walk import Lists, Walk, alpha_of, scratch, threshold_after
from jsplat.kernels.constants import ALPHA_CEILING

HELD = 62  # channels whose gradients a thread keeps in registers; of more, the last ones are read for every hit
CHAINS = 4  # sums of a product over channels that run side by side: one is as long as its channels


def hit_gradients(
    lists: Lists,
    factors: BFloat16[Array, "t s k"],
    pixel_grads: Float[Array, "t 2 p"],
    *,
    channels: int,
    shape_channels: int,
    size: tuple[int, int],
    interpret: Any = None,
) -> Float[Array, "m w"]:
    """For each hit: `root_moments` of the powers' gradients, gradients of features and of depth.

    Args:
        factors: high, then low parts of the image's gradient, as `matrix_tiles` lays them out.
        pixel_grads: gradient of alpha, and the sum of image * gradient over the channels that move the geometry. Where
            the former is NaN, the hits that the pixel takes get NaN, and no others.
    """
    column_count = column_tiles(channels)
    columns = [DEPTH, *range(FEATURES, FEATURES + shape_channels)]  # of a hit: what moves the geometry, but for alpha
    factor_columns = [channels, *range(shape_channels)]  # their gradients

    def backward_kernel(*refs):
        *lists, monomials, factors, pixel_grads, hit_grads, hits, gaussian_ids, stage, tile_factors = refs
        tile = lax.axis_index("tile")
        walk = Walk(Lists(*lists), hits, gaussian_ids, tile, size, interpret)
        ops = walk.ops

        def with_hits():
            # What a pixel knows from the start: the gradients of its channels, and its sum of image * gradient.
            ops.load_factors(tile_factors, factors, tile)
            ops.clear_stage(stage)
            ops.copies_then_barrier()
            grad_channels = [functools.partial(ops.factor, tile_factors, c, column_count) for c in factor_columns]
            held = [read() for read in grad_channels[:HELD]]
            grad_alpha_channel, whole = ops.load(pixel_grads.at[tile, 0]), ops.load(pixel_grads.at[tile, 1])

            # Hit by hit, front to back: `behind` is what is left of the whole sum.
            def blend(hit, k, log2_alpha, threshold, transmittance, state):
                (behind,) = state
                taken, unclipped, alpha = alpha_of(log2_alpha, threshold)
                weight = jnp.where(taken, alpha * transmittance, 0.0)
                grads = held + [read() for read in grad_channels[HELD:]]
                grad_weight = _dot(grad_alpha_channel, grads, [hit(column) for column in columns])
                behind = behind - weight * grad_weight
                rest = 1 - alpha
                grad_alpha = transmittance * grad_weight - behind * ops.reciprocal(rest)
                # Where alpha is clipped neither opacity nor shape matters.
                grad_power = jnp.where(taken & (unclipped < ALPHA_CEILING), -alpha * grad_alpha, 0.0)
                stage[k, pl.ds(0, PIXELS)] = _parts(weight)
                stage[k + CHUNK, pl.ds(0, PIXELS)] = _parts(grad_power)
                transmittance = transmittance * rest
                return threshold_after(transmittance, threshold), transmittance, (behind,)

            # Chunk by chunk: sums over the pixels.
            def reduce(index, half):
                ops.barrier()
                first, count = walk.first + index * CHUNK, walk.count(index)
                ops.reduce(stage, monomials, tile_factors, walk.hits, hit_grads, half, index, first, count)

            # NaN from the start where the gradient is: a pixel's own hits show it, and only they.
            transmittance = (grad_alpha_channel - grad_alpha_channel) + 1
            walked, _, _ = walk.run(blend, transmittance, (whole,), reduce)

            # Behind the early stop.
            ops.clear_hits(hit_grads, jnp.minimum(walk.first + walked * CHUNK, walk.end), walk.end)

        pl.when(walk.chunks > 0)(with_hits)

    return plgpu.kernel(
        backward_kernel,
        out_type=jax.ShapeDtypeStruct((lists.gaussian_ids.shape[0], hit_grads_width(channels)), jnp.float32),
        scratch_types=[
            *scratch(channels),
            plgpu.SMEM((2 * CHUNK, STAGE_PITCH), jnp.uint32),
            plgpu.SMEM((2 * column_count, COLUMNS * PIXELS), jnp.bfloat16),
        ],
        grid=(lists.tile_offsets.shape[0] - 1,),
        grid_names=("tile",),
        **settings(interpret),
    )(*lists, matrix_tiles(jnp.asarray(monomials()[None], jnp.bfloat16))[0], factors, pixel_grads)


def _dot(start, xs, ys):
    """start + the sum of products, in chains that do not wait for each other."""
    chains = [start] + [None] * (min(CHAINS, len(xs)) - 1)
    for k, (x, y) in enumerate(zip(xs, ys)):
        chain = chains[k % len(chains)]
        chains[k % len(chains)] = x * y if chain is None else chain + x * y
    while len(chains) > 1:
        chains = [sum(chains[k : k + 2][1:], chains[k]) for k in range(0, len(chains), 2)]
    return chains[0]


def _parts(x):
    """A float32 as two bf16 parts in one word, each the cut-off head of what is left: 16 bits of mantissa."""
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    high = bits & jnp.uint32(0xFFFF0000)
    low = lax.bitcast_convert_type(x - lax.bitcast_convert_type(high, jnp.float32), jnp.uint32)
    return high | (low >> 16)
