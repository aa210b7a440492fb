"""The render as a sparse matrix: which Gaussian has what blend weight in which pixel.

A render is linear in what is painted on the Gaussians, so with fixed geometry this matrix is all there is to know. It
costs more than one render and makes every later change local: a few columns say which pixels of all views a few
Gaussians reach, without rendering anything. Same contract as `jsplat.raster.rasterizer`, on the host.
"""

import jax
import numpy as np
import scipy.sparse as sp

from jsplat.raster.camera import Camera
from jsplat.raster.projection import Projection, project
from jsplat.raster.scene import Gaussians

# The image's definition in `jsplat.kernels.constants`, which only the rasterizer may import; a test compares them.
ALPHA_FLOOR = 1.0 / 255.0
ALPHA_CEILING = 0.999
TRANSMITTANCE_STOP = 1e-4


def blend_weights(gaussians: Gaussians, cameras: Camera, least: float) -> list[sp.csc_matrix]:
    """Blend weights of one head, a matrix of `h * w` pixels (row by row) x n Gaussians per camera.

    Args:
        least: weights of at most this are left out.
    """
    size = (cameras.width, cameras.height)
    return [_one_view(jax.tree.map(np.asarray, view), size, least) for view in _views(gaussians, cameras)]


def _views(gaussians: Gaussians, cameras: Camera) -> list[Projection]:
    run = jax.jit(project)
    return [run(gaussians, cameras[i]) for i in range(len(cameras.intrinsics))]


def _one_view(view: Projection, size: tuple[int, int], least: float) -> sp.csc_matrix:
    width, height = size
    total = len(view.opacities)
    reach = np.log(np.maximum(view.opacities, 1e-12) / ALPHA_FLOOR)  # the power at which alpha falls to the floor
    order = np.argsort(view.depths, kind="stable")
    order = order[np.isfinite(view.depths[order]) & (reach[order] > 0)]
    (x, y), (u, v, w), opacity = view.means2d[order].T, view.conic_roots[order].T, view.opacities[order]
    # The box around the ellipse power = reach: half-widths sqrt(2 reach) times the standard deviations.
    scale = np.sqrt(2 * reach[order])
    left, right = _pixels(x, scale * np.sqrt(1 + (v / w) ** 2) / u, width)
    top, bottom = _pixels(y, scale / w, height)
    across = right - left
    count = across * (bottom - top)
    start = np.cumsum(count) - count
    who = np.repeat(np.arange(len(order), dtype=np.int32), count)
    place = np.arange(len(who), dtype=np.int32) - np.repeat(start, count).astype(np.int32)
    row, column = np.divmod(place, across[who])
    row, column = row + top[who], column + left[who]
    dx, dy = x[who] - (column + np.float32(0.5)), y[who] - (row + np.float32(0.5))
    power = 0.5 * ((u[who] * dx + v[who] * dy) ** 2 + (w[who] * dy) ** 2)
    alpha = np.minimum(np.float32(ALPHA_CEILING), opacity[who] * np.exp(-power))
    kept = alpha >= ALPHA_FLOOR
    ends = np.concatenate([[0], np.cumsum(np.bincount(who[kept], minlength=len(order)))])
    columns = sp.csc_matrix((alpha[kept], (row * width + column)[kept], ends), shape=(width * height, len(order)))
    by_pixel = columns.tocsr()  # a stable counting sort: within a pixel the Gaussians stay sorted by depth
    log_transmittance = np.log1p(-by_pixel.data.astype(np.float64))
    before = np.cumsum(log_transmittance) - log_transmittance
    before -= np.repeat(np.append(before, 0)[by_pixel.indptr[:-1]], np.diff(by_pixel.indptr))
    before = np.exp(before)
    weight = np.where(before >= TRANSMITTANCE_STOP, by_pixel.data * before, 0).astype(np.float32)
    kept = weight > least
    ends = np.concatenate([[0], np.cumsum(kept)])[by_pixel.indptr]
    named = order.astype(np.int32)[by_pixel.indices[kept]]
    return sp.csc_matrix(sp.csr_matrix((weight[kept], named, ends), shape=(width * height, total)))


def _pixels(center: np.ndarray, half: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last pixel whose centre lies within `half` of `center`."""
    low = np.clip(np.ceil(center - half - 0.5), 0, limit).astype(np.int32)
    high = np.clip(np.floor(center + half + 0.5), 0, limit).astype(np.int32)
    return low, np.maximum(high, low)
