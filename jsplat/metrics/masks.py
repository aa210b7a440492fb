"""Label maps against the truth, by head pose."""

import array
import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.boundaries import boundary_counts
from jsplat.metrics.classes import class_counts, confusion, f1_per_class, iou_per_class, mean_known, merge_classes
from jsplat.metrics.config import EvaluateConfig
from jsplat.metrics.statistics import f1_interval

YAW_BINS = ((15.0, "0-15"), (45.0, "15-45"), (75.0, "45-75"), (105.0, "75-105"), (math.inf, ">105"))
BINS = (*(name for _, name in YAW_BINS), "steep", "side", "all")
COMPARED = ("side", "0-15", "all")  # bins whose f1 gets an interval, alone and against another method's


def pose_bins(yaw: Float[np.ndarray, " n"], pitch: Float[np.ndarray, " n"]) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which pictures belong to which bin (degrees).

    The yaw bins hold their upper end (|yaw| = 15 is "0-15"); steep is |pitch| >= 30, side is |yaw| >= 60. Angles are
    rounded to 0.01 degree first, so that a camera built at 15 degrees in float32 stays where it was meant to be.
    """
    yaw, pitch = np.round(np.abs(yaw), 2), np.round(np.abs(pitch), 2)
    place = np.searchsorted([end for end, _ in YAW_BINS], yaw)
    bins = {name: place == i for i, (_, name) in enumerate(YAW_BINS)}
    return bins | {"steep": pitch >= 30, "side": yaw >= 60, "all": np.ones(len(yaw), bool)}


def score(
    predicted: UInt8[np.ndarray, "..."],  # "...": shapes that must match are checked inside, with a message
    truth: UInt8[np.ndarray, "n h w"],
    yaw: Float[np.ndarray, "..."],
    pitch: Float[np.ndarray, "..."],
    identity: tuple[str, ...],
    labelset: LabelSet,
    config: EvaluateConfig = EvaluateConfig(),
) -> dict:
    """Scores label maps against the truth, per pose bin; everything in [0, 1], None where there is nothing to score.

    Pixels whose truth is IGNORE count nowhere. A predicted IGNORE is no answer: the true class misses the pixel, no
    class gains it. One confusion matrix per bin over all its pictures gives (tp, predicted, true per class):

    - f1: mean of 2 tp / (predicted + true) over the foreground classes PRESENT IN THE TRUTH of the bin (FaRL's
      `fg_mean` but for absent classes); f1_core: the same without rare classes; f1_merged: both sides as one class.
    - miou, miou_fg: mean of tp / (predicted + true - tp) with and without background, over all classes that occur in
      the truth or in the prediction of the bin. miou_per_image: mean over pictures of each picture's miou.
    - boundary_iou (Cheng et al. 2021, arXiv 2103.16562): IoU of the parts of prediction and truth that lie within
      `config.boundary` of their own contour, pixels pooled over the bin, over the classes of miou_fg;
      boundary_iou_standard: the same with a band of 2 % of the diagonal.

    Args:
        predicted, truth: class ids or IGNORE, `n h w`.
        yaw, pitch: where the camera stands in the head frame, degrees, `n`.
        identity: whose head, `n`.

    Returns:
        {"bins": {bin: {"f1", "f1_core", "f1_merged", "miou", "miou_fg", "miou_per_image", "boundary_iou",
        "boundary_iou_standard", "n"}}, "classes" and "classes_side": {name: {"iou", "f1"}} for bins "all" and "side",
        "f1_merged": of bin "all", "ci": {"side" | "0-15" | "all": [low, high] | None}, the 95 % interval of f1 over
        identities (`f1_interval`), "confusion": {"side" | "all": k x k pixel counts, row = true class}}.

    Raises:
        InputError: shapes differ, or a map holds an id that is no class.
    """
    return scores_of(tally(predicted, truth, yaw, pitch, identity, labelset, config), labelset)


@dataclasses.dataclass
class Tally:
    """What is counted of label maps, for `scores_of`; of any number of pictures it is small.

    Attributes:
        n: pictures per bin; the axis `bin` goes as BINS.
        matrices: pixel counts, rows are true classes, columns predicted ones; the last column counts "no answer".
        boundary: pixel counts in the bands of `config.boundary` and `config.boundary_standard`: in both the
            prediction's and the truth's (with equal labels), in the prediction's, in the truth's.
        miou: per bin, of each picture that has one.
        people: per bin of COMPARED, of each person with pictures there: pixels hit, true and answered per class.
    """

    n: Int[np.ndarray, " bin"]
    matrices: Int[np.ndarray, "bin k k1"]
    boundary: Int[np.ndarray, "bin 2 3 k"]
    miou: tuple[array.array, ...]
    people: dict[str, dict[str, Int[np.ndarray, "3 k"]]]

    @staticmethod
    def empty(classes: int) -> "Tally":
        """Nothing counted yet."""
        shapes = (), (classes, classes + 1), (2, 3, classes)
        n, matrices, boundary = (np.zeros((len(BINS), *shape), np.int64) for shape in shapes)
        return Tally(n, matrices, boundary, tuple(array.array("d") for _ in BINS), {name: {} for name in COMPARED})

    def add(self, other: "Tally") -> None:
        """Counts the pictures of another tally too; the order of additions decides the last bits of `miou_per_image`.

        Raises:
            InputError: the other one counted other classes.
        """
        own, more = self.matrices.shape[1], other.matrices.shape[1]
        if own != more:
            raise InputError("Tally.add: other", wanted=f"{own} classes", got=more)
        self.n += other.n
        self.matrices += other.matrices
        self.boundary += other.boundary
        for values, further in zip(self.miou, other.miou):
            values.extend(further)
        for name, people in other.people.items():
            for person, counts in people.items():
                self.people[name][person] = self.people[name].get(person, 0) + counts


def tally(
    predicted: UInt8[np.ndarray, "..."],
    truth: UInt8[np.ndarray, "n h w"],
    yaw: Float[np.ndarray, "..."],
    pitch: Float[np.ndarray, "..."],
    identity: tuple[str, ...],
    labelset: LabelSet,
    config: EvaluateConfig = EvaluateConfig(),
) -> Tally:
    """Counts what `score` looks at; arguments and errors are those of `score`."""
    predicted, truth, yaw, pitch = (np.asarray(a) for a in (predicted, truth, yaw, pitch))
    if predicted.ndim != 3 or predicted.shape != truth.shape:
        raise InputError("score: predicted", wanted=f"the shape of truth {truth.shape}", got=predicted.shape)
    if not len(truth) == len(yaw) == len(pitch) == len(identity):
        got = (len(truth), len(yaw), len(pitch), len(identity))
        raise InputError("score: truth, yaw, pitch, identity", wanted="one entry per picture", got=got)
    labelset.check(predicted, "score: predicted")
    labelset.check(truth, "score: truth")
    k, counted, diagonal = len(labelset), Tally.empty(len(labelset)), math.hypot(*truth.shape[1:])
    radii = [max(1, round(fraction * diagonal)) for fraction in (config.boundary, config.boundary_standard)]
    places = np.stack([*pose_bins(yaw, pitch).values()], 1)
    for seen, true, bins, person in zip(predicted, truth, places, identity):
        matrix = confusion(seen, true, k)
        counted.n[bins] += 1
        counted.matrices[bins] += matrix
        counted.boundary[bins] += np.stack([boundary_counts(seen, true, k, radius) for radius in radii])
        if (miou := mean_known(iou_per_class(class_counts(matrix)))) is not None:
            for i in np.flatnonzero(bins):
                counted.miou[i].append(miou)
        for name, people in counted.people.items():
            if bins[BINS.index(name)]:
                people[person] = people.get(person, 0) + class_counts(matrix)
    return counted


def scores_of(counted: Tally, labelset: LabelSet) -> dict:
    """The scores of what `tally` counted, as `score` returns them; `labelset` is that of the tally."""
    rows, matrices = {}, dict(zip(BINS, counted.matrices))
    for i, (name, matrix) in enumerate(matrices.items()):
        f1, iou = f1_per_class(class_counts(matrix)), iou_per_class(class_counts(matrix))
        near, near_standard = (iou_per_class(band) for band in counted.boundary[i])
        rows[name] = {
            "f1": mean_known(f1[1:]),
            "f1_core": mean_known(f1[labelset.core_ids]),
            "f1_merged": mean_known(f1_per_class(class_counts(merge_classes(matrix, labelset.merged_ids)))[1:]),
            "miou": mean_known(iou),
            "miou_fg": mean_known(iou[1:]),
            "miou_per_image": float(np.mean(counted.miou[i])) if counted.miou[i] else None,
            "boundary_iou": mean_known(near[1:]),
            "boundary_iou_standard": mean_known(near_standard[1:]),
            "n": int(counted.n[i]),
        }
    return {
        "bins": rows,
        "classes": _per_class(matrices["all"], labelset),
        "classes_side": _per_class(matrices["side"], labelset),
        "f1_merged": rows["all"]["f1_merged"],
        "ci": {name: f1_interval(counted.people[name]) for name in COMPARED},
        "confusion": {name: matrices[name][:, :-1].tolist() for name in ("side", "all")},
    }


def _per_class(matrix: np.ndarray, labelset: LabelSet) -> dict[str, dict[str, float | None]]:
    rows = zip(
        labelset.names, iou_per_class(class_counts(matrix)).tolist(), f1_per_class(class_counts(matrix)).tolist()
    )
    return {n: {"iou": None if math.isnan(i) else i, "f1": None if math.isnan(f) else f} for n, i, f in rows}
