"""What no rasterizer can do without, counted in a workload's own data.

Operations, per pair of a Gaussian and a pixel where it counts: 15 to evaluate alpha, c + 4 to blend c channels; the
backward pass evaluates again and needs 2 c + 31 (a dot product, a colour gradient, the shape's gradients). Bytes: every
Gaussian is read once and every pixel written once; the backward pass reads the image's gradient and writes the
Gaussians'. Sorting is left out, so this is a floor, not an estimate.
"""

import itertools

import numpy as np

from jsplat.kernels.blend.cases import Splats
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP

TILE = 8
MOST = 8  # images that are counted: each takes half a second at 50,000 Gaussians
EVALUATE, BLEND, SHAPE = 15, 4, 31
NUMBER = 4  # bytes of a float32
ROW = 7  # numbers that a Gaussian has besides its features


def count_pairs(splats: Splats, edge: int) -> dict[str, int]:
    """Counts over all images of a square of `edge` pixels; of more than 8 the first 8 stand for all.

    Returns:
        tile_pairs: Gaussians times 8x8 tiles that the box of their ellipse meets; evaluated: those times the tile's
        pixels; hits: pairs of a Gaussian and a pixel that change the image.
    """
    images = zip(splats.means2d, splats.conics, splats.opacities, splats.depths)
    counted = [_count_image(*image, edge) for image in itertools.islice(images, MOST)]
    tile_pairs, hits = (round(x * len(splats.means2d) / len(counted)) for x in np.sum(counted, axis=0).tolist())
    return {"tile_pairs": tile_pairs, "evaluated": tile_pairs * TILE**2, "hits": hits}


def _count_image(means, conics, opacities, depths, edge: int) -> tuple[int, int]:
    order = np.argsort(depths, kind="stable")
    order = order[np.isfinite(depths[order]) & (opacities[order] > ALPHA_FLOOR)]
    means, conics, opacities = means[order], conics[order], opacities[order]
    determinant = conics[:, 0] * conics[:, 2] - conics[:, 1] ** 2
    reach = np.sqrt(2 * np.log(opacities / ALPHA_FLOOR)[:, None] * conics[:, [2, 0]] / determinant[:, None])
    low = np.floor((means - reach - 0.5) / TILE)
    high = np.floor((means + reach - 0.5) / TILE)
    inner = np.arange(TILE) + 0.5
    pairs = hits = 0
    for y in range(-(-edge // TILE)):
        in_row = np.flatnonzero((low[:, 1] <= y) & (y <= high[:, 1]))
        for x in range(-(-edge // TILE)):
            own = in_row[(low[in_row, 0] <= x) & (x <= high[in_row, 0])]
            dx = (means[own, 0, None] - (x * TILE + inner))[:, None, :]
            dy = (means[own, 1, None] - (y * TILE + inner))[:, :, None]
            a, b, c = (conics[own, k, None, None] for k in range(3))
            alpha = opacities[own, None, None] * np.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
            alpha = np.where(alpha < ALPHA_FLOOR, 0, np.minimum(alpha, ALPHA_CEILING))
            before = np.cumprod(1 - alpha, 0) / (1 - alpha)
            hits += int(((alpha > 0) & (before >= TRANSMITTANCE_STOP)).sum())
            pairs += len(own)
    return pairs, hits


def floor_of(counts: dict[str, int], images: int, gaussians: int, edge: int, channels: int, gradient: bool):
    """{"operations", "bytes"} of a rasterizer's call."""
    operations = counts["hits"] * (EVALUATE + BLEND + channels)
    rows, pixels = images * gaussians * (ROW + channels), images * edge**2 * (channels + 1)
    numbers = rows + pixels
    if gradient:
        operations += counts["hits"] * (EVALUATE + 2 * channels + SHAPE)
        numbers += 2 * rows + pixels
    return {"operations": float(operations), "bytes": float(NUMBER * numbers)}
