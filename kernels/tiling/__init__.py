"""Which Gaussian touches which tile, in depth order, for any number of images in one flat list.

Shapes: i images, n Gaussians an image, g = i * n in all, m slots for tile hits, t = i * tiles_y * tiles_x tiles.
"""

import functools
import operator
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, Num

from jsplat.kernels.constants import ALPHA_FLOOR

INT32_MAX = 2**31 - 1
SHORT_KEYS = 1 << 16
ROUNDING = 5e-7  # of float32, relative to the terms of a sum that may cancel: dropping must never be a matter of it


class Slots(typing.NamedTuple):
    """Tile hits before they are sorted by tile: one run of slots for each Gaussian, a slot for each tile of its box.

    It leads from each Gaussian to its own hits. What nobody reads of it costs nothing under `jit`.

    Attributes:
        offsets: first slot of each Gaussian's run.
        counts: length of each Gaussian's run, the tiles of its box.
        gaussian_ids: the Gaussian whose run a slot belongs to; any one past the last run.
        hits: where in the sorted list a slot went; m where its tile turned out not to be hit.
    """

    offsets: Int[Array, " g"]
    counts: Int[Array, " g"]
    gaussian_ids: Int[Array, " m"]
    hits: Int[Array, " m"]


class TileHits(typing.NamedTuple):
    """Pairs of a tile and a Gaussian that reaches it, in one packed list; gsplat calls them intersections.

    Attributes:
        gaussian_ids: rows into the flattened Gaussians, grouped by tile, nearest first; g past the end.
        tile_offsets: where each tile's hits begin, and the number of all hits as the last entry.
        needed: slots each image wanted; an image that wanted more than it may have got no hits at all.
        slots: the same list as it was before the sort.
    """

    gaussian_ids: Int[Array, " m"]
    tile_offsets: Int[Array, " t+1"]
    needed: Int[Array, " i"]
    slots: Slots


class Boxes(typing.NamedTuple):
    """The tiles around each Gaussian's ellipse on which alpha is 1/255.

    Attributes:
        columns, rows: the first tile's.
        across: tiles of a row.
        limits: the power on the ellipse.
        counts: tiles that are listed; 0 where the Gaussian is hidden.
    """

    columns: Int[Array, " g"]
    rows: Int[Array, " g"]
    across: Int[Array, " g"]
    limits: Float[Array, " g"]
    counts: Int[Array, " g"]


class Runs(typing.NamedTuple):
    """All tiles of all boxes as runs of slots, nearest first, and what the test of a tile reads of a Gaussian.

    Attributes:
        order: the Gaussians, nearest first over all images at once, or over each half of them (`Grid.first_half`);
            those without slots are last.
        boxes: of each Gaussian; a run is as long as its box has tiles.
        means2d, conic_roots: as for `bin_tiles`.
    """

    order: Int[Array, " g"]
    boxes: Boxes
    means2d: Float[Array, "g 2"]
    conic_roots: Float[Array, "g 3"]


class Grid(typing.NamedTuple):
    """How tiles are numbered: image by image, row by row.

    Attributes:
        tiles: across and down in an image.
        tile: width and height in pixels.
        count: Gaussians of an image.
        images: how many there are.
    """

    tiles: tuple[int, int]
    tile: tuple[int, int]
    count: int
    images: int

    @property
    def all_tiles(self) -> int:
        """Of all images."""
        return self.images * self.tiles[0] * self.tiles[1]

    @property
    def first_half(self) -> int:
        """How many images are sorted apart from the rest; all, unless that makes keys short."""
        half = -(-self.images // 2)
        return half if half * self.tiles[0] * self.tiles[1] < SHORT_KEYS <= self.all_tiles else self.images

    @property
    def first_tiles(self) -> int:
        """Tiles of the first half: what a key may be at most."""
        return self.first_half * self.tiles[0] * self.tiles[1]


class Searches(typing.NamedTuple):
    """What a device may have kernels for: how slots find their Gaussian, and tiles their hits.

    Attributes:
        candidates: from `Runs`, `Grid` and the number of slots, tile and Gaussian of each slot, and the first slot of
            each Gaussian; where the tile is not reached or the slot unused, `all_tiles` as the tile, and any Gaussian.
        sort: from the first two of these and `Grid`, what `TileHits` calls `gaussian_ids` and `tile_offsets`, and
            what `Slots` calls `hits`.
        halves: whether both know of `Grid.first_half`: each half of the images has slots of its own, as many as its
            images may need, and numbers its tiles from 0; where the tile is not reached it is `Grid.first_tiles`.
    """

    candidates: typing.Callable[[Runs, Grid, int], tuple[Integer[Array, " m"], Int[Array, " m"], Int[Array, " g"]]]
    sort: typing.Callable[
        [Integer[Array, " m"], Int[Array, " m"], Grid], tuple[Int[Array, " m"], Int[Array, " s"], Int[Array, " m"]]
    ]
    halves: bool = False


def tile_grid(size: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    """Tiles across and down."""
    return -(-size[0] // tile[0]), -(-size[1] // tile[1])


def to_tiles(image: Num[Array, "i h w c"], *, tile: tuple[int, int]) -> Num[Array, "t p c"]:
    """Images cut into tiles row by row, padded with zeros to whole tiles; pixels of a tile row by row."""
    i, h, w, c = image.shape
    across, down = tile_grid((w, h), tile)
    padded = jnp.pad(image, ((0, 0), (0, down * tile[1] - h), (0, across * tile[0] - w), (0, 0)))
    cut = padded.reshape(i, down, tile[1], across, tile[0], c).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(i * down * across, tile[0] * tile[1], c)


def from_tiles(
    tiled: Float[Array, "t p c"], *, size: tuple[int, int], tile: tuple[int, int]
) -> Float[Array, "i h w c"]:
    """The inverse of `to_tiles`."""
    across, down = tile_grid(size, tile)
    cut = tiled.reshape(-1, down, across, tile[1], tile[0], tiled.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(cut.shape[0], down * tile[1], across * tile[0], -1)[:, : size[1], : size[0]]


def bin_tiles(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    *,
    size: tuple[int, int],
    tile: tuple[int, int],
    capacity: int,
    searches: Searches | None = None,
) -> TileHits:
    """Lists the tiles in which each Gaussian can reach an alpha of 1/255.

    Args:
        means2d: centres in pixels.
        conic_roots: (u, v, w) in 1/pixel, u and w positive: the inverse covariance (gsplat's conic) is
            [[u^2, u v], [u v, v^2 + w^2]], the upper triangular root [[u, v], [0, w]] transposed times itself. Of a
            covariance [[xx, xy], [xy, yy]] with determinant d: u = sqrt(yy / d), v = -u xy / yy, w = 1 / sqrt(yy).
        opacities: in [0, 1]; 0 hides a Gaussian.
        depths: the order of blending; positive, infinite to hide a Gaussian.
        size: (width, height) of the images in pixels.
        tile: (width, height) of a tile in pixels.
        capacity: slots per image.
        searches: a device's own; None: XLA's.
    """
    images, count = opacities.shape
    grid = Grid(tile_grid(size, tile), tile, count, images)
    searches = searches or Searches(candidates_of, sorted_by_tile)
    means2d, conic_roots, opacities, depths = (
        x.reshape(images * count, *x.shape[2:]) for x in (means2d, conic_roots, opacities, depths)
    )
    boxes, needed = _boxes(means2d, conic_roots, opacities, depths, capacity, grid)
    first = grid.first_half * count if searches.halves else images * count
    order = _by_depth(jnp.where(boxes.counts > 0, depths, jnp.inf), first)
    runs = Runs(order, boxes, means2d, conic_roots)
    tile_ids, of_slots, offsets = searches.candidates(runs, grid, images * capacity)
    gaussian_ids, tile_offsets, hits = searches.sort(tile_ids, of_slots, grid)
    return TileHits(gaussian_ids, tile_offsets, needed, Slots(offsets, boxes.counts, of_slots, hits))


def _boxes(means2d, conic_roots, opacities, depths, capacity, grid: Grid) -> tuple[Boxes, Int[Array, " i"]]:
    """The box of each Gaussian, and the slots each image needs; where these are too many its boxes are empty."""
    limits = jnp.log(jnp.maximum(opacities, 1e-30) / ALPHA_FLOOR)  # keep where the power is at most this
    (x, y), (u, v, w) = means2d.T, conic_roots.T
    reach = jnp.sqrt(2 * jnp.maximum(limits, 0)) * (1 + 4 * ROUNDING)
    radii = reach * jnp.sqrt(1 + (v / w) ** 2) / u, reach / w
    finite = functools.reduce(operator.and_, map(jnp.isfinite, (x, y, u, v, w))) & (u > 0) & (w > 0)
    visible = finite & jnp.isfinite(depths) & (limits > 0)

    def span(at, radius, tiles, edge):
        """The first tile of an axis, and how many."""
        # A pixel centre at x + 0.5 is inside [mean - radius, mean + radius]; clip before the cast, floats may be huge.
        low = jnp.clip(jnp.floor((at - radius - 0.5) / edge), 0, tiles)
        high = jnp.clip(jnp.floor((at + radius - 0.5) / edge) + 1, 0, tiles)
        low, high = (jnp.where(finite, bound, 0).astype(jnp.int32) for bound in (low, high))
        return low, jnp.where(visible, jnp.maximum(high - low, 0), 0)

    (columns, across), (rows, down) = map(span, (x, y), radii, grid.tiles, grid.tile)
    counts = (across * down).reshape(grid.images, -1)
    # A need beyond 32 bits must not wrap around to a small one.
    needed = lax.reduce(counts, np.int32(0), lambda a, b: a + jnp.minimum(b, INT32_MAX - a), (1,))
    # Compared after the broadcast: of one image's number XLA writes the comparison in two ways, and would then not see
    # that the lists of the forward and of the backward pass are the same.
    counts = jnp.where(lax.broadcast_in_dim(needed, counts.shape, (0,)) <= capacity, counts, 0).reshape(-1)
    return Boxes(columns, rows, across, jnp.where(finite, limits, 0), counts), needed


def candidates_of(
    runs: Runs, grid: Grid, slots: int
) -> tuple[Integer[Array, " m"], Int[Array, " m"], Int[Array, " g"]]:
    """See `Searches`: a slot for each tile of each box, nearest first; the sort by tile keeps that order."""
    counts = _permuted(runs.boxes.counts, runs.order)
    ends = jnp.cumsum(counts)
    offsets = ends - counts
    # Gaussians without slots come last in the order, so that every mark is another Gaussian's.
    begins = jnp.where(counts > 0, offsets, slots)
    marks = jnp.zeros(slots, jnp.int32).at[begins].set(1, mode="drop", unique_indices=True)
    rank = jnp.cumsum(marks) - 1
    gaussian_ids = runs.order[rank]
    places = jnp.arange(slots, dtype=jnp.int32)
    within, across = places - offsets[rank], jnp.maximum(runs.boxes.across[gaussian_ids], 1)
    tile_x = runs.boxes.columns[gaussian_ids] + within % across
    tile_y = runs.boxes.rows[gaussian_ids] + within // across
    kept = (places < ends[-1]) & _reached(runs, gaussian_ids, tile_x, tile_y, grid.tile)
    tile_ids = (gaussian_ids // grid.count * grid.tiles[1] + tile_y) * grid.tiles[0] + tile_x
    return jnp.where(kept, tile_ids, grid.all_tiles), gaussian_ids, _placed(offsets, runs.order)


def _reached(runs: Runs, gaussian_ids, tile_x, tile_y, tile) -> Bool[Array, " m"]:
    """Whether the ellipse reaches a tile's rectangle of pixel centres: the least power over it is within the limit."""
    ellipses = jnp.concatenate([runs.means2d, runs.conic_roots, runs.boxes.limits[:, None]], 1)[gaussian_ids]
    mean_x, mean_y, u, v, w, limit = (ellipses[:, k] for k in range(6))
    left, top = tile_x * tile[0] + 0.5, tile_y * tile[1] + 0.5
    right, bottom = left + (tile[0] - 1), top + (tile[1] - 1)
    x, y = jnp.clip(mean_x, left, right) - mean_x, jnp.clip(mean_y, top, bottom) - mean_y
    # The minimum of a convex form over a box lies on the facing vertical or horizontal side (or is the centre itself).
    other_y = jnp.clip(mean_y - u * v / (v * v + w * w) * x, top, bottom) - mean_y
    other_x = jnp.clip(mean_x - v / u * y, left, right) - mean_x

    def power(x, y):
        across, down = jnp.abs(u * x + v * y), w * y
        across = jnp.maximum(across - ROUNDING * (jnp.abs(u * x) + jnp.abs(v * y)), 0)
        return 0.5 * (across * across + down * down)

    least = jnp.minimum(power(x, other_y), power(other_x, y))
    return least <= limit * 1.0001 + 1e-4


def sorted_by_tile(
    tile_ids: Integer[Array, " m"], gaussian_ids: Int[Array, " m"], grid: Grid
) -> tuple[Int[Array, " m"], Int[Array, " s"], Int[Array, " m"]]:
    """See `Searches`: in order of tiles, in a tile in order of slots."""
    slots, tiles = tile_ids.shape[0], grid.all_tiles
    tile_ids, slot_ids = _sorted(tile_ids, tiles)
    hit = tile_ids < tiles
    hits = _placed(jnp.where(hit, jnp.arange(slots, dtype=jnp.int32), slots), slot_ids)
    gaussian_ids = jnp.where(hit, _permuted(gaussian_ids, slot_ids), grid.images * grid.count)
    return gaussian_ids, _ranges(tile_ids, tiles + 1), hits


def _ranges(tile_ids: Int[Array, " m"], stop: int) -> Int[Array, " s"]:
    """Where in sorted ids each of 0 ... stop - 1 begins; a GPU would start kernels for every turn of a loop."""
    wanted = jnp.arange(stop, dtype=jnp.int32)

    def search(method):
        return lambda ids, wanted: jnp.searchsorted(ids, wanted, method=method).astype(jnp.int32)

    return lax.platform_dependent(tile_ids, wanted, cpu=search("scan"), default=search("scan_unrolled"))


# Sorting


def _permuted(x: Array, order: Int[Array, " m"]) -> Array:
    """x in another order; what is known of a permutation spares XLA a look at negative indices."""
    return x.at[order].get(unique_indices=True, mode="promise_in_bounds", wrap_negative_indices=False)


def _placed(x: Array, order: Int[Array, " m"]) -> Array:
    """The inverse of `_permuted`."""
    how = {"unique_indices": True, "mode": "promise_in_bounds", "wrap_negative_indices": False}
    return jnp.zeros_like(x).at[order].set(x, **how)


def _by_depth(depths: Float[Array, " g"], first: int) -> Int[Array, " g"]:
    """The indices of positive depths from near to far, ties in order: bits of positive floats are ordered as they are.

    Depths of 64 bits fill a key of their own, with no room for the index.

    Args:
        first: so many come before the rest, whatever their depths.
    """
    divided, later = first < len(depths), jnp.arange(len(depths)) >= first
    if depths.dtype == jnp.float64:
        return jnp.lexsort((depths, later) if divided else (depths,)).astype(jnp.int32)
    keys = lax.bitcast_convert_type(depths.astype(jnp.float32), jnp.int32)
    if divided:
        keys = jnp.where(later, keys | -INT32_MAX - 1, keys)  # the sign is free
    return _sorted(keys, INT32_MAX)[1]


def _sorted(keys: Integer[Array, " m"], largest: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """int32 keys in order as if they had no sign, ties by their index, and the index where each was.

    Args:
        largest: none that is not negative is above it.
    """
    ways = {"cpu": sorted_packed, "default": sorted_stably}
    return lax.platform_dependent(keys, **{name: functools.partial(way, largest=largest) for name, way in ways.items()})


def sorted_packed(keys: Integer[Array, " m"], *, largest: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """Key and index as one number: XLA's CPU backend has a fast path for sorting one array of numbers.

    Args:
        largest: as for `_sorted`; where it and the index leave room for each other in 32 bits they share these.
    """
    bits = max(keys.shape[0] - 1, 1).bit_length()
    if largest >> (32 - bits):
        bits = 32
    wide = jnp.uint64 if bits == 32 else jnp.uint32
    with jax.enable_x64(bits == 32):
        packed = (keys.astype(wide) << bits) | jnp.arange(keys.shape[0], dtype=wide)
        packed = lax.sort(packed, is_stable=False)
        return (packed >> bits).astype(jnp.int32), (packed & ((1 << bits) - 1)).astype(jnp.int32)


def key_type(largest: int) -> type[np.unsignedinteger]:
    """The narrowest that CUB sorts."""
    return np.uint16 if largest < SHORT_KEYS else np.uint32


def sorted_stably(keys: Integer[Array, " m"], *, largest: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """One flat key with one value: what XLA hands to CUB, whose radix sort takes a pass for every 8 bits of the key."""
    narrow, indices = sorted_narrowly(keys.astype(key_type(largest)))
    return narrow.astype(jnp.int32), indices


def sorted_narrowly(keys: Integer[Array, " m"]) -> tuple[Integer[Array, " m"], Int[Array, " m"]]:
    """`sorted_stably` of what has its `key_type` already, and keeps it."""
    narrow, indices = lax.sort((keys, jnp.arange(keys.shape[0], dtype=jnp.int32)), num_keys=1, is_stable=True)
    return narrow, indices
