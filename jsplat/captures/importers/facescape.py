"""FaceScape multi-view: `{view}.jpg` and a flat `params.json` of `{view}_K`, `{view}_Rt`, `{view}_distortion`, ...

Facts: the dataset's doc/doc_mview_model.md. Every capture has its own scale and axes; `Rt_scale_dict.json` of the
dataset's toolkit, where it lies beside the capture or up to two folders above, leads to its common frame.
"""

import re
from pathlib import Path

import numpy as np

from jsplat.captures.capture import inside, read_json
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.source import ImportConfig, Photo, Source
from jsplat.errors import InputError
from jsplat.files.json_fields import matrix, number, rigid

LOOKS_FOR = "params.json (FaceScape multi-view)"
_MILLIMETRE = 1e-3  # the common frame's unit: the toolkit renders its heads, 200 to 300 units high, from 1200 away
_GAUGE = "Rt_scale_dict.json"


def matches(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / "params.json").is_file()


def read(folder: Path, config: ImportConfig) -> Source:
    """The photographs that the source calls valid, sorted by number.

    Raises:
        InputError: naming the field of params.json that is wrong.
    """
    data, where = read_json(folder / "params.json"), f"{folder.name}/params.json"
    views = sorted({int(m[1]) for key in data if (m := re.fullmatch(r"([0-9]{1,6})_[A-Za-z]+", key))})
    photos, dropped, missing = [], [], []
    for view in views:
        valid = data.get(f"{view}_valid")
        if not isinstance(valid, bool):
            raise InputError(f"{where}: {view}_valid", wanted="true or false", got=repr(valid)[:80])
        if not valid:
            dropped.append(f"{view}.jpg")
        elif (folder / f"{view}.jpg").is_file():
            photos.append(_photo(folder, data, view, where))
        else:
            missing.append((f"{where}: {view}", f"{view}.jpg"))
    scale, world = _gauge(folder)
    up, front = (None, None) if world is None else (world[:3, :3].T @ axis for axis in np.eye(3)[1:])
    metres = None if scale is None else scale * _MILLIMETRE
    identity = f"{folder.parent.name}_{folder.name}" if folder.parent.name.isdigit() else folder.name
    return Source(
        layout="facescape",
        identity=identity,
        photos=tuple(photos),
        files=(folder / "params.json",),
        missing=tuple(missing),
        dropped=tuple(dropped),
        metres=metres,
        up=up,
        front=front,
    )


def _photo(folder: Path, data: dict, view: int, where: str) -> Photo:
    width, height = (number(data, f"{view}_{key}", where) for key in ("width", "height"))
    if not (width.is_integer() and height.is_integer() and 0 < min(width, height) <= max(width, height) < 1e6):
        raise InputError(f"{where}: {view}_width, {view}_height", wanted="whole pixels, above 0", got=(width, height))
    k = data.get(f"{view}_K")
    side = 4 if isinstance(k, list) and len(k) == 4 else 3  # the documentation says 4x4, the toolkit uses 3x3
    intrinsics = matrix(k, (side, side), f"{where}: {view}_K")[:3, :3].copy()
    if not np.array_equal(intrinsics[2], [0, 0, 1]):
        raise InputError(f"{where}: {view}_K", wanted="0 0 1 in the last row", got=intrinsics[2].tolist())
    # The toolkit hands K to OpenCV's undistortion, which counts from the first pixel's centre.
    intrinsics[:2, 2] += 0.5
    pose = rigid(data.get(f"{view}_Rt"), f"{where}: {view}_Rt")
    # OpenCV's order, k1 k2 p1 p2 k3.
    distortion = tuple(matrix(data.get(f"{view}_distortion"), (5,), f"{where}: {view}_distortion").tolist())
    try:
        lens = Lens(intrinsics, int(width), int(height), distortion)
    except InputError as error:
        raise error.at(f"{where}: {view}_K") from error
    return Photo(f"{where}: {view}", inside(folder, f"{view}.jpg", where), lens, pose)


def _gauge(folder: Path) -> tuple[float | None, np.ndarray | None]:
    """Scale and rotation from the capture's world to the dataset's common frame (y up, looking along z)."""
    folder = folder.resolve()
    files = [p / _GAUGE for p in (folder, folder.parent, folder.parent.parent) if (p / _GAUGE).is_file()]
    if not files:
        return None, None
    table, expression = read_json(files[0]), folder.name.partition("_")[0]
    entry = table.get(folder.parent.name)
    entry = entry.get(expression) if isinstance(entry, dict) else None
    where = f"{_GAUGE}: [{folder.parent.name}][{expression}]"
    if not isinstance(entry, list) or len(entry) != 2:
        raise InputError(where, wanted="[scale, Rt]", got=repr(entry)[:80])
    scale = number({"scale": entry[0]}, "scale", where)
    world = rigid(entry[1], f"{where}[1]")
    if scale <= 0:
        raise InputError(where, wanted="a scale above 0", got=scale)
    return scale, world
