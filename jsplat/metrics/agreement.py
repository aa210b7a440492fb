"""Whether views of one head agree with each other."""

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE
from jsplat.metrics.config import EvaluateConfig
from jsplat.raster.camera import Camera
from jsplat.raster.reprojection import Points, nearest_views


def agreement(
    labels: UInt8[np.ndarray, "..."],
    depth: Float[np.ndarray, "..."],
    cameras: Camera,
    config: EvaluateConfig = EvaluateConfig(),
) -> float | None:
    """Share of co-visible foreground pixels that keep their label when carried through depth into a neighbouring view.

    A foreground pixel of one view is lifted at its centre, projected into each of the `config.neighbors` views with the
    nearest optical axes, and compared with the pixel it falls into if that pixel's depth is the point's own depth up to
    `config.depth_tolerance`. Pairs are pooled. Works without truth.

    Args:
        labels: `v h w`, class ids or IGNORE (such pixels are not compared).
        depth: `v h w`, z depth in the camera frame, world units; 0 where nothing is seen.
        cameras: one per view, of the pictures' size.

    Returns:
        A share in [0, 1], or None if no pixel is seen twice.
    """
    labels, depth = np.asarray(labels), np.asarray(depth, np.float64)
    size = (len(cameras.camera_from_world), cameras.height, cameras.width)
    if labels.shape != size or depth.shape != size:
        raise InputError(
            "agreement: labels, depth", wanted=f"shape {size} of the cameras", got=(labels.shape, depth.shape)
        )
    compared = same = 0
    for i, neighbors in enumerate(nearest_views(cameras, config.neighbors).tolist()):
        rows, columns = np.nonzero((labels[i] > 0) & (labels[i] != IGNORE) & (depth[i] > 0))
        points = Points(cameras, depth, i, rows, columns)
        for j in neighbors:
            seen, v, u = points.seen_in(j, config.depth_tolerance)
            answered = labels[j, v, u] != IGNORE
            compared += int(answered.sum())
            same += int((labels[i, rows[seen], columns[seen]] == labels[j, v, u])[answered].sum())
    return same / compared if compared else None
