"""`blend` in XLA: chunks of a tile's depth-sorted list, processed in blocks of one flat list over all images.

A chunk is CHUNK consecutive hits of one tile; a block is BLOCK consecutive chunks. The loop runs exactly as often as
there are used blocks, TURN of them at a time, so neither capacity nor the longest tile costs time. A tile's chunks
follow one another, so the transmittance (forward) and the running sum (backward) at a chunk's start come from a scan
within the block and one carried row of pixels across blocks.
"""

import functools
import itertools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend.gradients import image_dot_grad, root_moments, shape_gradients
from jsplat.kernels.blend.splats import Shown, Splats, nan_gradients, nan_where
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import TileHits, bin_tiles, from_tiles, tile_grid, to_tiles

TILE = (8, 8)  # width and height in pixels
PIXELS = TILE[0] * TILE[1]
CHUNK = 32
BLOCK = 32  # with 32 hits and 64 pixels: 256 KiB an array, which a core's cache holds several of
TURN = 2  # blocks of one turn of the loop: what of one is not divided among cores goes on beside the other
GROUP = 8  # hits of a chunk that a processor takes in one turn of a running total; divides CHUNK
OPAQUE = 1e-30  # transmittance of a chunk below which its logarithm is not needed: the stop came long before

# Columns of the table of Gaussians.
MEAN, ROOTS, OPACITY, DEPTH_AND_ONE, COLUMNS = slice(0, 2), slice(2, 5), 5, slice(6, 8), 8

_NEUTRAL = {lax.mul: 1, lax.add: 0}

_einsum = functools.partial(jnp.einsum, precision="highest")  # GPUs would else round the factors to 10 bits


class Chunks(typing.NamedTuple):
    """Which hits each chunk covers; s slots for chunks, a multiple of BLOCK * TURN."""

    tile_ids: Int[Array, " s"]
    offsets: Int[Array, " s"]
    lengths: Int[Array, " s"]
    used: Int[Array, ""]


class _Alphas(typing.NamedTuple):
    """Of a block's chunks, hits and pixels, `b k p`: opacity * exp(-power), alpha, T before each hit, and weight."""

    unclipped: Array
    alpha: Array
    transmittance: Array
    weight: Array


def _chunks(hits: TileHits) -> Chunks:
    tiles, images = hits.tile_offsets.shape[0] - 1, hits.needed.shape[0]
    tile_lengths = hits.tile_offsets[1:] - hits.tile_offsets[:-1]
    counts = -(-tile_lengths // CHUNK)
    # Empty chunks in an image's last tile fill its last turn up: then no sum depends on what else is in the batch.
    counts, whole = counts.reshape(images, -1), BLOCK * TURN
    counts = counts.at[:, -1].add((-counts.sum(1) % whole).astype(counts.dtype)).reshape(-1)
    slots = (-(-(hits.gaussian_ids.shape[0] // CHUNK + tiles) // whole) + images) * whole
    first = jnp.cumsum(counts) - counts
    used = counts.sum()
    tile_ids = jnp.repeat(jnp.arange(tiles, dtype=jnp.int32), counts, total_repeat_length=slots)
    within = (jnp.arange(slots, dtype=jnp.int32) - first[tile_ids]) * CHUNK
    live = jnp.arange(slots) < used
    lengths = jnp.where(live, jnp.clip(tile_lengths[tile_ids] - within, 0, CHUNK), 0)
    return Chunks(jnp.where(live, tile_ids, tiles), hits.tile_offsets[tile_ids] + within, lengths, used)


def _table(splats: Splats) -> Float[Array, "r 8"]:
    """(x, y, u, v, w, opacity, depth, 1) of the Gaussians of all images, and of nothing for empty slots."""
    depths = jnp.where(jnp.isfinite(splats.depths), splats.depths, 0.0).astype(splats.opacities.dtype)
    rest = jnp.stack([splats.opacities, depths, jnp.ones_like(splats.opacities)], -1)
    table = jnp.concatenate([splats.means2d, splats.conic_roots, rest], -1)
    return jnp.concatenate([table.reshape(-1, COLUMNS), jnp.zeros((1, COLUMNS), table.dtype)])


def _values(features, set_ids, count, gaussians, ids):
    """What the hits blend: the features of their image's set, depth, and 1 (its blend is alpha).

    An empty slot blends zeros, not the features of some Gaussian: 0 * NaN is NaN.
    """
    flat = features.reshape(-1, features.shape[-1])
    sets = set_ids.at[ids // count].get(mode="fill", fill_value=features.shape[0])
    values = flat.at[sets * count + ids % count].get(mode="fill", fill_value=0)
    return jnp.concatenate([values, gaussians[..., DEPTH_AND_ONE]], -1)


def _block(index, chunks, hits, absent):
    """Tiles and Gaussians of one block's chunks, `b` and `b k`; `absent` in empty slots."""
    tile_ids, offsets, lengths = (lax.dynamic_slice_in_dim(x, index * BLOCK, BLOCK) for x in chunks[:3])
    within = jnp.arange(CHUNK, dtype=jnp.int32)
    ids = hits.gaussian_ids.at[offsets[:, None] + within].get(mode="fill", fill_value=absent)
    return tile_ids, jnp.where(within < lengths[:, None], ids, absent)


def _over_blocks(block, chunks, start):
    """The state after `block(index, state)` of every used block."""

    def turn(index, state):
        for k in range(TURN):
            state = block(index * TURN + k, state)
        return state

    return lax.fori_loop(0, -(-chunks.used // (BLOCK * TURN)), turn, start)


def _means_in_tiles(gaussians, tile_ids, grid):
    """Means relative to the tile's centre: small numbers keep float32 exact."""
    across, down = grid
    within = tile_ids % (across * down)
    edges = jnp.asarray(TILE)
    center = jnp.stack([within % across, within // across], -1) * edges + edges // 2
    return gaussians[..., MEAN] - center[:, None, :].astype(gaussians.dtype)


def _pixels(dtype):
    """x and y of a tile's pixel centres relative to the tile's centre."""
    y, x = jnp.divmod(jnp.arange(PIXELS), TILE[0])
    return (x + 0.5 - TILE[0] // 2).astype(dtype), (y + 0.5 - TILE[1] // 2).astype(dtype)


def _unclipped_alphas(gaussians, means):
    """opacity * exp(-power); `means` relative to the tile's centre."""
    x, y = _pixels(means.dtype)
    dx, dy = means[..., 0, None] - x, means[..., 1, None] - y
    u, v, w = (root[..., None] for root in jnp.moveaxis(gaussians[..., ROOTS], -1, 0))
    across, down = u * dx + v * dy, w * dy
    return gaussians[..., OPACITY, None] * jnp.exp(-0.5 * (across * across + down * down))


def _running(operation, x, inclusive):
    """Running totals along axis 1; a GPU would start kernels for every turn."""
    ways = {"cpu": _in_turn, "default": _by_doubling}
    given = {"operation": operation, "inclusive": inclusive}
    return lax.platform_dependent(x, **{name: functools.partial(way, **given) for name, way in ways.items()})


def _in_turn(x, operation, inclusive):
    """GROUP hits at a time, for each turn of a loop on a processor costs as much as some of them."""
    groups = x.reshape(x.shape[0], -1, GROUP, x.shape[2])
    nothing = jnp.full_like(groups[:, :, 0], _NEUTRAL[operation])
    within = list(itertools.accumulate((groups[:, :, k] for k in range(GROUP)), operation))
    # Behind a barrier, or XLA would compute all of them anew for what reads the last one.
    within = lax.optimization_barrier(jnp.stack(within if inclusive else [nothing, *within[:-1]], 2))
    totals = within[:, :, -1] if inclusive else operation(within[:, :, -1], groups[:, :, -1])

    def turn(k, state):
        total, before = state
        before = lax.dynamic_update_slice_in_dim(before, total[:, None], k, 1)
        return operation(total, lax.dynamic_index_in_dim(totals, k, 1, keepdims=False)), before

    _, before = lax.fori_loop(0, groups.shape[1], turn, (nothing[:, 0], jnp.zeros_like(totals)))
    return operation(within, before[:, :, None]).reshape(x.shape)


def _by_doubling(x, operation, inclusive):
    totals = lax.associative_scan(operation, x, axis=1)
    nothing = jnp.full_like(x[:, :1], _NEUTRAL[operation])
    return totals if inclusive else jnp.concatenate([nothing, totals[:, :-1]], 1)


def _across_chunks(totals, tile_ids, last_tile, carried):
    """Sum at each chunk's start over the chunks of the same tile before it, and the sum after the last chunk.

    Args:
        totals: sum of each chunk, `b p`.
        tile_ids: of each chunk, `b`; chunks of a tile follow one another.
        last_tile, carried: tile of the chunk before the block, and the sum after that chunk.
    """
    chunk = jnp.arange(tile_ids.shape[0])
    before = (tile_ids[:, None] == tile_ids) & (chunk[:, None] > chunk)
    totals = jnp.where(jnp.isfinite(totals), totals, 0.0)  # 0 * NaN: one image's NaN would reach its neighbours
    start = _einsum("jk,kp->jp", before.astype(totals.dtype), totals)
    start = start + jnp.where((tile_ids == last_tile)[:, None], carried, 0.0)
    return start, start[-1] + totals[-1]


def _alphas(gaussians, means, tile_ids, last_tile, log_transmittance) -> tuple[_Alphas, Array]:
    """Of a block; what is carried from block to block is the logarithm of the transmittance."""
    unclipped = _unclipped_alphas(gaussians, means)
    alpha = jnp.where(unclipped >= ALPHA_FLOOR, jnp.minimum(unclipped, ALPHA_CEILING), 0.0)
    in_chunk = _running(lax.mul, 1 - alpha, inclusive=False)
    total = in_chunk[:, -1] * (1 - alpha[:, -1])
    log_total = jnp.log(jnp.maximum(total, OPAQUE))
    start, log_transmittance = _across_chunks(log_total, tile_ids, last_tile, log_transmittance)
    transmittance = jnp.exp(start)[:, None, :] * in_chunk
    weight = jnp.where(transmittance >= TRANSMITTANCE_STOP, alpha * transmittance, 0.0)
    return _Alphas(unclipped, alpha, transmittance, weight), log_transmittance


def _moments(grad_power):
    """Sums over the pixels of the gradients of powers times 1, x, y, xx, xy, yy about the tile's centre."""
    x, y = _pixels(grad_power.dtype)
    return _einsum("bkp,pm->bkm", grad_power, jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], -1))


def _shaping(x, shape_channels):
    """The channels that may move the geometry, depth and alpha among them; by slices, a gather is slow on CPUs."""
    if shape_channels == x.shape[-1] - 2:
        return x
    return jnp.concatenate([x[..., :shape_channels], x[..., -2:]], -1)


@functools.partial(jax.jit, static_argnames=("size", "capacity"))
def forward(
    splats: Splats, set_ids: Int[Array, " i"], *, size: tuple[int, int], capacity: int
) -> tuple[Shown, Int[Array, " i"]]:
    """What the Gaussians show, and the tile hits each image needed; see `kernels.blend`."""
    grid = tile_grid(size, TILE)
    # Under one jit XLA merges this binning with the backward pass's own.
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity)
    chunks = _chunks(hits)
    table, (images, count) = _table(splats), splats.opacities.shape
    tiles = hits.tile_offsets.shape[0] - 1

    def block(index, state):
        image, log_transmittance, last_tile = state
        tile_ids, ids = _block(index, chunks, hits, images * count)
        gaussians = table[ids]
        means = _means_in_tiles(gaussians, tile_ids, grid)
        alphas, log_transmittance = _alphas(gaussians, means, tile_ids, last_tile, log_transmittance)
        # Channels first, and behind a barrier, or XLA would take the transpose into a product that is slow on CPUs.
        values = _values(splats.features, set_ids, count, gaussians, ids)
        values = lax.optimization_barrier(jnp.swapaxes(values, 1, 2))
        image = image.at[tile_ids].add(_einsum("bck,bkp->bcp", values, alphas.weight), mode="drop")
        return image, log_transmittance, tile_ids[-1]

    channels = splats.features.shape[-1] + 2
    start = (jnp.zeros((tiles, channels, PIXELS), table.dtype), jnp.zeros(PIXELS, table.dtype), jnp.int32(-1))
    image, *_ = _over_blocks(block, chunks, start)
    image = from_tiles(jnp.swapaxes(image, 1, 2), size=size, tile=TILE)
    return Shown.of(nan_where(hits.needed > capacity, image)), hits.needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels"))
def backward(
    splats: Splats,
    set_ids: Int[Array, " i"],
    shown: Shown,
    grad_shown: Shown,
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
) -> Splats:
    """Gradients of sum(shown * grad_shown), recomputed front to back; `shown` is what `forward` gave.

    The gradient of a weight is grad_shown . feature. The sum of weight * that over a pixel's whole list is
    shown . grad_shown, so that what lies behind a Gaussian is the whole less the running sum. With T for the
    transmittance, the gradient of an alpha is T * (gradient of the weight) - (sum behind) / (1 - alpha).

    The same bits on every run on processors alone: a GPU scatters a block by atomics.
    """
    grid = tile_grid(size, TILE)
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity)
    chunks = _chunks(hits)
    image, grad_image = shown.image, grad_shown.image
    whole = to_tiles(image_dot_grad(image, grad_image, shape_channels), tile=TILE)
    grad_tiles = to_tiles(grad_image, tile=TILE)
    shaping_tiles = jnp.swapaxes(_shaping(grad_tiles, shape_channels), 1, 2)
    table, (images, count) = _table(splats), splats.opacities.shape

    def block(index, state):
        grads, log_transmittance, running, last_tile = state
        tile_ids, ids = _block(index, chunks, hits, images * count)
        gaussians = table[ids]
        means = _means_in_tiles(gaussians, tile_ids, grid)
        alphas, log_transmittance = _alphas(gaussians, means, tile_ids, last_tile, log_transmittance)
        upstream = grad_tiles.at[tile_ids].get(mode="fill", fill_value=0.0)
        values = _shaping(_values(splats.features, set_ids, count, gaussians, ids), shape_channels)
        shaping = shaping_tiles.at[tile_ids].get(mode="fill", fill_value=0.0)
        grad_weight = _einsum("bkc,bcp->bkp", values, shaping)

        terms = alphas.weight * grad_weight
        in_chunk = _running(lax.add, terms, inclusive=True)
        start, running = _across_chunks(in_chunk[:, -1], tile_ids, last_tile, running)
        whole_here = whole.at[tile_ids, :, 0].get(mode="fill", fill_value=0.0)
        behind = whole_here[:, None] - (start[:, None] + in_chunk)

        # Where alpha is clipped neither opacity nor shape matters.
        in_range = (alphas.unclipped >= ALPHA_FLOOR) & (alphas.unclipped < ALPHA_CEILING)
        live = in_range & (alphas.transmittance >= TRANSMITTANCE_STOP)
        grad_alpha = alphas.transmittance * grad_weight - behind / (1 - alphas.alpha)
        grad_power = jnp.where(live, -alphas.alpha * grad_alpha, 0.0)
        roots = gaussians[..., ROOTS]
        grad_shape = shape_gradients(root_moments(_moments(grad_power), means, roots), roots, gaussians[..., OPACITY])
        grad_values = _einsum("bkp,bpc->bkc", alphas.weight, upstream[..., :-1])  # of features and depth
        grads = grads.at[ids].add(jnp.concatenate([grad_shape, grad_values], -1), mode="drop")
        return grads, log_transmittance, running, tile_ids[-1]

    zeros = jnp.zeros(PIXELS, table.dtype)
    width = 6 + splats.features.shape[-1] + 1  # means, roots and opacity; features; depth
    start = (jnp.zeros((images * count + 1, width), table.dtype), zeros, zeros, jnp.int32(-1))
    grads, *_ = _over_blocks(block, chunks, start)
    grads = grads[:-1].reshape(images, count, width)
    grad_features = jnp.zeros(splats.features.shape, grads.dtype).at[set_ids].add(grads[..., 6:-1])
    gradients = Splats(grads[..., :2], grads[..., 2:5], grads[..., 5], grads[..., -1], grad_features)
    return nan_gradients(hits.needed > capacity, set_ids, gradients)


@functools.partial(jax.jit, static_argnames=("size", "capacity"))
def splat_sums(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    pictures: Float[Array, "i h w c"],
    *,
    size: tuple[int, int],
    capacity: int,
) -> tuple[Float[Array, "i n c"], Int[Array, " i"]]:
    """Of each Gaussian the sum over pixels of its weight times the picture: the gradient of its features alone.

    The same bits as `backward`'s, without the image and without what moves the geometry.
    """
    splats = Splats(means2d, conic_roots, opacities, depths, jnp.zeros((1, opacities.shape[1], 0), opacities.dtype))
    grid = tile_grid(size, TILE)
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity)
    chunks = _chunks(hits)
    pixels = to_tiles(pictures, tile=TILE)
    table, (images, count) = _table(splats), opacities.shape

    def block(index, state):
        sums, log_transmittance, last_tile = state
        tile_ids, ids = _block(index, chunks, hits, images * count)
        gaussians = table[ids]
        means = _means_in_tiles(gaussians, tile_ids, grid)
        alphas, log_transmittance = _alphas(gaussians, means, tile_ids, last_tile, log_transmittance)
        seen = pixels.at[tile_ids].get(mode="fill", fill_value=0.0)
        sums = sums.at[ids].add(_einsum("bkp,bpc->bkc", alphas.weight, seen), mode="drop")
        return sums, log_transmittance, tile_ids[-1]

    zeros = jnp.zeros((images * count + 1, pictures.shape[-1]), table.dtype)
    start = (zeros, jnp.zeros(PIXELS, table.dtype), jnp.int32(-1))
    sums, *_ = _over_blocks(block, chunks, start)
    return nan_where(hits.needed > capacity, sums[:-1].reshape(images, count, -1)), hits.needed
