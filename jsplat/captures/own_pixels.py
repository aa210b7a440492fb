"""The pictures that a capture was made from: where each of their pixels lies in the capture's cameras, and back.

`import` says in import.json what it undid: lens, quarter turns, size and Exif tag of every picture. Where it says
nothing (captures of other origin, imports of older versions), the capture's own pictures are the originals.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jsplat.captures.capture import frames_of, inside, lens_of, read_json, resize_labels
from jsplat.captures.importers.headframe import turn_matrix
from jsplat.captures.importers.lens import WIDEST, Lens
from jsplat.captures.importers.source import Photo, video_frame
from jsplat.captures.upright import read_upright
from jsplat.errors import InputError
from jsplat.files.foreign import with_slashes
from jsplat.labelsets.labelset import IGNORE
from jsplat.raster.camera import Camera

_FLIPPED_DOWN, _FLIPPED_RIGHT = (3, 4, 7, 8), (2, 3, 6, 7)  # Exif orientations; above 4 rows and columns are swapped
Points = Float[np.ndarray, "n 2"]


@dataclasses.dataclass(frozen=True)
class OwnPixels:
    """One original picture, as programs show it: turned by its Exif tag.

    Attributes:
        name: of its results; relative, without ending.
        path: where it was when it was imported; `frame`: which one, of a video.
        lens: of the picture as it is stored.
        orientation: its Exif tag, 1 = stored as it is shown.
        turns: quarter turns from the stored picture to the capture's camera (see `turn_matrix`).
        imported: whether the capture's picture was made from it; else it is that picture.
    """

    name: str
    path: Path
    lens: Lens
    orientation: int = 1
    turns: int = 0
    frame: int | None = None
    imported: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        stored = (self.lens.width, self.lens.height)
        return (stored[1], stored[0]) if self.orientation > 4 else stored

    def rays(self, pixels: Points) -> tuple[Points, Bool[np.ndarray, " n"]]:
        """Rays (x, y at depth 1 of the capture's camera) that pixels see, and whether the lens knows them.

        Args:
            pixels: the centre of the first one lies at (0.5, 0.5).
        """
        stored = self._turned(pixels, self.size)
        stored = stored[:, ::-1] if self.orientation > 4 else stored
        farthest, seen = (of[-1] for of in self.lens.radii(WIDEST))
        length = np.hypot(*((stored - self.lens.matrix[:2, 2]) / self.lens.focal).T)
        known = length < (farthest if self.lens.plain else seen)
        return self.lens.rays(stored, WIDEST) @ turn_matrix(self.turns)[:2, :2].T, known

    def pixels(self, rays: Points) -> tuple[Points, Bool[np.ndarray, " n"]]:
        """The pixels that rays of the capture's camera meet, and whether they lie inside the picture."""
        rays = rays @ turn_matrix(self.turns)[:2, :2]
        known = np.hypot(*rays.T) <= self.lens.radii(WIDEST)[0][-1]
        stored = self.lens.project(np.where(known[:, None], rays, 0.0))
        shown = self._turned(stored[:, ::-1] if self.orientation > 4 else stored, self.size)
        return shown, known & (shown >= 0).all(-1) & (shown < self.size).all(-1)

    def _turned(self, points: Points, size: tuple[int, int]) -> Points:
        flips = np.asarray([self.orientation in _FLIPPED_RIGHT, self.orientation in _FLIPPED_DOWN])
        return np.where(flips, np.asarray(size) - points, points)

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture itself in sRGB.

        Raises:
            InputError: it is not there any more, cannot be read, or has another size.
        """
        where = self.path.name
        if self.frame is not None:
            image = video_frame(Photo(where, self.path, self.lens, np.eye(4), frame=self.frame))[..., ::-1]
        else:
            image = read_upright(self.path, where)
        if image.shape[1::-1] != self.size:
            wanted = f"{self.size[0]}x{self.size[1]} pixels, as when it was imported"
            got, hint = f"{image.shape[1]}x{image.shape[0]}", "put the original back, or import it again"
            raise InputError(where, wanted=wanted, got=got, hint=hint)
        return np.ascontiguousarray(image)


def as_imported(mask: UInt8[np.ndarray, "h2 w2"], own: OwnPixels, camera: Camera) -> UInt8[np.ndarray, "h w"]:
    """A mask of an original photograph as the imported camera sees it: lens and turns undone; IGNORE beyond it."""
    k, (width, height) = np.asarray(camera.intrinsics, np.float64), own.size
    # As coarse as the capture, by area vote; then the nearest pixel is the place.
    coarser = max(float(np.mean(own.lens.focal) / np.mean(k[[0, 1], [0, 1]])), 1.0)
    small = resize_labels(mask, (max(round(width / coarser), 1), max(round(height / coarser), 1)))
    rows, columns = np.mgrid[: camera.height, : camera.width]
    rays = (np.stack([columns, rows], -1).reshape(-1, 2) + 0.5 - k[:2, 2]) / k[[0, 1], [0, 1]]
    at, inside = own.pixels(rays)
    u, v = (np.where(inside[:, None], at, 0) * small.shape[::-1] / own.size).astype(int).T
    labels = np.where(inside, small[np.minimum(v, small.shape[0] - 1), np.minimum(u, small.shape[1] - 1)], IGNORE)
    return labels.reshape(camera.height, camera.width).astype(np.uint8)


def own_pixels(folder: Path) -> list[OwnPixels]:
    """The original picture of every view of a capture, in the order of its views.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    data, where = read_json(folder / "transforms.json"), f"{folder.name}/transforms.json"
    frames = frames_of(data, where)
    pictures = [inside(folder, f.get("file_path"), f"{where}: frames[{i}].file_path") for i, f in enumerate(frames)]
    matrix, size = lens_of(data, where)
    recorded = _recorded(folder)
    found, plain = [], Lens(matrix, *size)
    for path in pictures:
        known = recorded.get(path.relative_to(folder).as_posix())
        found.append(known or OwnPixels("", path, plain))
    return [dataclasses.replace(one, name=name) for one, name in zip(found, _names(found))]


def _recorded(folder: Path) -> dict[str, OwnPixels]:
    """What import.json says of the originals, by the capture's pictures; nothing where it is older than that."""
    if not (folder / "import.json").is_file():
        return {}
    data, where, found = read_json(folder / "import.json"), f"{folder.name}/import.json", {}
    for i, view in enumerate(data.get("views", [])):
        if not {"picture", "lens"} <= view.keys():
            continue
        field = f"{where}: views[{i}]"
        try:
            lens = Lens.from_json(view["lens"])
            # The folder is relative to the capture's where that holds it (frames of a video).
            # A plain joining of paths: the original may lie beside the folder, and need not be there any more.
            path = Path(os.path.normpath(folder / data["folder"] / view["source"]))
            frame = None if view.get("frame") is None else int(view["frame"])
            about = (int(view["orientation"]), int(view["quarter_turns"]), frame)
        except (KeyError, TypeError, ValueError) as error:
            got = error.got if isinstance(error, InputError) else error
            hint = "`jsplat import` into a new folder writes it again"
            raise InputError(field, wanted="what `jsplat import` says of a picture", got=got, hint=hint) from error
        found[str(view["picture"])] = OwnPixels("", path, lens, *about, imported=True)
    return found


def _names(pictures: Sequence[OwnPixels]) -> list[str]:
    """Their file names without ending, with folders where they lie in several; with ending where that tells apart."""
    try:
        above = os.path.commonpath([one.path.parent for one in pictures])
    except ValueError:  # several drives
        above = ""
    paths = [
        PurePosixPath(with_slashes(os.path.relpath(one.path, above) if above else one.path.name)) for one in pictures
    ]
    ends = ["" if one.frame is None else f"_{one.frame:06d}" for one in pictures]
    plain = [f"{path.with_suffix('')}{end}" for path, end in zip(paths, ends)]
    often = collections.Counter(name.casefold() for name in plain)
    names = [n if often[n.casefold()] == 1 else f"{path}{end}" for n, path, end in zip(plain, paths, ends)]
    if len({name.casefold() for name in names}) < len(names):
        got = ", ".join(sorted(names)[:5])
        raise InputError("pictures", wanted="names that differ in more than case", got=got, hint="rename some of them")
    return names
