"""The forward kernel: one block of threads a tile, one pixel a thread."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu.layout import HEAD, PIXELS
from jsplat.kernels.blend.mosaic_gpu.walk import Lists, Walk, opacity_at, scratch, spent

DEPTH = 6  # column of a row in shared memory


def blend_tiles(lists: Lists, *, channels: int, grid: tuple[int, int], interpret: Any = None) -> Float[Array, "t k p"]:
    """Features, depth and alpha of each tile; pixels in the order of the threads."""
    tiles = lists.starts.shape[0] - 1

    def forward_kernel(*refs):
        *lists, image, rows, ids = refs
        tile = lax.axis_index("tile")
        walk = Walk(Lists(*lists), rows, ids, tile, grid, interpret)

        def blend(row, k, power, threshold, through, sums):
            _, _, alpha = opacity_at(power, threshold)
            weight = alpha * through
            columns = [HEAD + c for c in range(channels)] + [DEPTH]
            sums = tuple(s + weight * row(column) for s, column in zip(sums, columns))
            through = through * (1 - alpha)
            return spent(through, threshold), through, sums

        zeros = tuple(walk.on.full(0.0) for _ in range(channels + 1))

        def empty():
            return walk.on.full(1.0), zeros

        def full():
            _, through, sums = walk.run(blend, zeros)
            return through, sums

        through, sums = lax.cond(walk.chunks > 0, full, empty)
        for c, value in enumerate((*sums, 1 - through)):
            image[tile, c] = value

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
    """How Mosaic compiles: threads meet where the kernels say so, and nowhere else."""
    if interpret is not None:
        return {"interpret": interpret}
    semantics = plgpu.LoweringSemantics.Lane  # what a warp does on its own has no other form
    return {
        "compiler_params": plgpu.CompilerParams(
            approx_math=True, unsafe_no_auto_barriers=True, lowering_semantics=semantics
        )
    }
