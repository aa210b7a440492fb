"""What threads, warps and lanes do in the kernels: copies into shared memory, votes, and products of matrices.

`simulated` says the same in jnp, for Pallas' interpreter. All functions are called inside a kernel.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from jsplat.kernels.blend.mosaic_gpu import products, ptx
from jsplat.kernels.blend.mosaic_gpu.layout import (
    ABSENT,
    CHUNK,
    COLUMNS,
    GEOMETRY,
    HEAD,
    LANES,
    PIXELS,
)

VECTOR = ptx.VECTOR
reduce, clear_rows, clear_stage = products.reduce, products.clear_rows, products.clear_stage
_BARRIER = 2  # 0 and 1 are Mosaic's own
_TILE_BYTES = COLUMNS * PIXELS * 2


def full(number: float) -> jax.Array:
    """The same number in every thread."""
    return plgpu.layout_cast(jnp.full((PIXELS,), number, jnp.float32), VECTOR)


def threads() -> jax.Array:
    """The number of each thread."""
    return plgpu.layout_cast(jax.lax.broadcasted_iota(jnp.int32, (PIXELS,), 0), VECTOR)


def load(ref) -> jax.Array:
    """One number a thread from global memory."""
    return plgpu.load(ref, (), layout=VECTOR)


def row(rows, slot, k):
    """Reads row k of a chunk, column by column."""
    return lambda column: rows[slot, k, column]


def own(mask) -> jax.Array:
    """Each thread's entry as a condition of its own: `lax.cond` and loops then branch thread by thread.

    Nothing that waits for other threads may depend on it.
    """
    return ptx.inline("v", "s")(ptx.entry)(mask)


def first_ids(ids, list_ids, start, end) -> None:
    """Brings the Gaussians of a tile's first chunk into slot 0, and waits."""

    @ptx.inline("mmss")
    def copy(ids, list_ids, start, end):
        thread = ptx.thread()
        _copy_ids(thread, ptx.shared_address(ids), list_ids, start, end)
        ptx.asm("cp.async.wait_all;", memory=True)
        ptx.barrier()

    copy(ids, list_ids, start, end)


def fetch(rows, ids, table, features, list_ids, slot, following, end, shift) -> None:
    """Starts to copy the rows of the chunk whose Gaussians lie in `ids[slot]`, and the Gaussians of the next.

    Args:
        rows, ids: shared memory, "2 CHUNK f" and "2 CHUNK".
        table, features, list_ids: global memory.
        slot: 0 or 1.
        following: where in `list_ids` the next chunk begins.
        end: where the tile's list ends; beyond it the last one is repeated.
        shift: from a Gaussian to its row of features.
    """
    pitch, wide = rows.shape[-1] * 4, features.shape[-1] * 4

    @ptx.inline("mmmmmssss")
    def copy(rows, ids, table, features, list_ids, slot, following, end, shift):
        thread = ptx.thread()
        rows = ptx.shared_address(rows) + slot * (CHUNK * pitch)
        here = ptx.shared_address(ids) + slot * (CHUNK * 4)
        there = ptx.shared_address(ids) + (1 - slot) * (CHUNK * 4)
        table, features = ptx.global_address(table), ptx.global_address(features)

        @ptx.when(thread < CHUNK)
        def _():
            source = ptx.offset(table, ptx.load_shared(here + thread * 4, "r"), GEOMETRY * 4)
            for at in (0, 16):
                ptx.copy_async(rows + thread * pitch + at, source, at)
            _copy_ids(thread, there, list_ids, following, end)

        pieces = wide // 16
        thread = (thread + (PIXELS - LANES)) % PIXELS  # the first warp has work already
        for begin in range(0, CHUNK * pieces, PIXELS):
            piece = thread + begin

            def one(piece=piece):
                which, part = piece // pieces, piece % pieces
                gaussian = ptx.load_shared(here + which * 4, "r") + shift
                source = ptx.offset(ptx.offset(features, gaussian, wide), part, 16)
                ptx.copy_async(rows + which * pitch + part * 16 + HEAD * 4, source, 0)

            ptx.when(piece < CHUNK * pieces)(one) if begin + PIXELS > CHUNK * pieces else one()

    copy(rows, ids, table, features, list_ids, slot, following, end, shift)


def _copy_ids(thread, shared, list_ids, start, end):
    place = ptx.minimum(start + thread, end - 1)

    @ptx.when(thread < CHUNK)
    def _():
        source = ptx.offset(ptx.global_address(list_ids), place, 4)
        ptx.asm("cp.async.ca.shared.global [$0], [$1], 4;", shared + thread * 4, source, memory=True)


def arrive(rows, slot, count, column, line, alive) -> jax.Array:
    """Waits for the copies, completes the chunk's rows, waits for all threads; whether any pixel is still alive.

    Args:
        count: hits of the chunk; what is left of it becomes transparent.
        column, line: the tile's centre in pixels, float.
        alive: one truth value a thread.
    """
    pitch = rows.shape[-1] * 4

    @ptx.inline("mssssv", "s")
    def wait(rows, slot, count, column, line, alive):
        thread = ptx.thread()
        ptx.asm("cp.async.wait_all;", memory=True)

        @ptx.when(thread < CHUNK)
        def _():
            here = ptx.shared_address(rows) + (slot * CHUNK + thread) * pitch
            u, v, w, light = ptx.load_shared(here, "ffff")
            x, y, depth, _ = ptx.load_shared(here, "ffff", 16)
            x, y = x - column, y - line
            light = ptx.choose(thread < count, light, ptx.number(ABSENT))
            ptx.store_shared(here, (u, v, -(u * x + v * y), w))
            ptx.store_shared(here, (-(w * y), light, depth, x), 16)
            ptx.store_shared(here, (y,), 32)

        text = f"bar.red.or.pred $0, {_BARRIER}, {PIXELS}, $1;"
        return ptx.asm(text, ptx.entry(alive), out="b", memory=True)

    return wait(rows, slot, count, column, line, alive)


def load_tiles(shared, constant, tiles, tile) -> None:
    """Copies the right factors of a tile into shared memory: a constant one, then the tile's own. Nobody waits yet."""

    @ptx.inline("mmms")
    def copy(shared, constant, tiles, tile):
        thread = ptx.thread()
        shared = ptx.shared_address(shared)
        own = tiles.type.shape[1] * _TILE_BYTES
        places = (ptx.global_address(constant), ptx.offset(ptx.global_address(tiles), tile, own))
        for begin, source, size in zip((0, _TILE_BYTES), places, (_TILE_BYTES, own)):
            for at in range(0, size, PIXELS * 16):
                ptx.copy_async(shared + thread * 16 + (begin + at), ptx.offset(source, thread, 16), at)

    copy(shared, constant, tiles, tile)


def meet() -> None:
    """Waits for all threads of the block."""
    ptx.inline("")(ptx.barrier)()


def settle() -> None:
    """Waits for this thread's copies, then for all threads."""

    @ptx.inline("")
    def wait():
        ptx.asm("cp.async.wait_all;", memory=True)
        ptx.barrier()

    wait()


def channel(shared, index: int, tiles: int) -> jax.Array:
    """Each pixel's value of one channel of the right factors, from its high and its low part."""

    @ptx.inline("m", "v")
    def read(shared):
        thread = ptx.thread()
        at = (1 + index // COLUMNS) * _TILE_BYTES + index % COLUMNS * LANES * 2
        here = ptx.shared_address(shared) + thread // LANES * (COLUMNS * LANES * 2) + thread % LANES * 2 + at
        parts = [ptx.load_half(here, part * tiles * _TILE_BYTES) for part in (0, 1)]
        return ptx.vector(parts[0] + parts[1])

    return read(shared)


def reciprocal(x) -> jax.Array:
    """1 / x to 1 ulp."""

    @ptx.inline("v", "v")
    def divide(x):
        return ptx.vector(ptx.asm("rcp.approx.ftz.f32 $0, $1;", ptx.entry(x), out="f"))

    return divide(x)
