"""What the mask formats share: names for ids, JSON that may be anything, and polygons on the pixel grid."""

import json
import math

import numpy as np
from jaxtyping import Bool, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet

# labelme's own names for pixels without a class and for the background.
IGNORE_NAME, BACKGROUND_NAME = "__ignore__", "_background_"


RENAME = "rename it in the annotation tool, or in the file"  # a class that is not among those wanted
MOST_TOTAL = 4_000_000_000


class Budget:
    """Pixels that one import may still make: small files can ask for endless many."""

    def __init__(self):
        self.remaining = MOST_TOTAL

    def take(self, pixels: int, where: str) -> None:
        """InputError once there are none left."""
        self.remaining -= pixels
        if self.remaining < 0:
            raise InputError(where, wanted=f"at most {MOST_TOTAL} pixels in all", got="more")


def parse(data: bytes, where: str) -> dict:
    """A JSON object from a stranger.

    Raises:
        InputError: (`where`: the file) no JSON, no object, or nested too deep.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(where, wanted="JSON", got=error) from error
    if not isinstance(value, dict):
        raise InputError(where, wanted="a JSON object", got=type(value).__name__)
    return value


def objects(data: dict, key: str, where: str) -> list[dict]:
    """The list of objects under a key."""
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise InputError(f"{where}: {key}", wanted="a list of objects", got=type(value).__name__)
    return value


def whole(data: dict, key: str, where: str) -> int:
    """The whole number under a key."""
    value = data.get(key)
    if type(value) is not int:
        raise InputError(f"{where}: {key}", wanted="a whole number", got=repr(value)[:100])
    return value


def text(data: dict, key: str, where: str) -> str:
    """The text under a key."""
    value = data.get(key)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key}", wanted="a text", got=repr(value)[:100])
    return value


def id_of(name: str, labelset: LabelSet, where: str) -> int:
    """The id of a class name, or of the two names that every format reserves."""
    if name == IGNORE_NAME:
        return IGNORE
    if name == BACKGROUND_NAME and name not in labelset.names:
        return 0
    if name not in labelset.names:
        raise InputError(where, wanted=f"one of {', '.join(labelset.names)}", got=repr(name[:100]), hint=RENAME)
    return labelset.id(name)


def name_of(i: int, labelset: LabelSet) -> str:
    """The inverse of `id_of`."""
    return IGNORE_NAME if i == IGNORE else labelset.names[i]


def present(labels: UInt8[np.ndarray, "h w"]) -> list[int]:
    """Ids that a label map draws: all it holds but 0, which is what is left."""
    return [int(i) for i in np.unique(labels) if i != 0]


def polygon(points: object, size: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    """Pixels whose centre lies inside a polygon (even-odd); the first pixel covers 0..1.

    Args:
        points: [[x, y], ...] in pixels, at least 3.
        size: height, width.
        where: file and field, for errors.
    """
    try:
        xy = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(where, wanted="points [x, y]", got=error) from error
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < 3 or not np.isfinite(xy).all() or np.abs(xy).max() > 1e6:
        raise InputError(where, wanted="at least 3 points [x, y] near the picture", got=f"an array of {xy.shape}")
    h, w = size
    # Each edge flips everything right of it in the rows whose centre line it crosses.
    flips = np.zeros((h, w + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(xy, np.roll(xy, -1, 0)):
        if y0 == y1:
            continue
        (x0, y0), (x1, y1) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
        rows = np.arange(max(math.ceil(y0 - 0.5), 0), min(math.ceil(y1 - 0.5), h))
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        flips[rows, np.clip(np.ceil(x - 0.5), 0, w).astype(int)] += 1
    return np.cumsum(flips, 1)[:, :w] % 2 == 1
