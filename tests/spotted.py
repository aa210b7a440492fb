"""A finished run on a ball with a spot that the parser never saw: the smallest thing worth editing."""

import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture, write_capture
from jsplat.edit import EditConfig, Head, Settings, prepare
from jsplat.edit.blend_matrix import blend_weights
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import save_scenes
from jsplat.labels import MaskConfig, SharpenConfig, VoteConfig, VoterLabels, pose_prior, to_masks
from jsplat.labels.opinions import Logits, Voter, quantised
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.first_labels import voter_arrays
from jsplat.pipeline.stages.label import label_settings
from jsplat.pipeline.work_folder import save_arrays
from jsplat.raster.projection import project
from jsplat.raster.scene import Attributes, Scene, rgb_to_sh
from tests import ball

CLASSES = LabelSet(
    ("background", "left", "right", "spot"),
    ((0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0)),
    ("background", "right", "left", "spot"),
)
SPOT = 3
YAW = (0.0, 25.0, -25.0, 50.0, -50.0, 90.0, -90.0, 180.0)
FRONT, BACK = 0, 7
SIZE = 48


def settings(**changes) -> Settings:
    """Settings under which the ball's edits are small enough to count."""
    return Settings(CLASSES, SharpenConfig(), MaskConfig(), EditConfig(**{"changed_pixels": 5, **changes}))


@functools.cache
def capture() -> Capture:
    """The ball; its truth has a spot of 0.35 radius of the ball around the point that faces the first camera."""
    plain = ball.capture("ball", np.asarray(YAW), SIZE)
    facing = np.asarray(plain.cameras.centers[FRONT], np.float64)
    # The colour is the normal (see `ball.capture`), so it says where on the ball a pixel lies.
    normal = (plain.images.astype(float) - 128) / 100
    assert plain.labels is not None
    near = normal @ (facing / np.linalg.norm(facing)) > np.cos(np.arcsin(0.35))
    labels = np.where((plain.labels > 0) & near, SPOT, plain.labels).astype(np.uint8)
    return dataclasses.replace(plain, labels=labels, labelset=CLASSES)


@functools.cache
def scene(count: int = 900) -> Scene:
    """Splats on the ball, painted as the ball is; the table knows no spot."""
    gaussians = ball.gaussians(count)
    colors = 0.5 + gaussians.means / ball.RADIUS * 100 / 255
    return Scene(gaussians, Attributes(rgb_to_sh(colors), jnp.zeros((count, 4))))


@functools.cache
def stages(count: int = 900) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The parser's probabilities, and what the label stage knows of a fit of so many splats."""
    splats, cameras = scene(count).gaussians, capture().cameras
    half = np.asarray(splats.means)[:, 0] > 0
    probabilities = np.eye(4, dtype=np.float32)[np.where(half, 1, 2)] * 0.9 + np.float32([0, 0.05, 0.05, 0])
    # Through the matrix, so that nobody waits for a compiler; its own test compares it with the rasterizer.
    weights, shape = blend_weights(splats, cameras, 0.0), (len(YAW), SIZE, SIZE)
    depths = [np.asarray(project(splats, cameras[i]).depths) for i in range(len(YAW))]
    alpha = np.stack([w @ np.ones(count) for w in weights]).reshape(shape).astype(np.float32)
    depth = np.stack([w @ z for w, z in zip(weights, depths)]).reshape(shape) / np.maximum(alpha, 1e-6)
    channels = np.stack([w @ probabilities for w in weights]).reshape(*shape, 4)
    refined, sure = to_masks(channels, alpha, CLASSES, MaskConfig())
    blind = ball.capture("ball", np.asarray(YAW), SIZE).labels
    assert blind is not None
    first = (0.85 * np.eye(4)[blind] + 0.05).astype(np.float16)
    known = {"rows_refined": probabilities, "refined": refined, "confidence": sure, "alpha": alpha}
    return first, known | {"depth": depth.astype(np.float32), "seen": np.ones(count, np.float32)}


def head(others: Sequence[VoterLabels] = (), **changes) -> Head:
    """The ball, ready for edits; `others`: voters beside the parser."""
    first, known = stages()
    trust = np.asarray(pose_prior(capture().yaw, capture().pitch, VoteConfig()))
    return prepare(scene(), capture().cameras, first, known, trust, settings(**changes), others)


def spot(view: int = FRONT) -> np.ndarray:
    """What a person who sees the spot says about a view."""
    truth = capture().labels
    assert truth is not None
    return np.where(truth[view] == SPOT, np.uint8(SPOT), np.uint8(255))


def first_voter(probabilities: np.ndarray, labelset: LabelSet) -> Voter:
    """A voter whose logits are as large as the pictures."""
    look = quantised(np.log(np.maximum(probabilities.astype(np.float32), 1e-9)), (0.0, 1.0), (0.0, 1.0))
    return Voter("parser", labelset, Logits((look,), probabilities.shape[1:3]))


def write_run(folder: Path, count: int = 900) -> Path:
    """The stages of a run on disk; its captures lie beside it."""
    write_capture(folder / "captures" / "ball", capture())
    run = folder / "run"
    (run / "parse").mkdir(parents=True)
    save_arrays(run / "parse" / "ball.npz", **voter_arrays([first_voter(stages()[0], CLASSES)]))
    write_fit(run, count)
    return run


def write_fit(run: Path, count: int) -> None:
    """The stages `fit` and `label` of a run, of so many splats; older ones are removed."""
    for name in ("fit", "label"):
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).mkdir()
    one, (_, known) = scene(count), stages(count)
    batch = Scene(
        type(one.gaussians)(*(x[None] for x in dataclasses.astuple(one.gaussians))),
        Attributes(one.attributes.sh[None], one.attributes.label_logits[None]),
    )
    save_scenes(run / "fit", batch, ["ball"], CLASSES)
    save_arrays(run / "label" / "ball.npz", **known)
    write_json(run / "label" / "labelset.json", CLASSES.to_json())
    write_json(run / "label" / "run.json", {"config": label_settings(RunConfig())})
