"""The walk along a tile's list, common to both passes: chunks through shared memory, powers group by group.

A warp blends a Gaussian only if one of its 32 pixels sees it, and leaves a chunk out when none of them is alive; the
block stops when no pixel of the tile is.
"""

import math
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from jsplat.kernels.blend.mosaic_gpu import device, simulated
from jsplat.kernels.blend.mosaic_gpu.layout import CHUNK, DEAD, GROUP, HEAD, LANES, TILE, WARP, padded
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP

LOG_FLOOR = math.log2(ALPHA_FLOOR)


class Lists(typing.NamedTuple):
    """Where the rows of a tile come from, in global memory.

    Attributes:
        table, features: rows of Gaussians and of features.
        ids: Gaussians, tile by tile, nearest first.
        starts: first place of each tile.
        shifts: for each image, from a Gaussian to its row of features.
    """

    table: Any
    features: Any
    ids: Any
    starts: Any
    shifts: Any


def scratch(channels: int) -> list[Any]:
    """Shared memory of the walk: two chunks of rows, two of Gaussians."""
    rows = plgpu.SMEM((2, CHUNK, HEAD + padded(channels)), jnp.float32)
    return [rows, plgpu.SMEM((2, CHUNK), jnp.int32)]


class Walk:
    """One tile's walk, inside a kernel."""

    def __init__(self, lists: Lists, rows, ids, tile, grid: tuple[int, int], interpret: Any) -> None:
        self.on: types.ModuleType = device if interpret is None else simulated
        self.lists, self.rows, self.ids = lists, rows, ids
        self.first, self.end = lists.starts[tile], lists.starts[tile + 1]
        self.chunks = (self.end - self.first + CHUNK - 1) // CHUNK
        per_image = grid[0] * grid[1]
        within = tile % per_image
        self.column = (within % grid[0] * TILE[0] + TILE[0] // 2).astype(jnp.float32)
        self.line = (within // grid[0] * TILE[1] + TILE[1] // 2).astype(jnp.float32)
        self.shift = lists.shifts[tile // per_image]
        self.x, self.y = _places(self.on.threads())

    def run(self, blend: Callable[..., Any], start: Any, finish: Callable[[Any, Any], None] | None = None):
        """Walks until the list ends or no pixel is alive.

        Args:
            blend: (row, k, power, threshold, through, state) -> (threshold, through, state); see `row` of `device`.
            start: state before the first Gaussian, a tuple of vectors.
            finish: called after each chunk with its slot and number.

        Returns:
            how many chunks were walked, transmittance, state.
        """
        threshold, through = self.on.full(LOG_FLOOR), self.on.full(1.0)
        self.on.first_ids(self.ids, self.lists.ids, self.first, self.end)
        self._fetch(0)
        alive = self._arrive(0, threshold)

        def chunk(carry):
            index, _, threshold, through, state = carry
            slot = index % 2
            self._fetch(index + 1)
            threshold, through, state = self._chunk(blend, index, slot, threshold, through, state)
            if finish is not None:
                finish(index, slot)
            return index + 1, self._arrive(index + 1, threshold), threshold, through, state

        def more(carry):
            return (carry[0] < self.chunks) & carry[1]

        walked, _, _, through, state = lax.while_loop(more, chunk, (jnp.int32(0), alive, threshold, through, start))
        return walked, through, state

    def count(self, index) -> jax.Array:
        """Hits of a chunk."""
        return jnp.minimum(self.end - self.first - index * CHUNK, CHUNK)

    def _fetch(self, index):
        """Starts the copies of a chunk; one past the end copies the last Gaussian, which nobody uses."""
        following = self.first + (index + 1) * CHUNK
        lists = self.lists
        tables = (lists.table, lists.features, lists.ids)
        self.on.fetch(self.rows, self.ids, *tables, index % 2, following, self.end, self.shift)

    def _arrive(self, index, threshold):
        alive = threshold < DEAD
        return self.on.arrive(self.rows, index % 2, self.count(index), self.column, self.line, alive)

    def _chunk(self, blend, index, slot, threshold, through, state):
        alive = self.on.own(threshold < DEAD)
        groups = jnp.where(alive, (self.count(index) + GROUP - 1) // GROUP, 0)

        def group(number, carry):
            places = [number * GROUP + k for k in range(GROUP)]
            read = [self.on.row(self.rows, slot, k) for k in places]
            powers = [self._power(row) for row in read]
            for row, k, power in zip(read, places, powers):
                seen = self.on.own(power >= carry[0])
                carry = lax.cond(
                    seen, lambda c, row=row, k=k, power=power: blend(row, k, power, *c), lambda c: c, carry
                )
            return carry

        return lax.fori_loop(0, groups, group, (threshold, through, state))

    def _power(self, row):
        """log2 of opacity * exp(-power)."""
        across = row(0) * self.x + (row(1) * self.y + row(2))
        down = row(3) * self.y + row(4)
        return (row(5) - across * across) - down * down


def opacity_at(power, threshold) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether a pixel takes the Gaussian, its alpha before the ceiling, and what it takes."""
    kept = power >= threshold
    raw = jnp.exp2(power)
    return kept, raw, jnp.where(kept, jnp.minimum(raw, ALPHA_CEILING), 0.0)


def spent(through, threshold) -> jax.Array:
    """The threshold after a transmittance, which no power reaches once the transmittance is spent."""
    return jnp.where(through < TRANSMITTANCE_STOP, DEAD, threshold)


def _places(thread):
    """Each thread's pixel centre relative to its tile's, as `layout.pixel_places`."""
    warp, lane = thread // LANES, thread % LANES
    across = TILE[0] // WARP[0]
    x = (warp % across * WARP[0] + lane % WARP[0]).astype(jnp.float32) + (0.5 - TILE[0] / 2)
    y = (warp // across * WARP[1] + lane // WARP[0]).astype(jnp.float32) + (0.5 - TILE[1] / 2)
    return x, y
