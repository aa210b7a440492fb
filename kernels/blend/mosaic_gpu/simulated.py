"""What `device` does, in jnp: for Pallas' interpreter, which knows neither warps nor PTX."""

import jax
import jax.numpy as jnp
from jax import lax

from jsplat.kernels.blend.gradients import root_moments
from jsplat.kernels.blend.mosaic_gpu.layout import (
    ABSENT,
    CHUNK,
    COLUMNS,
    GEOMETRY,
    HEAD,
    LANES,
    MOMENTS,
    PIXELS,
)


def full(number: float) -> jax.Array:
    """See `device`."""
    return jnp.full((PIXELS,), number, jnp.float32)


def threads() -> jax.Array:
    """See `device`."""
    return jnp.arange(PIXELS, dtype=jnp.int32)


def load(ref) -> jax.Array:
    """See `device`."""
    return ref[...]


def row(rows, slot, k):
    """Reads the row at once: a read is expensive here."""
    values = rows[slot, k]
    return lambda column: values[column]


def own(mask) -> jax.Array:
    """Here of the whole block: what other threads leave out changes nothing."""
    return mask.any()


def first_ids(ids, list_ids, start, end) -> None:
    """See `device`."""
    ids[0] = _ids(list_ids, start, end)


def fetch(rows, ids, table, features, list_ids, slot, following, end, shift) -> None:
    """See `device`."""
    gaussians = ids[slot]
    heads, tails = table[...][gaussians], features[...][gaussians + shift]
    gap = jnp.zeros((CHUNK, HEAD - GEOMETRY), jnp.float32)
    rows[slot] = jnp.concatenate([heads, gap, tails], -1)
    ids[1 - slot] = _ids(list_ids, following, end)


def _ids(list_ids, start, end):
    place = jnp.minimum(start + jnp.arange(CHUNK, dtype=jnp.int32), end - 1)
    return list_ids[...][place]


def arrive(rows, slot, count, column, line, alive) -> jax.Array:
    """See `device`."""
    chunk = rows[slot]
    u, v, w, light, x, y, depth = (chunk[:, k] for k in range(7))
    x, y = x - column, y - line
    light = jnp.where(jnp.arange(CHUNK) < count, light, ABSENT)
    head = jnp.stack([u, v, -(u * x + v * y), w, -(w * y), light, depth, x, y], -1)
    rows[slot] = jnp.concatenate([head, chunk[:, head.shape[1] :]], -1)
    return alive.any()


def load_tiles(shared, constant, tiles, tile) -> None:
    """See `device`."""
    shared[...] = jnp.concatenate([constant[...], tiles[tile]])


def settle() -> None:
    """Copies take no time here."""


def meet() -> None:
    """There is one thread."""


def channel(shared, index: int, tiles: int) -> jax.Array:
    """See `device`."""
    high, low = (_columns(shared[1 + part * tiles + index // COLUMNS])[index % COLUMNS] for part in (0, 1))
    return high.astype(jnp.float32) + low.astype(jnp.float32)


def _columns(tile):
    """A tile of right factors, column by column."""
    return tile.reshape(PIXELS // LANES, COLUMNS, LANES).swapaxes(0, 1).reshape(COLUMNS, PIXELS)


def reciprocal(x) -> jax.Array:
    """See `device`."""
    return 1 / x


def reduce(stage, shared, rows, out, slot, chunk, first, count) -> None:
    """See `products`."""
    tiles = (out.shape[-1] - MOMENTS) // COLUMNS
    staged = stage[...][:, :PIXELS]
    stage[...] = jnp.zeros(stage.shape, jnp.uint32)
    head = lax.bitcast_convert_type(staged & jnp.uint32(0xFFFF0000), jnp.float32)
    tail = lax.bitcast_convert_type(staged << 16, jnp.float32)
    factors = [_columns(shared[k]).astype(jnp.float32).T for k in range(1 + 2 * tiles)]
    high, low = (jnp.concatenate(factors[1 + part * tiles : 1 + (part + 1) * tiles], 1) for part in (0, 1))
    weights, pulls = slice(0, CHUNK), slice(CHUNK, 2 * CHUNK)
    painted = head[weights] @ high + tail[weights] @ high + head[weights] @ low
    moments = (head[pulls] @ factors[0] + tail[pulls] @ factors[0])[:, :6]
    u, v, _, w, _, _, _, x, y = jnp.moveaxis(rows[slot][:, :9], 1, 0)
    moments = root_moments(moments, jnp.stack([x, y], -1), jnp.stack([u, v, w], -1))
    made = jnp.concatenate([jnp.pad(moments, ((0, 0), (0, MOMENTS - 6))), painted], -1)

    def write(k, _):
        out[first + k] = made[k]

    lax.fori_loop(0, count, write, None)


def clear_rows(out, first, end) -> None:
    """See `products`."""

    def write(place, _):
        out[place] = jnp.zeros(out.shape[-1:], jnp.float32)

    lax.fori_loop(first, end, write, None)


def clear_stage(stage) -> None:
    """See `products`."""
    stage[...] = jnp.zeros(stage.shape, jnp.uint32)
