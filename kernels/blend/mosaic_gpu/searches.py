"""`jsplat.kernels.tiling.Searches` by kernels of our own: a thread finds one slot's Gaussian, or one tile's first hit.

XLA takes ten kernels for the first and four for the second.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Int

from jsplat.kernels.blend.mosaic_gpu import ptx
from jsplat.kernels.blend.mosaic_gpu.forward import settings
from jsplat.kernels.blend.mosaic_gpu.layout import PIXELS
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, I32, PerThread, Ref, Scalar
from jsplat.kernels.tiling import ROUNDING, Grid, Runs, Searches


@functools.partial(jax.jit, static_argnames=("grid", "slots"))
def candidates(runs: Runs, grid: Grid, slots: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """See `Searches`."""

    def candidates_kernel(*refs):
        @ptx.inline
        def slot_of_thread(
            order: Ref,
            ends: Ref,
            columns: Ref,
            rows: Ref,
            across: Ref,
            means2d: Ref,
            conic_roots: Ref,
            limits: Ref,
            tile_ids: Ref,
            gaussian_ids: Ref,
            block: PerThread,
        ) -> None:
            slot = block * PIXELS + ptx.thread()
            last = len(runs.order) - 1

            def find():
                rank = _first_where(lambda k: _number(ends, k) > slot, last)
                gaussian, end = _number(order, rank), _number(ends, rank)
                before = _number(ends, ptx.maximum(rank - 1, ptx.integer(0)))
                within = slot - ptx.choose(rank > 0, before, ptx.integer(0))
                width = ptx.maximum(_number(across, gaussian), ptx.integer(1))
                tile_x = _number(columns, gaussian) + within % width
                tile_y = _number(rows, gaussian) + within // width
                ellipse = (
                    *(_number(means2d, gaussian * 2 + k, F32) for k in range(2)),
                    *(_number(conic_roots, gaussian * 3 + k, F32) for k in range(3)),
                    _number(limits, gaussian, F32),
                )
                kept = (slot < end) & _reached(ellipse, tile_x, tile_y, grid.tile)
                tile = (gaussian // grid.count * grid.tiles[1] + tile_y) * grid.tiles[0] + tile_x
                _store(tile_ids, slot, ptx.choose(kept, tile, ptx.integer(grid.all_tiles)))
                _store(gaussian_ids, slot, gaussian)

            ptx.emit_if(slot < slots, find)

        slot_of_thread(*refs, lax.axis_index("block"))

    numbers = jax.ShapeDtypeStruct((slots,), jnp.int32)
    return plgpu.kernel(
        candidates_kernel,
        out_type=(numbers, numbers),
        grid=(-(-slots // PIXELS),),
        grid_names=("block",),
        **settings(None),
    )(*runs)


@functools.partial(jax.jit, static_argnames="stop")
def first_hits(tile_ids: Int[Array, " m"], stop: int) -> Int[Array, " s"]:
    """See `Searches`."""

    def first_hits_kernel(*refs):
        @ptx.inline
        def tile_of_thread(tile_ids: Ref, out: Ref, block: PerThread) -> None:
            tile = block * PIXELS + ptx.thread()

            def find():
                place = _first_where(lambda k: _number(tile_ids, k) >= tile, len(tile_ids_given))
                _store(out, tile, place)

            ptx.emit_if(tile < stop, find)

        tile_of_thread(*refs, lax.axis_index("block"))

    tile_ids_given = tile_ids
    return plgpu.kernel(
        first_hits_kernel,
        out_type=jax.ShapeDtypeStruct((stop,), jnp.int32),
        grid=(-(-stop // PIXELS),),
        grid_names=("block",),
        **settings(None),
    )(tile_ids)


SEARCHES = Searches(candidates, first_hits)


def _number(table: Ref, index: Scalar, kind: str = I32) -> Scalar:
    return ptx.load_constant(ptx.offset(ptx.global_address(table), index, 4), kind)


def _store(table: Ref, index: Scalar, number: Scalar) -> None:
    ptx.store_global(ptx.offset(ptx.global_address(table), index, 4), [number])


def _first_where(holds: Callable[[Scalar], Scalar], stop: int) -> Scalar:
    """The first of 0 ... stop - 1 from which on something holds, else stop; unrolled, and without branches."""
    found, step = ptx.integer(0), 1 << max(stop, 1).bit_length() - 1
    while step:
        probe = found + (step - 1)
        beyond = ptx.minimum(probe, ptx.integer(max(stop - 1, 0)))
        skip = (probe < stop) & ~holds(beyond)
        found = ptx.choose(skip, found + step, found)
        step //= 2
    return found


def _reached(ellipse: tuple[Scalar, ...], tile_x: Scalar, tile_y: Scalar, tile: tuple[int, int]) -> Scalar:
    """As in `jsplat.kernels.tiling`."""
    mean_x, mean_y, u, v, w, limit = ellipse
    left, top = (ptx.to_float(at * edge) + 0.5 for at, edge in zip((tile_x, tile_y), tile))
    right, bottom = left + (tile[0] - 1.0), top + (tile[1] - 1.0)

    def clip(x, low, high):
        return ptx.least(ptx.most(x, low), high)

    x, y = clip(mean_x, left, right) - mean_x, clip(mean_y, top, bottom) - mean_y
    other_y = clip(mean_y - u * v / (v * v + w * w) * x, top, bottom) - mean_y
    other_x = clip(mean_x - v / u * y, left, right) - mean_x

    def power(x, y):
        ux, vy = u * x, v * y
        along, down = ptx.magnitude(ux + vy), w * y
        along = ptx.most(along - (ptx.magnitude(ux) + ptx.magnitude(vy)) * ROUNDING, ptx.number(0.0))
        return (along * along + down * down) * 0.5

    return ptx.least(power(x, other_y), power(other_x, y)) <= limit * 1.0001 + 1e-4
