"""How well outlines agree: boundary IoU (Cheng et al. 2021, arXiv 2103.16562)."""

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jsplat.labelsets.labelset import IGNORE


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


def boundary_counts(
    predicted: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], k: int, radius: int
) -> Int[np.ndarray, "3 k"]:
    """Pixels per class in both bands (with equal labels), in the prediction's band, in the truth's band.

    `iou_per_class` of them is the boundary IoU.

    Args:
        k: how many classes; IGNORE in the truth counts nowhere, in the prediction it is in no band.
        radius: of the bands, pixels.
    """
    ignored = truth == IGNORE
    near_predicted = _band(predicted, ignored, radius) & ~ignored & (predicted != IGNORE)
    near_true = _band(truth, ignored, radius) & ~ignored
    both = near_predicted & near_true & (predicted == truth)
    parts = (truth[both], predicted[near_predicted], truth[near_true])
    return np.stack([np.bincount(labels, minlength=k) for labels in parts])
