"""COLMAP's sparse models, binary or text: `sparse/0` (or `sparse`, or the folder itself) and pictures in `images`.

Facts: COLMAP's documentation, "Output Format" and "Camera Models". The first pixel's centre is at 0.5, as here.
Points are not read; rigs and frames of newer versions repeat what images say.
"""

import dataclasses
import re
import struct
from pathlib import Path

import numpy as np

from jsplat.captures.capture import inside
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.masks import find_mask
from jsplat.captures.importers.source import ImportConfig, Photo, Source
from jsplat.errors import InputError
from jsplat.files.foreign import text_of, without_litter

LOOKS_FOR = "sparse/0/cameras.bin or .txt (COLMAP)"
# Name of the model in files -> (its number, number of parameters).
MODELS = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
}
_NAMES = {number: name for name, (number, _) in MODELS.items()}
_OTHERS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE", 12: "SIMPLE_DIVISION"}
_OTHERS |= {13: "DIVISION", 14: "SIMPLE_FISHEYE", 15: "FISHEYE", 16: "EUCM", 17: "EQUIRECTANGULAR"}
_NAME_LONGEST = 4096


@dataclasses.dataclass
class _Cursor:
    """Reads a file's bytes in order; asks for no more than there are."""

    data: bytes
    where: str
    at: int = 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize(f"<{form}")
        self.need(size)
        self.at += size
        return struct.unpack_from(f"<{form}", self.data, self.at - size)

    def need(self, size: int) -> None:
        if size > len(self.data) - self.at:
            got = f"the end of the file after {len(self.data)}"
            raise InputError(self.where, wanted=f"{size} more bytes at {self.at}", got=got)

    def count(self, least: int) -> int:
        """A declared number of entries of at least `least` bytes each."""
        (count,) = self.take("Q")
        if count * least > len(self.data) - self.at:
            wanted = f"as many entries as {len(self.data) - self.at} bytes hold"
            raise InputError(self.where, wanted=wanted, got=f"a declared count of {count}")
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + _NAME_LONGEST)
        if end < 0:
            raise InputError(self.where, wanted="a name that ends", got=f"none from byte {self.at} on")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InputError(self.where, wanted="a name in UTF-8", got=raw[:40]) from error


def _model(folder: Path) -> Path | None:
    for path in (folder / "sparse" / "0", folder / "sparse", folder):
        if any((path / f"cameras.{end}").is_file() for end in ("bin", "txt")):
            return path
    return None


def matches(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return _model(folder) is not None


def read(folder: Path, config: ImportConfig) -> Source:
    """All registered images, sorted by name.

    Raises:
        InputError: naming the file that is wrong, or a camera model that cannot be undone.
    """
    model = _model(folder)
    if model is None:
        raise InputError(str(folder), wanted=LOOKS_FOR, got="none found")
    parts = [p.name for p in without_litter(model.parent.iterdir()) if p.is_dir()]
    if model.parent.name == "sparse" and len(parts) > 1:
        hint = "keep the one with most images there, and move the others elsewhere"
        raise InputError(f"{folder.name}/sparse", wanted="one model", got=", ".join(parts), hint=hint)
    photos, missing = read_model(model, folder, folder / "images")
    return Source("colmap", folder.name, photos, tuple(_files(model)), missing)


def _files(model: Path) -> list[Path]:
    binary = (model / "cameras.bin").is_file()
    return [model / f"{name}.{'bin' if binary else 'txt'}" for name in ("cameras", "images")]


def read_model(model: Path, folder: Path, images: Path) -> tuple[tuple[Photo, ...], tuple[tuple[str, str], ...]]:
    """The photographs of a sparse model, with their masks (see `find_mask`).

    Args:
        model: the folder of cameras and images.
        folder: of the capture.
        images: the folder of pictures.

    Returns:
        the photographs that are there; (file and image, file name) of the missing ones.

    Raises:
        InputError: naming the file that is wrong, or a camera model that cannot be undone.
    """
    files = _files(model)
    binary = files[0].suffix == ".bin"
    try:
        raw = [path.read_bytes() for path in files]
    except OSError as error:
        raise InputError(f"{model.name}/{Path(error.filename).name}", wanted="a readable file", got=error) from error
    wheres = [f"{model.name}/{path.name}" for path in files]
    lenses = (_cameras_bin if binary else _cameras_txt)(raw[0], wheres[0])
    views = (_images_bin if binary else _images_txt)(raw[1], wheres[1])
    photos, missing = [], []
    for name, pose, camera in sorted(views, key=lambda view: view[0]):
        where = f"{wheres[1]}: {name}"
        if camera not in lenses:
            raise InputError(where, wanted=f"a camera of {wheres[0]}", got=camera)
        path = inside(images, name, where)
        if path.is_file():
            mask = find_mask(folder, images, path.relative_to(images))
            photos.append(Photo(where, path, lenses[camera], pose, mask=mask))
        else:
            missing.append((where, path.name))
    return tuple(photos), tuple(missing)


def _lens(name: str, width: int, height: int, params: tuple[float, ...], where: str) -> Lens:
    if not 0 < min(width, height) <= max(width, height) < 1_000_000:
        raise InputError(where, wanted="a picture size", got=f"{width}x{height}")
    single = name.startswith("SIMPLE") or name.startswith("RADIAL")
    fx, fy, cx, cy, *rest = (params[0], *params) if single else params
    if name in ("SIMPLE_RADIAL", "RADIAL"):
        rest = [*rest, 0.0][:2]
    try:
        matrix = np.asarray([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        return Lens(matrix, width, height, tuple(rest), name.endswith("FISHEYE"))
    except InputError as error:
        raise error.at(where) from error


def _known(name: str, where: str) -> int:
    if name not in MODELS:
        hint = "`colmap image_undistorter` makes PINHOLE of most others"
        raise InputError(where, wanted=f"a camera model among {', '.join(MODELS)}", got=name[:40], hint=hint)
    return MODELS[name][1]


def _pose(quaternion: tuple[float, ...], translation: tuple[float, ...], where: str) -> np.ndarray:
    w, x, y, z = quaternion
    # hypot does not overflow where squares do.
    norm = float(np.hypot(np.hypot(w, x), np.hypot(y, z)))
    if not abs(norm - 1) < 1e-3 or not np.isfinite(translation).all():
        got = f"{quaternion} and {translation}"
        raise InputError(where, wanted="a unit quaternion and a finite translation", got=got)
    w, x, y, z = (c / norm for c in quaternion)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


def _cameras_bin(data: bytes, where: str) -> dict[int, Lens]:
    cursor, lenses = _Cursor(data, where), {}
    for _ in range(cursor.count(24 + 3 * 8)):
        camera, model, width, height = cursor.take("IiQQ")
        name = _NAMES.get(model) or _OTHERS.get(model, f"number {model}")
        field = f"{where}: camera {camera}"
        params = cursor.take(f"{_known(name, field)}d")
        lenses[camera] = _lens(name, width, height, params, field)
    return lenses


def _images_bin(data: bytes, where: str) -> list[tuple[str, np.ndarray, int]]:
    cursor, views = _Cursor(data, where), []
    for _ in range(cursor.count(4 + 7 * 8 + 4 + 1 + 8)):
        image, *pose, camera = cursor.take("I7dI")
        name = cursor.text()
        views.append((name, _pose(tuple(pose[:4]), tuple(pose[4:]), f"{where}: image {image}"), camera))
        observed = cursor.count(24)  # x, y, id of a point each; not needed
        cursor.at += 24 * observed
    return views


def _text(data: bytes, where: str) -> tuple[list[str], str]:
    """The stripped lines that are no comments, and the comments."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text_of(data, where))]
    comments = "\n".join(line for line in lines if line.startswith("#"))
    return [line for line in lines if not line.startswith("#")], comments


def _numbers(words: list[str], kind: type, where: str) -> tuple:
    try:
        return tuple(kind(word) for word in words)
    except ValueError as error:
        raise InputError(where, wanted="numbers", got=" ".join(words)[:80]) from error


def _cameras_txt(data: bytes, where: str) -> dict[int, Lens]:
    lenses = {}
    for line in filter(None, _text(data, where)[0]):
        words = line.split()
        if len(words) < 4:
            raise InputError(where, wanted="CAMERA_ID MODEL WIDTH HEIGHT PARAMS", got=line[:80])
        count = _known(words[1], f"{where}: camera {words[0][:20]}")
        camera, width, height = _numbers([words[0], *words[2:4]], int, where)
        field = f"{where}: camera {camera}"
        params = _numbers(words[4:], float, field)
        if len(params) != count:
            raise InputError(field, wanted=f"{count} parameters of {words[1]}", got=len(params))
        lenses[camera] = _lens(words[1], width, height, params, field)
    return lenses


def _images_txt(data: bytes, where: str) -> list[tuple[str, np.ndarray, int]]:
    (lines, comments), views = _text(data, where), []
    ahead = iter(lines)
    for line in filter(None, ahead):
        words = line.split(maxsplit=9)
        if len(words) < 10:
            wanted = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise InputError(where, wanted=wanted, got=line[:80])
        image, camera = _numbers([words[0], words[8]], int, where)
        pose = _numbers(words[1:8], float, f"{where}: image {image}")
        views.append((words[9], _pose(pose[:4], pose[4:], f"{where}: image {image}"), camera))
        # The line behind an image's own lists its points, and is empty where there are none; others may be empty too.
        points = next(ahead, "")
        if not _are_points(points):
            wanted = "a line of points, X Y POINT3D_ID each, or an empty one"
            raise InputError(f"{where}: behind image {image}", wanted=wanted, got=points[:80])
    declared = re.search(r"Number of images: *([0-9]{1,9})\b", comments)
    if declared and int(declared[1]) > len(views):
        wanted = f"the {declared[1]} images that its first lines announce"
        hint = "delete the comment that counts them, if images were left out on purpose"
        raise InputError(where, wanted=wanted, got=len(views), hint=hint)
    return views


def _are_points(line: str) -> bool:
    """Whether a line lists points, going by how many words it has and the first and last of them."""
    words = line.split()
    try:
        ends = [(float(x), float(y), int(point)) for x, y, point in (words[:3], words[-3:])] if words else []
    except ValueError:
        return False
    return len(words) % 3 == 0 and len(ends) in (0, 2)
