"""Sums over each Gaussian's tile hits, bitwise the same on every run.

On a GPU a scatter-add would use atomics, whose order changes from run to run. Here the hits of a Gaussian are visited
in the order of `TileHits.places` instead, which is its own: the sum depends on nothing else in the batch.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from jsplat.kernels.tiling import TileHits

PIECE = 64  # hits that are summed one after the other; a splat over thousands of tiles is cut into pieces first
COLUMNS = 128  # most columns of a block of threads
SUMS = 512  # of a block of threads: as many runs as its columns leave room for
AHEAD = 4  # rows in flight for each run


def collect(rows: Float[Array, "m f"], hits: TileHits, count: int) -> Float[Array, "g f"]:
    """The sum of the rows of each Gaussian's hits, zero where it has none; `count` Gaussians of all images.

    Args:
        rows: one for each hit, in the order of `hits.ids`. The rows past the last hit are not read; all others must
            hold numbers, also those of hits behind a tile's early stop: whoever skips a hit writes zeros for it.
    """
    return lax.platform_dependent(
        rows, hits, cuda=by_runs, rocm=by_runs, default=functools.partial(_by_ids, count=count)
    )


def _by_ids(rows, hits, *, count):
    return jax.ops.segment_sum(rows, hits.ids, num_segments=count)


def by_runs(rows: Float[Array, "m f"], hits: TileHits, *, interpret: bool = False) -> Float[Array, "g f"]:
    """`collect` by kernels without atomics, first over the pieces of long runs, then over what starts each run.

    A piece begins at every multiple of PIECE slots after a run's first slot but the first itself. No two pieces begin
    in the same PIECE slots of the list, so that the slot of its beginning, divided, says where its sum is kept.
    """
    slots = rows.shape[0]
    windows = -(-slots // PIECE)
    window = jnp.arange(windows, dtype=jnp.int32) * PIECE
    over = hits.owners[::PIECE]  # only the run that covers a window's first slot can have a piece that begins in it
    first, stop = hits.firsts[over], hits.firsts[over] + hits.counts[over]
    begin = first + jnp.maximum(-(-(window - first) // PIECE), 1) * PIECE
    length = jnp.where(begin < window + PIECE, jnp.clip(stop - begin, 0, PIECE), 0)
    pieces = _sum_runs(begin, length, hits.places, rows, None, interpret)
    return _sum_runs(hits.firsts, hits.counts, hits.places, rows, pieces, interpret)


def _sum_runs(firsts: Int[Array, " g"], counts: Int[Array, " g"], places: Int[Array, " m"], rows, pieces, interpret):
    """The sum of the first PIECE rows of each run and, where given, of its pieces."""
    (slots, width), runs = rows.shape, firsts.shape[0]
    block = min(pl.next_power_of_2(width), COLUMNS)  # Triton's blocks are powers of two; what is too much is masked
    together = SUMS // block

    def add(table, read, most, columns, total):
        """Adds AHEAD rows at a time, one after the other; `read` gives the rows of a step and whether they count."""

        def step(index, total):
            loaded = []
            for k in range(AHEAD):
                row, live = read(index * AHEAD + k)
                mask = live[:, None] & (columns < width)[None, :]
                loaded.append(plt.load(table.at[row[:, None], columns[None, :]], mask=mask, other=0.0))
            for row in loaded:
                total += row
            return total

        return lax.fori_loop(0, (most + AHEAD - 1) // AHEAD, step, total)

    def kernel(firsts_ref, counts_ref, places_ref, rows_ref, *rest):
        run = pl.program_id(0) * together + jnp.arange(together, dtype=jnp.int32)
        columns = pl.program_id(1) * block + jnp.arange(block, dtype=jnp.int32)
        first = plt.load(firsts_ref.at[run], mask=run < runs, other=0)
        count = plt.load(counts_ref.at[run], mask=run < runs, other=0)
        start = jnp.minimum(count, PIECE)

        def of_hits(index):
            place = plt.load(places_ref.at[first + index], mask=index < start, other=slots)
            return place, place < slots

        def of_pieces(index):
            return (first + (index + 1) * PIECE) // PIECE, index + 1 < (count + PIECE - 1) // PIECE

        total = add(rows_ref, of_hits, jnp.max(start), columns, jnp.zeros((together, block), jnp.float32))
        if pieces is not None:
            total = add(rest[0], of_pieces, (jnp.max(count) + PIECE - 1) // PIECE - 1, columns, total)
        out_ref = rest[-1]
        mask = (run < runs)[:, None] & (columns < width)[None, :]
        plt.store(out_ref.at[run[:, None], columns[None, :]], total, mask=mask)

    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((runs, width), rows.dtype),
        grid=(pl.cdiv(runs, together), pl.cdiv(width, block)),
        compiler_params=plt.CompilerParams(num_warps=4),
        interpret=interpret,
        name="collect",
    )(firsts, counts, places, rows, *(() if pieces is None else (pieces,)))


def sum_over_images(
    rows: Float[Array, "i n c"], owner: Int[Array, " i"], sets: int, *, interpret: bool | None = None
) -> Float[Array, "f n c"]:
    """The sum of the images that belong to each set, in their order; the same bits every time.

    Args:
        owner: the set of each image.
        sets: f.
        interpret: run the GPU's kernel, interpreted or not; None = on GPUs the kernel, elsewhere a scatter.
    """
    if interpret is not None:
        return _sum_owned(rows, owner, sets=sets, interpret=interpret)
    kernel = functools.partial(_sum_owned, sets=sets, interpret=False)

    def scatter(rows, owner):
        return jnp.zeros((sets, *rows.shape[1:]), rows.dtype).at[owner].add(rows)

    return lax.platform_dependent(rows, owner, cuda=kernel, rocm=kernel, default=scatter)


def _sum_owned(rows, owner, *, sets, interpret):
    images, length = rows.shape[0], rows[0].size

    def kernel(rows_ref, owner_ref, out_ref):
        wanted, index = pl.program_id(0), pl.program_id(1) * SUMS + jnp.arange(SUMS, dtype=jnp.int32)

        def add(image, total):
            mask = (index < length) & (owner_ref[image] == wanted)
            return total + plt.load(rows_ref.at[image, index], mask=mask, other=0.0)

        total = lax.fori_loop(0, images, add, jnp.zeros(SUMS, jnp.float32))
        plt.store(out_ref.at[wanted, index], total, mask=index < length)

    out = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((sets, length), rows.dtype),
        grid=(sets, pl.cdiv(length, SUMS)),
        compiler_params=plt.CompilerParams(num_warps=4),
        interpret=interpret,
        name="sum_over_images",
    )(rows.reshape(images, length), owner)
    return out.reshape(sets, *rows.shape[1:])
