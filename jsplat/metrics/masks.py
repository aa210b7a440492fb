"""How good labels and pictures are: scores against truth by head pose, agreement between views, PSNR and SSIM."""

import array
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera

YAW_BINS = ((15.0, "0-15"), (45.0, "15-45"), (75.0, "45-75"), (105.0, "75-105"), (math.inf, ">105"))
BINS = (*(name for _, name in YAW_BINS), "steep", "side", "all")
RESAMPLED = ("side", "all")  # bins whose f1 gets an interval


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What the scores depend on.

    Attributes:
        boundary: width of the boundary band as a share of the picture's diagonal; 3 px at 512x512, since eyes and lips
            are thinner than the standard band.
        boundary_standard: the same for `boundary_iou_standard` (Cheng et al. 2021: 2 %).
        resamples: bootstrap resamples of the identities.
        seed: of the bootstrap.
        neighbors: views each view is compared with in `agreement`.
        depth_tolerance: share of the depth by which two views may differ and still see the same point.
    """

    boundary: float = 3 / math.hypot(512, 512)
    boundary_standard: float = 0.02
    resamples: int = 1000
    seed: int = 0
    neighbors: int = 4
    depth_tolerance: float = 0.01


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
        "f1_merged": of bin "all", "ci": {"side" | "all": [low, high] | None}, the 95 % interval of f1 under resampling
        of identities (None with fewer than two), "confusion": {"side" | "all": k x k pixel counts, row = true class}}.

    Raises:
        InputError: shapes differ, or a map holds an id that is no class.
    """
    return scores_of(tally(predicted, truth, yaw, pitch, identity, labelset, config), labelset, config)


@dataclasses.dataclass
class Tally:
    """What is counted of label maps, for `scores_of`; of any number of pictures it is small.

    Attributes:
        n: pictures per bin; the axis `bin` goes as BINS.
        matrices: pixel counts, rows are true classes, columns predicted ones; the last column counts "no answer".
        boundary: pixel counts in the bands of `config.boundary` and `config.boundary_standard`: in both the
            prediction's and the truth's (with equal labels), in the prediction's, in the truth's.
        miou: per bin, of each picture that has one.
        people: per bin of RESAMPLED, of each person with pictures there: pixels hit, true and answered per class.
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
        return Tally(n, matrices, boundary, tuple(array.array("d") for _ in BINS), {name: {} for name in RESAMPLED})

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
    radii = [max(1, round(share * diagonal)) for share in (config.boundary, config.boundary_standard)]
    places = np.stack([*pose_bins(yaw, pitch).values()], 1)
    for seen, true, bins, person in zip(predicted, truth, places, identity):
        matrix = _confusion(seen, true, k)
        counted.n[bins] += 1
        counted.matrices[bins] += matrix
        counted.boundary[bins] += np.stack([_boundary_counts(seen, true, k, radius) for radius in radii])
        if (miou := _mean(_iou(_counts(matrix)))) is not None:
            for i in np.flatnonzero(bins):
                counted.miou[i].append(miou)
        for name, people in counted.people.items():
            if bins[BINS.index(name)]:
                people[person] = people.get(person, 0) + _counts(matrix)
    return counted


def scores_of(counted: Tally, labelset: LabelSet, config: EvaluateConfig = EvaluateConfig()) -> dict:
    """The scores of what `tally` counted, as `score` returns them; `config` and `labelset` are those of the tally."""
    rows, matrices = {}, dict(zip(BINS, counted.matrices))
    for i, (name, matrix) in enumerate(matrices.items()):
        f1, iou = _f1(_counts(matrix)), _iou(_counts(matrix))
        near, near_standard = (_boundary_iou(band) for band in counted.boundary[i])
        rows[name] = {
            "f1": _mean(f1[1:]),
            "f1_core": _mean(f1[labelset.core_ids]),
            "f1_merged": _mean(_f1(_counts(_merge(matrix, labelset.merged_ids)))[1:]),
            "miou": _mean(iou),
            "miou_fg": _mean(iou[1:]),
            "miou_per_image": float(np.mean(counted.miou[i])) if counted.miou[i] else None,
            "boundary_iou": _mean(near[1:]),
            "boundary_iou_standard": _mean(near_standard[1:]),
            "n": int(counted.n[i]),
        }
    return {
        "bins": rows,
        "classes": _per_class(matrices["all"], labelset),
        "classes_side": _per_class(matrices["side"], labelset),
        "f1_merged": rows["all"]["f1_merged"],
        "ci": {name: _interval(counted.people[name], config) for name in RESAMPLED},
        "confusion": {name: matrices[name][:, :-1].tolist() for name in RESAMPLED},
    }


def _confusion(predicted: np.ndarray, truth: np.ndarray, k: int) -> Int[np.ndarray, "k k1"]:
    """Pixel counts: rows are true classes, columns predicted ones; the last column counts "no answer"."""
    predicted = np.minimum(predicted, k)  # IGNORE goes to the column after the classes
    codes = truth.astype(np.int32) * (k + 1) + predicted
    return np.bincount(codes[truth != IGNORE], minlength=k * (k + 1)).reshape(k, k + 1)


def _divide(above: np.ndarray, below: np.ndarray, defined: np.ndarray) -> Float[np.ndarray, "*b k"]:
    return np.where(defined, above / np.where(defined, below, 1), np.nan)


def _counts(matrix: Int[np.ndarray, "k k1"]) -> Int[np.ndarray, "3 k"]:
    """Pixels per class: hit, true, answered."""
    return np.stack([np.diagonal(matrix), matrix.sum(1), matrix.sum(0)[:-1]])


def _f1(counts: np.ndarray) -> Float[np.ndarray, "*b k"]:
    """F1 per class of counts `*b 3 k`, NaN for a class the truth does not hold."""
    hit, true, answered = np.moveaxis(counts, -2, 0)
    return _divide(2 * hit, true + answered, true > 0)


def _iou(counts: Int[np.ndarray, "3 k"]) -> Float[np.ndarray, " k"]:
    """IoU per class, NaN for a class that neither truth nor prediction holds."""
    hit, true, answered = counts
    union = true + answered - hit
    return _divide(hit, union, union > 0)


def _boundary_iou(counts: Int[np.ndarray, "3 k"]) -> Float[np.ndarray, " k"]:
    both, predicted, true = counts
    union = predicted + true - both
    return _divide(both, union, union > 0)


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _merge(matrix: Int[np.ndarray, "k k1"], merged: Int[np.ndarray, " k"]) -> Int[np.ndarray, "k k1"]:
    """Adds up rows and columns of classes that share a merged id; the emptied ones stay, at zero."""
    columns = np.append(merged, len(merged))
    result = np.zeros_like(matrix)
    np.add.at(result, (merged[:, None], columns[None, :]), matrix)
    return result


def _per_class(matrix: np.ndarray, labelset: LabelSet) -> dict[str, dict[str, float | None]]:
    rows = zip(labelset.names, _iou(_counts(matrix)).tolist(), _f1(_counts(matrix)).tolist())
    return {n: {"iou": None if math.isnan(i) else i, "f1": None if math.isnan(f) else f} for n, i, f in rows}


def _interval(people: dict[str, np.ndarray], config: EvaluateConfig) -> list[float] | None:
    if len(people) < 2:
        return None  # one person resampled is always the same person
    pooled = np.stack([people[name] for name in sorted(people)]).astype(float)  # sorted: draws go to names
    rng = np.random.default_rng(config.seed)
    draws = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), config.resamples)
    f1 = _f1(np.tensordot(draws.astype(float), pooled, 1))[:, 1:]
    means = [m for m in map(_mean, f1) if m is not None]
    return [float(x) for x in np.percentile(means, [2.5, 97.5])] if means else None


def _window_maximum(values: UInt8[np.ndarray, "h w"], radius: int, outside: int) -> UInt8[np.ndarray, "h w"]:
    """Maximum over squares of side 2 radius + 1; windows double in length, so the cost grows with log(radius)."""
    values = np.pad(values, radius, constant_values=outside)
    length = 2 * radius + 1
    for axis in (0, 1):
        values = values.swapaxes(0, 1) if axis else values
        reach = 1
        while reach < length:
            step = min(reach, length - reach)
            values = np.maximum(values[:-step], values[step:])
            reach += step
        values = values.swapaxes(0, 1) if axis else values
    return values


def _band(labels: np.ndarray, ignored: np.ndarray, radius: int) -> Bool[np.ndarray, "h w"]:
    """Pixels that `radius` erosions by 3x3 would take from their own class; the picture's edge is a contour, as in the
    reference implementation, an ignored region is not."""
    # A pixel survives exactly if its window holds one class: one pass serves all classes at once.
    highest = _window_maximum(np.where(ignored, 0, labels), radius, IGNORE - 1)
    lowest = 255 - _window_maximum(np.where(ignored, 0, 255 - labels), radius, 0)
    return (highest != labels) | (lowest != labels)


def _boundary_counts(predicted: np.ndarray, truth: np.ndarray, k: int, radius: int) -> Int[np.ndarray, "3 k"]:
    """Pixels per class in both bands (with equal labels), in the prediction's band, in the truth's band."""
    ignored = truth == IGNORE
    near_predicted = _band(predicted, ignored, radius) & ~ignored & (predicted != IGNORE)
    near_true = _band(truth, ignored, radius) & ~ignored
    both = near_predicted & near_true & (predicted == truth)
    parts = (truth[both], predicted[near_predicted], truth[near_true])
    return np.stack([np.bincount(labels, minlength=k) for labels in parts])


def _neighbor_pairs(cameras: Camera, neighbors: int) -> Iterator[tuple[int, int]]:
    """Every view with the views whose optical axes are nearest to its own."""
    axes = np.asarray(cameras.camera_from_world, np.float64)[:, 2, :3]
    nearness = axes @ axes.T
    np.fill_diagonal(nearness, -np.inf)
    for i, row in enumerate(nearness):
        yield from ((i, int(j)) for j in np.argsort(-row, kind="stable")[: min(neighbors, len(axes) - 1)])


def agreement(
    labels: UInt8[np.ndarray, "..."],
    depth: Float[np.ndarray, "..."],
    cameras: Camera,
    config: EvaluateConfig = EvaluateConfig(),
) -> float | None:
    """Share of co-visible foreground pixels that keep their label when carried through depth into a neighbouring view.

    A foreground pixel of one view is lifted at its centre, projected into each of the `config.neighbors` views with the
    nearest optical axes, and compared with the pixel it falls into if that pixel's depth is the point's own depth up to
    `config.depth_tolerance`. Pairs are pooled. Works without truth.

    Args:
        labels: `v h w`, class ids or IGNORE (such pixels are not compared).
        depth: `v h w`, z depth in the camera frame, world units; 0 where nothing is seen.
        cameras: one per view, of the pictures' size.

    Returns:
        A share in [0, 1], or None if no pixel is seen twice.
    """
    labels, depth = np.asarray(labels), np.asarray(depth, np.float64)
    size = (len(cameras.camera_from_world), cameras.height, cameras.width)
    if labels.shape != size or depth.shape != size:
        raise InputError(
            "agreement: labels, depth", wanted=f"shape {size} of the cameras", got=(labels.shape, depth.shape)
        )
    intrinsics = np.asarray(cameras.intrinsics, np.float64)
    poses = np.asarray(cameras.camera_from_world, np.float64)
    compared = same = 0
    for i, j in _neighbor_pairs(cameras, config.neighbors):
        rows, columns = np.nonzero((labels[i] > 0) & (labels[i] != IGNORE) & (depth[i] > 0))
        z = depth[i, rows, columns]
        rays = np.linalg.solve(intrinsics[i], np.stack([columns + 0.5, rows + 0.5, np.ones(len(z))]))
        moved = poses[j] @ np.linalg.inv(poses[i])
        x = moved[:3, :3] @ (rays * z) + moved[:3, 3:]
        front = x[2] > 0
        rows, columns, x = rows[front], columns[front], x[:, front]
        u, v, _ = np.floor(intrinsics[j] @ (x / x[2])).astype(np.int64)
        inside = (u >= 0) & (u < size[2]) & (v >= 0) & (v < size[1])
        rows, columns, u, v, z = rows[inside], columns[inside], u[inside], v[inside], x[2, inside]
        seen = (np.abs(depth[j, v, u] - z) <= config.depth_tolerance * z) & (labels[j, v, u] != IGNORE)
        compared += int(seen.sum())
        same += int((labels[i, rows, columns] == labels[j, v, u])[seen].sum())
    return same / compared if compared else None


def _pair(a: np.ndarray, b: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim < 3:
        raise InputError(f"{what}: a, b", wanted="two pictures of one shape *b h w c", got=(a.shape, b.shape))
    for x in (a, b):
        if not (x.min() >= 0 and x.max() <= 1):
            raise InputError(f"{what}: a, b", wanted="values in [0, 1]", got=(float(x.min()), float(x.max())))
    return a, b


def psnr(a: Float[np.ndarray, "*b h w c"], b: Float[np.ndarray, "..."]) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean squared difference); inf for equal pictures.

    Args:
        a, b: in [0, 1]; with leading axes the mean over pictures of each picture's PSNR is returned.
    """
    a, b = _pair(a, b, "psnr")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(np.mean((a - b) ** 2, (-3, -2, -1)))))


def ssim(a: Float[np.ndarray, "*b h w c"], b: Float[np.ndarray, "..."]) -> float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03), data range 1.

    Only windows that lie wholly inside count, as in the authors' code; channels are scored alone, then averaged.

    Args:
        a, b: in [0, 1], at least 11 pixels each way; leading axes are averaged.
    """
    a, b = _pair(a, b, "ssim")
    if min(a.shape[-3:-1]) < 11:
        raise InputError("ssim: a", wanted="at least 11x11 pixels", got=a.shape)
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        for axis in (-3, -2):
            x = np.lib.stride_tricks.sliding_window_view(x, 11, axis) @ weights
        return x

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (var_a + var_b + c2)))
