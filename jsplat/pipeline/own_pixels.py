"""Masks in the pixels of the pictures that people have: rendered from the Gaussians at that size, through their lens.

An original picture is cut into blocks. Each gets a pinhole tile that holds all rays of its pixels, and in which no
pixel is larger than the picture's own; the tile's class channels are read off where the rays meet it. So nothing is
enlarged, corners that an undistorted picture cuts off are seen, and memory is that of a tile.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jsplat.captures.own_pixels import OwnPixels
from jsplat.labels import MaskConfig, clean, to_masks
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.projection import LOW_PASS
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians

LARGEST = 512  # pixels of a tile's side
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
    """Part of a picture, and the tile that is rendered for it."""

    top: int
    left: int
    rays: Float[np.ndarray, "h w 2"]
    known: np.ndarray
    low: np.ndarray
    focal: float


def own_mask(painted: Painted, camera: Camera, own: OwnPixels, shared: SharedCapacity) -> UInt8[np.ndarray, "h w"]:
    """The mask of an original picture; IGNORE where its lens knows no ray.

    Args:
        camera: of the view; only its pose counts.
        room: for the tile hits of all pictures of a head.
    """
    width, height = own.size
    labels, sure = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
    unknown = np.zeros((height, width), bool)
    side = min(LARGEST, 64 * math.ceil(1.25 * (max(width, height) + 2 * _MARGIN) / 64))
    for block in _blocks(own, painted.focal, side):
        part = (slice(block.top, block.top + len(block.rays)), slice(block.left, block.left + block.rays.shape[1]))
        unknown[part] = ~block.known
        shown = _shown(painted, camera, block, side, shared)
        labels[part], sure[part] = (
            x[0] for x in to_masks(shown[None, ..., :-1], shown[None, ..., -1], painted.labelset, painted.config)
        )
    labels[unknown] = IGNORE
    return clean(labels[None], sure[None], painted.labelset, painted.config)[0]


def _blocks(own: OwnPixels, least: float, side: int) -> Iterator[_Block]:
    """The picture in parts that fit into tiles of `side` pixels, which are as fine as it is, and as `least`."""
    waiting = [(0, 0, own.size[1], own.size[0])]
    while waiting:
        top, left, high, wide = waiting.pop()
        rays, known = _rays(own, top, left, high, wide)
        low, up = rays.reshape(-1, 2).min(0), rays.reshape(-1, 2).max(0)
        steps = [np.linalg.norm(np.diff(rays, axis=axis), axis=-1) for axis in (0, 1)]
        nearest = min((float(s[s > 0].min()) for s in steps if (s > 0).any()), default=1 / least)
        focal = max(1 / nearest, least)
        parts = math.ceil(float((up - low).max()) * focal / (side - 2 * _MARGIN - 1))
        if parts <= 1 or max(high, wide) == 1:
            yield _Block(top, left, rays, known, low, focal)
            continue
        long = max(high, wide)
        ends = np.unique(np.linspace(0, long, min(parts, long) + 1).round().astype(int)).tolist()
        for a, b in itertools.pairwise(ends):
            waiting.append((top + a, left, b - a, wide) if high >= wide else (top, left + a, high, b - a))


def _rays(own: OwnPixels, top: int, left: int, high: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays of the pixels of a part of the picture, and whether the lens knows them."""
    step = 1 if max(own.size) < _EXACT else _STEP
    rows, columns = (_knots(n, step) for n in (high, wide))
    grid = np.stack(np.meshgrid(left + columns + 0.5, top + rows + 0.5), -1)
    rays, known = own.rays(grid.reshape(-1, 2))
    rays, known = rays.reshape(grid.shape), known.reshape(grid.shape[:2])
    (y0, y), (x0, x) = (_between(knots, n) for knots, n in ((rows, high), (columns, wide)))
    rays = rays[y0] * (1 - y)[:, None, None] + rays[y0 + 1] * y[:, None, None] if len(rows) > 1 else rays
    rays = rays[:, x0] * (1 - x)[:, None] + rays[:, x0 + 1] * x[:, None] if len(columns) > 1 else rays
    known = known[y0] & known[np.minimum(y0 + 1, len(rows) - 1)]
    return rays, known[:, x0] & known[:, np.minimum(x0 + 1, len(columns) - 1)]


def _knots(count: int, step: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def _between(knots: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The knot before each of `count` pixels, and how far to the next it lies."""
    at = np.arange(count)
    before = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, max(len(knots) - 2, 0))
    after = np.minimum(before + 1, len(knots) - 1)
    return before, (at - knots[before]) / np.maximum(knots[after] - knots[before], 1)


def _shown(painted: Painted, camera: Camera, block: _Block, side: int, shared: SharedCapacity) -> np.ndarray:
    """Class channels and alpha, "h w k1", of a block's pixels."""
    # The first ray lies in the middle of a tile's pixel: a plain lens is then not resampled at all.
    offset = _MARGIN + 0.5 - block.low * block.focal
    lens = jnp.asarray([[[block.focal, 0, offset[0]], [0, block.focal, offset[1]], [0, 0, 1]]], jnp.float32)
    tile = Camera(camera.camera_from_world[None], lens, side, side)
    gaussians = _as_fitted(painted.gaussians, tile[0], jnp.float32(painted.focal))
    channels = _tile(gaussians, painted.probabilities, tile[0], capacity=shared.for_views(gaussians, tile))
    at = block.rays * block.focal + offset - 0.5
    return _read_off(np.asarray(channels), at)


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


def _read_off(channels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Channels "h w k1" at places "h2 w2 2" (x, y; 0 is the middle of the first pixel), linear between pixels."""
    whole = np.rint(at)
    if np.abs(at - whole).max() < 1e-3:
        x, y = whole.astype(int).transpose(2, 0, 1)
        return channels[y, x]
    low = np.floor(at).astype(int)
    (x, y), (a, b) = low.transpose(2, 0, 1), (at - low).astype(np.float32).transpose(2, 0, 1)[..., None]
    upper = channels[y, x] * (1 - a) + channels[y, x + 1] * a
    return upper * (1 - b) + (channels[y + 1, x] * (1 - a) + channels[y + 1, x + 1] * a) * b


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
        rays, known = _rays(own, top, 0, min(LARGEST, height - top), width)
        x, y = np.floor(rays @ k[:2, :2].T + k[:2, 2]).astype(int).transpose(2, 0, 1)
        there = known & (x >= 0) & (x < layer.shape[1]) & (y >= 0) & (y < layer.shape[0])
        part = out[top : top + len(rays)]
        part[there] = layer[y[there], x[there]]
    return out
