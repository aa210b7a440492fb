"""The walk along a tile's list of hits, common to both passes, and what a chunk of it lives through.

Chunk i is 32 hits. They lie in `hits[i % 2]` in shared memory, their Gaussians in `gaussian_ids[i % 2]`. Between any
two steps that touch the same memory there is a barrier of the whole block:

    step            threads      reads                                writes
    --------------  -----------  -----------------------------------  -----------------------------------------
    fetch(i)        all          table, features, gaussian_ids[i % 2]  hits[i % 2], by asynchronous copies;
                                                                      gaussian_ids[(i + 1) % 2], likewise
      ... blend(i - 1), and in the backward pass reduce(i - 1): while the copies are under way ...
    arrive(i)       all          waits for its own copies
                    first warp   the hit that it copied itself        that hit, moved to the tile's centre
      === barrier (bar.red): hits[i % 2] are complete; is any pixel of the block still alive?
    fetch(i + 1)    all          as above, into the other half: all are done with chunk i - 1, see the barrier above
    blend(i)        warp by warp hits[i % 2]                          registers; backward: the stage, 2 x 32 x 128
      === barrier (bar.sync), backward only: the stage is complete
    reduce(i)       each warp a  the stage, the right factors,        gradients of the hits, in global memory;
      backward only quarter      hits[i % 2]                          zeros in the stage
    arrive(i + 1)   all
      === barrier (bar.red): the stage is clear, hits[i % 2] may be overwritten

A warp blends a hit only if one of its 32 pixels reaches it, and leaves a chunk out when none of them is alive; the
block stops when no pixel of the tile is. Nothing between two barriers waits for another warp.
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
from jsplat.kernels.blend.mosaic_gpu.layout import (
    CHUNK,
    FEATURES,
    GROUP,
    LANES,
    LOG2_OPACITY,
    STOPPED,
    TILE,
    WARP,
    P,
    Q,
    U,
    V,
    W,
    padded,
)
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import tile_grid

LOG2_FLOOR = math.log2(ALPHA_FLOOR)


class Lists(typing.NamedTuple):
    """Where the hits of a tile come from, in global memory.

    Attributes:
        table, features: of the Gaussians of all images, and of all sets.
        gaussian_ids: of the hits, tile by tile, nearest first.
        tile_offsets: where each tile's hits begin.
        shifts: for each image, from a Gaussian to its features.
    """

    table: Any
    features: Any
    gaussian_ids: Any
    tile_offsets: Any
    shifts: Any


def scratch(channels: int) -> list[Any]:
    """Shared memory of the walk: two chunks of hits, two of Gaussians."""
    hits = plgpu.SMEM((2, CHUNK, FEATURES + padded(channels)), jnp.float32)
    return [hits, plgpu.SMEM((2, CHUNK), jnp.int32)]


class Walk:
    """One tile's walk, inside a kernel.

    Attributes:
        ops: what threads do: the module `device`, or for Pallas' interpreter `simulated`, with the same functions.
        first, end: the tile's hits.
        chunks: how many they are.
        inside: which threads' pixels belong to the image.
    """

    def __init__(self, lists: Lists, hits, gaussian_ids, tile, size: tuple[int, int], interpret: Any) -> None:
        self.ops: types.ModuleType = device if interpret is None else simulated
        self.lists, self.hits, self.gaussian_ids = lists, hits, gaussian_ids
        self.first, self.end = lists.tile_offsets[tile], lists.tile_offsets[tile + 1]
        self.chunks = (self.end - self.first + CHUNK - 1) // CHUNK
        grid = tile_grid(size, TILE)
        per_image = grid[0] * grid[1]
        within = tile % per_image
        self.center_x = (within % grid[0] * TILE[0] + TILE[0] // 2).astype(jnp.float32)
        self.center_y = (within // grid[0] * TILE[1] + TILE[1] // 2).astype(jnp.float32)
        self.shift = lists.shifts[tile // per_image]
        self.x, self.y = _pixel_centers(self.ops.thread_ids())
        self.inside = (self.x + self.center_x < size[0]) & (self.y + self.center_y < size[1])

    def run(
        self,
        blend: Callable[..., Any],
        transmittance: jax.Array,
        start: Any,
        after_chunk: Callable[[Any, Any], None] | None = None,
    ):
        """Walks until the list ends or no pixel is alive; those outside the image never are.

        Args:
            blend: (hit, k, log2_alpha, threshold, transmittance, state) -> (threshold, transmittance, state), of hit k
                of a chunk; `hit` reads its columns. A pixel takes the hit where log2_alpha reaches the threshold.
            transmittance: before the first hit.
            start: state before the first hit, a tuple of vectors.
            after_chunk: called with a chunk's number and its half of the shared memory.

        Returns:
            how many chunks were walked, transmittance, state.
        """
        threshold = jnp.where(self.inside, LOG2_FLOOR, STOPPED)
        self.ops.load_first_ids(self.gaussian_ids, self.lists.gaussian_ids, self.first, self.end)
        self._fetch(0)
        alive = self._arrive(0, threshold)

        def more(carry):
            index, alive, *_ = carry
            return (index < self.chunks) & alive

        def chunk(carry):
            index, _, threshold, transmittance, state = carry
            half = index % 2
            self._fetch(index + 1)
            threshold, transmittance, state = self._blend(blend, index, half, threshold, transmittance, state)
            if after_chunk is not None:
                after_chunk(index, half)
            return index + 1, self._arrive(index + 1, threshold), threshold, transmittance, state

        walked, _, _, transmittance, state = lax.while_loop(
            more, chunk, (jnp.int32(0), alive, threshold, transmittance, start)
        )
        return walked, transmittance, state

    def count(self, index) -> jax.Array:
        """Hits of a chunk."""
        return jnp.minimum(self.end - self.first - index * CHUNK, CHUNK)

    def _fetch(self, index):
        """Starts the copies of a chunk; one past the end copies the last hit, which nobody uses."""
        following = self.first + (index + 1) * CHUNK
        source = (self.lists.table, self.lists.features, self.lists.gaussian_ids)
        self.ops.fetch(self.hits, self.gaussian_ids, *source, index % 2, following, self.end, self.shift)

    def _arrive(self, index, threshold):
        alive = threshold < STOPPED
        return self.ops.arrive(self.hits, index % 2, self.count(index), self.center_x, self.center_y, alive)

    def _blend(self, blend, index, half, threshold, transmittance, state):
        alive = self.ops.per_thread(threshold < STOPPED)
        groups = jnp.where(alive, (self.count(index) + GROUP - 1) // GROUP, 0)

        def group(number, carry):
            places = [number * GROUP + k for k in range(GROUP)]
            hits = [self.ops.hit(self.hits, half, k) for k in places]
            log2_alphas = [self._log2_alpha(hit) for hit in hits]
            for hit, k, log2_alpha in zip(hits, places, log2_alphas):
                reached = self.ops.per_thread(log2_alpha >= carry[0])
                carry = lax.cond(
                    reached,
                    lambda c, hit=hit, k=k, log2_alpha=log2_alpha: blend(hit, k, log2_alpha, *c),
                    lambda c: c,
                    carry,
                )
            return carry

        return lax.fori_loop(0, groups, group, (threshold, transmittance, state))

    def _log2_alpha(self, hit):
        """log2 of opacity * exp(-power)."""
        across = hit(U) * self.x + (hit(V) * self.y + hit(P))
        down = hit(W) * self.y + hit(Q)
        return (hit(LOG2_OPACITY) - across * across) - down * down


def alpha_of(log2_alpha, threshold) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether a pixel takes the hit, its alpha before it is clipped, and after: 0 where it does not take it."""
    taken = log2_alpha >= threshold
    unclipped = jnp.exp2(log2_alpha)
    return taken, unclipped, jnp.where(taken, jnp.minimum(unclipped, ALPHA_CEILING), 0.0)


def threshold_after(transmittance, threshold) -> jax.Array:
    """The threshold of a pixel from here on: none reaches it once the transmittance is used up."""
    return jnp.where(transmittance < TRANSMITTANCE_STOP, STOPPED, threshold)


def _pixel_centers(thread):
    """Each thread's pixel centre relative to its tile's, as `layout.pixel_centers`."""
    warp, lane = thread // LANES, thread % LANES
    across = TILE[0] // WARP[0]
    x = (warp % across * WARP[0] + lane % WARP[0]).astype(jnp.float32) + (0.5 - TILE[0] / 2)
    y = (warp // across * WARP[1] + lane // WARP[0]).astype(jnp.float32) + (0.5 - TILE[1] / 2)
    return x, y
