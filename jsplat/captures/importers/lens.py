"""Lenses: which pixel a ray meets, and which ray a pixel sees."""

import dataclasses

import numpy as np
from jaxtyping import Float

from jsplat.errors import InputError

WIDEST = np.radians(80.0)  # half field of view up to which a lens is looked at; a pinhole picture cannot hold 90
_SAMPLES = 4096
_NEWTON_STEPS = 30
_WANTED = "a distortion that can be undone"
_HINT = "calibrate again with fewer coefficients, or with more pictures of the edges"

Points = Float[np.ndarray, "n 2"]


@dataclasses.dataclass(frozen=True)
class Lens:
    """A calibrated lens. Rays are written as x, y at depth 1, in OpenCV axes.

    Attributes:
        matrix: `3 3`, pixels, without skew; the centre of the first pixel lies at (0.5, 0.5).
        width, height: of the pictures it made, pixels.
        distortion: OpenCV's order and formulas: k1 k2 p1 p2 k3 k4 k5 k6 (radial, tangential, rational), or k1 to k4
            of the equidistant fisheye; what is missing is 0.
        fisheye: which of the two.

    Raises:
        InputError: numbers that are not finite or cannot belong to a lens.
    """

    matrix: Float[np.ndarray, "3 3"]
    width: int
    height: int
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self):
        numbers = np.append(self.matrix.ravel(), self.distortion)
        if not np.isfinite(numbers).all() or not 0 < min(self.focal) <= max(self.focal) < 1e9:
            raise InputError("lens", wanted="finite numbers and positive focal lengths", got=numbers.tolist())
        if np.abs(self.matrix - np.diag(self.matrix.diagonal()))[[0, 1, 2, 2], [1, 0, 0, 1]].any():
            raise InputError("lens", wanted="pixels without skew", got=self.matrix.tolist())
        if self.width < 1 or self.height < 1:
            raise InputError("lens", wanted="a picture size", got=f"{self.width}x{self.height}")
        if len(self.distortion) > (4 if self.fisheye else 8):
            raise InputError("lens", wanted="at most 8 coefficients, 4 for a fisheye", got=self.distortion)

    def to_json(self) -> dict:
        """A JSON-ready description."""
        numbers = {
            "fl_x": self.matrix[0, 0],
            "fl_y": self.matrix[1, 1],
            "cx": self.matrix[0, 2],
            "cy": self.matrix[1, 2],
        }
        sizes = {"w": self.width, "h": self.height, "distortion": [float(k) for k in self.distortion]}
        return {name: float(value) for name, value in numbers.items()} | sizes | {"fisheye": self.fisheye}

    @staticmethod
    def from_json(data: dict) -> "Lens":
        """The inverse of `to_json`; InputError for anything else."""
        try:
            fx, fy, cx, cy = (float(data[key]) for key in ("fl_x", "fl_y", "cx", "cy"))
            size, bend = (int(data["w"]), int(data["h"])), tuple(float(k) for k in data["distortion"])
            fisheye = data["fisheye"] is True
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("lens", wanted="fl_x, fl_y, cx, cy, w, h, distortion, fisheye", got=error) from error
        return Lens(np.asarray([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), *size, bend, fisheye)

    @property
    def plain(self) -> bool:
        """Whether it is a pinhole."""
        return not self.fisheye and not any(self.distortion)

    @property
    def focal(self) -> tuple[float, float]:
        """fx, fy in pixels."""
        return float(self.matrix[0, 0]), float(self.matrix[1, 1])

    def distort(self, rays: Points) -> Points:
        """Where an ideal ray is seen to come from.

        OpenCV's calibration documentation, "Detailed Description" of `calib3d` and of its namespace `fisheye`.
        """
        x, y = rays[:, 0], rays[:, 1]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.fisheye:
                k1, k2, k3, k4 = self._padded(4)
                r = np.hypot(x, y)
                angle = np.arctan(r)
                a2 = angle**2
                bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
                return rays * np.where(r > 0, bent / np.where(r > 0, r, 1), 1)[:, None]
            k1, k2, p1, p2, k3, k4, k5, k6 = self._padded(8)
            r2 = x * x + y * y
            radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
            return np.stack(
                [
                    x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                    y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
                ],
                -1,
            )

    def project(self, rays: Points) -> Points:
        """The pixels that rays meet."""
        return self.distort(rays) * self.focal + self.matrix[:2, 2]

    def radii(self, field: float) -> tuple[np.ndarray, np.ndarray]:
        """Distances of rays from the axis and their distorted distances, both increasing, up to `field` radians or to
        where the lens' polynomial turns back and so describes no lens any more."""
        r = np.tan(np.linspace(0.0, min(field, WIDEST), _SAMPLES))
        plain = dataclasses.replace(self, distortion=self._radial())
        seen = plain.distort(np.stack([r, np.zeros_like(r)], -1))[:, 0]
        if not self.fisheye:
            *_, k4, k5, k6 = self._padded(8)
            with np.errstate(over="ignore", invalid="ignore"):
                r2 = r * r
                seen = np.where(1 + r2 * (k4 + r2 * (k5 + r2 * k6)) > 0, seen, np.nan)
        rising = np.append(True, np.isfinite(seen[1:]) & (np.diff(seen) > 0))
        count = int(np.argmin(rising)) if not rising.all() else len(r)
        if count < 8:
            raise InputError("lens", wanted=_WANTED, got=self.distortion, hint=_HINT)
        return r[:count], seen[:count]

    def rays(self, pixels: Points, field: float) -> Points:
        """The rays that pixels see; beyond `field` radians, or beyond what the lens can say, the outermost ray in
        that direction.

        Raises:
            InputError: tangential distortion too wild to be undone.
        """
        r, seen = self.radii(field)
        bent = (pixels - self.matrix[:2, 2]) / self.focal
        if self.plain:
            length = np.hypot(*bent.T)
            return bent * np.minimum(1.0, r[-1] / np.maximum(length, 1e-30))[:, None]
        length = np.hypot(*bent.T)
        inside = length < seen[-1]
        start = np.interp(length, seen, r)
        rays = bent * (start / np.maximum(length, 1e-30))[:, None]
        for _ in range(_NEWTON_STEPS):
            step = 1e-6
            off = self.distort(rays) - bent
            columns = [(self.distort(rays + d) - self.distort(rays - d)) / (2 * step) for d in np.eye(2) * step]
            (a, c), (b, d) = columns[0].T, columns[1].T
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                det = a * d - b * c
                move = np.stack([d * off[:, 0] - b * off[:, 1], a * off[:, 1] - c * off[:, 0]], -1) / det[:, None]
            rays = np.where(inside[:, None] & np.isfinite(move), rays - np.clip(move, -0.1, 0.1), rays)
        missed = inside & ~(np.abs(self.distort(rays) - bent).max(-1) < 1e-7)
        if missed.any():
            raise InputError("lens", wanted=_WANTED, got=self.distortion, hint=_HINT)
        return rays

    def _padded(self, count: int) -> tuple[float, ...]:
        return (*self.distortion, *[0.0] * (count - len(self.distortion)))

    def _radial(self) -> tuple[float, ...]:
        if self.fisheye:
            return self.distortion
        k1, k2, _, _, *rest = self._padded(8)
        return (k1, k2, 0.0, 0.0, *rest)
