"""The sums over a tile's pixels as products of matrices, 16 hits a warp (mma.sync.m16n8k16, bf16 into f32).

Every f32 number is split into two bf16 parts: 16 bits of mantissa, a relative error of 2^-16 at most. The instruction
exists on every architecture since 8.0, unlike wgmma (9.0) and tcgen05 (10.0).

Which pixel is which index of the sum is free as long as both factors agree. Lane t of a hit's four takes the pixels
8t to 8t + 7 of a warp's 32: the first four are its entries (2t, 2t+1, 2t+8, 2t+9) of the first product, the others of
the second. So both factors arrive by loads of 16 bytes.
"""

import functools

from jsplat.kernels.blend.mosaic_gpu import ptx
from jsplat.kernels.blend.mosaic_gpu.layout import (
    CHUNK,
    COLUMNS,
    FEATURES,
    LANES,
    MOMENTS,
    PIXELS,
    STAGE_PITCH,
    Q,
    X,
    Y,
)
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, I32, PerThread, Ref

_TILE_BYTES = COLUMNS * PIXELS * 2
_PART_BYTES = COLUMNS * LANES * 2  # of a column tile, the pixels of one warp
_HITS = 16  # of one product
_HIGH, _LOW = "0x7632", "0x5410"  # which halves of two words make a pair
_MMA = (
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
    "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
)


def reduce(stage, monomials, tile_factors, hits, hit_grads, half, chunk, first, count) -> None:
    """Sums the staged numbers of a chunk against the right factors, stores the hits' gradients, clears the stage.

    Needs a barrier before and after. Two of the block's warps take the weights against the gradient of the image, two
    the powers' gradients against the monomials; chunk by chunk they change places, as the first is more work.

    Args:
        stage: shared, "2*CHUNK STAGE_PITCH" u32: the weights, then the powers' gradients; two bf16 parts in a word.
        monomials: global, right factors of the powers' gradients: few enough to stay in the cache.
        tile_factors: shared, right factors of the weights: high, then low parts of the image's gradient.
        hits: shared, the chunk's hits.
        hit_grads: global, "m hit_grads_width" f32.
        half, chunk: of the chunk.
        first: its first place in the list of hits.
        count: its hits; nothing is written for more.
    """
    tiles = (hit_grads.shape[-1] - MOMENTS) // COLUMNS

    @ptx.inline
    def run(
        stage: Ref,
        monomials: Ref,
        tile_factors: Ref,
        hits: Ref,
        hit_grads: Ref,
        half: PerThread,
        chunk: PerThread,
        first: PerThread,
        count: PerThread,
    ) -> None:
        pitch, width = hits.type.shape[-1] * 4, hit_grads.type.shape[-1] * 4
        lane = ptx.lane()
        part = (ptx.warp() + chunk) % 4
        k = part % 2 * _HITS + lane // 4  # this lane's hit, and the one 8 below
        across = lane % 4
        left = ptx.shared_address(stage) + k * (STAGE_PITCH * 4) + across * 32
        target = ptx.offset(ptx.offset(ptx.global_address(hit_grads), first + k, width), across, 8)

        def write(sums, at):
            for below in (0, 8):
                pair = sums[below // 4 : below // 4 + 2]
                ptx.emit_if(
                    k + below < count,
                    lambda below=below, pair=pair: ptx.store_global(target, pair, below * width + at),
                )

        def reduce_weights():
            right = ptx.shared_address(tile_factors) + lane * 16
            high, low = (
                functools.partial(ptx.load_shared, right + part * tiles * _TILE_BYTES, 4 * I32) for part in (0, 1)
            )
            for index, sums in enumerate(_products(left, high, low, tiles)):
                write(sums, (MOMENTS + index * COLUMNS) * 4)

        def reduce_power_gradients():
            right = ptx.offset(ptx.global_address(monomials), lane, 16)
            read = functools.partial(ptx.load_constant, right, 4 * I32)
            (sums,) = _products(left + CHUNK * STAGE_PITCH * 4, read, None, 1)
            here = ptx.shared_address(hits) + (half * CHUNK + k) * pitch
            moved = []
            for below in (0, 8):
                form = ptx.load_shared(here, 4 * F32, below * pitch)
                form += [ptx.load_shared(here, F32, below * pitch + 4 * column) for column in (Q, X, Y)]
                moved += _root_moments(form, sums[below // 4 : below // 4 + 2], across)
            write(moved, 0)

        ptx.emit_if(part < 2, reduce_weights)
        ptx.emit_if(part >= 2, reduce_power_gradients)

    run(stage, monomials, tile_factors, hits, hit_grads, half, chunk, first, count)


def clear_hits(hit_grads, first, end) -> None:
    """Writes zeros for the hits from `first` to `end`."""

    @ptx.inline
    def run(hit_grads: Ref, first: PerThread, end: PerThread) -> None:
        width = hit_grads.type.shape[-1]
        base = ptx.offset(ptx.global_address(hit_grads), first, width * 4)

        def clear(index):
            ptx.store_global(ptx.offset(base, index, 16), [ptx.number(0.0)] * 4)

        ptx.emit_for(ptx.thread(), (end - first) * (width // 4), PIXELS, clear)

    run(hit_grads, first, end)


def clear_stage(stage) -> None:
    """Zeros in all of the stage."""

    @ptx.inline
    def run(stage: Ref) -> None:
        base = ptx.shared_address(stage) + ptx.thread() * 4
        words = stage.type.shape[0] * stage.type.shape[1]
        for at in range(0, words, PIXELS):
            ptx.store_shared(base, [ptx.integer(0)], at * 4)

    run(stage)


def _products(left, read_high, read_low, tiles):
    """Four sums a lane for each column tile: (hit, 2t), (hit, 2t + 1), and the same 8 hits below.

    Args:
        left: where a lane's staged numbers begin.
        read_high, read_low: read four words of the right factor's parts, so many bytes behind their beginning; the
            latter may be None.
    """
    zero = ptx.number(0.0)
    sums = [[zero] * 4 for _ in range(tiles)]
    for part in range(PIXELS // LANES):
        left_high, left_low = _left(left, part * LANES * 4)
        for index in range(tiles):
            at = index * _TILE_BYTES + part * _PART_BYTES
            right = read_high(at)
            right_low = None if read_low is None else read_low(at)
            for half in (0, 1):
                pick = slice(2 * half, 2 * half + 2)
                sums[index] = _mma(left_high[half], right[pick], sums[index])
                sums[index] = _mma(left_low[half], right[pick], sums[index])
                if right_low is not None:
                    sums[index] = _mma(left_high[half], right_low[pick], sums[index])
    return sums


def _left(address, at):
    """The left factor's two parts for two products; what was read is cleared."""
    words = []
    for below in (0, 8 * STAGE_PITCH * 4):
        read = []
        for begin in (0, 16):
            read += ptx.load_shared(address, 4 * I32, at + below + begin)
            ptx.store_shared(address, [ptx.integer(0)] * 4, at + below + begin)
        words.append(read)
    parts = []
    for halves in (_HIGH, _LOW):
        pairs = [[_pair(read[k], read[k + 1], halves) for k in (0, 2, 4, 6)] for read in words]
        # In the instruction's order: hit, hit 8 below, then both again for the later columns.
        parts.append([[pairs[0][k], pairs[1][k], pairs[0][k + 1], pairs[1][k + 1]] for k in (0, 2)])
    return parts


def _pair(first, second, halves):
    return ptx.asm(f"prmt.b32 $0, $1, $2, {halves};", first, second, out=I32)


def _mma(left, right, sums):
    return ptx.asm(_MMA, *left, *right, *sums, out=4 * F32, fixed=True)


def _root_moments(form, pair, across):
    """Moments about the tile's centre -> `root_moments`; a hit's four lanes hold (1, x), (y, xx), (xy, yy), -."""
    u, v, p, w, q, x, y = form
    total, mx, my, mxx, mxy, myy = (_of_four(pair[k % 2], k // 2) for k in range(6))
    mp, mq = p * total + u * mx + v * my, q * total + w * my
    mpx, mpy = p * mx + u * mxx + v * mxy - x * mp, p * my + u * mxy + v * myy - y * mp
    mqy = q * my + w * myy - y * mq
    zero = ptx.number(0.0)
    columns = ((total, mp), (mq, mpx), (mpy, mqy), (zero, zero))
    chosen = columns[3]
    for index in (2, 1, 0):
        chosen = [ptx.choose(across == index, a, b) for a, b in zip(columns[index], chosen)]
    return list(chosen)


def _of_four(x, k):
    """What lane k of a hit's four has: 0x1c leaves the bits of a lane's number above the last two as they are."""
    return ptx.asm(f"shfl.sync.idx.b32 $0, $1, {k}, 0x1c1f, 0xffffffff;", x, out=F32, fixed=True)


assert FEATURES == 12 and CHUNK == 2 * _HITS  # noqa: PT018
