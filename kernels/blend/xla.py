"""`blend` in XLA: chunks of a tile's depth-sorted list, processed in blocks of one flat list over all images.

A chunk is K consecutive hits of one tile; a block is B consecutive chunks. The loop over blocks runs exactly as often
as there are used blocks, so neither capacity nor the longest tile costs time. A tile's chunks follow one another, so
the transmittance (forward) and the running sum (backward) at a chunk's start come from a scan within the block and one
carried row across blocks.
"""

import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend.gradients import root_moments, shape_gradients, whole_sum
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import TileHits, bin_tiles, from_tiles, tile_grid, to_tiles

TILE = (8, 8)  # width and height in pixels
PIXELS = TILE[0] * TILE[1]
CHUNK = 32
BLOCK = 64  # with 32 hits and 64 pixels: 512 KiB an array, so that work for every core is in each operation
OPAQUE = 1e-30  # transmittance of a chunk below which its logarithm is not needed: the stop came long before

_einsum = functools.partial(jnp.einsum, precision="highest")  # GPUs would else round the factors to 10 bits


class Chunks(typing.NamedTuple):
    """Which hits each chunk covers; s slots for chunks, a multiple of BLOCK."""

    tile: Int[Array, " s"]
    start: Int[Array, " s"]
    length: Int[Array, " s"]
    used: Int[Array, ""]


def _chunks(hits: TileHits) -> Chunks:
    tiles, images = hits.starts.shape[0] - 1, hits.needed.shape[0]
    lengths = hits.starts[1:] - hits.starts[:-1]
    counts = -(-lengths // CHUNK)
    # Empty chunks in an image's last tile fill its last block up: then no sum depends on what else is in the batch.
    counts = counts.reshape(images, -1)
    counts = counts.at[:, -1].add((-counts.sum(1) % BLOCK).astype(counts.dtype)).reshape(-1)
    slots = (-(-(hits.ids.shape[0] // CHUNK + tiles) // BLOCK) + images) * BLOCK
    first = jnp.cumsum(counts) - counts
    used = counts.sum()
    tile = jnp.repeat(jnp.arange(tiles, dtype=jnp.int32), counts, total_repeat_length=slots)
    within = (jnp.arange(slots, dtype=jnp.int32) - first[tile]) * CHUNK
    live = jnp.arange(slots) < used
    length = jnp.where(live, jnp.clip(lengths[tile] - within, 0, CHUNK), 0)
    return Chunks(jnp.where(live, tile, tiles), hits.starts[tile] + within, length, used)


def _table(means2d, conic_roots, opacities, depths):
    """Rows (x, y, u, v, w, opacity, depth, 1) of all images, and a row of nothing for empty slots."""
    depths = jnp.where(jnp.isfinite(depths), depths, 0.0).astype(opacities.dtype)
    rest = jnp.stack([opacities, depths, jnp.ones_like(opacities)], -1)
    rows = jnp.concatenate([means2d, conic_roots, rest], -1)
    return jnp.concatenate([rows.reshape(-1, 8), jnp.zeros((1, 8), rows.dtype)])


def _values(features, owner, count, rows, ids):
    """What the hits blend: the features of their image's set, depth, and 1 (its blend is alpha).

    An empty slot blends zeros, not some other row: 0 * NaN is NaN.
    """
    painted = features.reshape(-1, features.shape[-1])
    whose = owner.at[ids // count].get(mode="fill", fill_value=features.shape[0]) * count + ids % count
    painted = painted.at[whose].get(mode="fill", fill_value=0)
    return jnp.concatenate([painted, rows[..., 6:8]], -1)


def _block_rows(index, chunks, hits, nobody):
    """Tile and Gaussian ids of one block's chunks; `nobody` in empty slots."""
    tile, start, length = (lax.dynamic_slice_in_dim(x, index * BLOCK, BLOCK) for x in chunks[:3])
    lane = jnp.arange(CHUNK, dtype=jnp.int32)
    ids = hits.ids.at[start[:, None] + lane].get(mode="fill", fill_value=nobody)
    return tile, jnp.where(lane < length[:, None], ids, nobody)


def _local(rows, tile, grid):
    """Means relative to the tile's centre: small numbers keep float32 exact."""
    across, down = grid
    within = tile % (across * down)
    edges = jnp.asarray(TILE)
    center = jnp.stack([within % across, within // across], -1) * edges + edges // 2
    return rows[..., :2] - center[:, None, :].astype(rows.dtype)


def _pixels(dtype):
    """x and y of a tile's pixel centres relative to the tile's centre."""
    y, x = jnp.divmod(jnp.arange(PIXELS), TILE[0])
    return (x + 0.5 - TILE[0] // 2).astype(dtype), (y + 0.5 - TILE[1] // 2).astype(dtype)


def _offsets(local):
    """Mean minus pixel centre."""
    x, y = _pixels(local.dtype)
    return local[..., 0, None] - x, local[..., 1, None] - y


def _alphas(rows, dx, dy):
    u, v, w, opacity = (rows[..., k, None] for k in range(2, 6))
    across, down = u * dx + v * dy, w * dy
    return opacity * jnp.exp(-0.5 * (across * across + down * down))


def _running_product(x):
    """Exclusive running product along axis 1, and the product of all."""
    inclusive = lax.associative_scan(jnp.multiply, x, axis=1)
    return jnp.concatenate([jnp.ones_like(x[:, :1]), inclusive[:, :-1]], 1), inclusive[:, -1]


def _across_chunks(totals, tile, last, carried):
    """Sum at each chunk's start over the chunks of the same tile before it, and the sum after the last chunk.

    Args:
        totals: sum of each chunk, `b p`.
        tile: of each chunk, `b`; chunks of a tile follow one another.
        last, carried: tile of the chunk before the block, and the sum after that chunk.
    """
    place = jnp.arange(tile.shape[0])
    before = (tile[:, None] == tile) & (place[:, None] > place)
    totals = jnp.where(jnp.isfinite(totals), totals, 0.0)  # 0 * NaN: one image's NaN would reach its neighbours
    start = _einsum("jk,kp->jp", before.astype(totals.dtype), totals)
    start = start + jnp.where((tile == last)[:, None], carried, 0.0)
    return start, start[-1] + totals[-1]


def _weights(rows, dx, dy, tile, last, carried):
    """Blend weights and what the backward pass needs with them; the logarithm of the transmittance is carried."""
    raw = _alphas(rows, dx, dy)
    alpha = jnp.where(raw >= ALPHA_FLOOR, jnp.minimum(raw, ALPHA_CEILING), 0.0)
    inner, total = _running_product(1 - alpha)
    start, carried = _across_chunks(jnp.log(jnp.maximum(total, OPAQUE)), tile, last, carried)
    before = jnp.exp(start)[:, None, :] * inner
    kept = before >= TRANSMITTANCE_STOP
    return raw, alpha, before, jnp.where(kept, alpha * before, 0.0), kept, carried


def _moments(power):
    """Sums over the pixels of each pair's `power` times 1, x, y, xx, xy, yy about the tile's centre."""
    x, y = _pixels(power.dtype)
    return _einsum("bkp,pm->bkm", power, jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], -1))


def _shaping(x, shape_channels):
    """The channels that may move the geometry, depth and alpha among them; by slices, a gather is slow on CPUs."""
    if shape_channels == x.shape[-1] - 2:
        return x
    return jnp.concatenate([x[..., :shape_channels], x[..., -2:]], -1)


@functools.partial(jax.jit, static_argnames=("size", "capacity"))
def forward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    *,
    size: tuple[int, int],
    capacity: int,
) -> tuple[Float[Array, "i h w c+2"], Int[Array, " i"]]:
    """The blend of features, depth and 1, and the tile hits each image needed; see `jsplat.kernels.blend`."""
    grid = tile_grid(size, TILE)
    hits = bin_tiles(means2d, conic_roots, opacities, depths, size=size, tile=TILE, capacity=capacity)
    chunks = _chunks(hits)
    table, (images, count) = _table(means2d, conic_roots, opacities, depths), opacities.shape
    tiles = hits.starts.shape[0] - 1

    def block(index, state):
        out, carried, last = state
        tile, ids = _block_rows(index, chunks, hits, images * count)
        rows = table[ids]
        *_, weight, _, carried = _weights(rows, *_offsets(_local(rows, tile, grid)), tile, last, carried)
        # Channels first, and behind a barrier, or XLA would take the transpose into a product that is slow on CPUs.
        values = lax.optimization_barrier(jnp.swapaxes(_values(features, owner, count, rows, ids), 1, 2))
        return out.at[tile].add(_einsum("bck,bkp->bcp", values, weight), mode="drop"), carried, tile[-1]

    pixels, channels = PIXELS, features.shape[-1] + 2
    start = (jnp.zeros((tiles, channels, pixels), table.dtype), jnp.zeros(pixels, table.dtype), jnp.int32(-1))
    out, *_ = lax.fori_loop(0, -(-chunks.used // BLOCK), block, start)
    return from_tiles(jnp.swapaxes(out, 1, 2), size=size, tile=TILE), hits.needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels"))
def backward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    image: Float[Array, "i h w c+2"],
    grad: Float[Array, "i h w c+2"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
) -> tuple[
    Float[Array, "i n 2"], Float[Array, "i n 3"], Float[Array, "i n"], Float[Array, "i n"], Float[Array, "f n c"]
]:
    """Gradients of sum(image * grad) for all but `owner`, recomputed front to back; `image` is what `forward` gave.

    With v = grad . feature and the sum of weight * v over a pixel's whole list, which is image . grad, the gradient
    of a Gaussian's alpha is T v - (whole sum - running sum) / (1 - alpha).
    """
    grid = tile_grid(size, TILE)
    # Under one jit XLA merges this binning with the forward pass's own.
    hits = bin_tiles(means2d, conic_roots, opacities, depths, size=size, tile=TILE, capacity=capacity)
    chunks = _chunks(hits)
    whole, grad = (to_tiles(x, tile=TILE) for x in (whole_sum(image, grad, shape_channels), grad))
    across = jnp.swapaxes(_shaping(grad, shape_channels), 1, 2)
    table, (images, count) = _table(means2d, conic_roots, opacities, depths), opacities.shape

    def block(index, state):
        sums, through, running, last = state
        tile, ids = _block_rows(index, chunks, hits, images * count)
        rows = table[ids]
        local = _local(rows, tile, grid)
        dx, dy = _offsets(local)
        raw, alpha, before, weight, kept, through = _weights(rows, dx, dy, tile, last, through)
        upstream = grad.at[tile].get(mode="fill", fill_value=0.0)
        values = _shaping(_values(features, owner, count, rows, ids), shape_channels)
        v = _einsum("bkc,bcp->bkp", values, across.at[tile].get(mode="fill", fill_value=0.0))
        share = weight * v
        inner = _einsum("kj,bjp->bkp", jnp.tri(CHUNK, dtype=share.dtype), share)  # inclusive running sum
        start, running = _across_chunks(inner[:, -1], tile, last, running)
        rest = whole.at[tile, :, 0].get(mode="fill", fill_value=0.0)[:, None] - (start[:, None] + inner)
        live = kept & (raw >= ALPHA_FLOOR) & (raw < ALPHA_CEILING)
        # d loss / d power = -alpha * d loss / d alpha; where alpha is clipped neither opacity nor shape matters.
        power = jnp.where(live, -alpha * (before * v - rest / (1 - alpha)), 0.0)
        shape = shape_gradients(root_moments(_moments(power), local, rows[..., 2:5]), rows[..., 2:5], rows[..., 5])
        painted = _einsum("bkp,bpc->bkc", weight, upstream[..., :-1])  # features and depth
        update = jnp.concatenate([shape, painted], -1)
        return sums.at[ids].add(update, mode="drop"), through, running, tile[-1]

    zeros = jnp.zeros(PIXELS, table.dtype)
    width = 6 + features.shape[-1] + 1
    start = (jnp.zeros((images * count + 1, width), table.dtype), zeros, zeros, jnp.int32(-1))
    sums, *_ = lax.fori_loop(0, -(-chunks.used // BLOCK), block, start)
    sums = sums[:-1].reshape(images, count, width)
    painted = jnp.zeros(features.shape, sums.dtype).at[owner].add(sums[..., 6:-1])
    return sums[..., :2], sums[..., 2:5], sums[..., 5], sums[..., -1], painted
