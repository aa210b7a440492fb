"""Masks in the pixels of the pictures that people have: rendered from the Gaussians at that size, through their lens.

An original picture is cut into blocks. Each gets a pinhole tile that holds all rays of its pixels and hardly more, and
in which no pixel is larger than the picture's own; the tile's class channels are read off where the rays meet it. So
nothing is enlarged, corners that an undistorted picture cuts off are seen, and memory is that of a tile.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jsplat.captures.own_pixels import OwnPixels
from jsplat.labels import MaskConfig, clean, to_masks
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.projection import LOW_PASS
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians

LARGEST = 576  # pixels of a tile's side: a picture of 512 and its margins fit into one
_EDGES = 64  # sides of tiles are multiples of this, so that similar blocks share compiled programs
_MARGIN = 2.0  # of its pixels around the outermost rays
_EXACT, _STEP = 256, 8  # rays of larger pictures are found for every so many pixels; between them they are straight


@dataclasses.dataclass(frozen=True)
class Painted:
    """What is rendered: the classes of one head's Gaussians.

    Attributes:
        probabilities: class probabilities of each.
        focal: of the pictures that it was fitted to, pixels.
    """

    gaussians: Gaussians
    probabilities: Float[Array, "n k"]
    focal: float
    labelset: LabelSet
    config: MaskConfig


@dataclasses.dataclass(frozen=True)
class _Block:
    """Part of a picture, and the rays of some of its pixels, the knots: between them rays are straight.

    Attributes:
        rows, columns: of the knots, from `top` and `left`.
        rays: of the knots; known: whether the lens knows them.
    """

    top: int
    left: int
    rows: Int[np.ndarray, " r"]
    columns: Int[np.ndarray, " c"]
    rays: Float[np.ndarray, "r c 2"]
    known: Bool[np.ndarray, "r c"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.rows[-1]) + 1, int(self.columns[-1]) + 1

    def focal(self, least: float) -> float:
        """At which no pixel of a tile is larger than one of the picture, nor than one at `least`."""
        nearest = 1 / least
        for axis, at in ((0, self.rows), (1, self.columns)):
            steps = np.linalg.norm(np.diff(self.rays, axis=axis), axis=-1)
            steps = steps / np.expand_dims(np.diff(at), 1 - axis)
            nearest = min(nearest, float(steps[steps > 0].min(initial=nearest)))
        return 1 / nearest

    def all_rays(self) -> Float[np.ndarray, "h w 2"]:
        """Of every pixel."""
        down, across = self._weights()
        return np.einsum("yr,rcx,wc->ywx", down, self.rays, across, optimize=True)

    def all_known(self) -> Bool[np.ndarray, "h w"]:
        """Of every pixel: where the knots around it are."""
        if self.known.all():
            return np.ones(self.shape, bool)
        down, across = self._weights()
        return np.einsum("yr,rc,wc->yw", down, ~self.known, across, optimize=True) == 0

    def _weights(self) -> tuple[Float[np.ndarray, "h r"], Float[np.ndarray, "w c"]]:
        """Of the knots, in pixels between them."""
        both = zip((self.rows, self.columns), self.shape)
        down, across = (np.stack([np.interp(np.arange(n), at, x) for x in np.eye(len(at))], -1) for at, n in both)
        return down, across


def own_mask(painted: Painted, camera: Camera, own: OwnPixels, shared: SharedCapacity) -> UInt8[np.ndarray, "h w"]:
    """The mask of an original picture; IGNORE where its lens knows no ray.

    Args:
        camera: of the view; only its pose counts.
        shared: for the tile hits of all pictures of a head.
    """
    width, height = own.size
    labels, sure = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
    unknown = np.zeros((height, width), bool)
    for block in _blocks(own, painted.focal):
        part = (slice(block.top, block.top + block.shape[0]), slice(block.left, block.left + block.shape[1]))
        shown = _shown(painted, camera, block, shared)
        unknown[part] = ~block.all_known()
        labels[part], sure[part] = (
            x[0] for x in to_masks(shown[None, ..., :-1], shown[None, ..., -1], painted.labelset, painted.config)
        )
    labels[unknown] = IGNORE
    return clean(labels[None], sure[None], painted.labelset, painted.config)[0]


def _blocks(own: OwnPixels, least: float) -> Iterator[_Block]:
    """The picture in parts that fit into tiles which are as fine as it is, and as `least`."""
    waiting = [(0, 0, own.size[1], own.size[0])]
    while waiting:
        top, left, high, wide = waiting.pop()
        block = _block(own, top, left, high, wide)
        across = np.ptp(block.rays.reshape(-1, 2), axis=0).max() * block.focal(least)
        parts = math.ceil(float(across) / (LARGEST - 2 * _MARGIN - 1))
        if parts <= 1 or max(high, wide) == 1:
            yield block
            continue
        long = max(high, wide)
        ends = np.unique(np.linspace(0, long, min(parts, long) + 1).round().astype(int)).tolist()
        for a, b in itertools.pairwise(ends):
            waiting.append((top + a, left, b - a, wide) if high >= wide else (top, left + a, high, b - a))


def _block(own: OwnPixels, top: int, left: int, high: int, wide: int) -> _Block:
    step = 1 if max(own.size) < _EXACT else _STEP
    rows, columns = (_knots(n, step) for n in (high, wide))
    grid = np.stack(np.meshgrid(left + columns + 0.5, top + rows + 0.5), -1)
    rays, known = own.rays(grid.reshape(-1, 2))
    return _Block(top, left, rows, columns, rays.reshape(grid.shape), known.reshape(grid.shape[:2]))


def _knots(count: int, step: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def _shown(painted: Painted, camera: Camera, block: _Block, shared: SharedCapacity) -> Float[np.ndarray, "h w k1"]:
    """Class channels and alpha of a block's pixels."""
    focal, ends = block.focal(painted.focal), block.rays.reshape(-1, 2)
    # The first ray lies in the middle of a tile's pixel: those of a plain lens then do so as well.
    offset = _MARGIN + 0.5 - ends.min(0) * focal
    lens = jnp.asarray([[[focal, 0, offset[0]], [0, focal, offset[1]], [0, 0, 1]]], jnp.float32)
    width, height = (_EDGES * math.ceil(x / _EDGES) for x in np.ptp(ends, axis=0) * focal + 2 * _MARGIN + 1)
    tile = Camera(camera.camera_from_world[None], lens, width, height)
    gaussians = _as_fitted(painted.gaussians, tile[0], jnp.float32(painted.focal))
    shown = np.asarray(_tile(gaussians, painted.probabilities, tile[0], capacity=shared.for_views(gaussians, tile)))
    at = block.rays * focal + offset - 0.5
    column, row = np.rint(at[0, 0]).astype(int)
    if np.abs(at - np.stack(np.meshgrid(column + block.columns, row + block.rows), -1)).max() < 1e-3:
        return shown[row : row + block.shape[0], column : column + block.shape[1]]
    # Linear between the tile's pixels, to a 32nd of one.
    x, y = np.moveaxis((block.all_rays() * focal + offset - 0.5).astype(np.float32), -1, 0)
    return cv2.remap(shown, x, y, cv2.INTER_LINEAR)


@jax.jit
def _as_fitted(gaussians: Gaussians, camera: Camera, focal: Float[Array, ""]) -> Gaussians:
    """Gaussians that have, at another focal length, the blur of a pixel with which they were fitted.

    Rendered finer than it was fitted, a scene loses what the low-pass of projection added: outlines shrink and gaps
    open. A ball of the difference in variance, at each Gaussian's depth, gives it back (Yu et al. 2024, Mip-Splatting).
    """
    depth = gaussians.means @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]
    lost = LOW_PASS * jnp.maximum(1 / focal**2 - 1 / camera.intrinsics[0, 0] ** 2, 0.0)
    variance = jnp.exp(2 * gaussians.log_scales) + (lost * depth**2)[:, None]
    return dataclasses.replace(gaussians, log_scales=0.5 * jnp.log(variance))


@functools.partial(jax.jit, static_argnames="capacity")
def _tile(gaussians: Gaussians, probabilities: Array, camera: Camera, *, capacity: int) -> Float[Array, "h w k1"]:
    render = rasterize(gaussians, probabilities, camera, capacity=capacity)
    return jnp.concatenate([render.channels, render.alpha[..., None]], -1)


def is_label_grid(own: OwnPixels, camera: Camera) -> bool:
    """Whether a picture has the very pixels of the label stage's mask."""
    same = own.size == (camera.width, camera.height) and own.orientation == 1 and own.turns == 0 and own.lens.plain
    return same and np.allclose(own.lens.matrix, np.asarray(camera.intrinsics), rtol=1e-5, atol=1e-3)


def on_label_grid(
    own: OwnPixels, camera: Camera, layer: UInt8[np.ndarray, "h w"], otherwise: int
) -> UInt8[np.ndarray, "h2 w2"]:
    """A layer of the label grid at every pixel of an original picture, by the nearest; `otherwise` beyond the grid."""
    k, (width, height) = np.asarray(camera.intrinsics, np.float64), own.size
    out = np.full((height, width), otherwise, np.uint8)
    for top in range(0, height, LARGEST):
        block = _block(own, top, 0, min(LARGEST, height - top), width)
        x, y = np.floor(block.all_rays() @ k[:2, :2].T + k[:2, 2]).astype(int).transpose(2, 0, 1)
        there = block.all_known() & (x >= 0) & (x < layer.shape[1]) & (y >= 0) & (y < layer.shape[0])
        part = out[top : top + len(there)]
        part[there] = layer[y[there], x[there]]
    return out
