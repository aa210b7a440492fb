"""How many tile hits views need, before they are rendered."""

import math
import threading

import jax
import jax.numpy as jnp

from jsplat.kernels.blend import blend
from jsplat.kernels.tiling import tile_grid
from jsplat.raster.camera import Camera
from jsplat.raster.projection import project
from jsplat.raster.scene import Gaussians
from jsplat.runtime.precision import by_own_rules
from jsplat.runtime.view_blocks import by_view, over_views

HITS_PER_GAUSSIAN = 8  # default capacity: a splat of a fitted head touches 3 to 4 tiles
HITS_PER_TILE = 64  # default capacity: a thousand splats of 12 pixels lie 35 deep
SMALLEST_TILE = (8, 8)  # of any backend


def default_capacity(count: int, size: tuple[int, int], views: int = 1) -> int:
    """Tile hits a view may need if nobody says how many: 8 for each Gaussian, or 64 for each tile.

    No view of 64 Gaussians or fewer needs more. Where there are many views the lists stay below 4 million hits, unless
    8 for each Gaussian are more.
    """
    across, down = tile_grid(size, SMALLEST_TILE)
    crowded = min(min(count, HITS_PER_TILE) * across * down, 2**22 // max(views, 1))
    return max(HITS_PER_GAUSSIAN * count, crowded, 1)


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
    """

    SPARE = 1.15  # heads differ by about as much

    def __init__(self):
        self._capacity, self._lock = 0, threading.Lock()

    def for_views(self, gaussians: Gaussians, cameras: Camera) -> int:
        """Tile hits that suffice for all of these views; see `capacity_for`."""
        most = _most_needed(gaussians, cameras)
        with self._lock:
            if most > self._capacity:
                self._capacity = rounded_capacity(round(self.SPARE * most))
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
