"""What each stage does to data: captures to first labels, to scenes, to refined labels, to an auxiliary set."""

import concurrent.futures
import dataclasses
import json
import queue
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.auxiliary import AuxiliarySet, concatenate, from_captures
from jsplat.capture import Capture, capture_folders, read_capture
from jsplat.checkpoint import load_scenes, save_scenes
from jsplat.errors import InputError
from jsplat.fit import FitResult, fit
from jsplat.folder import write_json
from jsplat.labels import (
    METHODS,
    VoteConfig,
    clean,
    facing,
    from_colors,
    lift,
    paint,
    pose_prior,
    sharpen,
    to_colors,
    to_masks,
    vote,
)
from jsplat.labelset import LabelSet
from jsplat.parser import Parser, predict
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.stage import load_arrays, save_arrays
from jsplat.progress import Progress
from jsplat.raster import capacity_for, sh_colors
from jsplat.scene import Gaussians, Scene
from jsplat.views import novel_cameras, support


def read_captures(path: Path, size: int | None) -> list[Capture]:
    """All captures below a folder, one size, names unique."""
    captures = [read_capture(folder, size) for folder in capture_folders(path)]
    names = [c.identity for c in captures]
    if len(set(names)) != len(names):
        raise InputError(str(path), wanted="captures of different identities", got=names)
    return captures


def parse(captures: list[Capture], parser: Parser, folder: Path, flip: bool) -> None:
    """First labels of every view: class probabilities, kept as float16."""
    progress = Progress("parse", len(captures))
    for capture in captures:
        seen = predict(parser, capture.images, flip=flip)
        save_arrays(folder / f"{capture.identity}.npz", probabilities=seen.astype(np.float16))
        progress.advance()
    write_json(folder / "labelset.json", parser.labelset.to_json())


def first_labels(folder: Path, capture: Capture) -> Float[np.ndarray, "v h w k"]:
    """The probabilities that `parse` wrote for a capture."""
    path = folder / f"{capture.identity}.npz"
    if not path.is_file():
        raise InputError(str(path), wanted=f"first labels of {capture.identity}", got="no such file")
    seen = load_arrays(path)["probabilities"]
    if seen.shape[:3] != capture.images.shape[:3]:
        raise InputError(str(path), wanted=f"{capture.images.shape[:3]} pictures", got=seen.shape[:3])
    return seen


def fit_captures(
    captures: list[Capture],
    first: Path | None,
    labelset: LabelSet | None,
    config: RunConfig,
    folder: Path,
    unfinished: Path,
) -> None:
    """Scenes of all captures at once; a capture's own labels are never looked at, only the first labels.

    Args:
        unfinished: a folder for checkpoints.
    """
    given = [c.with_labels(None, None) for c in captures]
    if first is not None:
        given = [c.with_labels(first_labels(first, c).argmax(-1).astype(np.uint8), labelset) for c in given]
    result: FitResult = fit(given, config.fit, config.seed, resume=unfinished)
    if len(result.failed) == len(captures):
        raise InputError("fit", wanted="an identity that does not diverge", got=f"none of {list(result.failed)}")
    save_scenes(folder, result.scene, [c.identity for c in captures], labelset)
    pairs = zip(captures, result.psnr, result.ssim)
    each = {c.identity: [float(p), float(s)] for c, p, s in pairs if c.identity not in result.failed}
    scores = dict(zip(("psnr", "ssim"), np.mean(list(each.values()), 0).tolist()))
    curve = {"step": [s for s, _ in result.losses], "loss": [v for _, v in result.losses]}
    about = {**scores, "identities": each, "curve": curve, "capacity": result.capacity, "failed": list(result.failed)}
    write_json(folder / "fit.json", about)


def diverged(folder: Path) -> list[str]:
    """Identities of a `fit` folder whose fit diverged, and diverged again with another seed."""
    return json.loads((folder / "fit.json").read_text()).get("failed", [])  # older folders do not say


def sound(captures: list[Capture], folder: Path) -> list[Capture]:
    """The captures whose fit in a `fit` folder did not diverge."""
    failed = diverged(folder)
    return [c for c in captures if c.identity not in failed]


def fitted_scenes(folder: Path, captures: list[Capture]) -> list[Scene]:
    """The fitted scene of each capture."""
    scenes, identities = load_scenes(folder)
    absent = [c.identity for c in captures if c.identity not in identities]
    if absent:
        raise InputError(str(folder), wanted=f"some of {identities}", got=absent)
    rows = [identities.index(c.identity) for c in captures]
    return [jax.tree.map(lambda x, i=i: x[i], scenes) for i in rows]


def label_capture(
    capture: Capture,
    scene: Scene,
    first: Float[np.ndarray, "v h w k"],
    labelset: LabelSet,
    config: RunConfig,
    capacity: int,
) -> dict[str, np.ndarray]:
    """Everything the label stage knows about one head.

    Returns:
        masks "v h w": "refined", sharpened; "vote_plain", the plain vote as it came; "oracle", sharpened from the
        capture's own labels where it has some; with
        `config.ablation` every other vote as it came, "plain_sharpened", "trained" and "palette".
        Besides: per-Gaussian tables "rows_refined" and "rows_oracle", "confidence", "alpha" and "depth" of the views,
        and "seen" (blend weight per Gaussian over all views).
    """
    gaussians, cameras = scene.gaussians, capture.cameras
    yaw, pitch = capture.yaw.astype(np.float32), capture.pitch.astype(np.float32)
    says = 1 if capture.valid is None else capture.valid[..., None]
    pictures = jnp.asarray(first * says, jnp.float32)
    evidence, weight = lift(gaussians, cameras, pictures, capacity=capacity)
    cosines = facing(gaussians, cameras)
    out: dict[str, np.ndarray] = {"seen": np.asarray(weight.sum(0))}

    def elect(method: str) -> Array:
        return vote(evidence, weight, yaw, pitch, dataclasses.replace(config.vote, method=method), cosines)

    def masks(rows: Array):
        render = paint(gaussians, rows, cameras, capacity=capacity)
        labels, sure = to_masks(np.asarray(render.channels), np.asarray(render.alpha), labelset, config.mask)
        return clean(labels, sure, labelset, config.mask), sure, render

    def sharpened(rows: Array, seen: Array, trust: Array, confusion: bool) -> Array:
        how = dataclasses.replace(config.sharpen, confusion=confusion)
        return sharpen(gaussians, rows, cameras, seen, trust, capacity=capacity, config=how)

    alike = jnp.ones(len(yaw))
    trust = pose_prior(yaw, pitch, config.vote)
    rows = sharpened(elect(config.vote.method), pictures, trust, config.sharpen.confusion)
    out["refined"], out["confidence"], render = masks(rows)
    out |= {"rows_refined": np.asarray(rows), "alpha": np.asarray(render.alpha), "depth": np.asarray(render.depth)}
    out["vote_plain"], *_ = masks(elect("plain"))
    if config.ablation:
        out |= {method: masks(elect(method))[0] for method in METHODS if method != "plain"}
        out["plain_sharpened"], *_ = masks(sharpened(elect("plain"), pictures, alike, confusion=False))
        out["palette"] = _palette_masks(gaussians, cameras, first, labelset, config, capacity)
        if config.fit.label_weight > 0:
            logits = scene.attributes.label_logits.at[:, 0].set(-jnp.inf)
            out["trained"], *_ = masks(jax.nn.softmax(logits, -1))
    if capture.labels is not None:
        truth = jax.nn.one_hot(capture.labels, len(labelset))
        known, seen = lift(gaussians, cameras, truth, capacity=capacity)
        rows = vote(known, seen, yaw, pitch, VoteConfig(method="plain"))
        rows = sharpened(rows, truth, alike, confusion=False)
        out["oracle"], *_ = masks(rows)
        out["rows_oracle"] = np.asarray(rows)
    return out


def _palette_masks(gaussians: Gaussians, cameras, first, labelset: LabelSet, config: RunConfig, capacity: int):
    """The paper's own way: masks as colours, fitted as colours (here in closed form), clustered back."""
    colors = jnp.asarray(to_colors(first.argmax(-1).astype(np.uint8), labelset))
    sums, weight = lift(gaussians, cameras, colors, capacity=capacity)
    painted = sums.sum(0) / jnp.maximum(weight.sum(0), 1e-6)[:, None]
    render = paint(gaussians, painted, cameras, capacity=capacity)
    behind = jnp.asarray(labelset.colors[0], jnp.float32) / 255
    shown = render.channels + (1 - render.alpha)[..., None] * behind
    return from_colors(np.asarray(shown), np.asarray(render.alpha), labelset, config.palette)


def label_captures(
    captures: list[Capture], fitted: Path, first: Path, labelset: LabelSet, config: RunConfig, folder: Path
) -> None:
    """`label_capture` of all, one identity per device at a time, each into its own file."""
    scenes = fitted_scenes(fitted, captures)
    # One capacity for all, so that they share compiled programs.
    capacity = max(capacity_for(s.gaussians, c.cameras) for s, c in zip(scenes, captures))
    progress, devices = Progress("label", len(captures)), queue.SimpleQueue()
    for device in jax.devices():
        devices.put(device)

    def one(capture: Capture, scene: Scene) -> None:
        device = devices.get()
        try:
            with jax.default_device(device):
                own = jax.tree.map(np.asarray, (capture.cameras, scene))
                cameras, own_scene = jax.device_put(own, device)
                placed = dataclasses.replace(capture, cameras=cameras)
                known = label_capture(placed, own_scene, first_labels(first, capture), labelset, config, capacity)
        finally:
            devices.put(device)
        save_arrays(folder / f"{capture.identity}.npz", **known)
        progress.advance()

    with concurrent.futures.ThreadPoolExecutor(len(jax.devices())) as pool:
        list(pool.map(one, captures, scenes))
    write_json(folder / "labelset.json", labelset.to_json())


@dataclasses.dataclass(frozen=True)
class Novel:
    """Renders of one head from poses nobody photographed."""

    images: np.ndarray
    alpha: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    left_out: list[tuple[float, float]]
    rows: dict[str, np.ndarray]


def render_novel(
    capture: Capture, scene: Scene, seen: np.ndarray, rows: dict[str, np.ndarray], labelset: LabelSet, config: RunConfig
) -> Novel:
    """Novel views with the masks that each table of per-Gaussian rows gives them; unsupported views are left out."""
    cameras = novel_cameras(capture, config.views, config.seed + sum(capture.identity.encode()))
    shares = support(scene.gaussians, jnp.asarray(seen), cameras, config.views)
    kept = np.flatnonzero(shares >= config.views.support)
    moved = dataclasses.replace(capture, cameras=cameras)
    left = [(float(moved.yaw[i]), float(moved.pitch[i])) for i in np.setdiff1d(np.arange(len(shares)), kept)]
    if not len(kept):
        raise InputError(
            f"novel views of {capture.identity}", wanted=f"support {config.views.support}", got=shares.max()
        )
    cameras, capacity = cameras[kept], capacity_for(scene.gaussians, cameras)
    images, masks, alpha = [], {}, np.zeros(0)
    behind = np.asarray(capture.background if capture.background is not None else (128, 128, 128), np.float32) / 255

    for name, table in rows.items():
        render = paint(scene.gaussians, jnp.asarray(table), cameras, capacity=capacity)
        alpha = np.asarray(render.alpha)
        labels, sure = to_masks(np.asarray(render.channels), alpha, labelset, config.mask)
        masks[name] = clean(labels, sure, labelset, config.mask)
    for i in range(len(kept)):
        rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, cameras[i])
        shown = paint(scene.gaussians, rgb, cameras[i : i + 1], capacity=capacity)
        picture = np.asarray(shown.channels[0]) + (1 - np.asarray(shown.alpha[0]))[..., None] * behind
        images.append(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return Novel(np.stack(images), alpha, moved.yaw[kept], moved.pitch[kept], left, masks)


def auxiliary_set(
    captures: list[Capture], masks: dict[str, np.ndarray], novel: dict[str, Novel], name: str, labelset: LabelSet
) -> AuxiliarySet:
    """Photographs with their masks, and novel renders with the masks called `name`."""
    photos = from_captures([c.with_labels(masks[c.identity], labelset) for c in captures])
    renders = [
        AuxiliarySet(
            images=n.images,
            labels=n.rows[name],
            weights=np.ones(len(n.images), np.float32),
            identity=(identity,) * len(n.images),
            yaw=n.yaw.astype(np.float32),
            pitch=n.pitch.astype(np.float32),
            source=("render",) * len(n.images),
            labelset=labelset,
        )
        for identity, n in novel.items()
    ]
    return concatenate([photos, *renders])
