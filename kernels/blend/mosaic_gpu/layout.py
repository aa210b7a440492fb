"""Tiles, warps and memory: what the kernels, their device code and its simulation agree on.

A tile of 16 x 8 pixels is a block of 128 threads, one pixel each. A warp holds 8 x 4 of them, so that a splat which
touches one corner of the tile keeps the other warps out of its blending.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, BFloat16, Float

from jsplat.kernels.tiling import tile_grid

TILE = (16, 8)  # width and height in pixels
WARP = (8, 4)  # the part of a tile that one warp holds
PIXELS = TILE[0] * TILE[1]
LANES = WARP[0] * WARP[1]
CHUNK = 32  # hits that lie in shared memory together
GROUP = 4  # hits whose alphas are computed together, before the first is blended: it hides latency
MOST_CHANNELS = 64
TABLE_COLUMNS = 8  # floats of a Gaussian in the table: u, v, w, log2 of opacity, x, y, depth, 0
# Columns of a hit in shared memory, in three copies of 16 bytes; 3 are left over, then come the features.
# (p, q) = -(u x + v y, w y) is the form at the tile's centre, (x, y) the mean about it.
U, V, P, W, Q, LOG2_OPACITY, DEPTH, X, Y = range(9)
FEATURES = 12
MOMENTS = 8  # columns of a hit's gradients before the features': six moments and two zeros
COLUMNS = 8  # channels of one tile of a matrix product
STAGE_PITCH = PIXELS + 4  # words: rows of the staging area start 4 banks apart, so that 8 lanes read 8 x 4 banks
ABSENT = -1e30  # log2 of an opacity that is none
STOPPED = 1e30  # threshold of a pixel whose transmittance is used up: no alpha reaches it


def padded(channels: int) -> int:
    """Floats of a Gaussian's features: copies into shared memory go by 16 bytes."""
    return -(-channels // 4) * 4


def column_tiles(channels: int) -> int:
    """Tiles of 8 columns for the gradients of all features and of depth."""
    return -(-(channels + 1) // COLUMNS)


def hit_grads_width(channels: int) -> int:
    """Floats of a hit's gradients: moments, features, depth, zeros."""
    return MOMENTS + column_tiles(channels) * COLUMNS


def pixel_centers() -> tuple[np.ndarray, np.ndarray]:
    """Each thread's pixel centre relative to its tile's centre, x and y."""
    thread = np.arange(PIXELS)
    warp, lane = np.divmod(thread, LANES)
    x = warp % (TILE[0] // WARP[0]) * WARP[0] + lane % WARP[0]
    y = warp // (TILE[0] // WARP[0]) * WARP[1] + lane // WARP[0]
    return x + 0.5 - TILE[0] / 2, y + 0.5 - TILE[1] / 2


def to_planes(image: Float[Array, "i h w c"]) -> Float[Array, "t c p"]:
    """Images cut into tiles, channel by channel, pixels in the order of the threads; padded with zeros."""
    i, h, w, c = image.shape
    across, down = tile_grid((w, h), TILE)
    image = jnp.pad(image, ((0, 0), (0, down * TILE[1] - h), (0, across * TILE[0] - w), (0, 0)))
    cut = image.reshape(i, down, TILE[1] // WARP[1], WARP[1], across, TILE[0] // WARP[0], WARP[0], c)
    return cut.transpose(0, 1, 4, 7, 2, 5, 3, 6).reshape(i * down * across, c, PIXELS)


def from_planes(planes: Float[Array, "t c p"], *, size: tuple[int, int]) -> Float[Array, "i h w c"]:
    """The inverse of `to_planes`."""
    across, down = tile_grid(size, TILE)
    c = planes.shape[1]
    cut = planes.reshape(-1, down, across, c, TILE[1] // WARP[1], TILE[0] // WARP[0], WARP[1], WARP[0])
    image = cut.transpose(0, 1, 4, 6, 2, 5, 7, 3).reshape(-1, down * TILE[1], across * TILE[0], c)
    return image[:, : size[1], : size[0]]


def matrix_tiles(planes: BFloat16[Array, "t c p"]) -> BFloat16[Array, "t s k"]:
    """Planes as the right factor of a matrix product, tiles of 8 columns in the order in which lanes read them.

    A lane takes 8 neighbouring pixels of one column at a time: [column tile, warp, column, pixel of the warp].
    """
    t, c, _ = planes.shape
    tiles = -(-c // COLUMNS)
    planes = jnp.pad(planes, ((0, 0), (0, tiles * COLUMNS - c), (0, 0)))
    cut = planes.reshape(t, tiles, COLUMNS, PIXELS // LANES, LANES).transpose(0, 1, 3, 2, 4)
    return cut.reshape(t, tiles, COLUMNS * PIXELS)


def monomials() -> np.ndarray:
    """1, x, y, xx, xy, yy, 0, 0 of the pixels, `8 p`; half-integers up to 7.5 and their products are exact in bf16."""
    x, y = pixel_centers()
    nothing = np.zeros_like(x)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, nothing, nothing])
