"""Which mask to look at first: where a person's minutes are likely to correct most.

The expected gain of a view is the sum over its foreground pixels of

    (doubt + dissent - doubt * dissent) / sqrt(area)

doubt: 1 - the confidence of the refined mask. dissent: the probability that the voters on neighbouring views, carried
here through the depth of the geometry and weighted by the trust in those views, give to other classes than the refined
mask has; a voter whose label may mean several classes dissents from none of them, and where it says nothing it is not
asked. The two as independent chances of an error make the first factor. area: pixels of the refined class,
or of the one the neighbours favour if that is smaller, in the mean over the views that show it: a lip counts as much as
the hair, and small classes come first. Views that stand close to one already chosen (or edited) show the same error:
their gain is multiplied by 1 - exp(-(angle / independence_angle)^2 / 2).
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.errors import InputError
from jsplat.labels import VoterLabels
from jsplat.labels.opinions import Opinions, dense, shape_of
from jsplat.labels.together import informative_table
from jsplat.labelsets.labelset import IGNORE
from jsplat.raster.camera import Camera
from jsplat.raster.reprojection import Points, nearest_views, optical_axes


@dataclasses.dataclass(frozen=True)
class QueueConfig:
    """How views are ranked.

    Attributes:
        neighbors: views with the nearest optical axes whose voters are asked.
        depth_tolerance: share of the depth by which two views may differ and still see the same point.
        stride: every so many pixels each way are looked at.
        independence_angle: degrees between optical axes at which a view's errors are thought to be its own.
    """

    neighbors: int = 8
    depth_tolerance: float = 0.01
    stride: int = 2
    independence_angle: float = 40.0

    def __post_init__(self):
        for name in ("neighbors", "stride", "independence_angle"):
            if not getattr(self, name) > 0:
                raise InputError(f"QueueConfig.{name}", wanted="a positive number", got=getattr(self, name))


@dataclasses.dataclass(frozen=True)
class QueueInputs:
    """What the queue looks at, of one head.

    Attributes:
        labels, confidence: refined masks.
        first: the first voter's class probabilities.
        depth: z depth in the camera frame, world units; 0 where nothing is seen.
        trust: in the first voter, per view.
        others: further voters, as the label stage had them.
    """

    labels: UInt8[np.ndarray, "v h w"]
    confidence: Float[np.ndarray, "v h w"]
    first: Opinions | Float[np.ndarray, "v h w k"]
    depth: Float[np.ndarray, "v h w"]
    cameras: Camera
    trust: Float[np.ndarray, " v"]
    others: Sequence[VoterLabels] = ()


def expected_gains(looks: QueueInputs, config: QueueConfig = QueueConfig()) -> Float[np.ndarray, " v"]:
    """The sum above for every view of one head; without the factor for neighbours."""
    k = shape_of(looks.first)[-1]
    shown = [np.bincount(m[m != IGNORE], minlength=k) for m in looks.labels]
    shows = np.asarray(shown)
    area = shows.sum(0) / np.maximum((shows > 0).sum(0), 1)
    area = np.where(area > 0, area, np.inf)  # a class no mask has is no reason to look
    neighbors = nearest_views(looks.cameras, config.neighbors).tolist()
    return np.asarray([_gain(looks, v, near, area, config) for v, near in enumerate(neighbors)])


def _gain(looks: QueueInputs, view: int, neighbors: list[int], area: np.ndarray, config: QueueConfig) -> float:
    step = config.stride
    height, width = looks.depth.shape[1:]
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    here = looks.labels[view, rows, columns]
    opinion, weight = _carried(looks, view, neighbors, (rows, columns), config.depth_tolerance)
    counted = ((here > 0) & (here != IGNORE)) | ((opinion.argmax(-1) > 0) & (weight > 0))
    here, opinion, weight = here[counted], opinion[counted], weight[counted]
    agreed = opinion[np.arange(len(here)), np.minimum(here, opinion.shape[1] - 1)]
    dissent = np.where(weight > 0, 1 - agreed, 0)
    doubt = 1 - looks.confidence[view, rows, columns][counted]
    smaller = np.minimum(area[np.minimum(here, len(area) - 1)], np.where(weight > 0, area[opinion.argmax(-1)], np.inf))
    return float(step**2 * ((doubt + dissent - doubt * dissent) / np.sqrt(smaller)).sum())


def _carried(
    looks: QueueInputs, view: int, neighbors: list[int], at: tuple[np.ndarray, np.ndarray], tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the voters on the neighbours say of these pixels (rows, columns), summing to 1, and the trust behind it (0:
    nobody sees them, or says anything)."""
    k = shape_of(looks.first)[-1]
    points, here = Points(looks.cameras, looks.depth, view, *at), looks.labels[view][at]
    total, weight = np.zeros((len(here), k)), np.zeros(len(here))
    for j in neighbors:
        seen, v, u = points.seen_in(j, tolerance)
        total[seen] += looks.trust[j] * dense(looks.first, j)[v, u]
        weight[seen] += looks.trust[j]
        for other in looks.others:
            opinion = _opinion_of(other, np.asarray(other.labels[j])[v, u], here[seen], k) * other.trust[j]
            total[seen] += opinion
            weight[seen] += opinion.sum(-1)
    return total / np.maximum(total.sum(-1, keepdims=True), 1e-12), weight


def _opinion_of(other: VoterLabels, labels: np.ndarray, here: np.ndarray, k: int) -> np.ndarray:
    """Classes that a voter's labels speak for "p k": the mask's own, `here`, where they may mean it, else all that they
    may mean, evenly; rows of 0 where they say nothing."""
    table = np.zeros((256, k))
    table[: len(other.means)] = informative_table(other.means, k)
    meant, mine = table[labels], np.eye(256)[here][:, :k]
    agrees = (meant * mine).any(-1, keepdims=True)
    return np.where(agrees, mine, meant / np.maximum(meant.sum(-1, keepdims=True), 1))


def rank(
    gains: dict[str, np.ndarray],
    cameras: dict[str, Camera],
    edited: dict[str, list[int]],
    config: QueueConfig = QueueConfig(),
) -> Iterator[tuple[str, int, float]]:
    """All views that are not edited, as (identity, view, gain), the largest gain first.

    Args:
        gains: `expected_gains` by identity.
        edited: views that are done, by identity (also of others); their neighbours are worth less.
    """
    remaining = {name: np.asarray(g, np.float64).copy() for name, g in gains.items()}
    axes = {name: optical_axes(batch) for name, batch in cameras.items()}

    def done(name: str, view: int) -> None:
        angle = np.degrees(np.arccos(np.clip(axes[name] @ axes[name][view], -1, 1)))
        remaining[name] *= np.where(
            remaining[name] >= 0, 1 - np.exp(-((angle / config.independence_angle) ** 2) / 2), 1
        )
        remaining[name][view] = -1.0

    def best(number: int, name: str) -> tuple[float, int, str]:
        return -float(remaining[name].max()), number, name  # of equals the first identity

    for name in remaining:
        for view in edited.get(name, []):
            done(name, view)
    heap = [best(i, name) for i, name in enumerate(remaining)]
    heapq.heapify(heap)
    while heap and heap[0][0] <= 0:
        gain, number, name = heap[0]
        view = int(remaining[name].argmax())
        yield name, view, -gain
        done(name, view)
        heapq.heapreplace(heap, best(number, name))
