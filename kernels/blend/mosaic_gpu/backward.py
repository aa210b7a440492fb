"""The backward kernel: the tile's list front to back once more, gradients summed over the pixels by matrix products."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, BFloat16, Float

from jsplat.kernels.blend.mosaic_gpu.forward import DEPTH, settings
from jsplat.kernels.blend.mosaic_gpu.layout import (
    CHUNK,
    COLUMNS,
    HEAD,
    PIXELS,
    STAGE_PITCH,
    column_tiles,
    matrix_tiles,
    monomials,
    row_width,
)
from jsplat.kernels.blend.mosaic_gpu.walk import Lists, Walk, opacity_at, scratch, spent
from jsplat.kernels.constants import ALPHA_CEILING

HELD = 62  # channels whose gradients a thread keeps in registers; of more, the last ones are read for every hit
CHAINS = 4  # sums of a product over channels that run side by side: one is as long as its channels


def gradient_rows(
    lists: Lists,
    factors: BFloat16[Array, "t s k"],
    sides: Float[Array, "t 2 p"],
    *,
    channels: int,
    shape_channels: int,
    grid: tuple[int, int],
    interpret: Any = None,
) -> Float[Array, "m w"]:
    """One row for each hit: `root_moments` of the power's gradient, gradients of features and of depth.

    Args:
        factors: high, then low parts of the image's gradient, as `matrix_tiles` lays them out.
        sides: gradient of alpha, and the whole sum of image * gradient over the shaping channels.
    """
    places = lists.ids.shape[0]
    column_count = column_tiles(channels)
    constant = matrix_tiles(jnp.asarray(monomials()[None], jnp.bfloat16))

    def backward_kernel(*refs):
        *lists, constant, factors, sides, out, rows, ids, stage, shared = refs
        tile = lax.axis_index("tile")
        walk = Walk(Lists(*lists), rows, ids, tile, grid, interpret)

        @pl.when(walk.chunks > 0)
        def _():
            _walk_back(walk, constant, factors, sides, out, stage, shared)

    def _walk_back(walk, constant, factors, sides, out, stage, shared):
        on, tile = walk.on, lax.axis_index("tile")
        on.load_tiles(shared, constant, factors, tile)
        on.clear_stage(stage)
        on.settle()
        read = [functools.partial(on.channel, shared, c, column_count) for c in (channels, *range(shape_channels))]
        held = [channel() for channel in read[:HELD]]
        columns = [DEPTH] + [HEAD + c for c in range(shape_channels)]
        alpha_upstream, whole = on.load(sides.at[tile, 0]), on.load(sides.at[tile, 1])

        def blend(row, k, power, threshold, through, state):
            (rest,) = state
            kept, raw, alpha = opacity_at(power, threshold)
            weight = alpha * through
            upstream = held + [channel() for channel in read[HELD:]]
            value = _dot(alpha_upstream, upstream, [row(column) for column in columns])
            rest = rest - weight * value
            left = 1 - alpha
            slope = through * value - rest * on.reciprocal(left)  # of the loss over alpha
            # Where alpha is clipped neither opacity nor shape matters.
            pull = jnp.where(kept & (raw < ALPHA_CEILING), -alpha * slope, 0.0)
            stage[k, pl.ds(0, PIXELS)] = _parts(weight)
            stage[k + CHUNK, pl.ds(0, PIXELS)] = _parts(pull)
            through = through * left
            return spent(through, threshold), through, (rest,)

        def finish(index, slot):
            on.meet()
            on.reduce(stage, shared, walk.rows, out, slot, index, walk.first + index * CHUNK, walk.count(index))

        walked, _, _ = walk.run(blend, (whole,), finish)
        on.clear_rows(out, jnp.minimum(walk.first + walked * CHUNK, walk.end), walk.end)

    return plgpu.kernel(
        backward_kernel,
        out_type=jax.ShapeDtypeStruct((places, row_width(channels)), jnp.float32),
        scratch_types=[
            *scratch(channels),
            plgpu.SMEM((2 * CHUNK, STAGE_PITCH), jnp.uint32),
            plgpu.SMEM((1 + 2 * column_count, COLUMNS * PIXELS), jnp.bfloat16),
        ],
        grid=(lists.starts.shape[0] - 1,),
        grid_names=("tile",),
        **settings(interpret),
    )(*lists, constant[0], factors, sides)


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
    rest = lax.bitcast_convert_type(x - lax.bitcast_convert_type(high, jnp.float32), jnp.uint32)
    return high | (rest >> 16)
