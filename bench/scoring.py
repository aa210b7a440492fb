"""Masks of one person beside the truth, and classes before and after, for the benches of labels and students."""

import numpy as np
from jaxtyping import UInt8

from bench.tables import percent
from jsplat.captures.capture import Capture
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.masks import Tally, tally


def tally_of(capture: Capture, masks: UInt8[np.ndarray, "v h w"], classes: LabelSet) -> Tally:
    """Counts of one person's masks, of all views of a capture that has labels."""
    assert capture.labels is not None
    names = (capture.identity,) * len(capture.images)
    return tally(masks, capture.labels, capture.yaw, capture.pitch, names, classes)


def by_class(before: dict[str, dict], after: dict[str, dict]) -> str:
    """F1 of every class from the side, the largest gain first."""
    known = [name for name in before if name != "background" and before[name]["f1"] is not None]
    known.sort(key=lambda name: before[name]["f1"] - after[name]["f1"])
    return ", ".join(f"{name} {percent(before[name]['f1'])} to {percent(after[name]['f1'])}" for name in known)
