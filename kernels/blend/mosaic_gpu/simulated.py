"""What `device` does, in jnp: for Pallas' interpreter, which knows neither warps nor PTX."""

import jax
import jax.numpy as jnp
from jax import lax

from jsplat.kernels.blend.gradients import root_moments
from jsplat.kernels.blend.mosaic_gpu.layout import (
    ABSENT,
    CHUNK,
    COLUMNS,
    FEATURES,
    LANES,
    MOMENTS,
    PIXELS,
    TABLE_COLUMNS,
    U,
    V,
    W,
    X,
    Y,
)


def full(number: float) -> jax.Array:
    """See `device`."""
    return jnp.full((PIXELS,), number, jnp.float32)


def thread_ids() -> jax.Array:
    """See `device`."""
    return jnp.arange(PIXELS, dtype=jnp.int32)


def load(ref) -> jax.Array:
    """See `device`."""
    return ref[...]


def per_thread(mask) -> jax.Array:
    """Here of the whole block: what other threads leave out changes nothing."""
    return mask.any()


def reciprocal(x) -> jax.Array:
    """See `device`."""
    return 1 / x


def barrier() -> None:
    """There is one thread."""


def copies_then_barrier() -> None:
    """Copies take no time here."""


def hit(hits, half, k):
    """Reads the hit at once: a read is expensive here."""
    values = hits[half, k]
    return lambda column: values[column]


def load_first_ids(gaussian_ids, list_ids, start, end) -> None:
    """See `device`."""
    gaussian_ids[0] = _ids(list_ids, start, end)


def fetch(hits, gaussian_ids, table, features, list_ids, half, following, end, shift) -> None:
    """See `device`."""
    gaussians = gaussian_ids[half]
    heads, tails = table[...][gaussians], features[...][gaussians + shift]
    gap = jnp.zeros((CHUNK, FEATURES - TABLE_COLUMNS), jnp.float32)
    hits[half] = jnp.concatenate([heads, gap, tails], -1)
    gaussian_ids[1 - half] = _ids(list_ids, following, end)


def _ids(list_ids, start, end):
    place = jnp.minimum(start + jnp.arange(CHUNK, dtype=jnp.int32), end - 1)
    return list_ids[...][place]


def arrive(hits, half, count, center_x, center_y, alive) -> jax.Array:
    """See `device`."""
    chunk = hits[half]
    u, v, w, log2_opacity, x, y, depth = (chunk[:, k] for k in range(7))
    x, y = x - center_x, y - center_y
    log2_opacity = jnp.where(jnp.arange(CHUNK) < count, log2_opacity, ABSENT)
    head = jnp.stack([u, v, -(u * x + v * y), w, -(w * y), log2_opacity, depth, x, y], -1)
    hits[half] = jnp.concatenate([head, chunk[:, head.shape[1] :]], -1)
    return alive.any()


def load_factors(tile_factors, factors, tile) -> None:
    """See `device`."""
    tile_factors[...] = factors[tile]


def factor(tile_factors, column: int, tiles: int) -> jax.Array:
    """See `device`."""
    high, low = (_columns(tile_factors[part * tiles + column // COLUMNS])[column % COLUMNS] for part in (0, 1))
    return high.astype(jnp.float32) + low.astype(jnp.float32)


def _columns(tile):
    """A tile of right factors, column by column."""
    return tile.reshape(PIXELS // LANES, COLUMNS, LANES).swapaxes(0, 1).reshape(COLUMNS, PIXELS)


def reduce(stage, monomials, tile_factors, hits, hit_grads, half, chunk, first, count) -> None:
    """See `products`."""
    tiles = (hit_grads.shape[-1] - MOMENTS) // COLUMNS
    staged = stage[...][:, :PIXELS]
    stage[...] = jnp.zeros(stage.shape, jnp.uint32)
    high = lax.bitcast_convert_type(staged & jnp.uint32(0xFFFF0000), jnp.float32)
    low = lax.bitcast_convert_type(staged << 16, jnp.float32)
    right = _columns(monomials[...]).astype(jnp.float32).T
    factors = [_columns(tile_factors[k]).astype(jnp.float32).T for k in range(2 * tiles)]
    right_high, right_low = (jnp.concatenate(factors[p * tiles : (p + 1) * tiles], 1) for p in (0, 1))
    weights, powers = slice(0, CHUNK), slice(CHUNK, 2 * CHUNK)
    grad_values = high[weights] @ right_high + low[weights] @ right_high + high[weights] @ right_low
    moments = (high[powers] @ right + low[powers] @ right)[:, :6]
    means, roots = (jnp.stack([hits[half][:, k] for k in columns], -1) for columns in ((X, Y), (U, V, W)))
    moments = root_moments(moments, means, roots)
    made = jnp.concatenate([jnp.pad(moments, ((0, 0), (0, MOMENTS - 6))), grad_values], -1)

    def write(k, _):
        hit_grads[first + k] = made[k]

    lax.fori_loop(0, count, write, None)


def clear_hits(hit_grads, first, end) -> None:
    """See `products`."""

    def write(place, _):
        hit_grads[place] = jnp.zeros(hit_grads.shape[-1:], jnp.float32)

    lax.fori_loop(first, end, write, None)


def clear_stage(stage) -> None:
    """See `products`."""
    stage[...] = jnp.zeros(stage.shape, jnp.uint32)
