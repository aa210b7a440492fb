"""Which Gaussian touches which tile, in depth order, for any number of images in one flat list.

Shapes: i images, n Gaussians an image, g = i * n in all, m slots for tile hits, t = i * tiles_y * tiles_x tiles.
"""

import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from jsplat.kernels.constants import ALPHA_FLOOR

MOST = 2**31 - 1
ROUNDING = 5e-7  # of float32, relative to the terms of a sum that may cancel: dropping must never be a matter of it


class TileHits(typing.NamedTuple):
    """The flat list of tile hits, and the way back to each Gaussian's own.

    Before it is sorted by tile the list holds one run of slots for each Gaussian, for the tiles of its box. The last
    four entries describe that list of runs; what nobody reads of it costs nothing under `jit`.

    Attributes:
        ids: rows into the flattened Gaussians, grouped by tile, nearest first; g past the end.
        starts: first place of each tile, and the number of hits as the last entry.
        needed: slots each image wanted; an image that wanted more than it may have got no hits at all.
        firsts, counts: first slot and length of each Gaussian's run.
        owners: the Gaussian whose run a slot belongs to; any one past the last run.
        places: where in `ids` a slot went; m where its tile turned out not to be hit.
    """

    ids: Int[Array, " m"]
    starts: Int[Array, " t+1"]
    needed: Int[Array, " i"]
    firsts: Int[Array, " g"]
    counts: Int[Array, " g"]
    owners: Int[Array, " m"]
    places: Int[Array, " m"]


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
    """
    i, n = opacities.shape
    across, down = tile_grid(size, tile)
    flat = jax.tree.map(lambda x: x.reshape(i * n, *x.shape[2:]), (means2d, conic_roots, opacities, depths))
    means2d, conic_roots, opacities, depths = flat
    low, high, limit = _tile_box(means2d, conic_roots, opacities, size, tile)
    visible = jnp.isfinite(depths) & (limit > 0)
    spans = jnp.where(visible[:, None], jnp.maximum(high - low, 0), 0)
    counts = spans[:, 0] * spans[:, 1]
    needed = counts.reshape(i, n).sum(1)
    # A need beyond 32 bits must not wrap around to a small one.
    needed = jnp.where(counts.reshape(i, n).sum(1, dtype=jnp.float32) > MOST, MOST, needed)
    counts = jnp.where(jnp.repeat(needed <= capacity, n), counts, 0)

    # Depth first over all images at once; slots then come in depth order, which the sort by tile keeps.
    order = _by_depth(jnp.where(counts > 0, depths, jnp.inf))
    slots = i * capacity
    offsets = jnp.cumsum(counts[order]) - counts[order]
    # Gaussians without slots come last in the order, so that every mark is another Gaussian's.
    begins = jnp.where(counts[order] > 0, offsets, slots)
    marks = jnp.zeros(slots, jnp.int32).at[begins].set(1, mode="drop", unique_indices=True)
    rank = jnp.cumsum(marks) - 1
    gaussian = order[rank]
    within = jnp.arange(slots, dtype=jnp.int32) - offsets[rank]
    columns = jnp.maximum(spans[gaussian, 0], 1)
    column, row = low[gaussian, 0] + within % columns, low[gaussian, 1] + within // columns
    used = jnp.arange(slots) < counts.sum()
    hit = used & _touches(column, row, jnp.concatenate([means2d, conic_roots, limit[:, None]], 1)[gaussian], tile)
    tiles = i * across * down
    key = (gaussian // n) * (across * down) + row * across + column
    key, slot = _sorted(jnp.where(hit, key, tiles), tiles)
    ids = jnp.where(key < tiles, gaussian[slot], i * n).astype(jnp.int32)
    starts = _firsts_of(key, tiles + 1)
    firsts = jnp.zeros(i * n, jnp.int32).at[order].set(offsets, unique_indices=True)
    place = jnp.where(key < tiles, jnp.arange(slots, dtype=jnp.int32), slots)
    places = jnp.zeros(slots, jnp.int32).at[slot].set(place, unique_indices=True)
    return TileHits(ids, starts, needed.astype(jnp.int32), firsts, counts, gaussian, places)


def _tile_box(means2d, conic_roots, opacities, size, tile):
    """Tile ranges [low, high) around the ellipse where alpha reaches the floor, and the power limit of that ellipse."""
    limit = jnp.log(jnp.maximum(opacities, 1e-30) / ALPHA_FLOOR)  # keep where the power is at most this
    u, v, w = conic_roots.T
    deviations = jnp.stack([jnp.sqrt(1 + (v / w) ** 2) / u, 1 / w], -1)
    reach = jnp.sqrt(2 * jnp.maximum(limit, 0))[:, None] * deviations * (1 + 4 * ROUNDING)
    bounds, edges = jnp.asarray(tile_grid(size, tile)), jnp.asarray(tile)
    finite = jnp.isfinite(means2d).all(-1) & jnp.isfinite(conic_roots).all(-1) & (u > 0) & (w > 0)
    # A pixel centre at x + 0.5 is inside [mean - reach, mean + reach]; clip before the cast, floats may be huge.
    low = jnp.clip(jnp.floor((means2d - reach - 0.5) / edges), 0, bounds)
    high = jnp.clip(jnp.floor((means2d + reach - 0.5) / edges) + 1, 0, bounds)
    low, high = (jnp.where(finite[:, None], x, 0).astype(jnp.int32) for x in (low, high))
    return low, high, jnp.where(finite, limit, 0)


def _by_depth(depths: Float[Array, " g"]) -> Int[Array, " g"]:
    """The places of positive depths from near to far, ties in order; bits of positive floats are ordered as they are.

    Depths of 64 bits fill a key of their own, with no room for the place.
    """
    if depths.dtype == jnp.float64:
        return jnp.argsort(depths, stable=True).astype(jnp.int32)
    return _sorted(lax.bitcast_convert_type(depths.astype(jnp.float32), jnp.int32), MOST)[1]


def _sorted(key: Int[Array, " m"], most: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """Non-negative int32 keys in order, ties by their place, and the place where each was; none is above `most`."""
    return lax.platform_dependent(key, cpu=sorted_packed, default=functools.partial(sorted_stably, most=most))


def sorted_packed(key: Int[Array, " m"]) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """Key and place as one 64-bit number: XLA's CPU backend has a fast path for sorting one array of numbers."""
    with jax.enable_x64(True):
        place = jnp.arange(key.shape[0], dtype=jnp.uint64)
        packed = lax.sort((key.astype(jnp.uint64) << 32) | place, is_stable=False)
        return (packed >> 32).astype(jnp.int32), (packed & 0xFFFFFFFF).astype(jnp.int32)


def sorted_stably(key: Int[Array, " m"], *, most: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """One flat key with one value: what XLA hands to CUB, whose radix sort takes a turn for every 8 bits of the key."""
    narrow = key.astype(jnp.uint16 if most < 1 << 16 else jnp.uint32)
    place = jnp.arange(key.shape[0], dtype=jnp.int32)
    narrow, place = lax.sort((narrow, place), num_keys=1, is_stable=True)
    return narrow.astype(jnp.int32), place


def _firsts_of(key: Int[Array, " m"], stop: int) -> Int[Array, " s"]:
    """Where in sorted keys each of 0 ... stop - 1 begins; a GPU would start kernels for every turn of a loop."""
    wanted = jnp.arange(stop, dtype=jnp.int32)

    def search(method):
        return lambda key, wanted: jnp.searchsorted(key, wanted, method=method).astype(jnp.int32)

    return lax.platform_dependent(key, wanted, cpu=search("scan"), default=search("scan_unrolled"))


def _touches(column, row, rows, tile):
    """Whether the ellipse reaches a pixel centre's rectangle: the least power over the tile is within the limit."""
    mean_x, mean_y, u, v, w, limit = (rows[:, k] for k in range(6))
    left, top = column * tile[0] + 0.5, row * tile[1] + 0.5
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
