"""Scores per class from counted pixels."""

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from jsplat.labelsets.labelset import IGNORE


def confusion(
    predicted: UInt8[np.ndarray, "*b h w"], truth: UInt8[np.ndarray, "*b h w"], k: int
) -> Int[np.ndarray, "k k1"]:
    """Pixel counts of one or many label maps: rows are true classes, columns predicted ones.

    The last column counts "no answer" (a predicted IGNORE); pixels whose truth is IGNORE count nowhere.

    Args:
        k: how many classes.
    """
    predicted = np.minimum(predicted, k)  # IGNORE goes to the column after the classes
    codes = truth.astype(np.int32) * (k + 1) + predicted
    return np.bincount(codes[truth != IGNORE], minlength=k * (k + 1)).reshape(k, k + 1)


def class_counts(matrix: Int[np.ndarray, "k k1"]) -> Int[np.ndarray, "3 k"]:
    """Pixels per class of a `confusion` matrix: hit, true, answered."""
    return np.stack([np.diagonal(matrix), matrix.sum(1), matrix.sum(0)[:-1]])


def f1_per_class(counts: Shaped[np.ndarray, "*b 3 k"]) -> Float[np.ndarray, "*b k"]:
    """F1 of `class_counts`, NaN for a class the truth does not hold."""
    hit, true, answered = np.moveaxis(counts, -2, 0)
    return _divide(2 * hit, true + answered, true > 0)


def iou_per_class(counts: Int[np.ndarray, "3 k"]) -> Float[np.ndarray, " k"]:
    """IoU of `class_counts`, NaN for a class that neither truth nor prediction holds."""
    hit, true, answered = counts
    union = true + answered - hit
    return _divide(hit, union, union > 0)


def _divide(above: np.ndarray, below: np.ndarray, defined: np.ndarray) -> Float[np.ndarray, "*b k"]:
    return np.where(defined, above / np.where(defined, below, 1), np.nan)


def mean_known(values: Float[np.ndarray, " k"]) -> float | None:
    """The mean of what is not NaN; None where nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def merge_classes(matrix: Int[np.ndarray, "k k1"], merged: Int[np.ndarray, " k"]) -> Int[np.ndarray, "k k1"]:
    """Adds up rows and columns of classes that share a merged id; the emptied ones stay, at zero."""
    columns = np.append(merged, len(merged))
    result = np.zeros_like(matrix)
    np.add.at(result, (merged[:, None], columns[None, :]), matrix)
    return result
