"""Sums over each Gaussian's tile hits, bitwise the same on every run.

On a GPU a scatter-add would use atomics, whose order changes from run to run. Here the hits of a Gaussian are visited
in the order of its own run of `tiling.Slots` instead: the sum depends on nothing else in the batch.
"""

import functools
from collections.abc import Callable

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


def collect(hit_grads: Float[Array, "m f"], hits: TileHits, count: int) -> Float[Array, "g f"]:
    """The sum of the gradients of each Gaussian's hits, zero where it has none; `count` Gaussians of all images.

    Args:
        hit_grads: in the order of `hits.gaussian_ids`. Those past the last hit are not read; all others must hold
            numbers, also those of hits behind a tile's early stop: whoever skips a hit writes zeros for it.
    """
    kernels = functools.partial(by_runs, sum_runs=sum_runs)
    return lax.platform_dependent(
        hit_grads, hits, cuda=kernels, rocm=kernels, default=functools.partial(_by_ids, count=count)
    )


def _by_ids(hit_grads, hits, *, count):
    return jax.ops.segment_sum(hit_grads, hits.gaussian_ids, num_segments=count)


def by_runs(
    hit_grads: Float[Array, "m f"], hits: TileHits, sum_runs: Callable[..., Float[Array, "r f"]]
) -> Float[Array, "g f"]:
    """`collect` by a kernel without atomics, first over the pieces of long runs, then over what starts each run.

    A piece begins at every multiple of PIECE slots after a run's first slot but the first itself. No two pieces begin
    in the same PIECE slots of the list, so that the slot of its beginning, divided, says where its sum is kept.

    Args:
        sum_runs: the kernel; takes what the function of this name takes.
    """
    slots = hits.slots
    windows = -(-hit_grads.shape[0] // PIECE)
    window = jnp.arange(windows, dtype=jnp.int32) * PIECE
    over = slots.gaussian_ids[::PIECE]  # only the run over a window's first slot can have a piece that begins in it
    first, stop = slots.offsets[over], slots.offsets[over] + slots.counts[over]
    begin = first + jnp.maximum(-(-(window - first) // PIECE), 1) * PIECE
    length = jnp.where(begin < window + PIECE, jnp.clip(stop - begin, 0, PIECE), 0)
    pieces = sum_runs(begin, length, slots.hits, hit_grads, None)
    return sum_runs(slots.offsets, slots.counts, slots.hits, hit_grads, pieces)


def sum_runs(
    offsets: Int[Array, " r"],
    counts: Int[Array, " r"],
    hits: Int[Array, " m"],
    grads: Float[Array, "m f"],
    pieces: Float[Array, "p f"] | None,
    *,
    interpret: bool = False,
) -> Float[Array, "r f"]:
    """The sum of the first PIECE gradients of each run and, where given, of its pieces; in Triton."""
    (slots, width), runs = grads.shape, offsets.shape[0]
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

    def kernel(offsets_ref, counts_ref, hits_ref, grads_ref, *rest):
        run = pl.program_id(0) * together + jnp.arange(together, dtype=jnp.int32)
        columns = pl.program_id(1) * block + jnp.arange(block, dtype=jnp.int32)
        first = plt.load(offsets_ref.at[run], mask=run < runs, other=0)
        count = plt.load(counts_ref.at[run], mask=run < runs, other=0)
        start = jnp.minimum(count, PIECE)

        def of_hits(index):
            hit = plt.load(hits_ref.at[first + index], mask=index < start, other=slots)
            return hit, hit < slots

        def of_pieces(index):
            return (first + (index + 1) * PIECE) // PIECE, index + 1 < (count + PIECE - 1) // PIECE

        total = add(grads_ref, of_hits, jnp.max(start), columns, jnp.zeros((together, block), jnp.float32))
        if pieces is not None:
            total = add(rest[0], of_pieces, (jnp.max(count) + PIECE - 1) // PIECE - 1, columns, total)
        out_ref = rest[-1]
        mask = (run < runs)[:, None] & (columns < width)[None, :]
        plt.store(out_ref.at[run[:, None], columns[None, :]], total, mask=mask)

    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((runs, width), grads.dtype),
        grid=(pl.cdiv(runs, together), pl.cdiv(width, block)),
        compiler_params=plt.CompilerParams(num_warps=4),
        interpret=interpret,
        name="collect",
    )(offsets, counts, hits, grads, *(() if pieces is None else (pieces,)))


def sum_over_images(
    grads: Float[Array, "i n c"], set_ids: Int[Array, " i"], sets: int, *, interpret: bool | None = None
) -> Float[Array, "f n c"]:
    """The sum of the gradients of the images that show each set of features, in their order; the same bits every time.

    Args:
        set_ids: the set that each image shows.
        sets: f; where they are as many as the images, each shows its own, and there is nothing to sum.
        interpret: run the GPU's kernel, interpreted or not; None = on GPUs the kernel, elsewhere a scatter.
    """
    if sets == grads.shape[0]:
        return grads
    if interpret is not None:
        return _sum_sets(grads, set_ids, sets=sets, interpret=interpret)
    kernel = functools.partial(_sum_sets, sets=sets, interpret=False)

    def scatter(grads, set_ids):
        return jnp.zeros((sets, *grads.shape[1:]), grads.dtype).at[set_ids].add(grads)

    return lax.platform_dependent(grads, set_ids, cuda=kernel, rocm=kernel, default=scatter)


def _sum_sets(grads, set_ids, *, sets, interpret):
    images, length = grads.shape[0], grads[0].size

    def kernel(grads_ref, set_ids_ref, out_ref):
        wanted, index = pl.program_id(0), pl.program_id(1) * SUMS + jnp.arange(SUMS, dtype=jnp.int32)

        def add(image, total):
            mask = (index < length) & (set_ids_ref[image] == wanted)
            return total + plt.load(grads_ref.at[image, index], mask=mask, other=0.0)

        total = lax.fori_loop(0, images, add, jnp.zeros(SUMS, jnp.float32))
        plt.store(out_ref.at[wanted, index], total, mask=index < length)

    out = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((sets, length), grads.dtype),
        grid=(sets, pl.cdiv(length, SUMS)),
        compiler_params=plt.CompilerParams(num_warps=4),
        interpret=interpret,
        name="sum_over_images",
    )(grads.reshape(images, length), set_ids)
    return out.reshape(sets, *grads.shape[1:])
