"""The stage `label`: scenes and first labels to refined label maps."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.edit import check_votes, voted_labels
from jsplat.errors import InputError
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels import (
    METHODS,
    Rendered,
    VoteConfig,
    VoterEvidence,
    VoterLabels,
    facing,
    from_colors,
    lift,
    paint,
    pose_prior,
    render_masks,
    sharpen,
    to_colors,
    vote,
    vote_together,
)
from jsplat.labels.opinions import Logits, Maps, Masked, Opinions, most_probable, shape_of
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import Other, others_in
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.packing import load_labelled, packed
from jsplat.pipeline.stages.identities import each_identity
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Gaussians, Scene
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.view_blocks import Devices


def label_capture(
    capture: Capture,
    scene: Scene,
    first: Logits | Maps | Float[np.ndarray, "v h w k"],
    labelset: LabelSet,
    config: RunConfig,
    shared: SharedCapacity,
    devices: Devices = (),
    others: Sequence[Other] = (),
) -> dict[str, np.ndarray]:
    """Everything the label stage knows about one head; `devices` share its views.

    Returns:
        masks "v h w": "refined", sharpened; "vote_plain", the plain vote as it came; "oracle", sharpened from the
        capture's own labels where it has some; with
        `config.ablation`, there too, every other vote as it came, "plain_sharpened", "trained" and "palette".
        Besides: per-Gaussian tables "rows_refined" and "rows_oracle", "confidence", "alpha" and "depth" of the views,
        and "seen" (blend weight per Gaussian over all views); with `others`, who vote and sharpen too, "belief" "m k"
        (see `vote_together`), the first voter's first.
    """
    gaussians, cameras = scene.gaussians, capture.cameras
    where = {"capacity": shared.for_views(gaussians, cameras), "devices": devices}
    yaw, pitch = capture.yaw.astype(np.float32), capture.pitch.astype(np.float32)
    pictures = first if capture.valid is None else Masked(first, capture.valid)
    evidence, weight = lift(gaussians, cameras, pictures, **where)
    cosines = facing(gaussians, cameras)
    out: dict[str, np.ndarray] = {"seen": np.asarray(weight.sum(0))}

    def elect(method: str) -> Array:
        return vote(evidence, weight, yaw, pitch, dataclasses.replace(config.vote, method=method), cosines)

    def masks(probabilities: Array) -> Rendered:
        return render_masks(gaussians, probabilities, cameras, labelset, config.mask, **where)

    def sharpened(
        probabilities: Array,
        seen: Opinions | np.ndarray,
        trust: Array,
        confusion: bool,
        others: Sequence[VoterLabels] = (),
    ) -> Array:
        how = dataclasses.replace(config.sharpen, confusion=confusion)
        return sharpen(gaussians, probabilities, cameras, seen, trust, config=how, others=others, **where)

    alike = jnp.ones(len(yaw))
    trust = pose_prior(yaw, pitch, config.vote)
    voter_labels = [other.voter_labels(np.asarray(trust)) for other in others]
    if voter_labels:
        own = tuple(frozenset({i}) for i in range(len(labelset)))
        heard = [VoterEvidence(evidence, trust, own), *(_heard(gaussians, cameras, one, where) for one in voter_labels)]
        probabilities, belief = vote_together(heard, weight, config.vote, len(labelset))
        out["belief"] = np.asarray(belief)
    else:
        probabilities = elect(config.vote.method)
    probabilities = sharpened(probabilities, pictures, trust, config.sharpen.confusion, voter_labels)
    shown = masks(probabilities)
    out |= {"refined": shown.labels, "confidence": shown.confidence, "alpha": shown.alpha, "depth": shown.depth}
    out["rows_refined"], out["vote_plain"] = np.asarray(probabilities), masks(elect("plain")).labels
    if config.ablation and capture.labels is not None:
        out |= {method: masks(elect(method)).labels for method in METHODS if method != "plain"}
        out["plain_sharpened"] = masks(sharpened(elect("plain"), pictures, alike, confusion=False)).labels
        out["palette"] = _palette_masks(gaussians, cameras, first, labelset, config, where)
        if config.fit.label_weight > 0:
            logits = scene.attributes.label_logits.at[:, 0].set(-jnp.inf)
            out["trained"] = masks(jax.nn.softmax(logits, -1)).labels
    if capture.labels is not None:
        truth = Maps(capture.labels, len(labelset))
        known, seen = lift(gaussians, cameras, truth, **where)
        probabilities = vote(known, seen, yaw, pitch, VoteConfig(method="plain"))
        probabilities = sharpened(probabilities, truth, alike, confusion=False)
        out["oracle"], out["rows_oracle"] = masks(probabilities).labels, np.asarray(probabilities)
    return out


def _heard(gaussians: Gaussians, cameras, voter_labels: VoterLabels, where: dict) -> VoterEvidence:
    evidence, _ = lift(gaussians, cameras, Maps(voter_labels.labels, len(voter_labels.means)), **where)
    return VoterEvidence(evidence, jnp.asarray(voter_labels.trust), voter_labels.means)


def _palette_masks(gaussians: Gaussians, cameras, first, labelset: LabelSet, config: RunConfig, where: dict):
    """The paper's own way: masks as colours, fitted as colours (here in closed form), clustered back."""
    # As many channels as classes, most of them empty: then the programs of the other votes serve this one too.
    colors, labels = np.zeros(shape_of(first), np.float32), most_probable(first)
    colors[..., :3] = to_colors(np.where(labels == IGNORE, 0, labels).astype(np.uint8), labelset)
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
    scenes, shared = saved_scenes(fitted), SharedCapacity()

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        capture = one.read()
        seen, scene = first_labels(first, capture).opinions, scene_in(scenes, one.identity)
        others = others_in(first, capture)
        return packed(label_capture(capture, scene, seen, labelset, config, shared, devices, others))

    each_identity("label", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", labelset.to_json())


def label_settings(config: RunConfig) -> dict:
    """What run.json says of the stage; whoever opens a run reads vote, sharpening and masks there."""
    parts = {"vote": config.vote, "sharpen": config.sharpen, "mask": config.mask, "palette": config.palette}
    return {**{name: to_json(part) for name, part in parts.items()}, "ablation": config.ablation}


def labels_of(labelled: Path, identity: str, labelset: LabelSet) -> dict[str, np.ndarray]:
    """What a folder of `label` knows about a head; in a run, with what people corrected since.

    Raises:
        InputError: no vote on what they drew and on this geometry is there (`jsplat.edit.check_vote`), or a folder of
            another stage.
    """
    run, known = _run_of(labelled), load_labelled(labelled, identity)
    if not {"refined", "rows_refined"} & known.keys():
        wanted, hint = "refined masks from `label`", "`parse` leaves first labels, which `label` refines"
        raise InputError(str(labelled), wanted=wanted, got=f"none of {identity}", hint=hint)
    return known | (voted_labels(run, identity, labelset) if run else {})


def check_edits(labelled: Path, labelset: LabelSet) -> None:
    """InputError as of `labels_of` for anybody, before anything is done."""
    if run := _run_of(labelled):
        check_votes(run, labelset)


def _run_of(labelled: Path) -> Path | None:
    """The run whose stage "label" a folder is. Edits lie beside that stage; other folders beside them are strangers."""
    path = Path(os.path.abspath(labelled))
    return path.parent if path.name == "label" else None
