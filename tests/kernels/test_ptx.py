"""The Mosaic kernels as they are compiled, thread by thread: the same numbers as the interpreter's, and no race.

Needs the compiler's wheels (`make check-kernels` brings them), but no GPU.
"""

import functools
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.kernels import kernels_in
from bench.aot.ptx import tool
from jsplat.kernels import tiling
from jsplat.kernels.blend import mosaic_gpu
from jsplat.kernels.blend.cases import SIZE, conic_root
from jsplat.kernels.blend.mosaic_gpu import searches, sums
from jsplat.kernels.blend.mosaic_gpu.backward import hit_gradients
from jsplat.kernels.blend.mosaic_gpu.forward import blend_tiles
from jsplat.kernels.blend.mosaic_gpu.layout import (
    CHUNK,
    MOMENTS,
    PIXELS,
    TILE,
    column_tiles,
    matrix_tiles,
    monomials,
    pixel_centers,
)
from jsplat.kernels.blend.mosaic_gpu.walk import LOG2_FLOOR, Lists
from jsplat.kernels.blend.splats import Splats
from jsplat.kernels.collect import by_runs
from jsplat.kernels.constants import TRANSMITTANCE_STOP
from jsplat.kernels.similarity import mosaic_gpu as similarity
from jsplat.kernels.similarity import xla
from jsplat.kernels.tiling import Boxes, Grid, Runs, Searches, bin_tiles, sorted_by_tile, tile_grid
from tests.close import assert_close
from tests.kernels import test_collect, test_tiling
from tests.kernels.interpreted import ON_DEVICE, gpu_interpreter
from tests.kernels.ptx_machine import Block, GlobalMemory, Program, parse, run_together

COUNT = 150
SHARED = 228 << 10
# Channels, and in which order the warps of all blocks come to run.
RUNS = [(3, 0), (22, 1), (22, 2), (22, 3), (64, 4)]
# In which order a kernel's parameters come: that of their first use.
FORWARD = ("tile_offsets", "shifts", "image", "gaussian_ids", "table", "features")
BACKWARD = (
    "tile_offsets",
    "shifts",
    "pixel_grads",
    "factors",
    "gaussian_ids",
    "table",
    "features",
    "hit_grads",
    "monomials",
)
SAME = 3e-5
SAME_WHY = "float32 and products in 16 bits: the power is contracted to multiply-adds in one and not in the other"


def wheels() -> bool:
    try:
        return bool(tool("ptxas"))
    except FileNotFoundError:
        return False


pytestmark = [
    pytest.mark.skipif(not wheels(), reason="the CUDA compiler's wheels are not installed"),
    pytest.mark.skipif(ON_DEVICE, reason="a check without a GPU: on one the kernels run"),
]


@functools.cache
def scene(channels: int):
    """An image of faint Gaussians, whose lists are walked to their ends, and one of opaque ones, which stop early."""
    random = np.random.default_rng(1)
    means = random.uniform(-2, 2 + np.asarray(SIZE), (2, COUNT, 2))
    long, short, angle = (random.uniform(low, high, (2, COUNT)) for low, high in ((4, 20), (3, 12), (0, 3)))
    long[1], short[1] = 3 * long[1], 3 * short[1]
    opacities = np.stack([random.uniform(0.01, 0.08, COUNT), random.uniform(0.3, 0.9, COUNT)])
    depths, features = random.uniform(1, 2, (2, COUNT)), random.uniform(size=(1, COUNT, channels))
    case = [jnp.asarray(x, jnp.float32) for x in (means, conic_root(long, short, angle), opacities, depths, features)]
    lists, _ = mosaic_gpu.listed(Splats(*case), jnp.zeros(2, jnp.int32), SIZE, 16 * COUNT, gpu_interpreter())
    return lists


def passes(channels: int):
    """Forward and backward, of the lists and of whatever else they read."""

    def forward(*lists, interpret=None):
        return blend_tiles(Lists(*lists), channels=channels, size=SIZE, interpret=interpret)

    def backward(table, features, gaussian_ids, tile_offsets, shifts, factors, pixel_grads, interpret=None):
        lists = Lists(table, features, gaussian_ids, tile_offsets, shifts)
        how = {"channels": channels, "shape_channels": channels, "size": SIZE, "interpret": interpret}
        return hit_gradients(lists, factors, pixel_grads, **how)

    return forward, backward


@functools.cache
def interpreted(channels: int):
    """Global memory by name, and what the interpreter makes of it."""
    lists, interpret = scene(channels), gpu_interpreter()
    forward, backward = passes(channels)
    image = forward(*lists, interpret=interpret)
    grad = jnp.asarray(np.random.default_rng(2).normal(size=image.shape), jnp.float32)
    high = grad.astype(jnp.bfloat16)
    low = (grad - high.astype(jnp.float32)).astype(jnp.bfloat16)
    whole = (image * (high.astype(jnp.float32) + low.astype(jnp.float32))).sum(1)
    factors = jnp.concatenate([matrix_tiles(part[:, : channels + 1]) for part in (high, low)], 1)
    pixel_grads = jnp.stack([high[:, -1].astype(jnp.float32) + low[:, -1].astype(jnp.float32), whole], 1)
    hit_grads = backward(*lists, factors, pixel_grads, interpret=interpret)
    right = matrix_tiles(jnp.asarray(monomials()[None], jnp.bfloat16))[0]
    assert factors.shape[1:] == (2 * column_tiles(channels), 8 * PIXELS)
    memory = {**lists._asdict(), "monomials": right, "factors": factors, "pixel_grads": pixel_grads}
    return {key: np.asarray(x) for key, x in memory.items()}, np.asarray(image), np.asarray(hit_grads)


def ptx_of(function, *args) -> str:
    """What a function compiles to whose only Mosaic kernel has all of its arithmetic."""
    from bench.aot.compile import compile_for, device

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args]
    with tempfile.TemporaryDirectory() as folder:
        xla, mosaic = Path(folder, "xla"), Path(folder, "mosaic")
        mosaic.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MOSAIC_GPU_DUMP_TO", str(mosaic))
            compile_for(device("sm_90a"), function, shapes, xla)
        (text,) = [path.read_text() for path in mosaic.glob("*.ptx")]
    return text


@functools.cache
def compiled(of: str, channels: int) -> str:
    """PTX of a pass for these shapes."""
    memory, _, _ = interpreted(channels)
    names = (*Lists._fields, *(("factors", "pixel_grads") if of == "backward" else ()))
    return ptx_of(passes(channels)[of == "backward"], *(memory[name] for name in names))


@functools.cache
def program(of: str, channels: int) -> Program:
    return parse(compiled(of, channels))


def run(
    of: str, channels: int, what: Program, tiles: list[int], seed: int = 0, **others
) -> tuple[np.ndarray, list[str]]:
    """What blocks that run side by side write, all else NaN, and the races they had; of other inputs where given."""
    inputs, image, hit_grads = interpreted(channels)
    inputs = inputs | others
    names, out = (FORWARD, "image") if of == "forward" else (BACKWARD, "hit_grads")
    blank = np.full({"image": image, "hit_grads": hit_grads}[out].shape, np.float32(np.nan))
    memory = GlobalMemory()
    places = {name: memory.add(blank if name == out else inputs[name]) for name in names}
    blocks = [Block(what, [places[name] for name in names], tile, memory, SHARED) for tile in tiles]
    races = run_together(blocks, np.random.default_rng(seed))
    return memory.bytes_at(places[out]).view(np.float32).reshape(blank.shape), races


@functools.cache
def tiles(channels: int) -> list[int]:
    """The longest list of each image, which comes back to the first half of its buffer, and the last of all.

    That of the opaque image stops before its end; part of the last tile lies outside the image.
    """
    offsets = np.asarray(scene(channels).tile_offsets)
    lengths = np.diff(offsets).reshape(2, -1)
    assert (lengths.max(1) > 3 * CHUNK).all()
    faint, opaque = (int(of.argmax()) + k * of.size for k, of in enumerate(lengths))
    _, image, hit_grads = interpreted(channels)
    assert 1 - image[faint, -1].max() > TRANSMITTANCE_STOP
    assert not hit_grads[offsets[opaque + 1] - CHUNK : offsets[opaque + 1]].any()
    return [faint, opaque, lengths.size - 1]


@pytest.mark.parametrize(("channels", "seed"), RUNS)
def test_forward(channels, seed):
    chosen = tiles(channels)
    got, races = run("forward", channels, program("forward", channels), chosen, seed)
    assert races == []
    for tile in chosen:
        assert_close(got[tile], interpreted(channels)[1][tile], SAME, SAME_WHY)
    assert np.isnan(np.delete(got, chosen, 0)).all()


@pytest.mark.parametrize(("channels", "seed"), RUNS)
def test_backward(channels, seed):
    chosen, offsets = tiles(channels), np.asarray(scene(channels).tile_offsets)
    got, races = run("backward", channels, program("backward", channels), chosen, seed)
    assert races == []
    rows = [np.arange(offsets[tile], offsets[tile + 1]) for tile in chosen]
    # The moments differ in size; all gradients of values are sums of the same weights.
    together = [*(slice(k, k + 1) for k in range(MOMENTS)), slice(MOMENTS, None)]
    for own in rows:
        for columns in together:
            want = interpreted(channels)[2][own, columns]
            assert_close(got[own, columns], want, SAME, SAME_WHY, relative=True)
    assert np.isnan(np.delete(got, np.concatenate(rows), 0)).all()


def test_a_gradient_of_nan_reaches_the_hits_of_its_pixel_and_no_others():
    tile, thread = tiles(3)[0], 40
    inputs, _, hit_grads = interpreted(3)
    own = slice(*np.asarray(scene(3).tile_offsets)[tile : tile + 2])
    pixel_grads = inputs["pixel_grads"].copy()
    pixel_grads[tile, 0, thread] = np.nan
    got, _ = run("backward", 3, program("backward", 3), [tile], pixel_grads=pixel_grads)
    across = tile_grid(SIZE, TILE)[0]
    pixel = [
        centers[thread] + (place + 0.5) * length
        for centers, place, length in zip(pixel_centers(), (tile % across, tile // across), TILE)
    ]
    u, v, w, log2_opacity, x, y, *_ = inputs["table"][inputs["gaussian_ids"][own]].T
    dx, dy = pixel[0] - x, pixel[1] - y
    taken = log2_opacity - (u * dx + v * dy) ** 2 - (w * dy) ** 2 >= LOG2_FLOOR
    assert 0 < taken.sum() < taken.size
    used = [*range(6), *range(MOMENTS, MOMENTS + 3)]
    np.testing.assert_array_equal(np.isnan(got[own])[:, used], np.repeat(taken[:, None], len(used), 1))
    assert_close(got[own][~taken], hit_grads[own][~taken], SAME, SAME_WHY, relative=True)


@pytest.mark.parametrize("number", range(1, 4))
def test_a_missing_barrier_is_seen(number):
    """Of the three plain barriers of our own; the first of the kernel is Mosaic's."""
    text = compiled("backward", 3)
    place = list(re.finditer(r"bar\.sync\s+0;", text))[number]
    without = parse(text[: place.start()] + text[place.end() :])
    _, races = run("backward", 3, without, tiles(3)[:1])
    assert races


def launched(function, arrays, blanks: list[np.ndarray], blocks, order=None) -> list[np.ndarray]:
    """What a kernel of arrays alone writes into these; fails where blocks race.

    `order` is that of the first use of all of them in the kernel, if it is another than that of the arguments.
    """
    program, memory = parse(ptx_of(function, *arrays)), GlobalMemory()
    places = [memory.add(np.asarray(x)) for x in (*arrays, *blanks)]
    used = places if order is None else [places[k] for k in order]
    races = run_together([Block(program, used, k, memory, SHARED) for k in blocks], np.random.default_rng(0))
    assert races == []
    written = zip(places[len(arrays) :], blanks)
    return [memory.bytes_at(place).view(blank.dtype).reshape(blank.shape) for place, blank in written]


@pytest.mark.parametrize("width", [16, 80])
def test_every_hit_is_summed_once(width):
    hits = test_collect.binned(*test_collect.gaussians(0))
    rows = test_collect.integers(hits, width)

    def emulated(offsets, counts, places, grads, pieces):
        blank = np.full((len(offsets), width), np.nan, np.float32)
        arrays = [offsets, counts, places, grads, *([] if pieces is None else [pieces])]
        own = functools.partial(sums.sum_runs, **({"pieces": None} if pieces is None else {}))
        return jnp.asarray(launched(own, arrays, [blank], range(-(-len(offsets) // (PIXELS // width))))[0])

    got = by_runs(jnp.asarray(rows), hits, emulated)
    np.testing.assert_array_equal(got, test_collect.sums(rows, hits, test_collect.COUNT))


def test_images_are_summed_by_their_sets():
    rows = np.random.default_rng(0).integers(-99, 99, (5, 30, 7)).astype(np.float32)
    rows[3] = np.nan
    set_ids = np.asarray([2, 0, 2, 3, 0], np.int32)
    flat, blank = rows.reshape(5, -1), np.full((4, 210), np.inf, np.float32)

    def own(set_ids, flat):
        return sums.sum_over_images(flat.reshape(rows.shape), set_ids, 4)

    (got,) = launched(own, [set_ids, flat], [blank], [(x, y) for x in range(2) for y in range(4)])
    want = [rows[1] + rows[4], 0 * rows[0], rows[0] + rows[2], rows[3]]
    np.testing.assert_array_equal(got.reshape(4, 30, 7), np.stack(want))


def emulated_candidates(runs: Runs, grid: Grid, slots: int):
    boxes = runs.boxes
    ends = jnp.cumsum(boxes.counts[runs.order])

    def own(ends, order, across, columns, rows, means2d, conic_roots, limits):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searches, "cumulated", lambda *_: ends)
            own = Boxes(columns, rows, across, limits, order)  # the counts are in the ends
            return searches.candidates.__wrapped__(Runs(order, own, means2d, conic_roots), grid, slots)

    arrays = [ends, runs.order, boxes.across, boxes.columns, boxes.rows, runs.means2d, runs.conic_roots, boxes.limits]
    blanks = [np.full(slots, 0xFFFF, np.uint16), *(np.full(n, -1, np.int32) for n in (slots, len(runs.order)))]
    return [jnp.asarray(x) for x in launched(own, arrays, blanks, range(-(-slots // PIXELS)))]


@pytest.mark.parametrize("count", [5, 1024, 2500])
def test_counts_are_cumulated_in_their_order(count):
    random = np.random.default_rng(count)
    counts, order = random.integers(0, 99, count).astype(np.int32), random.permutation(count).astype(np.int32)
    blocks = -(-count // (PIXELS * searches.OWN))
    totals, ends = np.full(blocks, -1, np.int32), np.full(count, -1, np.int32)
    first, second = kernels_in(searches.cumulated, *(jax.ShapeDtypeStruct((count,), jnp.int32) for _ in range(2)))
    (totals,) = launched(first.run, [counts, order], [totals], range(blocks), order=(1, 0, 2))
    (ends,) = launched(second.run, [counts, order, totals], [ends], range(blocks), order=(1, 0, 2, 3))
    np.testing.assert_array_equal(ends, np.cumsum(counts[order]))


def emulated_sort(tile_ids, gaussian_ids, grid: Grid):
    """Sorted by numpy: XLA sorts on a GPU, too."""
    slot_ids = np.argsort(tile_ids, stable=True).astype(np.int32)
    keys, slots, blocks = np.asarray(tile_ids)[slot_ids], len(slot_ids), range(-(-max(len(slot_ids), 97) // PIXELS))
    blanks = [np.full(n, -1, np.int32) for n in (grid.all_tiles + 1, slots, slots)]

    def own(keys, slot_ids, gaussian_ids):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searches, "sorted_narrowly", lambda _: (keys, slot_ids))
            return searches.sort.__wrapped__(keys, gaussian_ids, grid)

    arrays = [keys, slot_ids, np.asarray(gaussian_ids)]
    offsets, ids, hits = launched(own, arrays, blanks, blocks, order=(0, 3, 1, 2, 4, 5))
    return jnp.asarray(ids), jnp.asarray(offsets), jnp.asarray(hits)


@pytest.mark.parametrize("capacity", [4000, 4100])
def test_tile_hits_are_found_as_xla_finds_them(capacity):
    """With a capacity that one of the two images exceeds, and with one for both."""
    case = [jnp.asarray(x) for x in test_tiling.gaussians(3)]
    run = functools.partial(bin_tiles, *case, size=test_tiling.SIZE, tile=test_tiling.TILE, capacity=capacity)
    want, got = run(), run(searches=Searches(emulated_candidates, emulated_sort))
    assert (np.asarray(want.needed) > capacity).tolist() == [capacity == 4000, False]
    used = int(want.slots.counts.sum())
    assert 0 < used < 2 * capacity
    np.testing.assert_array_equal(got.slots.gaussian_ids[:used], want.slots.gaussian_ids[:used])
    for name in ("gaussian_ids", "tile_offsets"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    for name in ("offsets", "hits"):
        np.testing.assert_array_equal(getattr(got.slots, name), getattr(want.slots, name))


def emulated_halves(tile_ids, gaussian_ids, grid: Grid):
    """`emulated_sort` of images whose halves have keys of their own."""
    first_slots, slots = len(tile_ids) // grid.images * grid.first_half, len(tile_ids)
    assert np.asarray(tile_ids).max() <= grid.first_tiles, "a key of 16 bits would wrap around"
    parts = [np.asarray(tile_ids)[:first_slots], np.asarray(tile_ids)[first_slots:]]
    orders = [np.argsort(part, stable=True).astype(np.int32) for part in parts]
    first, later = ((part[order], order) for part, order in zip(parts, orders))
    first_hits = np.asarray([(parts[0] < grid.first_tiles).sum()], np.int32)
    arrays = [first_hits, first[0], later[0], first[1], np.asarray(gaussian_ids), later[1]]
    blanks = [np.full(n, -1, np.int32) for n in (grid.all_tiles + 1, slots, slots)]

    def own(first_hits, keys, later_keys, slot_ids, gaussian_ids, later_slot_ids):
        return searches.joined(keys, slot_ids, later_keys, later_slot_ids, first_hits, gaussian_ids, grid)

    blocks = range(-(-max(slots, grid.all_tiles + 1) // PIXELS))
    offsets, ids, hits = launched(own, arrays, blanks, blocks, order=(0, 1, 6, 2, 3, 4, 7, 8, 5))
    return jnp.asarray(ids), jnp.asarray(offsets), jnp.asarray(hits)


@pytest.mark.parametrize(("images", "first_half", "capacity"), [(2, 1, 4000), (3, 2, 4100)])
def test_halves_with_keys_of_their_own_make_the_same_lists(images, first_half, capacity, monkeypatch):
    """As if a key held too few tiles for all images; every Gaussian still finds its own hits."""
    case = [np.concatenate([a, b])[:images] for a, b in zip(test_tiling.gaussians(3), test_tiling.gaussians(4))]
    size, tile = test_tiling.SIZE, test_tiling.TILE
    run = functools.partial(bin_tiles, *map(jnp.asarray, case), size=size, tile=tile, capacity=capacity)
    want = run()
    monkeypatch.setattr(tiling, "SHORT_KEYS", images * test_tiling.TILES)
    assert Grid(tile_grid(size, tile), tile, case[0].shape[1], images).first_half == first_half
    got = run(searches=Searches(emulated_candidates, emulated_halves, halves=True))
    assert (np.asarray(want.needed) > capacity).any() == (capacity == 4000)
    for name in ("gaussian_ids", "tile_offsets", "needed"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_array_equal(got.slots.counts, want.slots.counts)
    of_each = np.repeat(np.arange(len(want.slots.counts)), want.slots.counts)
    within = np.arange(len(of_each)) - np.repeat(np.cumsum(want.slots.counts) - want.slots.counts, want.slots.counts)
    places = [np.asarray(of.slots.offsets)[of_each] + within for of in (want, got)]
    assert places[1].max() > places[0].max(), "a gap lies between the halves"
    for name in ("gaussian_ids", "hits"):
        wanted, found = (np.asarray(getattr(of.slots, name))[at] for of, at in zip((want, got), places))
        np.testing.assert_array_equal(found, wanted)
    rows = test_collect.integers(got, 16)
    summed = test_collect.interpreted(jnp.asarray(rows), got)
    np.testing.assert_array_equal(summed, test_collect.sums(rows, got, case[0].shape[1] * images))


@pytest.mark.parametrize("ids", [[7], [8, 8, 8], [0, 0, 3, 3, 8], [5] * 300])
def test_tiles_without_hits_are_empty(ids):
    grid = Grid((4, 2), (8, 8), 10, 1)
    tiles, gaussians = np.asarray(ids, np.uint16), np.arange(len(ids), dtype=np.int32) % 10
    want = sorted_by_tile(jnp.asarray(tiles), jnp.asarray(gaussians), grid)
    for got, wanted in zip(emulated_sort(tiles, gaussians, grid), want):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("size", [(20, 37), (16, 32)])
def test_the_photo_loss_is_that_of_xla(size):
    """Over several blocks in both directions, and over one that the picture fills."""
    random = np.random.default_rng(4)
    render = random.uniform(size=(2, *size, 3)).astype(np.float32)
    photo = np.clip(render + random.normal(scale=0.1, size=render.shape), 0, 1).astype(np.float32)
    photo[:, :8, :8] = render[:, :8, :8]
    loss, slope = xla.photo_loss_and_slope(jnp.asarray(render), jnp.asarray(photo), 0.2)
    blocks = similarity.Parts(render.shape).blocks
    blanks = [np.full((6, 3, *size), np.nan, np.float32), np.full(blocks, np.nan, np.float32)]

    def first(render, photo):
        return similarity.loss_and_inner(render, photo, 0.2)

    def second(inner, render, photo):
        return similarity.slope_of(inner, render, photo, 0.2)

    inner, sums = launched(first, [render, photo], blanks, range(blocks))
    (got,) = launched(second, [inner, render, photo], [np.full_like(render, np.nan)], range(blocks))
    assert_close(sums.reshape(2, -1).sum(1) / np.prod(render.shape[1:]), loss, 1e-6, "float32 sums in another order")
    assert_close(got, slope, 2e-6, "float32: windows in another order", relative=True)
