"""The stage `label`: scenes and first labels to refined label maps."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.edit import check_votes, voted_labels
from jsplat.errors import InputError
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels import (
    EVIDENCE,
    METHODS,
    VoteConfig,
    VoterEvidence,
    VoterLabels,
    facing,
    from_colors,
    lift,
    lift_kept,
    mask_blocks,
    near_views,
    paint_blocks,
    pose_prior,
    sharpen,
    to_colors,
    vote,
    vote_together,
)
from jsplat.labels.opinions import Logits, Maps, Masked, Opinions, most_probable
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import Other, others_in
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.packing import load_labelled, packed
from jsplat.pipeline.stages.identities import each_identity
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import HITS_SEEN, SharedCapacity, backend_tile, hits_of
from jsplat.raster.scene import Gaussians, Scene
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.view_blocks import VIEWS, Devices, block_indices, each_block

PICTURES = 2**25  # bytes in memory of what all views show of one kind; the rest lies on disk until it is written

Known = dict[str, np.ndarray | KeptViews]


def label_capture(
    capture: Capture,
    scene: Scene,
    first: Logits | Maps | Float[np.ndarray, "v h w k"],
    labelset: LabelSet,
    config: RunConfig,
    shared: SharedCapacity,
    devices: Devices = (),
    others: Sequence[Other] = (),
) -> Known:
    """Everything the label stage knows about one head, as its file keeps it (see `packed`); `devices` share its views.

    A block of views is in memory at a time, and of what grows with the views at most `EVIDENCE` bytes for each voter
    and `PICTURES` bytes for each kind of picture, besides the capture and the first labels as they were given.

    Returns:
        masks "v h w": "refined", sharpened; "vote_plain", the plain vote as it came; "oracle", sharpened from the
        capture's own labels where it has some; with
        `config.ablation`, there too, every other vote as it came, "plain_sharpened", "trained" and "palette".
        Besides: per-Gaussian tables "rows_refined", "rows_oracle" and, with `config.baselines`, "rows_plain";
        "confidence", "alpha" and "depth" of the views,
        and "seen" (blend weight per Gaussian over all views); with `others`, who vote and sharpen too, "belief" "m k"
        (see `vote_together`), the first voter's first.
    """
    where = {"capacity": shared.for_views(scene.gaussians, capture.cameras), "devices": devices}
    head = _Head(capture, scene.gaussians, labelset, config, where)
    head.refine(first, others)
    if config.ablation and capture.labels is not None:
        head.ask_palette(first)
        if config.fit.label_weight > 0:
            logits = scene.attributes.label_logits.at[:, 0].set(-jnp.inf)
            head.show("trained", jax.nn.softmax(logits, -1))
    if capture.labels is not None:
        head.ask_truth(capture.labels)
    return head.known


@dataclasses.dataclass(frozen=True)
class _Head:
    """One head in the label stage, and what is `known` so far; `where`: how it is rendered."""

    capture: Capture
    gaussians: Gaussians
    labelset: LabelSet
    config: RunConfig
    where: dict
    known: Known = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Yaw and pitch."""
        return self.capture.yaw.astype(np.float32), self.capture.pitch.astype(np.float32)

    @property
    def cameras(self) -> Camera:
        """Of the capture."""
        return self.capture.cameras

    def refine(self, first: Logits | Maps | np.ndarray, others: Sequence[Other]) -> None:
        """The votes, sharpened and as they came."""
        config, pictures = self.config, first if self.capture.valid is None else Masked(first, self.capture.valid)
        evidence, weight = lift_kept(self.gaussians, self.cameras, pictures, **self.where)
        trust, alike = pose_prior(*self.poses, config.vote), jnp.ones(len(self.poses[0]))
        self.known["seen"] = np.asarray(sum(weight[part].sum(0) for part in _parts(len(weight))))

        def elect(method: str) -> Array:
            cosines = self._cosines() if method == "cosine" else None
            return vote(evidence, weight, *self.poses, dataclasses.replace(config.vote, method=method), cosines)

        voter_labels = [other.voter_labels(np.asarray(trust)) for other in others]
        if voter_labels:
            own = tuple(frozenset({i}) for i in range(len(self.labelset)))
            near = near_views(*self.poses, config.vote)
            heard = [VoterEvidence(evidence, trust, near, own), *map(self._heard, voter_labels)]
            probabilities, belief = vote_together(heard, weight, config.vote, len(self.labelset))
            self.known["belief"] = np.asarray(belief)
        else:
            probabilities = elect(config.vote.method)
        probabilities = self._sharpened(probabilities, pictures, trust, config.sharpen.confusion, voter_labels)
        self.known["rows_refined"] = np.asarray(probabilities)
        self.show("refined", probabilities, "confidence", "alpha", "depth")
        plain = elect("plain")
        self.show("vote_plain", plain)
        if "plain" in config.baselines and self.capture.labels is not None:
            self.known["rows_plain"] = np.asarray(plain)
        if config.ablation and self.capture.labels is not None:
            for method in METHODS:
                if method != "plain":
                    self.show(method, elect(method))
            self.show("plain_sharpened", self._sharpened(plain, pictures, alike, confusion=False))

    def ask_truth(self, labels: UInt8[np.ndarray, "v h w"]) -> None:
        """What a perfect parser would reach."""
        truth = Maps(labels, len(self.labelset))
        known, seen = lift_kept(self.gaussians, self.cameras, truth, **self.where)
        probabilities = vote(known, seen, *self.poses, VoteConfig(method="plain"))
        probabilities = self._sharpened(probabilities, truth, jnp.ones(len(labels)), confusion=False)
        self.show("oracle", probabilities)
        self.known["rows_oracle"] = np.asarray(probabilities)

    def ask_palette(self, first: Logits | Maps | np.ndarray) -> None:
        """The paper's own way: masks as colours, fitted as colours (here in closed form), clustered back."""
        labels, count = most_probable(first), len(self.gaussians.means)
        labels = np.where(labels == IGNORE, 0, labels).astype(np.uint8)
        total, mass = jnp.zeros((count, len(self.labelset))), jnp.zeros(count)
        for chosen in block_indices(len(labels)):
            views = chosen[chosen < len(labels)]
            chosen = np.minimum(chosen, len(labels) - 1)
            # As many channels as classes, most of them empty: then the programs of the votes serve this one too.
            colors = np.zeros((*labels[chosen].shape, len(self.labelset)), np.float32)
            colors[..., :3] = to_colors(labels[chosen], self.labelset)
            sums, weight = lift(self.gaussians, self.cameras[chosen], colors, **self.where)
            total, mass = total + sums[: len(views)].sum(0), mass + weight[: len(views)].sum(0)
        painted, behind = (
            total / jnp.maximum(mass, 1e-6)[:, None],
            np.asarray(self.labelset.colors[0], np.float32) / 255,
        )
        shown, alpha = KeptViews(PICTURES), KeptViews(PICTURES)
        for _, render in paint_blocks(self.gaussians, painted, self.cameras, **self.where):
            alpha.append(np.asarray(render.alpha))
            shown.append(np.asarray(render.channels)[..., :3] + (1 - np.asarray(render.alpha))[..., None] * behind)
        self.known["palette"] = from_colors(shown, alpha, self.labelset, self.config.palette)

    def show(self, name: str, probabilities: Array, *more: str) -> None:
        """Keeps the masks that a table gives, and more of what it shows."""
        kept: dict[str, KeptViews] = {}
        for _, shown in mask_blocks(
            self.gaussians, probabilities, self.cameras, self.labelset, self.config.mask, **self.where
        ):
            arrays = {name: shown.labels} | packed({key: getattr(shown, key) for key in more})
            for key, of in arrays.items():
                kept.setdefault(key, KeptViews(PICTURES)).append(of)
        self.known.update(kept)

    def _sharpened(
        self,
        probabilities: Array,
        seen: Opinions | np.ndarray,
        trust: Array,
        confusion: bool,
        others: Sequence[VoterLabels] = (),
    ) -> Array:
        how = dataclasses.replace(self.config.sharpen, confusion=confusion)
        return sharpen(
            self.gaussians, probabilities, self.cameras, seen, trust, config=how, others=others, **self.where
        )

    def _heard(self, voter_labels: VoterLabels) -> VoterEvidence:
        evidence, _ = lift_kept(
            self.gaussians, self.cameras, Maps(voter_labels.labels, len(voter_labels.means)), **self.where
        )
        trust = jnp.asarray(voter_labels.trust)
        # Masks from elsewhere may be damaged or exchanged view by view: each has errors of its own.
        return VoterEvidence(evidence, trust, jnp.eye(len(trust)), voter_labels.means)

    def _cosines(self) -> KeptViews:
        found = KeptViews(EVIDENCE)
        for _, part in each_block(facing, self.gaussians, self.cameras):
            found.append(part)
        return found


def _parts(count: int) -> list[slice]:
    return [slice(start, start + VIEWS) for start in range(0, count, VIEWS)]


def label_captures(
    listed: list[Listed], fitted: Path, first: Path, labelset: LabelSet, config: RunConfig, folder: Path
) -> None:
    """`label_capture` of all, each into its own file."""
    scenes, shared = saved_scenes(fitted), shared_capacity(labelset, config)

    def make(one: Listed, devices: Devices) -> Known:
        capture = one.read()
        seen, scene = first_labels(first, capture).opinions, scene_in(scenes, one.identity)
        others = others_in(first, capture)
        return label_capture(capture, scene, seen, labelset, config, shared, devices, others)

    each_identity("label", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", labelset.to_json())


def shared_capacity(labelset: LabelSet, config: RunConfig) -> SharedCapacity:
    """One for all heads, which begins with what fitted heads usually need, so that programs do not wait for them."""
    return SharedCapacity(hits_of(HITS_SEEN * config.fit.gaussians, backend_tile(len(labelset) + 1)))


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
