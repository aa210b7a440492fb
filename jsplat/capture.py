"""A capture: photographs of one head from calibrated cameras, with or without labels.

On disk: `transforms.json` (nerfstudio/Blender convention: camera-to-world, OpenGL axes), images, label PNGs with class
names in the JSON. README's Conventions section shows an example.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jsplat.camera import OPENGL_FROM_OPENCV, Camera, pose_angles
from jsplat.errors import InputError
from jsplat.folder import new_folder, write_json
from jsplat.labelset import IGNORE, LabelSet


@dataclasses.dataclass(frozen=True)
class Capture:
    """One identity, on the host.

    Attributes:
        identity: a name.
        images: sRGB.
        labels: class ids or IGNORE; None when the capture has none.
        cameras: one per view, batch shape (v,).
        labelset: what the ids mean; None when the capture has no labels.
        head_from_world: rigid, into the head frame of `jsplat.camera`.
        background: the flat sRGB colour behind the head, if it is known.
    """

    identity: str
    images: UInt8[np.ndarray, "v h w 3"]
    labels: UInt8[np.ndarray, "v h w"] | None
    cameras: Camera
    labelset: LabelSet | None
    head_from_world: Float[np.ndarray, "4 4"]
    background: tuple[int, int, int] | None

    @property
    def yaw(self) -> Float[np.ndarray, " v"]:
        """Degrees, > 0 when the camera stands on the person's left."""
        return pose_angles(self.cameras, self.head_from_world)[0]

    @property
    def pitch(self) -> Float[np.ndarray, " v"]:
        """Degrees, > 0 when the camera stands above."""
        return pose_angles(self.cameras, self.head_from_world)[1]

    def with_labels(self, labels: np.ndarray | None, labelset: LabelSet | None) -> "Capture":
        """The same photographs with other labels."""
        return dataclasses.replace(self, labels=labels, labelset=labelset)


def shrink_labels(labels: UInt8[np.ndarray, "h w"], size: tuple[int, int], k: int) -> UInt8[np.ndarray, "h2 w2"]:
    """Resizes a label map by area vote: each new pixel takes the class (or IGNORE) covering most of it."""
    if labels.shape == size[::-1]:
        return labels
    present = np.unique(labels)
    shares = np.stack(
        [cv2.resize((labels == i).astype(np.float32), size, interpolation=cv2.INTER_AREA) for i in present]
    )
    if labels.shape[0] < size[1]:
        return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return present[np.argmax(shares, 0)].astype(np.uint8)


def _read_json(path: Path) -> dict:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(str(path), wanted="a transforms.json", got="no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), wanted="JSON", got=error) from error
    if not isinstance(data, dict):
        raise InputError(str(path), wanted="a JSON object", got=type(data).__name__)
    return data


def _number(data: dict, key: str, where: str, default: float | None = None) -> float:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(f"{where}: {key}", wanted="a finite number", got=repr(value))
    return float(value)


def _rigid(value: object, where: str) -> np.ndarray:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(where, wanted="a 4x4 matrix of numbers", got=error) from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(where, wanted="a finite 4x4 matrix", got=matrix.tolist())
    rotation = matrix[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    if not rigid or not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        raise InputError(where, wanted="a rigid camera-to-world transform", got=matrix.round(4).tolist())
    return matrix


def _inside(root: Path, name: object, where: str) -> Path:
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(where, wanted="a path inside the capture's folder", got=repr(name))
    return root / name


def _read_image(path: Path, where: str, flags: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(where, wanted="an image", got=f"no file {path.name}")
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise InputError(where, wanted="a readable image", got=f"{path.name}, {path.stat().st_size} bytes")
    return image


def _labelset(data: dict, where: str) -> LabelSet:
    from jsplat.labelset import CELEBAMASK_HQ

    if isinstance(data.get("labelset"), dict):
        return LabelSet.from_json(data["labelset"])
    names = data.get("classes")
    if not isinstance(names, list):
        raise InputError(f"{where}: classes", wanted="a list of class names", got=repr(names))
    if tuple(names) != CELEBAMASK_HQ.names:
        unknown = [n for n in names if n not in CELEBAMASK_HQ.names]
        raise InputError(
            f"{where}: classes",
            wanted="the 19 names of CelebAMask-HQ in this project's order, or a full `labelset` object",
            got=f"unknown names {unknown}" if unknown else "another order",
        )
    return CELEBAMASK_HQ


def read_capture(path: Path, size: int | None = None) -> Capture:
    """Reads one capture.

    Args:
        path: the folder that holds `transforms.json`.
        size: resize so that the longer side has this many pixels; None keeps the files' size.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    json_path = path / "transforms.json"
    data, where = _read_json(json_path), f"{path.name}/transforms.json"
    frames = data.get("frames")
    if not isinstance(frames, list) or len(frames) < 2:
        raise InputError(
            f"{where}: frames", wanted="at least 2 views", got=len(frames) if isinstance(frames, list) else frames
        )
    for key in ("k1", "k2", "k3", "p1", "p2"):
        if _number(data, key, where, 0.0) != 0.0:
            raise InputError(f"{where}: {key}", wanted="0 (undistort the images first)", got=data[key])
    w, h = int(_number(data, "w", where)), int(_number(data, "h", where))
    fx = _number(data, "fl_x", where)
    fy = _number(data, "fl_y", where, fx)
    cx, cy = _number(data, "cx", where, w / 2), _number(data, "cy", where, h / 2)
    if min(w, h, fx, fy) <= 0:
        raise InputError(f"{where}: w, h, fl_x, fl_y", wanted="positive numbers", got=(w, h, fx, fy))
    scale = 1.0 if size is None else size / max(w, h)
    out = (round(w * scale), round(h * scale))
    labelled = [isinstance(f, dict) and "label_path" in f for f in frames]
    if any(labelled) and not all(labelled):
        raise InputError(
            f"{where}: frames[{labelled.index(False)}].label_path", wanted="labels for all views or none", got=None
        )
    labelset = _labelset(data, where) if all(labelled) else None

    images, labels, matrices = [], [], []
    for i, frame in enumerate(frames):
        field = f"{where}: frames[{i}]"
        if not isinstance(frame, dict):
            raise InputError(field, wanted="an object", got=repr(frame))
        camera_to_world = _rigid(frame.get("transform_matrix"), f"{field}.transform_matrix")
        matrices.append(np.linalg.inv(camera_to_world @ OPENGL_FROM_OPENCV))
        name = f"{field}.file_path"
        image = _read_image(_inside(path, frame.get("file_path"), name), name, cv2.IMREAD_COLOR)
        if image.shape[:2] != (h, w):
            raise InputError(name, wanted=f"{w}x{h} pixels", got=f"{image.shape[1]}x{image.shape[0]}")
        filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        images.append(cv2.cvtColor(cv2.resize(image, out, interpolation=filter_), cv2.COLOR_BGR2RGB))
        if labelset is None:
            continue
        name = f"{field}.label_path"
        label = _read_image(_inside(path, frame["label_path"], name), name, cv2.IMREAD_UNCHANGED)
        if label.shape != (h, w) or label.dtype != np.uint8:
            raise InputError(name, wanted=f"one 8-bit channel of {w}x{h} pixels", got=f"{label.dtype} {label.shape}")
        labelset.check(label, name)
        if not np.any((label > 0) & (label != IGNORE)):
            raise InputError(name, wanted="a mask with some foreground", got="an empty mask")
        labels.append(shrink_labels(label, out, len(labelset)))

    intrinsics = np.asarray([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    cameras = Camera(
        jnp.asarray(np.stack(matrices), jnp.float32),
        jnp.asarray(np.broadcast_to(intrinsics, (len(frames), 3, 3)), jnp.float32),
        w,
        h,
    ).resized(*out)
    head = data.get("head_from_world")
    background = data.get("background")
    return Capture(
        identity=str(data.get("identity", path.name)),
        images=np.stack(images),
        labels=np.stack(labels) if labelset is not None else None,
        cameras=cameras,
        labelset=labelset,
        head_from_world=np.eye(4) if head is None else _rigid(head, f"{where}: head_from_world"),
        background=None if background is None else (int(background[0]), int(background[1]), int(background[2])),
    )


def capture_folders(path: Path) -> list[Path]:
    """The captures in a folder, or the folder itself when it is one, sorted by name."""
    found = [path] if (path / "transforms.json").is_file() else sorted(p.parent for p in path.glob("*/transforms.json"))
    if not found:
        raise InputError(str(path), wanted="a capture or a folder of captures (transforms.json)", got="none found")
    return found


def write_capture(path: Path, capture: Capture) -> None:
    """Writes a capture so that `read_capture` gives it back (images as PNG, without loss)."""
    k = np.asarray(capture.cameras.intrinsics[0], np.float64)
    matrices = np.linalg.inv(np.asarray(capture.cameras.camera_from_world, np.float64)) @ OPENGL_FROM_OPENCV
    with new_folder(path) as folder:
        frames = []
        for i, (image, matrix) in enumerate(zip(capture.images, matrices)):
            frame = {"file_path": f"images/{i:03d}.png", "transform_matrix": matrix.tolist()}
            frame |= {"yaw": float(capture.yaw[i]), "pitch": float(capture.pitch[i])}
            write_png(folder / frame["file_path"], image)
            if capture.labels is not None:
                frame["label_path"] = f"labels/{i:03d}.png"
                write_png(folder / frame["label_path"], capture.labels[i])
            frames.append(frame)
        data = {"camera_model": "OPENCV", "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
        data |= {"w": capture.cameras.width, "h": capture.cameras.height, "identity": capture.identity}
        data |= {"head_from_world": capture.head_from_world.tolist(), "background": capture.background}
        if capture.labelset is not None:
            data |= {"classes": list(capture.labelset.names), "labelset": capture.labelset.to_json()}
        write_json(folder / "transforms.json", data | {"frames": frames})


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes RGB or one-channel 8-bit pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
