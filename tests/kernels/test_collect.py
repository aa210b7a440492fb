"""`collect`: the kernels, interpreted, against sums in another order; exact, because the rows hold small integers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.target import lowering_for
from jsplat.kernels.blend.cases import conic_root
from jsplat.kernels.collect import PIECE, by_runs, collect, sum_runs
from jsplat.kernels.tiling import Slots, TileHits, bin_tiles

SIZE, TILE, COUNT, CAPACITY = (128, 128), (8, 8), 40, 2500
TILES = 16 * 16
interpreted = jax.jit(functools.partial(by_runs, sum_runs=functools.partial(sum_runs, interpret=True)))


def gaussians(seed: int) -> tuple[jax.Array, ...]:
    """One image: three that cover all tiles, one at the edges of a piece's length, hidden ones, and small ones."""
    random = np.random.default_rng(seed)
    long = np.concatenate([[500, 500, 500, 26], random.uniform(0.5, 9, COUNT - 4)])
    means = np.concatenate([np.full((4, 2), 64.0), random.uniform(0, 128, (COUNT - 4, 2))])
    depths = np.where(random.uniform(size=COUNT) < 0.1, np.inf, random.uniform(1, 2, COUNT))
    rows = (means, conic_root(long, 0.7 * long, random.uniform(0, np.pi, COUNT)), np.full(COUNT, 0.9), depths)
    return tuple(jnp.asarray(x, jnp.float32)[None] for x in rows)


@jax.jit
def binned(*args: jax.Array) -> TileHits:
    return bin_tiles(*args, size=SIZE, tile=TILE, capacity=CAPACITY)


def integers(hits: TileHits, width: int) -> np.ndarray:
    """A row for each hit, and nothing that may be read past the last one."""
    rows = np.random.default_rng(width).integers(-1000, 1000, (len(hits.gaussian_ids), width)).astype(np.float32)
    rows[int(hits.tile_offsets[-1]) :] = np.nan
    return rows


def sums(rows: np.ndarray, hits: TileHits, count: int) -> np.ndarray:
    used, table = int(hits.tile_offsets[-1]), np.zeros((count, rows.shape[1]))
    np.add.at(table, np.asarray(hits.gaussian_ids)[:used], rows[:used])
    return table


@pytest.mark.parametrize("width", [1, 29, 130])  # one column, one block that is not full, more than one block
def test_the_kernels_sum_every_hit_once(width):
    hits = binned(*(jnp.concatenate(pair) for pair in zip(gaussians(0), gaussians(1))))
    assert (np.asarray(hits.needed) <= CAPACITY).all()
    lengths = np.asarray(hits.slots.counts)
    assert lengths.max() == TILES > 2 * PIECE
    assert lengths.min() == 0
    rows = integers(hits, width)
    want = sums(rows, hits, 2 * COUNT)
    np.testing.assert_array_equal(interpreted(jnp.asarray(rows), hits), want)


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
def test_runs_as_long_as_pieces_are(length):
    """By hand: runs of this length and of 1 in turn, every third slot no hit."""
    counts = np.array([length, 1, length, 0, length, length], np.int32)
    offsets, slots = np.cumsum(counts) - counts, counts.sum() + 5
    slot_ids = np.append(np.repeat(np.arange(6), counts), [5] * 5)
    hit = (np.arange(slots) % 3 > 0) & (np.arange(slots) < counts.sum())
    order = np.random.default_rng(length).permutation(np.flatnonzero(hit))
    slot_hits = np.full(slots, slots)
    slot_hits[order] = np.arange(len(order))
    ids = np.append(slot_ids[order], [6] * (slots - len(order)))
    tile_offsets = np.array([0, len(order)])
    parts = (ids, tile_offsets, [slots], Slots(offsets, counts, slot_ids, slot_hits))
    hits = TileHits(*jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), parts, is_leaf=lambda x: isinstance(x, list)))
    rows = integers(hits, 3)
    np.testing.assert_array_equal(interpreted(jnp.asarray(rows), hits), sums(rows, hits, 6))


def test_on_this_device_the_same_comes_out():
    hits = binned(*gaussians(0))
    rows = np.nan_to_num(integers(hits, 5))
    np.testing.assert_array_equal(collect(jnp.asarray(rows), hits, COUNT), sums(rows, hits, COUNT))


def test_a_sum_does_not_depend_on_what_else_is_in_the_batch():
    alone, batched = binned(*gaussians(0)), binned(*(jnp.concatenate(x) for x in zip(gaussians(1), gaussians(0))))
    random = np.random.default_rng(0)
    rows = random.normal(size=(2 * CAPACITY, 4)).astype(np.float32)  # rounding differs with the order of summing
    used, start = int(alone.tile_offsets[-1]), int(batched.tile_offsets[TILES])
    assert int(batched.tile_offsets[-1]) - start == used
    moved = np.zeros_like(rows)
    moved[start : start + used] = rows[:used]
    got = interpreted(jnp.asarray(moved), batched)[COUNT:]
    np.testing.assert_array_equal(got, interpreted(jnp.asarray(rows[:CAPACITY]), alone))


def test_a_gpu_gets_kernels_and_no_scatter_and_others_get_no_kernel():
    hits = binned(*gaussians(0))
    with lowering_for("NVIDIA A100"):
        traced = jax.jit(lambda rows, hits: collect(rows, hits, COUNT)).trace(jnp.zeros((CAPACITY, 29)), hits)
        gpu, cpu = (traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu"))
    assert gpu.count("triton_kernel_call") + gpu.count("gpu$xla.gpu.triton") == 2
    assert "scatter" not in gpu
    assert "triton" not in cpu
