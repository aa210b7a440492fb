"""`jsplat.kernels.tiling.Searches` by kernels of our own: a thread finds one slot's Gaussian, or one tile's first hit.

XLA takes twelve kernels for what the first one does, and nine beside the sort for the second.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Int, Integer

from jsplat.kernels.blend.mosaic_gpu import ptx
from jsplat.kernels.blend.mosaic_gpu.forward import settings
from jsplat.kernels.blend.mosaic_gpu.layout import PIXELS
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, I32, PerThread, Ref, Scalar
from jsplat.kernels.tiling import ROUNDING, Grid, Runs, Searches, key_type, sorted_narrowly

OWN = 8  # numbers that a thread adds up


@functools.partial(jax.jit, static_argnames=("grid", "slots"))
def candidates(runs: Runs, grid: Grid, slots: int) -> tuple[Integer[Array, " m"], Int[Array, " m"], Int[Array, " g"]]:
    """See `Searches`; tiles in the type in which they are sorted."""
    kind, gaussians = key_type(grid.first_tiles), len(runs.order)
    boxes, halved = runs.boxes, grid.first_half < grid.images
    first_slots, first_gaussians = slots // grid.images * grid.first_half, grid.count * grid.first_half
    ends = cumulated(boxes.counts, runs.order)

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
            offsets: Ref,
            block: PerThread,
        ) -> None:
            slot = block * PIXELS + ptx.thread()
            zero = ptx.integer(0)

            def begin(rank):
                before = _number(ends, ptx.maximum(rank - 1, zero))
                return ptx.choose(rank > 0, before, zero)

            def gap():
                """Slots between the runs of the halves."""
                return ptx.integer(first_slots) - _number(ends, ptx.integer(first_gaussians - 1))

            def find():
                later = slot >= first_slots
                place = slot - ptx.choose(later, gap(), zero) if halved else slot
                rank = _first_where(lambda k: _number(ends, k) > place, gaussians - 1)
                gaussian, end = _number(order, rank), _number(ends, rank)
                within = place - begin(rank)
                width = ptx.maximum(_number(across, gaussian), ptx.integer(1))
                tile_x = _number(columns, gaussian) + within % width
                tile_y = _number(rows, gaussian) + within // width
                ellipse = (
                    *(_number(means2d, gaussian * 2 + k, F32) for k in range(2)),
                    *(_number(conic_roots, gaussian * 3 + k, F32) for k in range(3)),
                    _number(limits, gaussian, F32),
                )
                kept = (place < end) & _reached(ellipse, tile_x, tile_y, grid.tile)
                tile = (gaussian // grid.count * grid.tiles[1] + tile_y) * grid.tiles[0] + tile_x
                if halved:
                    # Past the runs of its half a slot is followed by those of the other one.
                    kept = kept & (later | (rank < first_gaussians))
                    tile = tile - ptx.choose(later, ptx.integer(grid.first_tiles), zero)
                _store(tile_ids, slot, ptx.choose(kept, tile, ptx.integer(grid.first_tiles)), np.dtype(kind).itemsize)
                _store(gaussian_ids, slot, gaussian)

            def first_slot(rank):
                return begin(rank) + ptx.choose(rank >= first_gaussians, gap(), zero) if halved else begin(rank)

            ptx.emit_if(slot < slots, find)
            # The same number, as a Gaussian's place in the order.
            ptx.emit_if(slot < gaussians, lambda: _store(offsets, _number(order, slot), first_slot(slot)))

        order, ends, columns, rows, across, means2d, conic_roots, limits, tile_ids, gaussian_ids, offsets = refs
        slot_of_thread(
            order,
            ends,
            columns,
            rows,
            across,
            means2d,
            conic_roots,
            limits,
            tile_ids,
            gaussian_ids,
            offsets,
            lax.axis_index("block"),
        )

    return plgpu.kernel(
        candidates_kernel,
        out_type=tuple(
            jax.ShapeDtypeStruct((size,), of)
            for size, of in ((slots, kind), (slots, jnp.int32), (gaussians, jnp.int32))
        ),
        grid=(-(-max(slots, gaussians) // PIXELS),),
        grid_names=("block",),
        **settings(None),
    )(runs.order, ends, boxes.columns, boxes.rows, boxes.across, runs.means2d, runs.conic_roots, boxes.limits)


def cumulated(counts: Int[Array, " g"], order: Int[Array, " g"]) -> Int[Array, " g"]:
    """Cumulative sums of the counts in this order; every block adds up what the blocks before it have."""
    gaussians = len(order)
    blocks = -(-gaussians // (PIXELS * OWN))

    def own_counts(counts, order, block):
        first = (block * PIXELS + ptx.thread()) * OWN
        places = [first + k for k in range(OWN)]
        inside = [place < gaussians for place in places]
        rows = [_number(order, ptx.minimum(place, ptx.integer(gaussians - 1))) for place in places]
        return places, inside, [ptx.choose(own, _number(counts, row), ptx.integer(0)) for own, row in zip(inside, rows)]

    def share(sums, number):
        ptx.store_shared(ptx.shared_address(sums) + ptx.thread() * 4, [number])

    def shared(sums, k):
        return ptx.load_shared(ptx.shared_address(sums), I32, 4 * k)

    def totals_kernel(*refs):
        @ptx.inline
        def of_block(counts: Ref, order: Ref, totals: Ref, sums: Ref, block: PerThread) -> None:
            share(sums, sum(own_counts(counts, order, block)[2], ptx.integer(0)))
            ptx.barrier()

            def store():
                _store(totals, block, sum((shared(sums, k) for k in range(PIXELS)), ptx.integer(0)))

            ptx.emit_if(ptx.thread() < 1, store)

        counts, order, totals, sums = refs
        of_block(counts, order, totals, sums, lax.axis_index("block"))

    def ends_kernel(*refs):
        @ptx.inline
        def of_block(counts: Ref, order: Ref, totals: Ref, ends: Ref, sums: Ref, before: Ref, block: PerThread) -> None:
            places, inside, own = own_counts(counts, order, block)
            share(sums, sum(own, ptx.integer(0)))
            thread = ptx.thread()
            add = lambda k, total: total + _number(totals, k)  # noqa: E731
            share(before, ptx.emit_sum(thread, block, PIXELS, ptx.integer(0), add))
            ptx.barrier()
            end = sum((shared(before, k) for k in range(PIXELS)), ptx.integer(0))
            for k in range(PIXELS - 1):
                end = end + ptx.choose(thread > k, shared(sums, k), ptx.integer(0))
            for place, is_inside, count in zip(places, inside, own):
                end = end + count
                ptx.emit_if(is_inside, functools.partial(_store, ends, place, end))

        counts, order, totals, ends, sums, before = refs
        of_block(counts, order, totals, ends, sums, before, lax.axis_index("block"))

    def call(kernel, size, scratch, *arrays):
        return plgpu.kernel(
            kernel,
            out_type=jax.ShapeDtypeStruct((size,), jnp.int32),
            scratch_types=[plgpu.SMEM((PIXELS,), jnp.int32)] * scratch,
            grid=(blocks,),
            grid_names=("block",),
            **settings(None),
        )(*arrays)

    totals = call(totals_kernel, blocks, 1, counts, order)
    return call(ends_kernel, gaussians, 2, counts, order, totals)


@functools.partial(jax.jit, static_argnames="grid")
def sort(
    tile_ids: Integer[Array, " m"], gaussian_ids: Int[Array, " m"], grid: Grid
) -> tuple[Int[Array, " m"], Int[Array, " s"], Int[Array, " m"]]:
    """See `Searches`; tiles as `candidates` gives them."""
    if grid.first_half < grid.images:
        return _sort_halves(tile_ids, gaussian_ids, grid)
    keys, slot_ids = sorted_narrowly(tile_ids)
    slots, tiles, size = len(keys), grid.all_tiles, keys.dtype.itemsize

    def lists_kernel(*refs):
        @ptx.inline
        def place_of_thread(
            keys: Ref,
            tile_offsets: Ref,
            slot_ids: Ref,
            unsorted: Ref,
            gaussian_ids: Ref,
            hits: Ref,
            block: PerThread,
        ) -> None:
            place = block * PIXELS + ptx.thread()

            def search():  # the same number, as a tile
                first = _first_where(lambda k: _number(keys, k, size=size) >= place, slots)
                _store(tile_offsets, place, first)

            def follow():
                slot, hit = _number(slot_ids, place), _number(keys, place, size=size) < tiles
                _list_hit(hit, slot, place, place, (unsorted, gaussian_ids, hits), grid, slots)

            ptx.emit_if(place < tiles + 1, search)
            ptx.emit_if(place < slots, follow)

        keys, slot_ids, unsorted, gaussian_ids, tile_offsets, hits = refs
        place_of_thread(keys, tile_offsets, slot_ids, unsorted, gaussian_ids, hits, lax.axis_index("block"))

    return plgpu.kernel(
        lists_kernel,
        out_type=tuple(jax.ShapeDtypeStruct((n,), jnp.int32) for n in (slots, tiles + 1, slots)),
        grid=(-(-max(slots, tiles + 1) // PIXELS),),
        grid_names=("block",),
        **settings(None),
    )(keys, slot_ids, gaussian_ids)


def _sort_halves(
    tile_ids: Integer[Array, " m"], gaussian_ids: Int[Array, " m"], grid: Grid
) -> tuple[Int[Array, " m"], Int[Array, " s"], Int[Array, " m"]]:
    """`sort` with keys that are short because each half of the images has its own."""
    first_slots = len(tile_ids) // grid.images * grid.first_half
    first, later = tile_ids[:first_slots], tile_ids[first_slots:]
    first_hits = (first < grid.first_tiles).sum(dtype=jnp.int32)[None]
    (keys, slot_ids), (later_keys, later_slot_ids) = sorted_narrowly(first), sorted_narrowly(later)
    return joined(keys, slot_ids, later_keys, later_slot_ids, first_hits, gaussian_ids, grid)


def joined(
    keys: Integer[Array, " a"],
    slot_ids: Int[Array, " a"],
    later_keys: Integer[Array, " b"],
    later_slot_ids: Int[Array, " b"],
    first_hits: Int[Array, " 1"],
    gaussian_ids: Int[Array, " m"],
    grid: Grid,
) -> tuple[Int[Array, " m"], Int[Array, " s"], Int[Array, " m"]]:
    """What `sort` returns, from two sorted halves: hits follow one another all the same, and what is none comes last.

    Args:
        keys, slot_ids: of the first half; slots count from its own first one.
        first_hits: how many of its keys are tiles.
        gaussian_ids: of all slots, as they were before.
    """
    slots, first_slots, tiles, first_tiles = len(gaussian_ids), len(keys), grid.all_tiles, grid.first_tiles
    size = keys.dtype.itemsize

    def lists_kernel(*refs):
        @ptx.inline
        def place_of_thread(
            keys: Ref,
            tile_offsets: Ref,
            slot_ids: Ref,
            later_keys: Ref,
            later_slot_ids: Ref,
            first_hits: Ref,
            unsorted: Ref,
            gaussian_ids: Ref,
            hits: Ref,
            block: PerThread,
        ) -> None:
            place, hits_before = block * PIXELS + ptx.thread(), _number(first_hits, ptx.integer(0))

            def search():  # the same number, as a tile
                first = _first_where(lambda k: _number(keys, k, size=size) >= place, first_slots)
                _store(tile_offsets, place, first)

            def search_later():
                tile = place - first_tiles
                first = _first_where(lambda k: _number(later_keys, k, size=size) >= tile, slots - first_slots)
                _store(tile_offsets, place, first + hits_before)

            tables = unsorted, gaussian_ids, hits

            def follow():
                hit, slot = _number(keys, place, size=size) < first_tiles, _number(slot_ids, place)
                _list_hit(hit, slot, place, place + (slots - first_slots), tables, grid, slots)

            def follow_later():
                later = place - first_slots
                hit, at = _number(later_keys, later, size=size) < first_tiles, later + hits_before
                _list_hit(hit, _number(later_slot_ids, later) + first_slots, at, at, tables, grid, slots)

            ptx.emit_if(place < first_tiles, search)
            ptx.emit_if((place >= first_tiles) & (place < tiles + 1), search_later)
            ptx.emit_if(place < first_slots, follow)
            ptx.emit_if((place >= first_slots) & (place < slots), follow_later)

        keys, slot_ids, later_keys, later_slot_ids, first_hits, unsorted, gaussian_ids, tile_offsets, hits = refs
        place_of_thread(
            keys,
            tile_offsets,
            slot_ids,
            later_keys,
            later_slot_ids,
            first_hits,
            unsorted,
            gaussian_ids,
            hits,
            lax.axis_index("block"),
        )

    return plgpu.kernel(
        lists_kernel,
        out_type=tuple(jax.ShapeDtypeStruct((n,), jnp.int32) for n in (slots, tiles + 1, slots)),
        grid=(-(-max(slots, tiles + 1) // PIXELS),),
        grid_names=("block",),
        **settings(None),
    )(keys, slot_ids, later_keys, later_slot_ids, first_hits, gaussian_ids)


SEARCHES = Searches(candidates, sort, halves=True)


def _list_hit(
    hit: Scalar, slot: Scalar, at: Scalar, missed_at: Scalar, tables: tuple[Ref, Ref, Ref], grid: Grid, slots: int
) -> None:
    """Writes a slot's Gaussian to its place in the list, or none where it is no hit, and the place to the slot."""
    unsorted, gaussian_ids, hits = tables
    gaussian = ptx.choose(hit, _number(unsorted, slot), ptx.integer(grid.images * grid.count))
    _store(gaussian_ids, ptx.choose(hit, at, missed_at), gaussian)
    _store(hits, slot, ptx.choose(hit, at, ptx.integer(slots)))


def _number(table: Ref, index: Scalar, kind: str = I32, size: int = 4) -> Scalar:
    address = ptx.offset(ptx.global_address(table), index, size)
    return ptx.load_constant_half(address) if size == 2 else ptx.load_constant(address, kind)


def _store(table: Ref, index: Scalar, number: Scalar, size: int = 4) -> None:
    address = ptx.offset(ptx.global_address(table), index, size)
    if size == 2:
        ptx.store_half(address, number)
    else:
        ptx.store_global(address, [number])


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
