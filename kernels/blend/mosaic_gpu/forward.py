"""The forward kernel: one block of threads a tile, one pixel a thread."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu.layout import DEPTH, FEATURES, PIXELS
from jsplat.kernels.blend.mosaic_gpu.walk import Lists, Walk, alpha_of, scratch, threshold_after


def blend_tiles(lists: Lists, *, channels: int, size: tuple[int, int], interpret: Any = None) -> Float[Array, "t k p"]:
    """Features, depth and alpha of each tile; pixels in the order of the threads."""
    tiles = lists.tile_offsets.shape[0] - 1
    columns = [*range(FEATURES, FEATURES + channels), DEPTH]  # of a hit: what is blended

    def forward_kernel(*refs):
        *lists, image, hits, gaussian_ids = refs
        tile = lax.axis_index("tile")
        walk = Walk(Lists(*lists), hits, gaussian_ids, tile, size, interpret)

        def blend(hit, k, log2_alpha, threshold, transmittance, sums):
            _, _, alpha = alpha_of(log2_alpha, threshold)
            weight = alpha * transmittance
            sums = tuple(total + weight * hit(column) for total, column in zip(sums, columns))
            transmittance = transmittance * (1 - alpha)
            return threshold_after(transmittance, threshold), transmittance, sums

        zeros = tuple(walk.ops.full(0.0) for _ in columns)

        def with_hits():
            _, transmittance, sums = walk.run(blend, walk.ops.full(1.0), zeros)
            return transmittance, sums

        def without_hits():
            return walk.ops.full(1.0), zeros

        transmittance, sums = lax.cond(walk.chunks > 0, with_hits, without_hits)
        for channel, value in enumerate((*sums, 1 - transmittance)):
            image[tile, channel] = value

    return plgpu.kernel(
        forward_kernel,
        out_type=jax.ShapeDtypeStruct((tiles, channels + 2, PIXELS), jnp.float32),
        scratch_types=scratch(channels),
        grid=(tiles,),
        grid_names=("tile",),
        **settings(interpret),
    )(*lists)


@functools.cache
def settings(interpret: Any) -> dict[str, Any]:
    """How Mosaic compiles: threads wait for each other where the kernels say so, and nowhere else."""
    if interpret is not None:
        return {"interpret": interpret}
    semantics = plgpu.LoweringSemantics.Lane  # what a warp does on its own has no other form
    return {
        "compiler_params": plgpu.CompilerParams(
            approx_math=True, unsafe_no_auto_barriers=True, lowering_semantics=semantics
        )
    }
