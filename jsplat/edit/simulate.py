"""What edits would bring, measured where the truth is known: it is revealed on the masks at the head of the queue."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from jsplat.edit.evidence import edit
from jsplat.edit.head import UNTOUCHED, Head
from jsplat.edit.queue import Looks, QueueConfig, expected_gains, rank
from jsplat.errors import InputError
from jsplat.evaluate import pose_bins, score
from jsplat.labelset import IGNORE


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """How much is revealed, and what counts.

    Attributes:
        share: of all masks, revealed one after the other.
        margin: mIoU by which another view has to rise to count as corrected (or fall, to count as harmed).
        queue: how the masks are chosen.
    """

    share: float = 0.01
    margin: float = 0.005
    queue: QueueConfig = dataclasses.field(default_factory=QueueConfig)

    def __post_init__(self):
        if not 0 < self.share <= 1 or self.margin < 0:
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
    looks: Looks
    truth: UInt8[np.ndarray, "v h w"]
    yaw: np.ndarray
    pitch: np.ndarray


def _miou(mask: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Mean IoU of one mask over the classes that it or the truth holds; ignored pixels count nowhere."""
    counted = truth != IGNORE
    pairs = truth[counted].astype(np.int64) * 256 + mask[counted]
    matrix = np.bincount(pairs, minlength=256 * k).reshape(-1, 256)
    hit = np.diagonal(matrix)[:k]
    union = matrix[:k].sum(1) + matrix[:, :k].sum(0) - hit
    return float(np.mean(hit[union > 0] / union[union > 0]))


def simulate(subjects: dict[str, Subject], config: SimulationConfig = SimulationConfig()) -> dict:
    """Reveals the truth on the first masks of the queue, each as one edit of the pixels that were wrong.

    Returns:
        ready for report.json: "masks" (all), "revealed", "margin", "edits" (per edit: identity, view, yaw, pixels,
        "corrected" and "harmed" other views, "changed" ones, seconds), "median_corrected", "median_seconds", and the
        mIoU of the side views of all these heads: "side_before", "side_after", "side_after_others" (edited views as
        they would be without what was said in them).
    """
    if not subjects:
        raise InputError("simulate: subjects", wanted="at least one head with known labels", got="none")
    gains = {name: expected_gains(s.looks, config.queue) for name, s in subjects.items()}
    order = rank(gains, {name: s.looks.cameras for name, s in subjects.items()}, {}, config.queue)
    revealed = order[: math.ceil(config.share * len(order))]
    heads: dict[str, Head] = {}
    edits = []
    for name, view, gain in revealed:
        subject = subjects[name]
        head = heads[name] if name in heads else heads.setdefault(name, subject.head())
        k = len(head.settings.labelset)
        now = head.mask(view)
        wrong = (now != subject.truth[view]) & (subject.truth[view] != IGNORE)
        before = [_miou(head.mask(v), t, k) for v, t in enumerate(subject.truth)]
        outcome = edit(head, view, np.where(wrong, subject.truth[view], UNTOUCHED).astype(np.uint8))
        rise = np.asarray([_miou(head.mask(v), t, k) for v, t in enumerate(subject.truth)]) - before
        rise[view] = 0
        edits.append(
            {
                "identity": name,
                "view": view,
                "yaw": float(subject.yaw[view]),
                "pitch": float(subject.pitch[view]),
                "gain": gain,
                "pixels": int(wrong.sum()),
                "miou": before[view],
                "corrected": int((rise > config.margin).sum()),
                "harmed": int((rise < -config.margin).sum()),
                "changed": outcome.others,
                "seconds": outcome.seconds,
            }
        )
    start = {name: s.looks.labels for name, s in subjects.items()}
    with_edits = {n: np.stack([h.mask(v) for v in range(len(h.masks))]) for n, h in heads.items()}
    without = {n: h.masks for n, h in heads.items()}
    return {
        "masks": len(order),
        "revealed": len(revealed),
        "margin": config.margin,
        "edits": edits,
        "median_corrected": float(np.median([e["corrected"] for e in edits])),
        "median_seconds": float(np.median([e["seconds"] for e in edits])),
        "side_before": _side(subjects, start, heads),
        "side_after": _side(subjects, start | with_edits, heads),
        "side_after_others": _side(subjects, start | without, heads),
    }


def _side(subjects: dict[str, Subject], masks: dict[str, np.ndarray], heads: dict[str, Head]) -> float | None:
    labelset = next(iter(heads.values())).settings.labelset
    rows = {n: pose_bins(s.yaw, s.pitch)["side"] for n, s in subjects.items()}
    scores = score(
        np.concatenate([masks[n][rows[n]] for n in subjects]),
        np.concatenate([s.truth[rows[n]] for n, s in subjects.items()]),
        np.concatenate([s.yaw[rows[n]] for n, s in subjects.items()]),
        np.concatenate([s.pitch[rows[n]] for n, s in subjects.items()]),
        tuple(n for n in subjects for _ in range(int(rows[n].sum()))),
        labelset,
    )
    return scores["bins"]["side"]["miou"]
