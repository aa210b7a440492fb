"""Which side a labelled set really calls left: read off the masks, whatever their documentation says.

The person's left lies on the right of the picture, seen along the head's own upright axis. Data whose authors count
from the viewer's side, and data that were mirrored without exchanging the names, show the opposite.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.errors import InputError
from jsplat.labelset import LabelSet

_UPPER, _LOWER = ("brow", "eye"), ("nose", "mouth", "u_lip", "l_lip")


@dataclasses.dataclass(frozen=True)
class SidesConfig:
    """When a verdict is given.

    Attributes:
        mixed: share of pictures against the majority above which a set is called mixed.
        enough: pictures that must have an opinion; with fewer the verdict is "unknown".
        certainty: z of the Wilson interval behind `confidence` (1.96: 95 %).
    """

    mixed: float = 0.05
    enough: int = 3
    certainty: float = 1.96


@dataclasses.dataclass(frozen=True)
class Sides:
    """What a labelled set calls left.

    Attributes:
        convention: "subject" (this project's), "viewer", "mixed" or "unknown".
        confidence: lower end of the Wilson interval of the majority's share among pictures with an opinion, 0 to 1.
        votes: per picture 1 (the subject's side), -1 (the viewer's), 0 (nothing to tell by, or its parts disagree).
        against: pictures that contradict the majority: mirrored without exchanging the names.
        torn: pictures whose parts disagree with each other.
    """

    convention: str
    confidence: float
    votes: tuple[int, ...]
    against: tuple[int, ...]
    torn: tuple[int, ...]


def _centre(labels: np.ndarray, ids: list[int]) -> np.ndarray | None:
    """Mean (x, y) of the pixels of some classes."""
    y, x = np.nonzero(np.isin(labels, ids))
    return np.asarray([x.mean(), y.mean()]) if len(x) else None


def opinions(labels: UInt8[np.ndarray, "h w"], labelset: LabelSet) -> Float[np.ndarray, " n"]:
    """What each sided part of one picture says: > 0 the subject's side, < 0 the viewer's; pixels along the picture.

    A pair says where its left lies from its right, a single part where it lies from the nose (an ear is behind the nose
    from every side). Without nose or mouth a head may be seen from behind, and says nothing.
    """
    ids = {name: i for i, name in enumerate(labelset.names)}
    face = _centre(labels, [ids[n] for n in _LOWER if n in ids])
    if face is None:
        return np.zeros(0)
    upper = _centre(labels, [i for n, i in ids.items() if any(part in n for part in _UPPER)])
    up = np.asarray([0.0, -1.0]) if upper is None else upper - face
    right = np.asarray([-up[1], up[0]]) / max(float(np.linalg.norm(up)), 1e-9)
    nose, found = _centre(labels, [ids["nose"]] if "nose" in ids else []), []
    for name in (n for n in labelset.names if n.startswith(("l_", "left")) and labelset.mirror[ids[n]] != n):
        left, other = _centre(labels, [ids[name]]), _centre(labels, [ids[labelset.mirror[ids[name]]]])
        if left is not None and other is not None:
            found.append(float((left - other) @ right))
        elif "ear" in name and nose is not None and (left is not None or other is not None):
            found.append(float((left - nose) @ right if left is not None else (nose - other) @ right))
    return np.asarray(found)


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
    answers = []
    for i, one in enumerate(labels):
        labelset.check(one, f"side_convention: labels[{i}]")
        answers.append(vote(one, labelset))
    votes = np.asarray([v for v, _ in answers], int)
    torn = tuple(i for i, (_, t) in enumerate(answers) if t)
    n, subject = int((votes != 0).sum()), int((votes > 0).sum())
    if n < config.enough:
        return Sides("unknown", 0.0, tuple(votes.tolist()), (), torn)
    main = 1 if 2 * subject >= n else -1
    share, z = max(subject, n - subject) / n, config.certainty
    low = (share + z * z / (2 * n) - z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    convention = "mixed" if 1 - share > config.mixed else "subject" if main > 0 else "viewer"
    against = tuple(np.flatnonzero(votes == -main).tolist())
    return Sides(convention, low, tuple(votes.tolist()), against, torn)
