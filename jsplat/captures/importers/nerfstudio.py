"""`transforms.json` of nerfstudio, instant-ngp and Blender: camera-to-world matrices in OpenGL axes, a lens for all
frames or one for each, file names with or without an extension; Blender splits it into transforms_train.json etc.

Facts: nerfstudio's "Data conventions", instant-ngp's and NeRF's own datasets. Cameras count pixels as we do.
"""

from pathlib import Path

import numpy as np

from jsplat.captures.capture import ALL_OR_NONE, labelset_of, read_json
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.source import PICTURES, ImportConfig, Photo, Source, reachable, stored_size
from jsplat.errors import InputError
from jsplat.files.json_fields import number, rigid
from jsplat.raster.camera import OPENGL_FROM_OPENCV

LOOKS_FOR = "transforms.json or transforms_train.json (nerfstudio, instant-ngp, Blender)"
_PARTS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_PLAIN, _FISHEYE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"), ("OPENCV_FISHEYE",)
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")


def matches(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return any((folder / name).is_file() for name in ("transforms.json", *_PARTS))


def files_of(folder: Path) -> list[Path]:
    """The files that list frames."""
    whole = (folder / "transforms.json").is_file()
    return [folder / n for n in (("transforms.json",) if whole else _PARTS) if (folder / n).is_file()]


def frames_of(folder: Path) -> list[tuple[str, dict]]:
    """(file and field, frame) of all frames; what a file says for all of them is copied into each.

    Raises:
        InputError: a file that is damaged.
    """
    found = []
    for path in files_of(folder):
        data, where = read_json(path), f"{folder.name}/{path.name}"
        frames = data.pop("frames", None)
        if not isinstance(frames, list):
            raise InputError(f"{where}: frames", wanted="a list", got=repr(frames)[:80])
        for i, frame in enumerate(frames):
            if not isinstance(frame, dict):
                raise InputError(f"{where}: frames[{i}]", wanted="an object", got=repr(frame)[:80])
            found.append((f"{where}: frames[{i}]", data | frame))
    return found


def pose_of(frame: dict, where: str) -> np.ndarray:
    """camera_from_world `4 4`, OpenCV axes."""
    return np.linalg.inv(rigid(frame.get("transform_matrix"), f"{where}.transform_matrix") @ OPENGL_FROM_OPENCV)


def read(folder: Path, config: ImportConfig) -> Source:
    """All frames whose pictures are there.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    frames = frames_of(folder)
    labelled = ["label_path" in frame for _, frame in frames]
    if any(labelled) and not all(labelled):
        field = f"{frames[labelled.index(False)][0]}.label_path"
        raise InputError(field, wanted="labels for all views or none", got="none", hint=ALL_OR_NONE)
    labelset = labelset_of(frames[0][1], frames[0][0]) if any(labelled) else None
    photos, missing = [], []
    for where, frame in frames:
        path = picture_path(folder, frame, where, config)
        mask, labels = (
            reachable(folder, frame[key], f"{where}.{key}", config) if key in frame else None
            for key in ("mask_path", "label_path")
        )
        pose = pose_of(frame, where)
        if path.is_file():
            lens = lens_of(frame, path, where)
            photos.append(Photo(f"{where}.file_path", path, lens, pose, mask=mask, labels=labels))
        else:
            missing.append((f"{where}.file_path", path.name))
    files = files_of(folder)
    return Source("nerfstudio", folder.name, tuple(photos), tuple(files), tuple(missing), labelset=labelset)


def picture_path(folder: Path, frame: dict, where: str, config: ImportConfig) -> Path:
    """The picture of a frame; its extension may be missing, as in Blender's files."""
    path = reachable(folder, frame.get("file_path"), f"{where}.file_path", config)
    if path.suffix.lower() in PICTURES:
        return path
    endings = [*PICTURES, *(end.upper() for end in PICTURES)]
    found = [p for p in (path.with_name(path.name + end) for end in endings) if p.is_file()]
    return found[0] if found else path


def lens_of(frame: dict, path: Path, where: str) -> Lens:
    """The lens that a frame, with what its file says for all frames, describes.

    Raises:
        InputError: an unknown model, or numbers that cannot be.
    """
    model = frame.get("camera_model", "OPENCV")
    if model not in _PLAIN + _FISHEYE:
        wanted = f"one of {', '.join(_PLAIN + _FISHEYE)}"
        raise InputError(f"{where}.camera_model", wanted=wanted, got=repr(model)[:80])
    fisheye = model in _FISHEYE or frame.get("is_fisheye") is True
    if "w" not in frame or "h" not in frame:
        width, height, _ = stored_size(path, f"{where}.file_path")
        frame = frame | {"w": width, "h": height}
    w, h = number(frame, "w", where), number(frame, "h", where)
    if not (w.is_integer() and h.is_integer() and 0 < min(w, h) <= max(w, h) < 1e6):
        raise InputError(f"{where}: w, h", wanted="whole pixels, above 0", got=(w, h))
    fx = _focal(frame, "x", w, where)
    fy = _focal(frame, "y", h, where) if "fl_y" in frame or "camera_angle_y" in frame else fx
    matrix = np.asarray([[fx, 0, number(frame, "cx", where, w / 2)], [0, fy, number(frame, "cy", where, h / 2)]])
    k1, k2, k3, k4, p1, p2 = (number(frame, key, where, 0.0) for key in _COEFFICIENTS)
    if fisheye and (p1 or p2):
        raise InputError(f"{where}: p1, p2", wanted="0 for a fisheye", got=(p1, p2))
    if not fisheye and k4:
        # Some read it as a fourth power, some as OpenCV's denominator.
        hint = "`is_fisheye` or `camera_model` says that it is one"
        raise InputError(f"{where}: k4", wanted="0 unless the lens is a fisheye", got=k4, hint=hint)
    distortion = (k1, k2, k3, k4) if fisheye else (k1, k2, p1, p2, k3)
    try:
        return Lens(np.vstack([matrix, [0, 0, 1.0]]), int(w), int(h), distortion, fisheye)
    except InputError as error:
        raise error.at(f"{where}: lens") from error


def _focal(frame: dict, axis: str, size: float, where: str) -> float:
    # nerfstudio takes the focal length where both are given.
    if f"fl_{axis}" in frame or f"camera_angle_{axis}" not in frame:
        return number(frame, f"fl_{axis}", where)
    angle = number(frame, f"camera_angle_{axis}", where)
    if not 0 < angle < np.pi:
        raise InputError(f"{where}: camera_angle_{axis}", wanted="radians between 0 and pi", got=angle)
    return float(size / 2 / np.tan(angle / 2))
