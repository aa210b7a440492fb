"""What edits would bring, measured where the truth is known: it is revealed on the masks at the head of the queue."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import UInt8

from jsplat.edit.evidence import edit
from jsplat.edit.head import UNTOUCHED, Head
from jsplat.edit.queue import QueueConfig, QueueInputs, expected_gains, rank
from jsplat.errors import InputError, Stopped
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.metrics.classes import class_counts, confusion, iou_per_class, mean_known
from jsplat.metrics.masks import Tally, pose_bins, scores_of, tally
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP

SIDES = ("side_before", "side_after", "side_after_others")


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """How much is revealed, and what counts.

    Attributes:
        revealed_fraction: of all masks, revealed one after the other.
        margin: mIoU by which another view has to rise to count as corrected (or fall, to count as harmed).
        queue: how the masks are chosen.
    """

    revealed_fraction: float = 0.01
    margin: float = 0.005
    queue: QueueConfig = dataclasses.field(default_factory=QueueConfig)

    def __post_init__(self):
        if not 0 < self.revealed_fraction <= 1 or self.margin < 0:
            raise InputError("SimulationConfig", wanted="a share in (0, 1], a margin of 0 or more", got=self)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One head whose truth is known.

    Attributes:
        head: makes it ready for edits; called only if one of its masks is chosen.
        looks: what the queue sees of it; its labels are the refined masks.
        truth: class ids or IGNORE.
        yaw, pitch: degrees per view.
    """

    head: Callable[[], Head]
    looks: QueueInputs
    truth: UInt8[np.ndarray, "v h w"]
    yaw: np.ndarray
    pitch: np.ndarray


def _miou(mask: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Mean IoU of one mask over the classes that it or the truth holds; ignored pixels count nowhere."""
    known = mean_known(iou_per_class(class_counts(confusion(mask, truth, k))))
    return np.nan if known is None else known


def simulate(
    subjects: Mapping[str, Callable[[], Subject]], labelset: LabelSet, config: SimulationConfig = SimulationConfig()
) -> dict:
    """Reveals the truth on the first masks of the queue, each as one edit of the pixels that were wrong.

    One head is in memory at a time.

    Args:
        subjects: reads each; called twice.
        labelset: what all masks and truths mean.

    Returns:
        ready for report.json: "masks" (all), "revealed", "margin", "edits" (per edit, in the queue's order: identity,
        view, yaw, pixels, "corrected" and "harmed" other views, "changed" ones, seconds), "median_corrected",
        "median_harmed", "median_seconds", and the mIoU of the side views of all these heads: "side_before",
        "side_after", "side_after_others" (edited views as they would be without what was said in them).

    Raises:
        InputError: no subjects.
        Stopped: the process was asked to end.
    """
    if not subjects:
        raise InputError("simulate: subjects", wanted="at least one head with known labels", got="none")
    gains, cameras = {}, {}

    def look(name: str) -> None:
        looks = subjects[name]().looks
        gains[name], cameras[name] = expected_gains(looks, config.queue), looks.cameras

    # Each in a call of its own, so that nothing of a head is left when the next one is read.
    progress = Progress("simulated edits", 2 * len(subjects))
    _each(subjects, look, progress)
    masks = sum(map(len, gains.values()))
    revealed = list(
        itertools.islice(rank(gains, cameras, {}, config.queue), math.ceil(config.revealed_fraction * masks))
    )
    turns: dict[str, list[int]] = {}
    for turn, (name, _, _) in enumerate(revealed):
        turns.setdefault(name, []).append(turn)
    edits, sides = {}, {name: Tally.empty(len(labelset)) for name in SIDES}

    def reveal(name: str) -> None:
        subject = subjects[name]()
        shown = dict.fromkeys(SIDES, subject.looks.labels)
        if name in turns:
            head = subject.head()
            edits.update({turn: _reveal(head, subject, *revealed[turn], config.margin) for turn in turns[name]})
            shown["side_after"] = np.stack([head.mask(v) for v in range(len(head.masks))])
            shown["side_after_others"] = head.masks
        side = pose_bins(subject.yaw, subject.pitch)["side"]
        about = subject.truth[side], subject.yaw[side], subject.pitch[side], (name,) * int(side.sum()), labelset
        for key, of in shown.items():
            sides[key].add(tally(of[side], *about))

    _each(subjects, reveal, progress)
    outcomes = [edits[turn] for turn in sorted(edits)]
    return {
        "masks": masks,
        "revealed": len(revealed),
        "margin": config.margin,
        "edits": outcomes,
        "median_corrected": float(np.median([e["corrected"] for e in outcomes])),
        "median_harmed": float(np.median([e["harmed"] for e in outcomes])),
        "median_seconds": float(np.median([e["seconds"] for e in outcomes])),
        **{key: scores_of(counted, labelset)["bins"]["side"]["miou"] for key, counted in sides.items()},
    }


def _each(names: Iterable[str], work: Callable[[str], None], progress: Progress) -> None:
    for name in names:
        if STOP.is_set():
            raise Stopped(f"stopped in the simulated edits, at {name}")
        work(name)
        progress.advance()


def _reveal(head: Head, subject: Subject, name: str, view: int, gain: float, margin: float) -> dict:
    """One edit: the truth where the mask is wrong; what it did to the other views."""
    k = len(head.settings.labelset)
    wrong = (head.mask(view) != subject.truth[view]) & (subject.truth[view] != IGNORE)
    before = [_miou(head.mask(v), t, k) for v, t in enumerate(subject.truth)]
    outcome = edit(head, view, np.where(wrong, subject.truth[view], UNTOUCHED).astype(np.uint8))
    rise = np.asarray([_miou(head.mask(v), t, k) for v, t in enumerate(subject.truth)]) - before
    rise[view] = 0
    return {
        "identity": name,
        "view": view,
        "yaw": float(subject.yaw[view]),
        "pitch": float(subject.pitch[view]),
        "gain": gain,
        "pixels": int(wrong.sum()),
        "miou": before[view],
        "corrected": int((rise > margin).sum()),
        "harmed": int((rise < -margin).sum()),
        "changed": outcome.others,
        "seconds": outcome.seconds,
    }
