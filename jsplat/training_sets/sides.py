"""Which side a labelled set really calls left: read off the masks, whatever their documentation says.

The person's left lies on the right of the picture, seen along the head's own upright axis. Data whose authors count
from the viewer's side, and data that were mirrored without exchanging the names, show the opposite.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.statistics import wilson

_SPECK = 4  # pieces of fewer pixels say nothing
_UPPER, _LOWER = ("brow", "eye"), ("nose", "mouth", "u_lip", "l_lip")


@dataclasses.dataclass(frozen=True)
class SidesConfig:
    """When a verdict is given.

    Attributes:
        mixed_above: share of pictures against the majority above which a set is called mixed.
        min_pictures: pictures that must have an opinion; with fewer the verdict is "unknown".
        doubled: share of a part's pixels that its second piece must have for it to be both sides under one name.
    """

    mixed_above: float = 0.05
    min_pictures: int = 3
    doubled: float = 0.25


@dataclasses.dataclass(frozen=True)
class Sides:
    """What a labelled set calls left.

    Attributes:
        convention: "subject" (this project's), "viewer", "mixed" or "unknown".
        confidence: lower end of the Wilson interval of the majority's share among pictures with an opinion, 0 to 1.
        votes: per picture 1 (the subject's side), -1 (the viewer's), 0 (nothing to tell by, or its parts disagree).
        contradicting: pictures that contradict the majority: mirrored without exchanging the names.
        inconsistent: pictures whose parts disagree with each other.
        doubled: pictures that give both sides of a pair one name, as parsers do that were trained on such data.
    """

    convention: str
    confidence: float
    votes: tuple[int, ...]
    contradicting: tuple[int, ...]
    inconsistent: tuple[int, ...]
    doubled: tuple[int, ...]


def _centre(labels: np.ndarray, ids: list[int]) -> np.ndarray | None:
    """Mean (x, y) of the pixels of some classes."""
    y, x = np.nonzero(np.isin(labels, ids))
    return np.asarray([x.mean(), y.mean()]) if len(x) else None


def _right(labels: np.ndarray, ids: dict[str, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Middle of the lower face, and the direction to the right of the picture along the head; None without a face."""
    face = _centre(labels, [ids[n] for n in _LOWER if n in ids])
    if face is None:
        return None
    upper = _centre(labels, [i for n, i in ids.items() if any(part in n for part in _UPPER)])
    up = np.asarray([0.0, -1.0]) if upper is None else upper - face
    return face, np.asarray([-up[1], up[0]]) / max(float(np.linalg.norm(up)), 1e-9)


def _lefts(labelset: LabelSet) -> list[tuple[int, int]]:
    """(left id, right id) of every part that has sides."""
    pairs = enumerate(labelset.mirror_ids.tolist())
    return [(i, j) for i, j in pairs if i != j and labelset.names[i].startswith(("l_", "left"))]


def opinions(labels: UInt8[np.ndarray, "h w"], labelset: LabelSet) -> Float[np.ndarray, " n"]:
    """What each sided part of one picture says: > 0 the subject's side, < 0 the viewer's; pixels along the picture.

    A pair says where its left lies from its right, a single ear where it lies from the nose (it is behind the nose from
    every side). Without nose or mouth a head may be seen from behind, and says nothing.
    """
    ids = {name: i for i, name in enumerate(labelset.names)}
    seen, found = _right(labels, ids), []
    if seen is None:
        return np.zeros(0)
    nose = _centre(labels, [ids["nose"]] if "nose" in ids else [])
    for i, j in _lefts(labelset):
        left, other = _centre(labels, [i]), _centre(labels, [j])
        if left is not None and other is not None:
            found.append(float((left - other) @ seen[1]))
        elif "ear" in labelset.names[i] and nose is not None and (left is not None or other is not None):
            found.append(float((left - nose) @ seen[1] if left is not None else (nose - other) @ seen[1]))
    return np.asarray(found)


def doubled(labels: UInt8[np.ndarray, "h w"], labelset: LabelSet, fraction: float) -> bool:
    """Whether a part without its other side comes in two pieces, as far apart as two eyes are.

    Args:
        fraction: of its pixels that the second largest piece must have.
    """
    for i, j in _lefts(labelset):
        present = [k for k in (i, j) if (labels == k).any()]
        if len(present) != 1:
            continue
        pieces = np.zeros(labels.shape, np.int32)
        n = int(scipy.ndimage.label(labels == present[0], np.ones((3, 3)), pieces))  # type: ignore[arg-type]
        sizes = np.bincount(pieces.ravel(), minlength=n + 1)[1:]
        order = 1 + np.argsort(-sizes, kind="stable")[:2]
        if n < 2 or sizes[order[1] - 1] < max(fraction * sizes.sum(), _SPECK):
            continue
        first, second = (np.stack(np.nonzero(pieces == k)) for k in order)
        # Middles of two eyes or brows are more than a length apart, of halves that hair parts one at most.
        if np.linalg.norm(first.mean(1) - second.mean(1)) > 1.25 * np.ptp(first, axis=1).max():
            return True
    return False


def vote(labels: UInt8[np.ndarray, "h w"], labelset: LabelSet) -> tuple[int, bool]:
    """(1 subject, -1 viewer or 0 none, whether its parts disagree) of one picture."""
    signs = np.sign(opinions(labels, labelset))
    torn = bool((signs > 0).any() and (signs < 0).any())
    return 0 if torn or not signs.any() else int(np.sign(signs.sum())), torn


def side_convention(labels: Sequence[np.ndarray], labelset: LabelSet, config: SidesConfig = SidesConfig()) -> Sides:
    """Says which side a labelled set calls left.

    Args:
        labels: label maps `h w`, of any sizes; a sequence that reads them when asked for is fine.
        labelset: what their ids are said to mean.

    Raises:
        InputError: the label set has no sides, or an id is no class.
    """
    if labelset.names == labelset.mirror:
        raise InputError("side_convention: labelset", wanted="classes with a left and a right", got=labelset.names)
    answers, twice = [], []
    for i, one in enumerate(labels):
        labelset.check(one, f"side_convention: labels[{i}]")
        answers.append(vote(one, labelset))
        twice += [i] if doubled(one, labelset, config.doubled) else []
    votes = np.asarray([v for v, _ in answers], int)
    torn = tuple(i for i, (_, t) in enumerate(answers) if t)
    n, subject = int((votes != 0).sum()), int((votes > 0).sum())
    most = max(subject, n - subject)
    interval = wilson(most, n)
    if n < config.min_pictures or interval is None:
        return Sides("unknown", 0.0, tuple(votes.tolist()), (), torn, tuple(twice))
    main = 1 if 2 * subject >= n else -1
    convention = "mixed" if n - most > config.mixed_above * n else "subject" if main > 0 else "viewer"
    against = tuple(np.flatnonzero(votes == -main).tolist())
    return Sides(convention, interval[0], tuple(votes.tolist()), against, torn, tuple(twice))
