"""`jsplat.kernels.collect` by kernels of our own: a thread sums one column of one run, or one number of a set.

Where Pallas interprets, XLA sums: there are no threads to take turns.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from jsplat.kernels import collect as generic
from jsplat.kernels.blend.mosaic_gpu import ptx
from jsplat.kernels.blend.mosaic_gpu.forward import settings
from jsplat.kernels.blend.mosaic_gpu.layout import PIXELS
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, I32, PerThread, Ref
from jsplat.kernels.collect import PIECE, by_runs
from jsplat.kernels.tiling import TileHits

AHEAD = 4  # rows in flight for each run


def collect(hit_grads: Float[Array, "m f"], hits: TileHits, count: int, interpret: Any = None) -> Float[Array, "g f"]:
    """See `jsplat.kernels.collect.collect`; at most 128 columns."""
    return by_runs(hit_grads, hits, sum_runs) if interpret is None else generic.collect(hit_grads, hits, count)


def sum_runs(
    offsets: Int[Array, " g"],
    counts: Int[Array, " g"],
    hits: Int[Array, " m"],
    grads: Float[Array, "m f"],
    pieces: Float[Array, "p f"] | None,
) -> Float[Array, "g f"]:
    """The sum of the first PIECE gradients of each run and, where given, of its pieces."""
    (slots, width), runs = grads.shape, offsets.shape[0]
    together = PIXELS // width  # runs of a block of threads

    def collect_kernel(*refs):
        @ptx.inline
        def run_of_block(
            offsets: Ref, counts: Ref, hits: Ref, grads: Ref, pieces: Ref, out: Ref, block: PerThread
        ) -> None:
            thread = ptx.thread()
            run, column = block * together + thread // width, thread % width

            def at(table, row):
                return ptx.offset(ptx.offset(ptx.global_address(table), row, 4 * width), column, 4)

            def number(table, index):
                return ptx.load_constant(ptx.offset(ptx.global_address(table), index, 4), I32)

            def sum_own():
                first, count = number(offsets, run), number(counts, run)

                def hit(index):
                    place = number(hits, first + index)
                    return ptx.minimum(place, ptx.integer(slots - 1)), place < slots

                total = _add(grads, at, ptx.minimum(count, ptx.integer(PIECE)), hit, ptx.number(0.0))
                if pieces_given:
                    more = (count + (PIECE - 1)) // PIECE - 1
                    total = _add(pieces, at, more, lambda index: ((first + (index + 1) * PIECE) // PIECE, None), total)
                ptx.store_global(at(out, run), [total])

            ptx.emit_if((thread < together * width) & (run < runs), sum_own)

        offsets, counts, hits, grads, *pieces, out = refs
        run_of_block(offsets, counts, hits, grads, pieces[0] if pieces else grads, out, lax.axis_index("block"))

    pieces_given = pieces is not None
    return plgpu.kernel(
        collect_kernel,
        out_type=jax.ShapeDtypeStruct((runs, width), jnp.float32),
        grid=(-(-runs // together),),
        grid_names=("block",),
        **settings(None),
    )(offsets, counts, hits, grads, *((pieces,) if pieces_given else ()))


def _add(table, at, count, read, total):
    """Adds AHEAD rows at a time, one after the other; `read` gives the row at an index, and whether it counts."""

    def step(index, total):
        values = []
        for k in range(AHEAD):
            row, counts = read(ptx.minimum(index + k, count - 1))
            counts = index + k < count if counts is None else (index + k < count) & counts
            values.append(ptx.choose(counts, ptx.load_constant(at(table, row), F32), ptx.number(0.0)))
        for value in values:
            total = total + value
        return total

    return ptx.emit_sum(ptx.integer(0), count, AHEAD, total, step)


def sum_over_images(
    grads: Float[Array, "i n c"], set_ids: Int[Array, " i"], sets: int, interpret: Any = None
) -> Float[Array, "f n c"]:
    """See `jsplat.kernels.collect.sum_over_images`."""
    images, length = grads.shape[0], grads[0].size
    if sets == images or interpret is not None:
        return generic.sum_over_images(grads, set_ids, sets)

    def sum_over_images_kernel(*refs):
        @ptx.inline
        def number_of_thread(grads: Ref, set_ids: Ref, out: Ref, wanted: PerThread, block: PerThread) -> None:
            place = block * PIXELS + ptx.thread()

            def sum_own():
                def step(image, total):
                    own = ptx.load_constant(ptx.offset(ptx.global_address(set_ids), image, 4), I32) == wanted

                    def read():
                        there = ptx.offset(ptx.global_address(grads), image, 4 * length)
                        return ptx.load_constant(ptx.offset(there, place, 4), F32)

                    return total + ptx.emit_either(own, read, ptx.number(0.0))

                total = ptx.emit_sum(ptx.integer(0), ptx.integer(images), 1, ptx.number(0.0), step)
                there = ptx.offset(ptx.global_address(out), wanted, 4 * length)
                ptx.store_global(ptx.offset(there, place, 4), [total])

            ptx.emit_if(place < length, sum_own)

        grads, set_ids, out = refs
        number_of_thread(grads, set_ids, out, lax.axis_index("set"), lax.axis_index("block"))

    out = plgpu.kernel(
        sum_over_images_kernel,
        out_type=jax.ShapeDtypeStruct((sets, length), jnp.float32),
        grid=(sets, -(-length // PIXELS)),  # CUDA allows 65,535 in any but the last
        grid_names=("set", "block"),
        **settings(None),
    )(grads.reshape(images, length), set_ids)
    return out.reshape(sets, *grads.shape[1:])
