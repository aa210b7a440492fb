"""Small captures written in the layouts of others, as their documentation says, for the tests of the readers."""

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np

from jsplat.captures.importers import ImportConfig, import_capture
from jsplat.captures.importers.colmap import MODELS
from jsplat.raster.camera import OPENGL_FROM_OPENCV, orbit

SMALL = ImportConfig()
POINTS = np.random.default_rng(7).uniform(-0.1, 0.1, (12, 3))  # in the head frame, metres
PARAMETERS = {  # COLMAP model -> distortion, in its own order
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": (-0.12,),
    "RADIAL": (-0.12, 0.03),
    "OPENCV": (-0.12, 0.03, 0.002, -0.003),
    "FULL_OPENCV": (0.05, 0.02, 0.002, -0.003, 0.01, 0.15, 0.03, 0.004),
    "OPENCV_FISHEYE": (0.02, -0.01, 0.004, -0.001),
    "SIMPLE_RADIAL_FISHEYE": (0.05,),
    "RADIAL_FISHEYE": (0.05, -0.02),
}


def run(folder: Path, config: ImportConfig = SMALL, size: int = 16):
    """Imports a folder to `out` beside it, anew each time."""
    shutil.rmtree(folder.parent / "out", ignore_errors=True)
    return import_capture(folder, folder.parent / "out", config, size)


@dataclasses.dataclass(frozen=True)
class Rig:
    """Cameras around a head, in a world with axes, scale and origin of its own."""

    width: int = 48
    height: int = 36
    distortion: tuple[float, ...] = ()  # OpenCV's order
    fisheye: bool = False
    views: int = 5
    gauge: float = 2.5  # world units per metre
    roll: float = 0.0  # degrees
    square: bool = False  # one focal length

    @property
    def k(self) -> np.ndarray:
        """3 3, first pixel's centre at 0.5."""
        f = 1.9 * max(self.width, self.height)
        off = 0.03 * self.width
        return np.asarray(
            [[f, 0, self.width / 2 + off], [0, f if self.square else 1.02 * f, self.height / 2 - off], [0, 0, 1]]
        )

    @property
    def world_from_head(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotation and offset; scaled by `gauge`."""
        rotation = cv2.Rodrigues(np.asarray([0.4, -0.7, 0.2]))[0]
        return rotation, np.asarray([3.0, -1.0, 2.0])

    @property
    def poses(self) -> np.ndarray:
        """camera_from_world `v 4 4`, rigid, in world units."""
        yaw, pitch = np.linspace(-50, 50, self.views), np.linspace(-12, 12, self.views)
        cameras = orbit(yaw, pitch, np.full(self.views, self.roll), np.full(self.views, 1.1), self.k, (4, 4))
        matrices = np.asarray(cameras.camera_from_world, np.float64)
        rotation, offset = self.world_from_head
        out = matrices.copy()
        u, _, vt = np.linalg.svd(matrices[:, :3, :3])  # float32 rotations are not quite orthogonal
        out[:, :3, :3] = u @ vt @ rotation.T
        out[:, :3, 3] = self.gauge * matrices[:, :3, 3] - out[:, :3, :3] @ offset
        return out

    @property
    def points(self) -> np.ndarray:
        """POINTS in the world."""
        rotation, offset = self.world_from_head
        return self.gauge * POINTS @ rotation.T + offset

    def pixels(self, view: int) -> np.ndarray:
        """Where OpenCV projects the points, first pixel's centre at 0.5."""
        pose, k = self.poses[view], self.k.copy()
        rotation, offset = cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3]
        bend = np.zeros(4 if self.fisheye else 8)
        bend[: len(self.distortion)] = self.distortion
        project = cv2.fisheye.projectPoints if self.fisheye else cv2.projectPoints
        order = (self.points[None], rotation, offset, k, bend)
        return project(*order)[0].reshape(-1, 2)

    def picture(self, view: int, sigma: float = 0.0) -> np.ndarray:
        """Grey levels; with `sigma`, bright spots of that many pixels at the points."""
        y, x = np.mgrid[: self.height, : self.width] + 0.5
        if not sigma:
            return np.stack([x * 3 + view, y * 4, x + y], -1).clip(0, 255).astype(np.uint8)
        spots = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)) for u, v in self.pixels(view))
        return np.repeat(np.round(200 * np.minimum(spots, 1.2))[..., None], 3, -1).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    """Writes RGB, RGBA or one channel, as the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[2] if image.ndim == 3 else 1)
    data = image if code is None else cv2.cvtColor(image, code)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    path.write_bytes(cv2.imencode(path.suffix, data, quality)[1].tobytes())


def facescape(folder: Path, rig: Rig, sigma: float = 0.0) -> Path:
    """OpenCV's pixel convention, 4x4 K, 3x4 Rt; the last view is marked unusable."""
    data = {}
    for i, pose in enumerate(rig.poses):
        k = np.eye(4)
        k[:3, :3] = rig.k
        k[:2, 2] -= 0.5
        bend = [*rig.distortion, *[0.0] * 5][:5]
        data |= {f"{i}_K": k.tolist(), f"{i}_Rt": pose[:3].tolist(), f"{i}_distortion": bend}
        data |= {f"{i}_width": rig.width, f"{i}_height": rig.height, f"{i}_matches": 99, f"{i}_sn": "A1"}
        data |= {f"{i}_valid": i < rig.views - 1, f"{i}_ori": f"IMG_{i}.JPG"}
        save(folder / f"{i}.jpg", rig.picture(i, sigma))
    (folder / "params.json").write_text(json.dumps(data))
    return folder


def nersemble(folder: Path, rig: Rig, sigma: float = 0.0, mattes: bool = True) -> Path:
    """Unpacked pictures of two moments."""
    serials = [f"2222000{36 + i}" for i in range(rig.views)]
    data = {"world_2_cam": {s: p.tolist() for s, p in zip(serials, rig.poses)}, "intrinsics": rig.k.tolist()}
    data |= {"width": rig.width, "height": rig.height}
    sequence = folder / "sequences" / "EXP-1-head"
    for i, serial in enumerate(serials):
        save(sequence / "images" / f"cam_{serial}_00000.jpg", rig.picture(i, sigma))
        save(sequence / "images" / f"cam_{serial}_00001.jpg", rig.picture(i + 9))
        if mattes:
            save(sequence / "alpha_maps" / f"cam_{serial}_00000.png", np.full((rig.height, rig.width), 255, np.uint8))
    (folder / "calibration").mkdir()
    (folder / "calibration" / "camera_params.json").write_text(json.dumps(data))
    return folder


def frames(rig: Rig, end: str = ".png") -> list[dict]:
    """Frames of a transforms.json: camera-to-world, OpenGL axes."""
    matrices = np.linalg.inv(rig.poses) @ OPENGL_FROM_OPENCV
    return [{"file_path": f"./images/{i:02d}{end}", "transform_matrix": m.tolist()} for i, m in enumerate(matrices)]


def lens(rig: Rig) -> dict:
    """Lens keys of a transforms.json."""
    data = {"fl_x": rig.k[0, 0], "fl_y": rig.k[1, 1], "cx": rig.k[0, 2], "cy": rig.k[1, 2], "w": rig.width}
    names = ("k1", "k2", "k3", "k4") if rig.fisheye else ("k1", "k2", "p1", "p2", "k3")
    model = "OPENCV_FISHEYE" if rig.fisheye else "OPENCV"
    return data | {"h": rig.height, "camera_model": model} | dict(zip(names, rig.distortion))


def nerfstudio(folder: Path, rig: Rig, sigma: float = 0.0) -> Path:
    """One lens for all frames."""
    for i in range(rig.views):
        save(folder / "images" / f"{i:02d}.png", rig.picture(i, sigma))
    (folder / "transforms.json").write_text(json.dumps(lens(rig) | {"aabb_scale": 16, "frames": frames(rig)}))
    return folder


def vhap(folder: Path, rig: Rig, sigma: float = 0.0) -> Path:
    """A lens in every frame, cy from the lower edge, two moments."""
    listed = []
    for step in range(2):
        for i, frame in enumerate(frames(rig)):
            name = f"{step:05d}_{i:02d}.png"
            own = {"timestep_index": step, "camera_index": i, "file_path": f"images/{name}"}
            own |= {"fg_mask_path": f"fg_masks/{name}"} | lens(rig) | {"cy": rig.height - rig.k[1, 2]}
            listed.append(frame | own)
            save(folder / "images" / name, rig.picture(i + 9 * step, 0.0 if step else sigma))
            save(folder / "fg_masks" / name, np.full((rig.height, rig.width), 255, np.uint8))
    (folder / "transforms.json").write_text(json.dumps(listed[-1] | {"frames": listed}))
    return folder


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    axis = cv2.Rodrigues(rotation)[0][:, 0]
    angle = np.linalg.norm(axis)
    return np.append(np.cos(angle / 2), np.sin(angle / 2) * axis / max(angle, 1e-12))


def colmap(folder: Path, rig: Rig, sigma: float = 0.0, model: str = "OPENCV", text: bool = False) -> Path:
    """A sparse model; the rig's distortion must be the model's."""
    k, count = rig.k, MODELS[model][1]
    focal = (k[0, 0],) if model.startswith(("SIMPLE", "RADIAL")) else (k[0, 0], k[1, 1])
    params = (*focal, k[0, 2], k[1, 2], *rig.distortion)
    params = (*params, *[0.0] * (count - len(params)))
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    views = [(i + 1, *_quaternion(p[:3, :3]), *p[:3, 3], 3, f"sub/{i:02d}.png") for i, p in enumerate(rig.poses)]
    for i, view in enumerate(views):
        save(folder / "images" / view[-1], rig.picture(i, sigma))
    if text:
        numbers = " ".join(map(repr, map(float, params)))
        (sparse / "cameras.txt").write_text(f"# comment\n3 {model} {rig.width} {rig.height} {numbers}\n")
        lines = [" ".join(map(str, view)) + "\n" + ("1.5 2.5 -1" if view[0] % 2 else "") + "\n" for view in views]
        (sparse / "images.txt").write_text("# comment\n# more\n" + "".join(lines))
        return folder
    data = struct.pack("<QIiQQ", 1, 3, MODELS[model][0], rig.width, rig.height)
    (sparse / "cameras.bin").write_bytes(data + struct.pack(f"<{count}d", *params))
    entries = [
        struct.pack("<I7dI", *view[:-1])
        + view[-1].encode()
        + b"\0"
        + struct.pack("<Q", 1)
        + struct.pack("<ddq", 1, 2, -1)
        for view in views
    ]
    (sparse / "images.bin").write_bytes(struct.pack("<Q", len(views)) + b"".join(entries))
    return folder


LAYOUTS = {
    "facescape": facescape,
    "nersemble": nersemble,
    "vhap": vhap,
    "nerfstudio": nerfstudio,
    "colmap": colmap,
}


def make(folder: Path, layout: str, change=None, file: str | None = None, rig: dict | None = None, **options) -> Path:
    """Writes a layout of four views and lets `change` edit one of its JSON files."""
    LAYOUTS[layout](folder, Rig(views=4, **(rig or {})), **options)
    if change is not None:
        path = folder / (file or "transforms.json")
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
    return folder


class FakeColmap:
    """Finds the cameras of all photographs but the last, as the rig has them; another model sees less."""

    CameraMode = type("CameraMode", (), {"SINGLE": "single", "AUTO": "auto"})

    def __init__(self, rig: Rig):
        self.rig, self.calls = rig, []

    def set_random_seed(self, seed):
        pass

    def extract_features(self, database, folder, image_names, camera_mode):
        self.calls.append((image_names, camera_mode))

    def match_exhaustive(self, database):
        pass

    def incremental_mapping(self, database, folder, out):
        made = colmap(out / "made", dataclasses.replace(self.rig, views=self.rig.views - 1), text=True)
        (out / "1").mkdir()
        for name in ("cameras.txt", "images.txt"):
            text = (made / "sparse" / "0" / name).read_text().replace("sub/", "")
            for i, picture in enumerate(self.calls[-1][0]):
                text = text.replace(f"{i:02d}.png", picture)
            (out / "1" / name).write_text(text)
        return {i: type("Model", (), {"num_reg_images": lambda self, n=n: n})() for i, n in enumerate((1, 4))}
