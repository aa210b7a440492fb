"""`bin_tiles` against brute force over all pixels in float64."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.kernels.blend.cases import conic_root
from jsplat.kernels.constants import ALPHA_FLOOR
from jsplat.kernels.tiling import (
    TileHits,
    _by_depth,
    bin_tiles,
    from_tiles,
    sorted_packed,
    sorted_stably,
    tile_grid,
    to_tiles,
)

SIZE, TILE, COUNT = (61, 45), (8, 8), 300
ACROSS, DOWN = tile_grid(SIZE, TILE)
TILES = ACROSS * DOWN
LISTED_FOR_NOTHING = 0.12  # an ellipse may cut a tile's corner between pixel centres; these tiles cost time, no error


@functools.cache
def gaussians(seed: int) -> tuple[np.ndarray, ...]:
    """Two images with everything from points to needles of 1000 pixels, in and around the image, float32."""
    random = np.random.default_rng(seed)
    shape = (2, COUNT)
    means = random.uniform(-40, 40 + np.asarray(SIZE), (*shape, 2))
    long = np.exp(random.uniform(np.log(0.01), np.log(1000), shape))
    short = long * np.exp(random.uniform(np.log(1e-6), 0, shape))
    opacities = np.where(random.uniform(size=shape) < 0.2, 1.01 * ALPHA_FLOOR, random.uniform(0, 1, shape))
    depths = np.where(random.uniform(size=shape) < 0.05, np.inf, random.uniform(0.5, 2, shape))
    rows = (means, conic_root(long, short, random.uniform(0, np.pi, shape)), opacities, depths)
    return tuple(x.astype(np.float32) for x in rows)


@functools.partial(jax.jit, static_argnames="capacity")
def run(means2d, conic_roots, opacities, depths, capacity=COUNT * TILES) -> TileHits:
    return bin_tiles(means2d, conic_roots, opacities, depths, size=SIZE, tile=TILE, capacity=capacity)


def touched(means2d, conic_roots, opacities, depths) -> np.ndarray:
    """`i n tile`: whether some pixel of the tile sees an alpha of at least 1/255."""
    u, v, w = np.moveaxis(conic_roots.astype(np.float64), -1, 0)[..., None, None]
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    dx, dy = (means2d.astype(np.float64)[..., k, None, None] - p for k, p in ((0, x), (1, y)))
    alpha = opacities[..., None, None] * np.exp(-0.5 * ((u * dx + v * dy) ** 2 + (w * dy) ** 2))
    seen = (alpha >= ALPHA_FLOOR) & np.isfinite(depths)[..., None, None]
    padded = np.pad(seen, ((0, 0), (0, 0), (0, DOWN * TILE[1] - SIZE[1]), (0, ACROSS * TILE[0] - SIZE[0])))
    return padded.reshape(*seen.shape[:2], DOWN, TILE[1], ACROSS, TILE[0]).any((3, 5)).reshape(*seen.shape[:2], TILES)


def listed(hits: TileHits, images: int, count: int) -> np.ndarray:
    """`i n tile`: what the list says."""
    table = np.zeros((images, count, TILES), bool)
    ids, offsets = np.asarray(hits.gaussian_ids), np.asarray(hits.tile_offsets)
    for tile in range(images * TILES):
        rows = ids[offsets[tile] : offsets[tile + 1]]
        assert (rows // count == tile // TILES).all(), "a tile lists a Gaussian of another image"
        table[tile // TILES, rows % count, tile % TILES] = True
    return table


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_tile_is_dropped_and_most_needless_ones_are(seed):
    args = gaussians(seed)
    want, got = touched(*args), listed(run(*map(jnp.asarray, args)), 2, COUNT)
    assert want.any(2).sum() > COUNT / 2
    assert not (want & ~got).any(), f"{np.argwhere(want & ~got)[:5]}"
    assert (got & ~want).sum() / got.sum() < LISTED_FOR_NOTHING


def test_no_tile_of_a_long_needle_is_dropped():
    """Up to 20,000 pixels, their means anywhere along them; and their tiles are few."""
    random = np.random.default_rng(5)
    shape = (2, COUNT)
    long, angle = np.exp(random.uniform(np.log(100), np.log(20_000), shape)), random.uniform(0, np.pi, shape)
    along = random.uniform(-1, 1, shape) * long
    means = random.uniform(0, 60, (*shape, 2)) + along[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    rows = (means, conic_root(long, np.zeros(shape), angle), np.ones(shape), np.ones(shape))
    args = [x.astype(np.float32) for x in rows]
    want, got = touched(*args), listed(run(*map(jnp.asarray, args)), 2, COUNT)
    assert not (want & ~got).any(), f"{np.argwhere(want & ~got)[:5]}"
    assert (got & ~want).sum() / got.sum() < LISTED_FOR_NOTHING


def test_the_list_is_grouped_by_tile_nearest_first_without_repeats():
    args = gaussians(0)
    hits = run(*map(jnp.asarray, args))
    ids, offsets, depths = np.asarray(hits.gaussian_ids), np.asarray(hits.tile_offsets), args[3].ravel()
    assert (offsets[0], len(offsets)) == (0, 2 * TILES + 1)
    assert (np.diff(offsets) >= 0).all()
    assert (ids[offsets[-1] :] == 2 * COUNT).all()
    for begin, end in itertools.pairwise(offsets):
        rows = ids[begin:end]
        assert len(set(rows)) == len(rows)
        assert (np.diff(depths[rows]) >= 0).all()


def test_equal_depths_keep_the_order_of_the_rows():
    means2d, conic_roots, opacities, depths = gaussians(0)
    hits = run(*map(jnp.asarray, (means2d, conic_roots, opacities, np.ones_like(depths))))
    ids, offsets = np.asarray(hits.gaussian_ids), np.asarray(hits.tile_offsets)
    assert max(np.diff(offsets)) > 10
    assert all((np.diff(ids[a:b]) > 0).all() for a, b in itertools.pairwise(offsets))


def test_needed_is_what_suffices():
    args = tuple(map(jnp.asarray, gaussians(0)))
    full = run(*args)
    most = int(full.needed.max())
    exact = run(*args, capacity=most)
    np.testing.assert_array_equal(exact.tile_offsets, full.tile_offsets)
    np.testing.assert_array_equal(
        exact.gaussian_ids[: exact.tile_offsets[-1]], full.gaussian_ids[: full.tile_offsets[-1]]
    )
    assert (np.asarray(full.needed) >= listed(full, 2, COUNT).sum((1, 2))).all()


def test_an_image_above_capacity_has_no_hits_and_says_what_it_needed():
    args = gaussians(0)
    halved = tuple(np.stack([x[0], np.where(np.arange(COUNT).reshape(-1, *[1] * (x.ndim - 2)) < 100, x[1], y)])
                   for x, y in zip(args, (0, 1, 0, np.inf)))  # fmt: skip
    full = run(*map(jnp.asarray, halved))
    few, many = int(full.needed[1]), int(full.needed[0])
    assert few < many
    hits = run(*map(jnp.asarray, halved), capacity=few)
    np.testing.assert_array_equal(hits.needed, full.needed)
    np.testing.assert_array_equal(hits.tile_offsets[: TILES + 1], 0)
    np.testing.assert_array_equal(listed(hits, 2, COUNT)[1], listed(full, 2, COUNT)[1])


def test_a_need_beyond_32_bits_is_not_mistaken_for_a_small_one():
    count, size = 70_000, (2048, 2048)  # 65,536 tiles for each of 70,000 Gaussians: 4.6e9, which wraps to 2.9e8
    flat = [jnp.full((1, count, 2), 1024.0), jnp.tile(jnp.asarray([1e-4, 0, 1e-4]), (1, count, 1))]
    jitted = jax.jit(functools.partial(bin_tiles, size=size, tile=TILE, capacity=10))
    hits = jitted(*flat, jnp.ones((1, count)), jnp.ones((1, count)))
    assert hits.needed[0] == 2**31 - 1
    assert hits.tile_offsets[-1] == 0


@pytest.mark.parametrize(
    ("row", "value"),
    [(0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf), (2, 0.0), (2, np.nan), (3, np.inf), (3, np.nan)],
    ids=lambda x: str(x),
)
def test_what_is_not_a_gaussian_is_not_listed(row, value):
    rows = list(gaussians(0))
    rows[row] = rows[row].copy()
    rows[row][:, ::2] = value
    table = listed(run(*map(jnp.asarray, rows)), 2, COUNT)
    assert not table[:, ::2].any()
    np.testing.assert_array_equal(table[:, 1::2], listed(run(*map(jnp.asarray, gaussians(0))), 2, COUNT)[:, 1::2])


def test_the_slots_lead_from_each_gaussian_to_its_hits():
    found = run(*map(jnp.asarray, gaussians(0)))
    ids, slots = np.asarray(found.gaussian_ids), jax.tree.map(np.asarray, found.slots)
    used, total = int(found.tile_offsets[-1]), slots.counts.sum()
    assert slots.counts.max() == TILES
    assert (np.sort(slots.hits)[:used] == np.arange(used)).all(), "a hit has no slot, or two"
    assert (slots.hits[total:] == len(ids)).all()
    listed_slots = np.flatnonzero(slots.hits < len(ids))
    np.testing.assert_array_equal(ids[slots.hits[listed_slots]], slots.gaussian_ids[listed_slots])
    runs = [np.arange(first, first + count) for first, count in zip(slots.offsets, slots.counts)]
    assert (np.sort(np.concatenate(runs)) == np.arange(total)).all(), "runs that overlap, or slots in none"
    assert all((slots.gaussian_ids[run] == gaussian).all() for gaussian, run in enumerate(runs))


# On other devices


@pytest.mark.parametrize("most", [40, 2**16 - 1, 2**16, 2**21 - 1, 2**21, 2**31 - 1])  # at the edges of narrow keys
def test_both_sorts_give_the_same(most):
    random = np.random.default_rng(most)
    keys = np.append(random.integers(0, most, 2000, endpoint=True), [most, 0, most]).astype(np.int32)
    packed, stably = (way(jnp.asarray(keys), largest=most) for way in (sorted_packed, sorted_stably))
    for got, want in zip(packed, (np.sort(keys), np.argsort(keys, kind="stable"))):
        np.testing.assert_array_equal(got, want)
    jax.tree.map(np.testing.assert_array_equal, stably, packed)


def test_what_gpus_run_gives_the_same_list(monkeypatch):
    args = tuple(map(jnp.asarray, gaussians(1)))
    want = run(*args)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))
    got = jax.jit(lambda *args: bin_tiles(*args, size=SIZE, tile=TILE, capacity=COUNT * TILES))(*args)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(("edge", "narrow"), [(512, "ui16"), (4096, "ui32")])
def test_gpus_sort_flat_arrays_by_one_key_with_one_value_and_never_loop(edge, narrow):
    """Whatever else, a batch or a second key, XLA would sort by itself and slowly."""
    shapes = [jax.ShapeDtypeStruct((3, 1000, *rest), jnp.float32) for rest in ((2,), (3,), (), ())]
    traced = jax.jit(lambda *args: bin_tiles(*args, size=(edge, edge), tile=TILE, capacity=9000)).trace(*shapes)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    sorts = re.findall(r'"stablehlo\.sort"\(.*?\}\) : \((.*?)\) ->', text, re.DOTALL)
    assert sorts == ["tensor<3000xui32>, tensor<3000xi32>", f"tensor<27000x{narrow}>, tensor<27000xi32>"]
    assert "stablehlo.while" not in text


@pytest.mark.parametrize("tile", [(8, 8), (16, 8), (4, 32)])
def test_tiles_and_images_are_one_another_inverse(tile):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 21, 3)), jnp.float32)
    tiles = to_tiles(image, tile=tile)
    across, down = tile_grid((21, 13), tile)
    assert tiles.shape == (2 * across * down, tile[0] * tile[1], 3)
    np.testing.assert_array_equal(tiles[0].reshape(tile[1], tile[0], 3)[:13, :21], image[0, : tile[1], : tile[0]])
    np.testing.assert_array_equal(from_tiles(tiles, size=(21, 13), tile=tile), image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("first", [0, 7, 20])
def test_some_come_before_the_rest_whatever_their_depths(dtype, first):
    depths = np.random.default_rng(0).permutation(20).astype(dtype) // 2 + 0.5
    depths[[3, 12]] = np.inf
    with jax.enable_x64(dtype == np.float64):
        order = np.asarray(_by_depth(jnp.asarray(depths, dtype), first))
    np.testing.assert_array_equal(order, np.lexsort((np.arange(20), depths, np.arange(20) >= first)))
