"""What each stage does to data: captures to first labels, to scenes, to refined labels, to an auxiliary set."""

import concurrent.futures
import dataclasses
import os
import queue
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed, list_captures
from jsplat.edit import check_votes, voted_labels
from jsplat.errors import InputError, Stopped, Unusable
from jsplat.files.atomic import write_json
from jsplat.fitting import Refused, Waiting, fit_batches, mean_curve
from jsplat.fitting.scenes_on_disk import save_scenes, saved_scenes, scene_in, shards
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
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Parser, predict
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.work_folder import (
    cleared,
    leaving_out,
    load_arrays,
    refuse,
    refused,
    save_arrays,
    settled,
    unfinished,
)
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Gaussians, Scene
from jsplat.runtime.devices import is_first_host, own_share, wait_for_hosts, workers
from jsplat.runtime.progress import Progress, log
from jsplat.runtime.stop import STOP
from jsplat.runtime.view_blocks import Devices, on_first
from jsplat.training_sets.auxiliary import AuxiliarySet, concatenate, from_captures, squared, write_parts
from jsplat.views import novel_cameras, photographs

STUDENT_ROWS = {"student": "refined", "truth_student": "oracle"}  # whose masks come from which per-Gaussian rows


def read_captures(path: Path, size: int | None) -> list[Capture]:
    """All captures below a folder, one size, names unique."""
    return [one.read() for one in list_captures(path, size)]


def each_identity(
    what: str, listed: list[Listed], folder: Path, make: Callable[[Listed, Devices], dict[str, np.ndarray]]
) -> None:
    """Fills the folder of a stage with one file for each identity; what is there already is not made again.

    Bad input leaves its identity out, until its fingerprint changes. Returns when all hosts have done their shares.

    Args:
        what: how people call it.
        make: the arrays of one identity, made on these devices, which share its views (see `workers`).

    Raises:
        InputError: nobody is left.
        Stopped: the process was asked to end; who is done is kept.
    """
    own = [at for at in own_share(listed) if not settled(folder, at.identity)]
    everybody, idle = workers(len(own)), queue.SimpleQueue()
    for worker in everybody:
        idle.put(worker)

    def one(at: Listed) -> None:
        if STOP.is_set():
            raise Stopped(f"stopped in {what}, at {at.identity}")
        devices = idle.get()
        try:
            with leaving_out(folder, at.identity), on_first(devices):
                save_arrays(folder / f"{at.identity}.npz", **make(at, devices))
        finally:
            idle.put(devices)

    progress = Progress(what, len(own))
    with concurrent.futures.ThreadPoolExecutor(len(everybody)) as pool:
        for _ in pool.map(one, own):
            progress.advance()
    everybody_done(what, listed, folder)


def everybody_done(what: str, listed: list[Listed], folder: Path) -> None:
    """Waits for the other hosts' shares of a stage; InputError when every identity failed in it."""
    wait_for_hosts(f"{folder}: all shares")
    if not sound(listed, folder):
        raise InputError(what, wanted="an identity that does not fail", got=f"none of {refused(folder)}")


def parse(listed: list[Listed], parser: Parser, folder: Path, flip: bool) -> None:
    """First labels of every view, kept as float16."""

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        seen = predict(parser, one.unlabelled().read().images, flip=flip, devices=devices)
        return {"probabilities": seen.astype(np.float16)}

    each_identity("parse", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", parser.labelset.to_json())


def first_labels(folder: Path, capture: Capture) -> Float[np.ndarray, "v h w k"]:
    """The probabilities that `parse` wrote for a capture."""
    path = folder / f"{capture.identity}.npz"
    if not path.is_file():
        raise Unusable(str(path), wanted=f"first labels of {capture.identity}", got="no such file")
    seen = load_arrays(path)["probabilities"]
    if seen.shape[:3] != capture.images.shape[:3]:
        raise Unusable(str(path), wanted=f"{capture.images.shape[:3]} pictures", got=seen.shape[:3])
    return seen


def fit_captures(
    listed: list[Listed], first: Path | None, labelset: LabelSet | None, config: RunConfig, folder: Path
) -> None:
    """A scene of each capture; a capture's own labels are never looked at, only the first labels.

    Every batch that is done is written at once. What cannot be fitted is named and left out.
    """

    def given(one: Listed) -> Capture:
        capture = one.unlabelled().read()
        if first is None:
            return capture
        return capture.with_labels(first_labels(first, capture).argmax(-1).astype(np.uint8), labelset)

    done = {*saved_scenes(folder), *refused(folder)}
    waiting = [Waiting(o.identity, o.shape, lambda o=o: given(o)) for o in own_share(listed) if o.identity not in done]
    checkpoints = unfinished(folder) / f"{jax.process_index()}-of-{jax.process_count()}"
    for result in fit_batches(waiting, labelset, config.fit, config.seed, checkpoints):
        if isinstance(result, Refused):
            with leaving_out(folder, result.identity):
                raise result.error
            continue
        for name in result.failed:
            refuse(folder, name, "the fit diverged, and again with another seed")
        pairs = zip(result.identities, result.psnr.tolist(), result.ssim.tolist())
        each = {name: [psnr, ssim] for name, psnr, ssim in pairs if name not in result.failed}
        for name, (psnr, ssim) in each.items():
            log("identity fitted", identity=name, psnr=round(psnr, 3), ssim=round(ssim, 4))
        about = {"identities": each, "losses": result.losses, "capacity": result.capacity}
        save_scenes(folder, result.scene, result.identities, labelset, about)
        shutil.rmtree(checkpoints, ignore_errors=True)
    everybody_done("fit", listed, folder)
    if is_first_host():
        write_json(folder / "fit.json", _merged(listed, folder))


def _merged(listed: list[Listed], folder: Path) -> dict:
    """What all batches found of those that are still listed, identities in the captures' order."""
    known, curves, capacity = {}, [], 0
    for about in shards(folder).values():
        scores = {name: of for name, of in about["found"]["identities"].items() if name in about["identities"]}
        known |= scores
        curves.append(([(step, value) for step, value in about["found"]["losses"]], len(scores)))
        capacity = max(capacity, about["found"]["capacity"])
    each = {one.identity: known[one.identity] for one in listed if one.identity in known}
    curve = mean_curve(curves)
    return {
        **dict(zip(("psnr", "ssim"), np.mean(list(each.values()), 0).tolist())),
        "identities": each,
        "curve": {"step": [s for s, _ in curve], "loss": [v for _, v in curve]},
        "capacity": capacity,
    }


def sound(listed: list[Listed], *folders: Path) -> list[Listed]:
    """The captures that did not fail in any of these stages."""
    failed = {name for folder in folders for name in refused(folder)}
    return [one for one in listed if one.identity not in failed]


def label_capture(
    capture: Capture,
    scene: Scene,
    first: Float[np.ndarray, "v h w k"],
    labelset: LabelSet,
    config: RunConfig,
    room: SharedCapacity,
    devices: Devices = (),
) -> dict[str, np.ndarray]:
    """Everything the label stage knows about one head; `devices` share its views.

    Returns:
        masks "v h w": "refined", sharpened; "vote_plain", the plain vote as it came; "oracle", sharpened from the
        capture's own labels where it has some; with
        `config.ablation` every other vote as it came, "plain_sharpened", "trained" and "palette".
        Besides: per-Gaussian tables "rows_refined" and "rows_oracle", "confidence", "alpha" and "depth" of the views,
        and "seen" (blend weight per Gaussian over all views).
    """
    gaussians, cameras = scene.gaussians, capture.cameras
    where = {"capacity": room.for_views(gaussians, cameras), "devices": devices}
    yaw, pitch = capture.yaw.astype(np.float32), capture.pitch.astype(np.float32)
    says = 1 if capture.valid is None else capture.valid[..., None]
    pictures = np.asarray(first * says, np.float32)
    evidence, weight = lift(gaussians, cameras, pictures, **where)
    cosines = facing(gaussians, cameras)
    out: dict[str, np.ndarray] = {"seen": np.asarray(weight.sum(0))}

    def elect(method: str) -> Array:
        return vote(evidence, weight, yaw, pitch, dataclasses.replace(config.vote, method=method), cosines)

    def masks(rows: Array):
        render = paint(gaussians, rows, cameras, **where)
        labels, sure = to_masks(np.asarray(render.channels), np.asarray(render.alpha), labelset, config.mask)
        return clean(labels, sure, labelset, config.mask), sure, render

    def sharpened(rows: Array, seen: np.ndarray, trust: Array, confusion: bool) -> Array:
        how = dataclasses.replace(config.sharpen, confusion=confusion)
        return sharpen(gaussians, rows, cameras, seen, trust, config=how, **where)

    alike = jnp.ones(len(yaw))
    trust = pose_prior(yaw, pitch, config.vote)
    rows = sharpened(elect(config.vote.method), pictures, trust, config.sharpen.confusion)
    out["refined"], out["confidence"], render = masks(rows)
    out |= {"rows_refined": np.asarray(rows), "alpha": np.asarray(render.alpha), "depth": np.asarray(render.depth)}
    out["vote_plain"], *_ = masks(elect("plain"))
    if config.ablation:
        out |= {method: masks(elect(method))[0] for method in METHODS if method != "plain"}
        out["plain_sharpened"], *_ = masks(sharpened(elect("plain"), pictures, alike, confusion=False))
        out["palette"] = _palette_masks(gaussians, cameras, first, labelset, config, where)
        if config.fit.label_weight > 0:
            logits = scene.attributes.label_logits.at[:, 0].set(-jnp.inf)
            out["trained"], *_ = masks(jax.nn.softmax(logits, -1))
    if capture.labels is not None:
        truth = (capture.labels[..., None] == np.arange(len(labelset))).astype(np.float32)
        known, seen = lift(gaussians, cameras, truth, **where)
        rows = vote(known, seen, yaw, pitch, VoteConfig(method="plain"))
        rows = sharpened(rows, truth, alike, confusion=False)
        out["oracle"], *_ = masks(rows)
        out["rows_oracle"] = np.asarray(rows)
    return out


def _palette_masks(gaussians: Gaussians, cameras, first, labelset: LabelSet, config: RunConfig, where: dict):
    """The paper's own way: masks as colours, fitted as colours (here in closed form), clustered back."""
    # As many channels as classes, most of them empty: then the programs of the other votes serve this one too.
    colors = np.zeros(first.shape, np.float32)
    colors[..., :3] = to_colors(first.argmax(-1).astype(np.uint8), labelset)
    sums, weight = lift(gaussians, cameras, colors, **where)
    painted = sums.sum(0) / jnp.maximum(weight.sum(0), 1e-6)[:, None]
    render = paint(gaussians, painted, cameras, **where)
    behind = jnp.asarray(labelset.colors[0], jnp.float32) / 255
    shown = render.channels[..., :3] + (1 - render.alpha)[..., None] * behind
    return from_colors(np.asarray(shown), np.asarray(render.alpha), labelset, config.palette)


def label_captures(
    listed: list[Listed], fitted: Path, first: Path, labelset: LabelSet, config: RunConfig, folder: Path
) -> None:
    """`label_capture` of all, each into its own file."""
    scenes, room = saved_scenes(fitted), SharedCapacity()

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        capture = one.read()
        seen, scene = first_labels(first, capture), scene_in(scenes, one.identity)
        return label_capture(capture, scene, seen, labelset, config, room, devices)

    each_identity("label", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", labelset.to_json())


def labels_of(labelled: Path, identity: str, labelset: LabelSet) -> dict[str, np.ndarray]:
    """What a folder of `label` knows about a head; in a run, with what people corrected since.

    Raises:
        InputError: no vote on what they drew and on this geometry is there (`jsplat.edit.check_vote`).
    """
    run = _run_of(labelled)
    return load_arrays(labelled / f"{identity}.npz") | (voted_labels(run, identity, labelset) if run else {})


def check_edits(labelled: Path, labelset: LabelSet) -> None:
    """InputError as of `labels_of` for anybody, before anything is done."""
    if run := _run_of(labelled):
        check_votes(run, labelset)


def _run_of(labelled: Path) -> Path | None:
    """The run whose stage "label" a folder is. Edits lie beside that stage; other folders beside them are strangers."""
    path = Path(os.path.abspath(labelled))
    return path.parent if path.name == "label" else None


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
    capture: Capture,
    scene: Scene,
    seen: np.ndarray,
    rows: dict[str, np.ndarray],
    labelset: LabelSet,
    config: RunConfig,
    room: SharedCapacity,
    devices: Devices = (),
) -> Novel:
    """Novel views with the masks that each table of per-Gaussian rows gives them; unsupported views are left out.

    `devices` share the views.
    """
    cameras = novel_cameras(capture, config.views, config.seed + sum(capture.identity.encode()))
    where = {"capacity": room.for_views(scene.gaussians, cameras), "devices": devices}
    known = jnp.asarray(seen >= config.views.seen_weight)
    images, shares = photographs(scene, known, cameras, capture.behind, **where)
    kept = np.flatnonzero(shares >= config.views.support)
    moved = dataclasses.replace(capture, cameras=cameras)
    left = [(float(moved.yaw[i]), float(moved.pitch[i])) for i in np.setdiff1d(np.arange(len(shares)), kept)]
    if not len(kept):
        raise Unusable(f"novel views of {capture.identity}", wanted=f"support {config.views.support}", got=shares.max())
    masks, alpha = {}, np.zeros(0)
    for name, table in rows.items():
        # Also the views that are left out: each number of views would be a program of its own to join their blocks.
        render = paint(scene.gaussians, jnp.asarray(table), cameras, **where)
        alpha = np.asarray(render.alpha)[kept]
        labels, sure = to_masks(np.asarray(render.channels)[kept], alpha, labelset, config.mask)
        masks[name] = clean(labels, sure, labelset, config.mask)
    return Novel(images[kept], alpha, moved.yaw[kept], moved.pitch[kept], left, masks)


def render_captures(
    listed: list[Listed],
    fitted: Path,
    known: Callable[[str], dict[str, np.ndarray]],
    labelset: LabelSet,
    config: RunConfig,
    folder: Path,
) -> None:
    """`render_novel` of all, each into its own file: pictures, poses, the poses left out, and masks by student.

    Args:
        known: what the label stage knows about an identity.
    """
    scenes, room = saved_scenes(fitted), SharedCapacity()

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        arrays = known(one.identity)
        rows = {n: arrays[f"rows_{k}"] for n, k in STUDENT_ROWS.items() if f"rows_{k}" in arrays}
        scene = scene_in(scenes, one.identity)
        novel = render_novel(one.unlabelled().read(), scene, arrays["seen"], rows, labelset, config, room, devices)
        shown = {"yaw": novel.yaw, "pitch": novel.pitch, "images": novel.images}
        left = np.asarray(novel.left_out, np.float64).reshape(-1, 2)
        return {**shown, "left_out": left, **{f"labels_{name}": of for name, of in novel.rows.items()}}

    each_identity("render", listed, folder, make)
    if is_first_host():
        names = [one.identity for one in sound(listed, folder)]
        left = {name: load_arrays(folder / f"{name}.npz", "left_out")["left_out"].tolist() for name in names}
        write_json(folder / "left_out.json", left)


def write_set(
    path: Path,
    listed: list[Listed],
    rendered: Path,
    mask_of: Callable[[Capture], np.ndarray],
    name: str,
    labelset: LabelSet,
) -> None:
    """The training set of the student called `name`: photographs with their masks, and the novel views.

    One identity is in memory at a time.

    Args:
        rendered: what `render_captures` wrote.
    """

    alike = len({one.shape[1:] for one in listed}) == 1

    def parts() -> Iterator[AuxiliarySet]:
        for one in listed:
            capture, novel = one.read(), load_arrays(rendered / f"{one.identity}.npz")
            photos, count = from_captures([capture.with_labels(mask_of(capture), labelset)]), len(novel["images"])
            renders = AuxiliarySet(
                images=novel["images"],
                labels=novel[f"labels_{name}"],
                weights=np.ones(count, np.float32),
                identity=(capture.identity,) * count,
                yaw=novel["yaw"].astype(np.float32),
                pitch=novel["pitch"].astype(np.float32),
                source=("render",) * count,
                labelset=labelset,
            )
            part = concatenate([photos, renders])
            yield part if alike else squared(part)

    write_parts(cleared(path), parts(), sum(one.shape[0] for one in listed))
