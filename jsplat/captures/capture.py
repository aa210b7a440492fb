"""A capture: photographs of one head from calibrated cameras, with or without labels.

On disk: `transforms.json` (nerfstudio/Blender convention: camera-to-world, OpenGL axes), images, label PNGs with class
names in the JSON. docs/how_it_works.md describes it whole.
"""

import dataclasses
import json
import os
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jsplat.captures.identities import check_identity
from jsplat.captures.pictures import read_image, read_labels, read_mask, write_png
from jsplat.errors import InputError
from jsplat.files.atomic import new_folder, write_json
from jsplat.files.foreign import log_once, read_text, some_of, with_slashes, without_litter
from jsplat.files.json_fields import number, rigid
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.raster.camera import OPENGL_FROM_OPENCV, Camera, pose_angles

NO_CAPTURES = "`jsplat import` makes a capture of photographs, and `jsplat heads` captures of invented people"
ALL_OR_NONE = "leave out the views without labels, or leave out label_path everywhere"


@dataclasses.dataclass(frozen=True)
class Capture:
    """One identity, on the host.

    Attributes:
        identity: a name.
        images: sRGB.
        labels: class ids or IGNORE; None when the capture has none.
        cameras: one per view, batch shape (v,).
        labelset: what the ids mean; None when the capture has no labels.
        head_from_world: rigid, into the head frame of `jsplat.raster.camera`.
        background: the flat sRGB colour behind the head, if it is known.
        valid: False where a pixel says nothing (outside the lens, masked out), and labels are IGNORE; None: all True.
    """

    identity: str
    images: UInt8[np.ndarray, "v h w 3"]
    labels: UInt8[np.ndarray, "v h w"] | None
    cameras: Camera
    labelset: LabelSet | None
    head_from_world: Float[np.ndarray, "4 4"]
    background: tuple[int, int, int] | None
    valid: Bool[np.ndarray, "v h w"] | None = None

    @property
    def yaw(self) -> Float[np.ndarray, " v"]:
        """Degrees, > 0 when the camera stands on the person's left."""
        return pose_angles(self.cameras, self.head_from_world)[0]

    @property
    def pitch(self) -> Float[np.ndarray, " v"]:
        """Degrees, > 0 when the camera stands above."""
        return pose_angles(self.cameras, self.head_from_world)[1]

    def only(self, views: Int[np.ndarray, " n"]) -> "Capture":
        """The same person in some of the views."""
        rows = {name: getattr(self, name) for name in ("images", "labels", "cameras", "valid")}
        return dataclasses.replace(self, **{name: None if x is None else x[views] for name, x in rows.items()})

    @property
    def behind(self) -> Float[np.ndarray, " 3"]:
        """What renders show where no head is: the background, in [0, 1]; grey if it is not known."""
        return np.asarray((128, 128, 128) if self.background is None else self.background, np.float32) / 255

    def with_labels(self, labels: np.ndarray | None, labelset: LabelSet | None) -> "Capture":
        """The same photographs with other labels; invalid pixels get none."""
        if labels is not None and self.valid is not None:
            labels = np.where(self.valid, labels, np.uint8(IGNORE))
        return dataclasses.replace(self, labels=labels, labelset=labelset)


def resize_labels(labels: UInt8[np.ndarray, "h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2"]:
    """Resizes a label map to (width, height): smaller by area vote (each new pixel takes the class, or IGNORE, that
    covers most of it), larger by the nearest pixel."""
    if labels.shape == size[::-1]:
        return labels
    if size[0] > labels.shape[1] or size[1] > labels.shape[0]:
        return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    present = np.unique(labels)
    coverage = [cv2.resize((labels == i).astype(np.float32), size, interpolation=cv2.INTER_AREA) for i in present]
    return present[np.argmax(np.stack(coverage), 0)].astype(np.uint8)


def inside(root: Path, name: object, where: str) -> Path:
    """The file `name` below `root`; InputError (`where`: file and field) if it is no relative path that stays there.

    A backslash separates folders, unless a file has it in its name."""
    if isinstance(name, str) and "\\" in name:
        # An archive made on Windows may have been unpacked into files whose names hold the whole path.
        exact = "/" not in name and os.path.exists(root / name)
        name = name if exact else with_slashes(name)
    parts = Path(name).parts if isinstance(name, str) else ()
    # Names that no file system takes would fail later, and differently everywhere.
    fits = all(len(part.encode(errors="replace")) <= 255 for part in parts) and "\0" not in str(name)
    if not parts or Path(*parts).is_absolute() or ".." in parts or not fits or len(str(name)) > 1000:
        hint = "put the file in that folder, and name it relative to it"
        raise InputError(where, wanted="a path inside the folder", got=repr(name)[:80], hint=hint)
    return root.joinpath(*parts)


def resize_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """Resizes a mask to (width, height): a pixel is valid when everything under it is."""
    coverage = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return coverage > 1 - 1e-4  # sums of float32 weights; a whole source pixel weighs more up to a reduction of 100


def read_json(path: Path) -> dict:
    """The JSON object in a file; InputError for anything else."""
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # broken, an endless number, nested too deep
        raise InputError(str(path), wanted="JSON", got=error) from error
    if not isinstance(data, dict):
        raise InputError(str(path), wanted="a JSON object", got=type(data).__name__)
    return data


def labelset_of(data: dict, where: str) -> LabelSet:
    """What the ids of a capture's label maps mean, from its JSON object."""
    if "labelset" in data:
        try:
            return LabelSet.from_json(data["labelset"])
        except InputError as error:
            raise error.at(f"{where}: labelset") from error
    names = data.get("classes")
    if not isinstance(names, list):
        got = "none" if names is None else repr(names)
        raise InputError(f"{where}: classes", wanted="a list of class names, as labels are given", got=got)
    if tuple(names) != CELEBAMASK_HQ.names:
        unknown = [n for n in names if n not in CELEBAMASK_HQ.names]
        raise InputError(
            f"{where}: classes",
            wanted="the 19 names of CelebAMask-HQ in this project's order, or a full `labelset` object",
            got=f"unknown names {unknown}" if unknown else "another order",
            hint="`labelset` holds names, colors, mirror and rare",
        )
    return CELEBAMASK_HQ


def frames_of(data: dict, where: str) -> list[dict]:
    """The views of a capture, from its JSON object: at least two, through one lens, with labels for all or none."""
    frames = data.get("frames")
    if not isinstance(frames, list) or len(frames) < 2:
        got = len(frames) if isinstance(frames, list) else repr(frames)
        raise InputError(f"{where}: frames", wanted="a list of at least 2 views", got=got)
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise InputError(f"{where}: frames[{i}]", wanted="an object", got=repr(frame))
        if "fl_x" in frame:
            what, hint = f"{where}: frames[{i}].fl_x", "`jsplat import` brings several lenses to one"
            raise InputError(what, wanted="one lens for all frames", got=frame["fl_x"], hint=hint)
    labelled = ["label_path" in frame for frame in frames]
    if any(labelled) and not all(labelled):
        field = f"{where}: frames[{labelled.index(False)}].label_path"
        raise InputError(field, wanted="labels for all views or none", got="none", hint=ALL_OR_NONE)
    return frames


def read_capture(path: Path, size: int | None = None, *, labels: bool = True) -> Capture:
    """Reads one capture.

    Args:
        path: the folder that holds `transforms.json`.
        size: resize so that the longer side has this many pixels; None keeps the files' size.
        labels: whether to read its labels, where it has some.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    data, where = read_json(path / "transforms.json"), f"{path.name}/transforms.json"
    frames = frames_of(data, where)
    labelset = labelset_of(data, where) if labels and "label_path" in frames[0] else None

    lens, full = lens_of(data, where)
    out = resized(full, size)
    scale = max(out) / max(full)
    images, masks, matrices, valid = [], [], [], []
    for i, frame in enumerate(frames):
        field = f"{where}: frames[{i}]"
        matrices.append(rigid(frame.get("transform_matrix"), f"{field}.transform_matrix"))
        name = f"{field}.file_path"
        image = read_image(inside(path, frame.get("file_path"), name), name)
        if image.shape[1::-1] != full:
            raise InputError(name, wanted=f"{full[0]}x{full[1]} pixels", got=f"{image.shape[1]}x{image.shape[0]}")
        images.append(cv2.resize(image, out, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
        if "mask_path" in frame:
            name = f"{field}.mask_path"
            valid.append(resize_mask(read_mask(inside(path, frame["mask_path"], name), name, full), out))
        else:
            valid.append(np.ones(out[::-1], bool))
        if labelset is not None:
            name = f"{field}.label_path"
            label = read_labels(inside(path, frame["label_path"], name), name, labelset, full)
            if not np.any((label > 0) & (label != IGNORE)):
                hint = "leave this view out of frames, or the labels out of all of them"
                raise InputError(name, wanted="a mask with some foreground", got="an empty mask", hint=hint)
            masks.append(np.where(valid[-1], resize_labels(label, out), np.uint8(IGNORE)))

    camera_from_world = np.linalg.inv(np.stack(matrices) @ OPENGL_FROM_OPENCV)
    intrinsics = np.broadcast_to(lens, (len(frames), 3, 3))
    cameras = Camera(jnp.asarray(camera_from_world, jnp.float32), jnp.asarray(intrinsics, jnp.float32), *full)
    head = data.get("head_from_world")
    return Capture(
        identity=identity_of(data, path, where),
        images=np.stack(images),
        labels=np.stack(masks) if labelset is not None else None,
        cameras=cameras.resized(*out),
        labelset=labelset,
        head_from_world=np.eye(4) if head is None else rigid(head, f"{where}: head_from_world"),
        background=_background(data, where),
        valid=np.stack(valid) if any("mask_path" in frame for frame in frames) else None,
    )


def resized(full: tuple[int, int], size: int | None) -> tuple[int, int]:
    """Width and height when the longer side gets `size` pixels; None keeps them."""
    if size is not None and size < 1:
        raise InputError("read_capture: size", wanted="at least 1 pixel", got=size)
    scale = 1.0 if size is None else size / max(full)
    return max(round(full[0] * scale), 1), max(round(full[1] * scale), 1)


def identity_of(data: dict, path: Path, where: str) -> str:
    """The name of a capture in the folder `path`, from its JSON object; InputError where no file could have it."""
    name = str(data.get("identity", path.resolve().name))
    check_identity(name, f"{where}: identity")
    return name


def lens_of(data: dict, where: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Intrinsics `3 3` in pixels, and (width, height)."""
    model = data.get("camera_model", "OPENCV")
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"):
        wanted, hint = "OPENCV, PINHOLE or SIMPLE_PINHOLE", "`jsplat import` brings fisheye lenses to one of these"
        raise InputError(f"{where}: camera_model", wanted=wanted, got=repr(model), hint=hint)
    for key in ("k1", "k2", "k3", "k4", "p1", "p2"):
        if number(data, key, where, 0.0) != 0.0:
            hint = "`jsplat import` undoes lens distortion"
            raise InputError(f"{where}: {key}", wanted="0", got=data[key], hint=hint)
    w, h, fx = (number(data, key, where) for key in ("w", "h", "fl_x"))
    fy = number(data, "fl_y", where, fx)
    cx, cy = number(data, "cx", where, w / 2), number(data, "cy", where, h / 2)
    if min(w, h, fx, fy) <= 0 or w != int(w) or h != int(h):
        wanted = "positive numbers, w and h whole"
        raise InputError(f"{where}: w, h, fl_x, fl_y", wanted=wanted, got=(w, h, fx, fy))
    return np.asarray([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), (int(w), int(h))


def _background(data: dict, where: str) -> tuple[int, int, int] | None:
    value = data.get("background")
    if value is None:
        return None
    whole = isinstance(value, list) and len(value) == 3 and all(type(c) is int and 0 <= c <= 255 for c in value)
    if not whole:
        raise InputError(f"{where}: background", wanted="three whole numbers in 0..255", got=repr(value))
    return value[0], value[1], value[2]


def capture_folders(path: Path) -> list[Path]:
    """The captures in a folder, or the folder itself when it is one, sorted by name; other folders are named on stderr,
    once."""
    if (path / "transforms.json").is_file():
        return [path]
    folders = [p for p in without_litter(path.glob("*")) if p.is_dir() and not p.name.startswith(".")]
    found = [p for p in folders if (p / "transforms.json").is_file()]
    if not found:
        wanted = "a capture (a folder with transforms.json), or a folder of captures"
        if not path.is_dir():
            raise InputError(str(path), wanted=wanted, got="a file" if path.exists() else "nothing there")
        raise InputError(str(path), wanted=wanted, got="a folder without one", hint=NO_CAPTURES)
    if others := [p.name for p in folders if p not in found]:
        line = f"passed over folders without transforms.json: {len(others)} ({some_of(others)})"
        log_once("passed over", str(path), line, folders=others)
    return found


def write_capture(path: Path, capture: Capture) -> None:
    """Writes a capture into a new folder so that `read_capture` gives it back (images as PNG, without loss).

    Raises:
        InputError: something lies there, fewer than two views, or cameras of different lenses, which the format cannot
            say.
    """
    with new_folder(path) as folder:
        fill_capture(folder, capture)


def picture_name(view: int) -> str:
    """What `write_capture` calls the picture of a view."""
    return f"images/{view:03d}.png"


def fill_capture(folder: Path, capture: Capture) -> None:
    """`write_capture` into a folder that is there."""
    if len(capture.images) < 2:
        raise InputError("write_capture: capture.images", wanted="at least 2 views", got=len(capture.images))
    if np.ptp(np.asarray(capture.cameras.intrinsics), axis=0).any():
        got = f"{len(np.unique(np.asarray(capture.cameras.intrinsics), axis=0))} different ones"
        hint = "`import_capture` brings photographs of several lenses to one"
        raise InputError(
            "write_capture: capture.cameras.intrinsics", wanted="one lens for all views", got=got, hint=hint
        )
    k = np.asarray(capture.cameras.intrinsics[0], np.float64)
    matrices = np.linalg.inv(np.asarray(capture.cameras.camera_from_world, np.float64)) @ OPENGL_FROM_OPENCV
    frames = []
    for i, (image, matrix) in enumerate(zip(capture.images, matrices)):
        frame = {"file_path": picture_name(i), "transform_matrix": matrix.tolist()}
        frame |= {"yaw": float(capture.yaw[i]), "pitch": float(capture.pitch[i])}
        write_png(folder / frame["file_path"], image)
        if capture.labels is not None:
            frame["label_path"] = f"labels/{i:03d}.png"
            write_png(folder / frame["label_path"], capture.labels[i])
        if capture.valid is not None:
            frame["mask_path"] = f"masks/{i:03d}.png"
            write_png(folder / frame["mask_path"], np.where(capture.valid[i], np.uint8(255), np.uint8(0)))
        frames.append(frame)
    data = {"camera_model": "OPENCV", "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
    data |= {"w": capture.cameras.width, "h": capture.cameras.height, "identity": capture.identity}
    data |= {"head_from_world": capture.head_from_world.tolist(), "background": capture.background}
    if capture.labelset is not None:
        data |= {"classes": list(capture.labelset.names), "labelset": capture.labelset.to_json()}
    write_json(folder / "transforms.json", data | {"frames": frames})
