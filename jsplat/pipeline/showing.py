"""Looking at fitted heads: a film of a turning head, and a page that turns it by hand."""

import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jsplat.captures.capture import Capture, read_capture
from jsplat.captures.films import write_film
from jsplat.edit import EditConfig
from jsplat.errors import InputError
from jsplat.exchange import SplatLabels, read_ply
from jsplat.files.foreign import some_of
from jsplat.fitting.scenes_on_disk import load_scenes
from jsplat.labels import to_masks
from jsplat.pipeline.editing import Run, open_run
from jsplat.pipeline.out import claim_file
from jsplat.pipeline.stages.label import labels_of
from jsplat.pipeline.viewer import guarded_server
from jsplat.raster.camera import Camera, meeting_point
from jsplat.raster.capacity import capacity_for
from jsplat.raster.projection import rotation_matrices
from jsplat.raster.scene import SH_C0, Scene
from jsplat.runtime.progress import Progress
from jsplat.views import cameras_around, look

ATTRIBUTES = ("RGB", "labels", "confidence")
_FIELD = 0.6  # radians, of the view of a PLY


@dataclasses.dataclass(frozen=True)
class TurntableConfig:
    """A film of a turning head.

    Attributes:
        seconds: how long; the camera goes once around, or there and back over the yaws that were photographed.
        fps: frames a second.
        pitch: degrees, > 0 looks down on the head.
        size: height of a frame in pixels; the width is that of two such pictures.
    """

    seconds: float = 6.0
    fps: int = 24
    pitch: float = 5.0
    size: int = 320

    def __post_init__(self):
        if not 0 < self.seconds <= 600:
            raise InputError("turntable: seconds", wanted="more than 0, at most 600", got=self.seconds)
        if not 1 <= self.fps <= 120:
            raise InputError("turntable: fps", wanted="1 to 120", got=self.fps)
        if not 16 <= self.size <= 2160:
            raise InputError("turntable: size", wanted="16 to 2160 pixels", got=self.size)


def _head(path: Path, captures: Path | None, identity: str | None) -> tuple[Run, Capture, Scene, dict[str, np.ndarray]]:
    run = open_run(path, captures, EditConfig())
    identity = identity or min(run.captures)
    if identity not in run.captures:
        raise InputError("identity", wanted=f"one of {some_of(sorted(run.captures))}", got=identity)
    capture = read_capture(run.captures[identity], run.size)
    (scene,) = load_scenes(run.path / "fit", [capture.identity]).values()
    return run, capture, scene, labels_of(run.path / "label", identity, run.settings.labelset)


def turning(photographed: Float[np.ndarray, " v"], frames: int) -> Float[np.ndarray, " f"]:
    """Yaws of a film, in degrees: a full turn where photographs stand all around, else there and back between them.

    Args:
        photographed: yaws of the photographs, degrees.
        frames: how many; the last one leads back to the first.
    """
    around = np.sort(np.mod(photographed, 360))
    widest = np.max(np.diff(np.append(around, around[0] + 360)))
    step = np.arange(frames) / frames
    if widest <= 60:
        return np.asarray(360 * step)
    middle, half = (photographed.max() + photographed.min()) / 2, (photographed.max() - photographed.min()) / 2
    return np.asarray(middle + half * np.sin(2 * np.pi * step))


@functools.partial(jax.jit, static_argnames="capacity")
def _look(
    scene: Scene, probabilities: Float[Array, "n k"], camera: Camera, background: Float[Array, " 3"], *, capacity: int
):
    image, render = look(scene, probabilities, camera, background, capacity=capacity)
    return image, render.channels[..., 3:], render.alpha


def turntable(
    run_path: Path, out: Path, config: TurntableConfig, *, captures: Path | None = None, identity: str | None = None
) -> int:
    """Writes an MP4 of one head of a run: colours on the left, classes on the right; whole or not at all.

    Args:
        captures: the run's captures; beside it if None.
        identity: the first of the run if None.

    Returns:
        the number of frames.

    Raises:
        InputError: no such run or identity, a file that is no .mp4, or an OpenCV that cannot write one.
    """
    if out.suffix != ".mp4":
        raise InputError("turntable: OUT", wanted="a file that ends in .mp4", got=out.name)
    claim_file(out, run_path, captures)
    run, capture, scene, known = _head(run_path, captures, identity)
    labelset, frames = run.settings.labelset, max(round(config.seconds * config.fps), 1)
    yaw = turning(capture.yaw, frames)
    still = np.zeros(frames)
    cameras = cameras_around(capture.cameras, capture.head_from_world, yaw, still + config.pitch, still, still + 1)
    high = 2 * round(config.size / 2)  # MPEG-4 stores colour for two by two pixels
    cameras = cameras.resized(2 * round(cameras.width / cameras.height * high / 2), high)
    capacity = capacity_for(scene.gaussians, cameras)
    behind = capture.behind
    probabilities, progress = jnp.asarray(known["rows_refined"]), Progress("turntable", frames)

    def picture(i: int) -> UInt8[np.ndarray, "h w2 3"]:
        image, channels, alpha = _look(scene, probabilities, cameras[i], jnp.asarray(behind), capacity=capacity)
        labels, _ = to_masks(np.asarray(channels)[None], np.asarray(alpha)[None], labelset, run.settings.mask)
        progress.advance()
        return np.concatenate([np.asarray(image), labelset.colorize(labels[0])], 1)

    return write_film(out, float(config.fps), map(picture, range(frames)))


@dataclasses.dataclass(frozen=True)
class Splats:
    """What a splat viewer takes, in the head's frame.

    Attributes:
        colors: by name in ATTRIBUTES, in [0, 1]; RGB alone where nobody knows what the splats are.
    """

    centers: Float[np.ndarray, "n 3"]
    covariances: Float[np.ndarray, "n 3 3"]
    opacities: Float[np.ndarray, "n 1"]
    colors: dict[str, Float[np.ndarray, "n 3"]]


def splats(scene: Scene, labels: SplatLabels | None, head_from_world: Float[np.ndarray, "4 4"]) -> Splats:
    """One fitted head for a viewer; confidence is the lead of the first class on the second, dark to bright."""
    turn, shift = head_from_world[:3, :3], head_from_world[:3, 3]
    axes = turn @ np.asarray(rotation_matrices(scene.gaussians.quats), np.float64)
    axes = axes * np.exp(np.asarray(scene.gaussians.log_scales, np.float64))[:, None, :]
    colors = {"RGB": np.clip(np.asarray(scene.attributes.sh[:, 0]) * SH_C0 + 0.5, 0, 1)}
    if labels is not None:
        probabilities = labels.probabilities
        second, first = np.partition(np.pad(probabilities, ((0, 0), (1, 0))), -2, axis=-1)[:, -2:].T
        lead = (first - second) / np.maximum(probabilities.sum(-1), 1e-12)
        ramp = cv2.applyColorMap(np.round(255 * np.clip(lead, 0, 1)).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
        colors |= {"labels": labels.labelset.colorize(labels.ids[None])[0] / 255, "confidence": ramp[:, 0, ::-1] / 255}
    return Splats(
        np.asarray(scene.gaussians.means, np.float64) @ turn.T + shift,
        axes @ np.swapaxes(axes, -1, -2),
        np.asarray(jax.nn.sigmoid(scene.gaussians.logit_opacities))[:, None],
        {name: np.asarray(of, np.float32) for name, of in colors.items()},
    )


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """What the page shows, and where one stands at first: in front of `target`, `distance` away, `field` radians."""

    title: str
    splats: Splats
    target: Float[np.ndarray, " 3"]
    distance: float
    field: float


def _of_run(path: Path, captures: Path | None, identity: str | None) -> Exhibit:
    run, capture, scene, known = _head(path, captures, identity)
    turn, shift = capture.head_from_world[:3, :3], capture.head_from_world[:3, 3]
    target = turn @ meeting_point(capture.cameras) + shift
    stands = np.asarray(capture.cameras.centers) @ turn.T + shift
    distance = float(np.median(np.linalg.norm(stands - target, axis=-1)))
    field = float(2 * np.arctan(capture.cameras.height / 2 / capture.cameras.intrinsics[0, 1, 1]))
    labels = SplatLabels.likeliest(known["rows_refined"], run.settings.labelset)
    return Exhibit(capture.identity, splats(scene, labels, capture.head_from_world), target, distance, field)


def _of_ply(path: Path) -> Exhibit:
    """A PLY says nothing of cameras: one stands where 98 % of the splats fill half of the picture's height."""
    scene, labels = read_ply(path)
    shown = splats(scene, labels, np.eye(4))
    if not len(shown.centers):
        raise InputError(path.name, wanted="a splat", got="none")
    target = np.median(shown.centers, 0)
    far = float(np.quantile(np.linalg.norm(shown.centers - target, axis=-1), 0.98))
    return Exhibit(path.stem, shown, target, 2 * max(far, 1e-3) / np.tan(_FIELD / 2), _FIELD)


def view(
    shown: Path,
    *,
    captures: Path | None = None,
    identity: str | None = None,
    port: int = 8080,
) -> tuple[Any, str]:
    """Serves one head of a run, or a PLY, to browsers on this machine, with a choice of what is painted on it.

    Args:
        shown: a run, or a splat PLY, which the other arguments say nothing about.

    Returns:
        the running server (`stop`), and what to open in a browser.

    Raises:
        InputError: viser is missing or cannot be guarded, there is no such run or identity, or a PLY that is none.
    """
    try:
        viser = importlib.import_module("viser")
    except ImportError as error:
        wanted, hint = "the package viser, to show scenes in a browser", "`pip install 'jsplat[view]'`"
        raise InputError("view", wanted=wanted, got="none installed", hint=hint) from error
    is_ply = shown.suffix.lower() == ".ply"
    if is_ply and (captures is not None or identity is not None):
        raise InputError("view", wanted="--captures and --identity with a run only", got=f"a PLY, {shown.name}")
    what = _of_ply(shown) if is_ply else _of_run(shown, captures, identity)
    server, address = guarded_server(viser, port, f"jsplat: {what.title}")
    server.scene.set_up_direction("+y")
    centers, covariances, opacities = what.splats.centers, what.splats.covariances, what.splats.opacities
    layers = {
        name: server.scene.add_gaussian_splats(
            f"/{name}", centers, covariances, colors, opacities, visible=name == ATTRIBUTES[0]
        )
        for name, colors in what.splats.colors.items()
    }
    choice = server.gui.add_dropdown("Shown", tuple(layers))

    @choice.on_update
    def _(_event: Any) -> None:
        for name, layer in layers.items():
            layer.visible = name == choice.value

    server.initial_camera.position = what.target + np.asarray([0.0, 0.0, what.distance])
    server.initial_camera.look_at = what.target
    server.initial_camera.fov = what.field
    return server, address
