"""From rendered class channels to label maps, and from rough label maps to clean ones."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet

# Connects the 8 neighbours in a picture, and nothing from one picture of the stack to the next.
_WITHIN_PICTURE = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]).astype(bool)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which connected regions of a class are kept.

    Attributes:
        max_regions: the most regions of the class that a picture may have, the strongest first.
        min_relative_strength: a region beyond `max_regions` stays if it has this share of the strongest one (a fringe
            cuts an eye in two).
        min_area: smaller regions go, as a share of the picture's area.
    """

    max_regions: int
    min_relative_strength: float
    min_area: float


_ONE = Rule(max_regions=1, min_relative_strength=0.25, min_area=0.00006)
_SEVERAL = Rule(max_regions=8, min_relative_strength=0.05, min_area=0.0003)

RULES: dict[str, Rule] = {
    "background": Rule(max_regions=16, min_relative_strength=0.0, min_area=0.0005),
    **dict.fromkeys(("l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear", "nose", "u_lip", "l_lip"), _ONE),
    "mouth": Rule(max_regions=3, min_relative_strength=0.1, min_area=0.0),
    "ear_r": Rule(max_regions=4, min_relative_strength=0.1, min_area=0.0),
    **dict.fromkeys(("skin", "neck", "cloth", "hair", "hat"), _SEVERAL),
}
"""What is known about a head, by class name."""


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """How label maps are made and cleaned.

    Attributes:
        alpha_gate: a pixel with less alpha than this is background.
        default_rule: for class names without a rule in `RULES`.
        batch: pictures cleaned at a time (memory).
    """

    alpha_gate: float = 0.5
    default_rule: Rule = Rule(max_regions=8, min_relative_strength=0.05, min_area=0.00006)
    batch: int = 16

    def __post_init__(self):
        if not 0 < self.alpha_gate < 1:
            raise InputError("MaskConfig.alpha_gate", wanted="a number between 0 and 1", got=self.alpha_gate)
        if self.batch < 1:
            raise InputError("MaskConfig.batch", wanted="a positive number", got=self.batch)


def to_masks(
    probabilities: Float[np.ndarray, "..."],  # "...": shapes that must match are checked inside, with a message
    alpha: Float[np.ndarray, "n h w"],
    labelset: LabelSet,
    config: MaskConfig,
) -> tuple[UInt8[np.ndarray, "n h w"], Float[np.ndarray, "n h w"]]:
    """Label maps and how sure they are.

    Args:
        probabilities: "n h w k", rendered class channels on a background of 0; a pixel's channels sum to its alpha, or
            to 1 if they were divided by it (the result is the same).
        alpha: in [0, 1].

    Returns:
        labels: background where alpha is below the gate, else the class with the largest channel.
        confidence: in [0, 1]; 1 - alpha under the gate, else alpha times the lead of the first class on the second
            as a share of all channels.

    Raises:
        InputError: shapes that do not fit, or numbers that are not finite.
    """
    if probabilities.shape != (*alpha.shape, len(labelset)):
        wanted = f"shape {(*alpha.shape, len(labelset))} for this alpha and label set"
        raise InputError("to_masks: probabilities", wanted=wanted, got=probabilities.shape)
    labels = np.zeros(alpha.shape, np.uint8)
    confidence = np.empty(alpha.shape, np.float32)
    for i, (mixture, a) in enumerate(zip(probabilities, alpha)):  # one picture at a time: no copy of all channels
        total = mixture.sum(-1)
        if not np.isfinite(total).all() or not np.isfinite(a).all():
            raise InputError(f"to_masks: picture {i}", wanted="finite channels and alpha", got="NaN or infinity")
        top = (
            np.partition(mixture, -2, axis=-1)[..., -2:]
            if len(labelset) > 1
            else np.pad(mixture, [(0, 0), (0, 0), (1, 0)])
        )
        lead = (top[..., 1] - top[..., 0]) / np.maximum(total, 1e-12)
        solid = a >= config.alpha_gate
        labels[i] = np.where(solid, mixture.argmax(-1), 0)
        confidence[i] = np.clip(np.where(solid, a * lead, 1 - a), 0, 1)
    return labels, confidence


def clean(
    labels: UInt8[np.ndarray, "n h w"],
    confidence: Float[np.ndarray, "..."],
    labelset: LabelSet,
    config: MaskConfig,
) -> UInt8[np.ndarray, "n h w"]:
    """Drops the regions that the class's rule forbids and gives their pixels to the class around them.

    A rule only ever gives up pixels of its own class, so the rule for lips cannot eat teeth; a hole is a small region
    of another class, given up by that class's rule. Regions are ranked by their summed confidence. What is given up
    goes, per connected patch, to the class with most pixels on its rim; ignored pixels stay and do not vote.
    """
    if labels.shape != confidence.shape:
        raise InputError("clean: confidence", wanted=f"shape {labels.shape}, as the labels", got=confidence.shape)
    labelset.check(labels, "clean: labels")
    out = np.empty_like(labels)
    for start in range(0, len(labels), config.batch):
        part = slice(start, start + config.batch)
        out[part] = _fill(labels[part], _forbidden(labels[part], confidence[part], labelset, config), len(labelset))
    return out


def _regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected regions of a stack of masks from 1; 0 is outside."""
    regions = np.empty(mask.shape, np.int32)
    count = ndimage.label(mask, structure=_WITHIN_PICTURE, output=regions)
    assert isinstance(count, int)
    return regions, count


def _forbidden(labels: np.ndarray, confidence: np.ndarray, labelset: LabelSet, config: MaskConfig) -> np.ndarray:
    """True where a pixel's region breaks its class's rule."""
    forbidden = np.zeros(labels.shape, bool)
    size = labels[0].size
    for i, box in enumerate(ndimage.find_objects(labels.astype(np.int32) + 1, max_label=len(labelset))):
        if box is None:
            continue
        rule = RULES.get(labelset.names[i], config.default_rule)
        regions, count = _regions(labels[box] == i)
        inside = np.flatnonzero(regions)
        ids = regions.reshape(-1)[inside]
        area = np.bincount(ids, minlength=count + 1)
        # A little area on top, so that regions without any confidence still rank by size.
        score = np.bincount(ids, confidence[box].reshape(-1)[inside] + 1e-3, minlength=count + 1)
        picture = np.zeros(count + 1, int)
        picture[ids] = inside // regions[0].size
        order = 1 + np.lexsort((-score[1:], picture[1:]))  # by picture, the strongest first
        first = np.searchsorted(picture[order], np.arange(len(regions)))
        rank = np.arange(count) - first[picture[order]]
        strongest = score[order[np.minimum(first, count - 1)]][picture[order]]
        stays = (rank < rule.max_regions) | (score[order] >= rule.min_relative_strength * strongest)
        dropped = np.zeros(count + 1, bool)
        dropped[order] = ~stays | (area[order] < rule.min_area * size)
        forbidden[box] |= dropped[regions]
    return forbidden


def _fill(labels: np.ndarray, forbidden: np.ndarray, k: int) -> np.ndarray:
    """Gives every connected patch of forbidden pixels the majority class of the 4-neighbours on its rim."""
    patches, count = _regions(forbidden)
    if count == 0:
        return labels.copy()
    ballots = []
    for axis in (1, 2):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        for here, there in ((tuple(low), tuple(high)), (tuple(high), tuple(low))):
            rim = forbidden[here] & ~forbidden[there] & (labels[there] != IGNORE)
            ballots.append(patches[here][rim] * k + labels[there][rim])
    votes = np.bincount(np.concatenate(ballots), minlength=(count + 1) * k).reshape(-1, k)
    winner = votes.argmax(-1)
    # A patch that fills its picture, or touches nothing but ignored pixels, has no neighbour: it keeps its labels.
    changed = forbidden & (votes.max(-1) > 0)[patches]
    return np.where(changed, winner[patches], labels).astype(np.uint8)
