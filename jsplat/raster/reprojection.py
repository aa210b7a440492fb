"""From a pixel of one view to the pixel of another that sees the same point, through depth; on the host."""

import numpy as np
from jaxtyping import Float, Int

from jsplat.raster.camera import Camera


def optical_axes(cameras: Camera) -> Float[np.ndarray, "v 3"]:
    """Where cameras look, in the world."""
    return np.asarray(cameras.camera_from_world, np.float64)[:, 2, :3]


def nearest_views(cameras: Camera, count: int) -> Int[np.ndarray, "v m"]:
    """Of each view the `count` others (or all, where there are fewer) with the nearest optical axes, nearest first."""
    axes = optical_axes(cameras)
    nearness = axes @ axes.T
    np.fill_diagonal(nearness, -np.inf)
    return np.argsort(-nearness, 1, kind="stable")[:, : min(count, len(axes) - 1)]


class Points:
    """Pixels of one view, lifted to where they lie in space.

    Args:
        cameras: `v`, of the pictures' size.
        depth: z depth in the camera frame, world units; 0 where nothing is seen.
        view: whose pixels.
        rows, columns: which ones.
    """

    def __init__(
        self,
        cameras: Camera,
        depth: Float[np.ndarray, "v h w"],
        view: int,
        rows: Int[np.ndarray, " p"],
        columns: Int[np.ndarray, " p"],
    ):
        self._poses = np.asarray(cameras.camera_from_world, np.float64)
        self._intrinsics = np.asarray(cameras.intrinsics, np.float64)
        self._depth, self._z = depth, depth[view, rows, columns].astype(np.float64)
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        self._rays = np.linalg.solve(self._intrinsics[view], pixels) * self._z
        self._world_from_view = np.linalg.inv(self._poses[view])

    def seen_in(
        self, other: int, tolerance: float
    ) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
        """Which points another view sees (their numbers), and in which rows and columns.

        Args:
            tolerance: share of the depth by which the two views may differ and still see the same point.
        """
        height, width = self._depth.shape[1:]
        moved = self._poses[other] @ self._world_from_view
        x = moved[:3, :3] @ self._rays + moved[:3, 3:]
        front = (x[2] > 0) & (self._z > 0)
        u, v, _ = np.floor(self._intrinsics[other] @ (x / np.where(front, x[2], 1))).astype(np.int64)
        inside = np.flatnonzero(front & (u >= 0) & (u < width) & (v >= 0) & (v < height))
        z = x[2, inside]
        same = inside[np.abs(self._depth[other, v[inside], u[inside]] - z) <= tolerance * z]
        return same, v[same], u[same]
