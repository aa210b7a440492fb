"""Undoing lenses: every photograph of a capture is resampled once, into one pinhole lens that all views share."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jsplat.captures.capture import resize_labels
from jsplat.captures.importers.headframe import turn_matrix
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.source import ImportConfig, Photo, read_photo
from jsplat.captures.index import MOST
from jsplat.captures.pictures import read_labels
from jsplat.errors import InputError
from jsplat.files.foreign import log_once
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera

_BORDER_POINTS = 65
_ROWS = 256
SMALLEST = 16
_LONGEST = 32767  # OpenCV's resampling counts in 16 bits
_EDGE = 0.01  # pixels that the middle of a pixel, rounded, may lie outside the picture


def common_lens(
    photos: tuple[Photo, ...], turns: np.ndarray, config: ImportConfig, size: int
) -> tuple[np.ndarray, int, int]:
    """The pinhole lens of the imported capture: square pixels, a window onto the plane at depth 1.

    Args:
        size: pixels of the longer side; 0: as finely as the photographs show it, up to `MOST`, which is told.

    Returns:
        intrinsics `3 3` in pixels (first pixel's centre at 0.5), width, height.

    Raises:
        InputError: photographs that have no window in common, a lens that cannot be undone, or another size.
    """
    if size and not SMALLEST <= size < _LONGEST:
        raise InputError("--set size", wanted=f"0, or {SMALLEST} to {_LONGEST - 1} pixels", got=size)
    known: dict[tuple, np.ndarray] = {}
    windows = []
    for photo, turn in zip(photos, turns):
        key = (_key(photo.lens), int(turn))
        if key not in known:
            try:
                known[key] = _window(photo.lens, int(turn), config)
            except InputError as error:
                raise error.at(f"{photo.where}: lens") from error
        windows.append(known[key])
    low, high = np.asarray(windows).transpose(1, 0, 2)  # 2 v 2
    low, high = (low.min(0), high.max(0)) if config.edges == "keep" else (low.max(0), high.min(0))
    if not np.all(high - low > 1e-3):
        raise InputError(
            "--set capture.edges", wanted="'keep', as the photographs have no window in common", got="'crop'"
        )
    if max(max(p.lens.width, p.lens.height) for p in photos) >= _LONGEST:
        raise InputError("import", wanted=f"photographs of less than {_LONGEST} pixels a side", got="longer ones")
    extent = float((high - low).max())
    own = float(np.median([f for p in photos for f in p.lens.focal])) * extent
    if not size and own > MOST:
        line = f"{len(photos)} photographs of {round(own)} pixels are brought in at {MOST} (--set size={round(own)} for"
        log_once("resized", "import", f"{line} all of it)", pictures=len(photos), own=round(own), used=MOST)
    focal = (size or min(own, MOST)) / extent
    # Cropped windows are rounded down, so that nothing in them is invalid.
    exact = (high - low) * focal
    exact = np.round(exact) if config.edges == "keep" else np.floor(exact + 1e-6)
    width, height = (int(max(n, 1)) for n in exact)
    # Half a pixel at most is lost or gained by rounding; the window's middle stays.
    cx, cy = np.asarray([width, height]) / 2 - focal * (low + high) / 2
    return np.asarray([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]]), width, height


def _key(lens: Lens) -> tuple:
    return (lens.matrix.tobytes(), lens.width, lens.height, lens.distortion, lens.fisheye)


def _window(lens: Lens, turn: int, config: ImportConfig) -> Float[np.ndarray, "2 2"]:
    """Lower and upper corner of what one photograph shows at depth 1."""
    along = np.linspace(0.0, 1.0, _BORDER_POINTS)
    zero, one = np.zeros_like(along), np.ones_like(along)
    border = np.stack([[along, zero], [one, along], [along, one], [zero, along]]).transpose(0, 2, 1)
    pixels = border.reshape(-1, 2) * [lens.width, lens.height]
    sides = (lens.rays(pixels, np.radians(config.max_ray_angle)) @ turn_matrix(turn)[:2, :2].T).reshape(4, -1, 2)
    top, right, bottom, left = np.roll(sides, turn, axis=0)
    if config.edges == "crop":
        return np.asarray([[left[:, 0].max(), top[:, 1].max()], [right[:, 0].min(), bottom[:, 1].min()]])
    return np.asarray([sides.reshape(-1, 2).min(0), sides.reshape(-1, 2).max(0)])


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A view through the common lens.

    Attributes:
        image: sRGB.
        valid: False where the photograph shows nothing or its mask says so.
        labels: class ids or IGNORE, if there are any.
        matted: whether the background was replaced.
    """

    image: UInt8[np.ndarray, "h w 3"]
    valid: Bool[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"] | None
    matted: bool


class Rectifier:
    """Resamples photographs into the common lens."""

    def __init__(
        self, photos: Sequence[tuple[Photo, int]], lens: tuple[Float[np.ndarray, "3 3"], int, int], config: ImportConfig
    ):
        """Args:
        photos: all that will be resampled, with their quarter turns; maps that several need are made once.
        lens: intrinsics, width and height of the common lens.
        """
        (self.intrinsics, self.width, self.height), self.config = lens, config
        lenses = {(_key(p.lens), turn): (p.lens, turn) for p, turn in photos}
        often = [key for key, n in Counter((_key(p.lens), turn) for p, turn in photos).items() if n > 1]
        self._kept = {key: self._bending(*lenses[key]) for key in often}

    def _bending(self, lens: Lens, turn: int) -> tuple:
        """Size to shrink to, where each pixel then lies in x and in y, and whether it lies inside."""
        focal = self.intrinsics[0, 0]
        # Shrinking averages areas and comes first; what is left for the maps is bending at equal resolution.
        shrink = np.minimum(1.0, focal / np.asarray(lens.focal))
        small = tuple(int(max(n, 1)) for n in np.round(np.asarray([lens.width, lens.height]) * shrink))
        x, y = np.empty((2, self.height, self.width), np.float32)
        inside = np.empty((self.height, self.width), bool)
        farthest = lens.radii(np.radians(self.config.max_ray_angle))[0][-1] * (1 + 1e-6)
        for start in range(0, self.height, _ROWS):  # in strips: float64 temporaries of a whole picture are large
            rows = np.arange(start, min(start + _ROWS, self.height))
            grid = np.stack(np.meshgrid(np.arange(self.width) + 0.5, rows + 0.5), -1).reshape(-1, 2)
            rays = (grid - self.intrinsics[:2, 2]) / focal @ turn_matrix(turn)[:2, :2]
            at = lens.project(rays) * np.asarray(small) / [lens.width, lens.height] - 0.5
            # Beyond its field a lens' polynomial folds back into the picture.
            known = np.hypot(*rays.T) <= farthest
            known &= np.all((at > -0.5 - _EDGE) & (at < np.asarray(small) - 0.5 + _EDGE), -1)
            at = np.where(known[:, None], at, 0.0)
            x[rows], y[rows] = at.T.reshape(2, len(rows), self.width)
            inside[rows] = known.reshape(len(rows), self.width)
        return small, x, y, inside

    def _maps(self, photo: Photo, turn: int) -> tuple:
        key = (_key(photo.lens), turn)
        return self._kept[key] if key in self._kept else self._bending(photo.lens, turn)

    def __call__(self, photo: Photo, turn: int, labelset: LabelSet | None) -> Resampled:
        """The photograph through the common lens.

        Args:
            photo: its label map is read when there is a `labelset`.
            turn: quarter turns.

        Raises:
            InputError: a picture that cannot be read.
        """
        small, x, y, inside = self._maps(photo, turn)
        image, mask, matte = read_photo(photo)
        image, valid, behind = _bend(image, small, x, y), inside, np.asarray(self.config.background, np.uint8)
        if mask is not None:
            coverage = cv2.resize(mask.astype(np.float32), small, interpolation=cv2.INTER_AREA)
            coverage = cv2.remap(coverage, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            valid = inside & (coverage > 1 - 1e-4)  # all of what lies under a pixel, up to float32 sums
        if matte is not None:
            alpha = _bend(matte, small, x, y)[..., None] / np.float32(255)
            image = np.round(image * alpha + behind * (1 - alpha)).astype(np.uint8)
        labels = None
        if photo.labels is not None and labelset is not None:
            read = read_labels(photo.labels, photo.where, labelset, (photo.lens.width, photo.lens.height))
            small_map = resize_labels(read, small)
            nearest = cv2.remap(small_map, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            labels = np.where(inside, nearest, np.uint8(IGNORE))
        return Resampled(np.where(inside[..., None], image, behind), valid, labels, matte is not None)


def _bend(image: np.ndarray, small: tuple[int, int], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.remap(shrunk, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def imported_cameras(camera_from_head: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> Camera:
    """The capture's cameras: one lens, all views."""
    tiled = np.broadcast_to(intrinsics, (len(camera_from_head), 3, 3))
    return Camera(jnp.asarray(camera_from_head, jnp.float32), jnp.asarray(tiled, jnp.float32), width, height)
