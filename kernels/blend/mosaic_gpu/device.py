"""What threads, warps and lanes do in the kernels: copies into shared memory, votes, and products of matrices.

`simulated` says the same in jnp, for Pallas' interpreter. All functions are called inside a kernel; `walk` draws when,
and where the barriers stand.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from jsplat.kernels.blend.mosaic_gpu import products, ptx
from jsplat.kernels.blend.mosaic_gpu.layout import (
    ABSENT,
    CHUNK,
    COLUMNS,
    FEATURES,
    LANES,
    PIXELS,
    TABLE_COLUMNS,
)
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, I32, PREDICATE, Flag, PerThread, Ref, Vector

reduce, clear_hits, clear_stage = products.reduce, products.clear_hits, products.clear_stage
_BARRIER = 2  # 0 and 1 are Mosaic's own
_TILE_BYTES = COLUMNS * PIXELS * 2


# Numbers


def full(number: float) -> jax.Array:
    """The same number in every thread."""
    return plgpu.layout_cast(jnp.full((PIXELS,), number, jnp.float32), ptx.VECTOR)


def thread_ids() -> jax.Array:
    """The number of each thread in its block."""
    return plgpu.layout_cast(jax.lax.broadcasted_iota(jnp.int32, (PIXELS,), 0), ptx.VECTOR)


def load(ref) -> jax.Array:
    """One number a thread from global memory."""
    return plgpu.load(ref, (), layout=ptx.VECTOR)


def per_thread(mask) -> jax.Array:
    """Each thread's entry as a condition of its own: `lax.cond` and loops then branch thread by thread.

    Nothing that waits for other threads may depend on it.
    """

    @ptx.inline
    def entry(mask: Vector) -> Flag:
        return ptx.entry(mask)

    return entry(mask)


def reciprocal(x) -> jax.Array:
    """1 / x to 1 ulp."""

    @ptx.inline
    def divide(x: Vector) -> Vector:
        return ptx.vector(ptx.asm("rcp.approx.ftz.f32 $0, $1;", ptx.entry(x), out=F32))

    return divide(x)


# Barriers


def barrier() -> None:
    """Waits for all threads of the block."""

    @ptx.inline
    def wait() -> None:
        ptx.barrier()

    wait()


def copies_then_barrier() -> None:
    """Waits for this thread's copies, then for all threads."""

    @ptx.inline
    def wait() -> None:
        ptx.asm("cp.async.wait_all;", memory=True)
        ptx.barrier()

    wait()


# A chunk of hits


def hit(hits, half, k):
    """Reads hit k of a chunk, column by column."""
    return lambda column: hits[half, k, column]


def load_first_ids(gaussian_ids, list_ids, start, end) -> None:
    """Brings the Gaussians of a tile's first chunk into half 0, and waits for all threads."""

    @ptx.inline
    def copy(gaussian_ids: Ref, list_ids: Ref, start: PerThread, end: PerThread) -> None:
        thread = ptx.thread()
        _copy_ids(thread, ptx.shared_address(gaussian_ids), list_ids, start, end)
        ptx.asm("cp.async.wait_all;", memory=True)
        ptx.barrier()

    copy(gaussian_ids, list_ids, start, end)


def fetch(hits, gaussian_ids, table, features, list_ids, half, following, end, shift) -> None:
    """Starts to copy the hits of the chunk whose Gaussians lie in `gaussian_ids[half]`, and the next one's Gaussians.

    Args:
        hits, gaussian_ids: shared memory, "2 CHUNK f" and "2 CHUNK".
        table, features, list_ids: global memory.
        half: 0 or 1.
        following: where in `list_ids` the next chunk begins.
        end: where the tile's list ends; beyond it the last one is repeated.
        shift: from a Gaussian to its features.
    """
    pitch, wide = hits.shape[-1] * 4, features.shape[-1] * 4

    @ptx.inline
    def copy(
        hits: Ref,
        gaussian_ids: Ref,
        table: Ref,
        features: Ref,
        list_ids: Ref,
        half: PerThread,
        following: PerThread,
        end: PerThread,
        shift: PerThread,
    ) -> None:
        thread = ptx.thread()
        target = ptx.shared_address(hits) + half * (CHUNK * pitch)
        here = ptx.shared_address(gaussian_ids) + half * (CHUNK * 4)
        there = ptx.shared_address(gaussian_ids) + (1 - half) * (CHUNK * 4)
        table, features = ptx.global_address(table), ptx.global_address(features)

        def copy_gaussian():
            gaussian = ptx.load_shared(here + thread * 4, I32)
            source = ptx.offset(table, gaussian, TABLE_COLUMNS * 4)
            for at in (0, 16):
                ptx.copy_async(target + thread * pitch + at, source, at)
            _copy_ids(thread, there, list_ids, following, end)

        ptx.emit_if(thread < CHUNK, copy_gaussian)

        pieces = wide // 16
        worker = (thread + (PIXELS - LANES)) % PIXELS  # the first warp has work already
        for begin in range(0, CHUNK * pieces, PIXELS):
            piece = worker + begin

            def copy_piece(piece=piece):
                k, part = piece // pieces, piece % pieces
                gaussian = ptx.load_shared(here + k * 4, I32) + shift
                source = ptx.offset(ptx.offset(features, gaussian, wide), part, 16)
                ptx.copy_async(target + k * pitch + part * 16 + FEATURES * 4, source, 0)

            if begin + PIXELS > CHUNK * pieces:
                ptx.emit_if(piece < CHUNK * pieces, copy_piece)
            else:
                copy_piece()

    copy(hits, gaussian_ids, table, features, list_ids, half, following, end, shift)


def _copy_ids(thread, shared, list_ids, start, end):
    place = ptx.minimum(start + thread, end - 1)

    def copy():
        source = ptx.offset(ptx.global_address(list_ids), place, 4)
        ptx.asm("cp.async.ca.shared.global [$0], [$1], 4;", shared + thread * 4, source, memory=True)

    ptx.emit_if(thread < CHUNK, copy)


def arrive(hits, half, count, center_x, center_y, alive) -> jax.Array:
    """Waits for the copies, completes the hits, waits for all threads; whether any pixel is still alive.

    Args:
        count: hits of the chunk; what is left of it becomes transparent.
        center_x, center_y: the tile's centre in pixels, float.
        alive: one truth value a thread.
    """
    pitch = hits.shape[-1] * 4

    @ptx.inline
    def wait(
        hits: Ref, half: PerThread, count: PerThread, center_x: PerThread, center_y: PerThread, alive: Vector
    ) -> Flag:
        thread = ptx.thread()
        ptx.asm("cp.async.wait_all;", memory=True)

        def complete():  # the hit whose Gaussian this thread copied
            here = ptx.shared_address(hits) + (half * CHUNK + thread) * pitch
            u, v, w, log2_opacity = ptx.load_shared(here, 4 * F32)
            x, y, depth, _ = ptx.load_shared(here, 4 * F32, 16)
            x, y = x - center_x, y - center_y
            log2_opacity = ptx.choose(thread < count, log2_opacity, ptx.number(ABSENT))
            ptx.store_shared(here, (u, v, -(u * x + v * y), w))
            ptx.store_shared(here, (-(w * y), log2_opacity, depth, x), 16)
            ptx.store_shared(here, (y,), 32)

        ptx.emit_if(thread < CHUNK, complete)
        text = f"bar.red.or.pred $0, {_BARRIER}, {PIXELS}, $1;"
        return ptx.asm(text, ptx.entry(alive), out=PREDICATE, memory=True)

    return wait(hits, half, count, center_x, center_y, alive)


# The right factors of the products


def load_factors(tile_factors, factors, tile) -> None:
    """Starts to copy the right factors of a tile into shared memory."""

    @ptx.inline
    def copy(tile_factors: Ref, factors: Ref, tile: PerThread) -> None:
        thread = ptx.thread()
        size = factors.type.shape[1] * _TILE_BYTES
        source = ptx.offset(ptx.offset(ptx.global_address(factors), tile, size), thread, 16)
        shared = ptx.shared_address(tile_factors) + thread * 16
        for at in range(0, size, PIXELS * 16):
            ptx.copy_async(shared + at, source, at)

    copy(tile_factors, factors, tile)


def factor(tile_factors, column: int, tiles: int) -> jax.Array:
    """Each pixel's entry in a column of the tile's right factors, from its high and its low part."""

    @ptx.inline
    def read(tile_factors: Ref) -> Vector:
        thread = ptx.thread()
        at = column // COLUMNS * _TILE_BYTES + column % COLUMNS * LANES * 2
        here = ptx.shared_address(tile_factors) + thread // LANES * (COLUMNS * LANES * 2) + thread % LANES * 2 + at
        parts = [ptx.load_half(here, part * tiles * _TILE_BYTES) for part in (0, 1)]
        return ptx.vector(parts[0] + parts[1])

    return read(tile_factors)
