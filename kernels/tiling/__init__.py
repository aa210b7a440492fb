"""Which Gaussian touches which tile, in depth order, for any number of images in one flat list.

Shapes: i images, n Gaussians an image, g = i * n in all, m slots for tile hits, t = i * tiles_y * tiles_x tiles.
"""

import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

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


def to_tiles(image: Float[Array, "i h w c"], *, tile: tuple[int, int]) -> Float[Array, "t p c"]:
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
    conics: Float[Array, "i n 3"],
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
        conics: (a, b, c) of the inverse covariance [[a, b], [b, c]] in 1/pixel^2.
        opacities: in [0, 1]; 0 hides a Gaussian.
        depths: the order of blending; positive, infinite to hide a Gaussian.
        size: (width, height) of the images in pixels.
        tile: (width, height) of a tile in pixels.
        capacity: slots per image.
    """
    i, n = opacities.shape
    across, down = tile_grid(size, tile)
    flat = jax.tree.map(lambda x: x.reshape(i * n, *x.shape[2:]), (means2d, conics, opacities, depths))
    means2d, conics, opacities, depths = flat
    low, high, limit = _tile_box(means2d, conics, opacities, size, tile)
    visible = jnp.isfinite(depths) & (limit > 0)
    spans = jnp.where(visible[:, None], jnp.maximum(high - low, 0), 0)
    counts = spans[:, 0] * spans[:, 1]
    needed = counts.reshape(i, n).sum(1)
    # A need beyond 32 bits must not wrap around to a small one.
    needed = jnp.where(counts.reshape(i, n).sum(1, dtype=jnp.float32) > MOST, MOST, needed)
    counts = jnp.where(jnp.repeat(needed <= capacity, n), counts, 0)

    # Depth first over all images at once; slots then come in depth order, which the sort by tile keeps.
    nearness = lax.bitcast_convert_type(jnp.where(counts > 0, depths, jnp.inf).astype(jnp.float32), jnp.int32)
    _, order = _sort_pairs(nearness, jnp.arange(i * n))
    slots = i * capacity
    offsets = jnp.cumsum(counts[order]) - counts[order]
    rank = jnp.repeat(jnp.arange(i * n, dtype=jnp.int32), counts[order], total_repeat_length=slots)
    gaussian = order[rank]
    within = jnp.arange(slots, dtype=jnp.int32) - offsets[rank]
    columns = jnp.maximum(spans[gaussian, 0], 1)
    cell = low[gaussian] + jnp.stack([within % columns, within // columns], -1)
    used = jnp.arange(slots) < counts.sum()
    hit = used & _touches(cell, jnp.concatenate([means2d, conics, limit[:, None]], 1)[gaussian], tile)
    tiles = i * across * down
    key = (gaussian // n) * (across * down) + cell[:, 1] * across + cell[:, 0]
    key, slot = _sort_pairs(jnp.where(hit, key, tiles), jnp.arange(slots))
    ids = jnp.where(key < tiles, gaussian[slot], i * n).astype(jnp.int32)
    starts = jnp.searchsorted(key, jnp.arange(tiles + 1, dtype=jnp.int32), side="left").astype(jnp.int32)
    firsts = jnp.zeros(i * n, jnp.int32).at[order].set(offsets, unique_indices=True)
    place = jnp.where(key < tiles, jnp.arange(slots, dtype=jnp.int32), slots)
    places = jnp.zeros(slots, jnp.int32).at[slot].set(place, unique_indices=True)
    return TileHits(ids, starts, needed.astype(jnp.int32), firsts, counts, gaussian, places)


def _tile_box(means2d, conics, opacities, size, tile):
    """Tile ranges [low, high) around the ellipse where alpha reaches the floor, and the power limit of that ellipse."""
    limit = jnp.log(jnp.maximum(opacities, 1e-30) / ALPHA_FLOOR)  # keep where the power is at most this
    product = conics[:, 0] * conics[:, 2]
    exact = product - conics[:, 1] ** 2
    determinant = exact - ROUNDING * product  # a needle's may be all rounding: then its box is the whole image
    variances = jnp.stack([conics[:, 2], conics[:, 0]], -1) / jnp.maximum(determinant, 1e-30)[:, None]
    reach = jnp.sqrt(2 * jnp.maximum(limit, 0)[:, None] * variances)
    bounds, edges = jnp.asarray(tile_grid(size, tile)), jnp.asarray(tile)
    finite = jnp.isfinite(means2d).all(-1) & jnp.isfinite(conics).all(-1) & (exact > 0)
    # A pixel centre at x + 0.5 is inside [mean - reach, mean + reach]; clip before the cast, floats may be huge.
    low = jnp.clip(jnp.floor((means2d - reach - 0.5) / edges), 0, bounds)
    high = jnp.clip(jnp.floor((means2d + reach - 0.5) / edges) + 1, 0, bounds)
    low, high = (jnp.where(finite[:, None], x, 0).astype(jnp.int32) for x in (low, high))
    return low, high, jnp.where(finite, limit, 0)


def _sort_pairs(key, value):
    """Sorts non-negative int32 keys with their values, ties by value, as one 64-bit key: XLA's fast path on CPUs."""
    with jax.enable_x64(True):
        packed = (key.astype(jnp.uint64) << 32) | value.astype(jnp.uint64)
        packed = lax.sort(packed, is_stable=False)
        return (packed >> 32).astype(jnp.int32), (packed & 0xFFFFFFFF).astype(jnp.int32)


def _touches(cell, rows, tile):
    """Whether the ellipse reaches a pixel centre's rectangle: the least power over the tile is within the limit."""
    mean, a, b, c, limit = rows[:, :2], rows[:, 2], rows[:, 3], rows[:, 4], rows[:, 5]
    low = cell * jnp.asarray(tile) + 0.5
    high = low + (jnp.asarray(tile) - 1)
    near = jnp.clip(mean, low, high)
    offset = near - mean
    # The minimum of a convex form over a box lies on the facing vertical or horizontal side (or is the centre itself).
    other_y = jnp.clip(mean[:, 1] - b / c * offset[:, 0], low[:, 1], high[:, 1]) - mean[:, 1]
    other_x = jnp.clip(mean[:, 0] - b / a * offset[:, 1], low[:, 0], high[:, 0]) - mean[:, 0]

    def power(x, y):
        squares = 0.5 * (a * x * x + c * y * y)
        return squares + b * x * y - ROUNDING * squares

    least = jnp.minimum(power(offset[:, 0], other_y), power(other_x, offset[:, 1]))
    return least <= limit * 1.0001 + 1e-4
