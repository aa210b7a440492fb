"""How many tile hits views need, before they are rendered."""

import math
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.kernels.blend import blend, device_of, tile_of
from jsplat.kernels.select import Facts, default_device
from jsplat.kernels.tiling import tile_grid
from jsplat.raster.camera import Camera
from jsplat.raster.projection import project
from jsplat.raster.scene import Gaussians
from jsplat.runtime.precision import by_own_rules
from jsplat.runtime.view_blocks import by_view, over_views

Tile = tuple[int, int]

HITS_PER_GAUSSIAN = 8.0  # default capacity, tiles of 8 x 8: a splat of a fitted head touches 3 to 4
HITS_PER_TILE = 64  # default capacity: a thousand splats of 12 pixels lie 35 deep
HITS_SEEN = 3.6  # of a Gaussian of a fitted head, tiles of 8 x 8
SPLAT = 8  # pixels across the splats of a fitted head


def default_capacity(count: int, size: tuple[int, int], tile: Tile, views: int = 1) -> int:
    """Tile hits a view may need if nobody says how many: 8 for each Gaussian, or 64 for each tile.

    8 are for tiles of 8 x 8 pixels; larger ones are hit less often (`hits_of`). No view of 64 Gaussians or fewer needs
    more. Where there are many views the lists stay below 4 million hits, unless those for each Gaussian are more.

    Args:
        tile: of the backend that runs (`backend_tile`).
    """
    across, down = tile_grid(size, tile)
    crowded = min(min(count, HITS_PER_TILE) * across * down, 2**22 // max(views, 1))
    return max(hits_of(HITS_PER_GAUSSIAN * count, tile), crowded, 1)


def backend_tile(channels: int, dtype: Any = np.float32, *, x: Any = None, backend: str | None = None) -> Tile:
    """Width and height in pixels of the tiles in which the backend that runs counts hits.

    Args:
        x: an array of those that are drawn, whose device decides; None: where JAX puts arrays by itself.
    """
    device = default_device() if x is None else device_of(x)
    return tile_of(Facts(device, np.dtype(dtype), max(channels, 1)), backend)


def hits_of(hits: float | int, tile: Tile) -> int:
    """So many hits of tiles of 8 x 8 pixels, counted in tiles of another size.

    A splat of s pixels touches (1 + s / width) (1 + s / height) tiles on average. On heads this is within 2 % of what
    is counted: 0.75 for 16 x 8 (0.76), 0.56 for 16 x 16 (0.57).
    """
    return int(hits * math.prod(1 + SPLAT / edge for edge in tile) / math.prod(1 + SPLAT / edge for edge in (8, 8)))


def capacity_for(gaussians: Gaussians, cameras: Camera) -> int:
    """The most tile hits that any of these views needs, rounded up so that similar scenes share compiled programs.

    Args:
        gaussians: of one scene, `n`.
        cameras: `v`; they are rendered in blocks, so that many need no more memory than a few.
    """
    return rounded_capacity(_most_needed(gaussians, cameras))


def _most_needed(gaussians: Gaussians, cameras: Camera) -> int:
    return max(int(by_view(_needed, gaussians, cameras).max()), 1)  # also where no view shows anything


class SharedCapacity:
    """One capacity for the views of many heads, one after the other; another one is another program to compile.

    It grows when a head needs more, with something to spare for the next ones. What is rendered does not depend on it.

    Args:
        expected: tile hits that a view will need, as far as that is known.
    """

    SPARE = 1.15  # heads differ by about as much

    def __init__(self, expected: int = 0):
        self._capacity = self._with_spare(expected) if expected else 0
        self._lock = threading.Lock()

    def _with_spare(self, hits: int) -> int:
        return rounded_capacity(round(self.SPARE * hits))

    def for_views(self, gaussians: Gaussians, cameras: Camera) -> int:
        """Tile hits that suffice for all of these views; see `capacity_for`."""
        most = _most_needed(gaussians, cameras)
        with self._lock:
            if most > self._capacity:
                self._capacity = self._with_spare(most)
            return self._capacity


def rounded_capacity(most: int) -> int:
    """The next of few capacities, each at most a quarter above the one before or 4096 more."""
    steps = max(math.ceil(math.log(most / 4096, 1.25)), 0)
    return -(-max(most, round(4096 * 1.25**steps)) // 4096) * 4096


@jax.jit
def _needed(gaussians: Gaussians, cameras: Camera) -> jax.Array:
    blank = jnp.zeros((*gaussians.logit_opacities.shape, 1))

    @by_own_rules
    def of(camera: Camera) -> jax.Array:
        view = jax.tree.leaves(project(gaussians, camera))
        # A capacity of 1 leaves every list empty, so that only the count is paid for.
        return blend(*view, blank, size=(camera.width, camera.height), capacity=1).needed

    return over_views(of, cameras)
