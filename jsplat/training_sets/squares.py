"""Pictures of any size in squares of one size, as parsers are trained: in the middle, around them the edge's colour."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True)
class Square:
    """A picture in a square, and where in it.

    Attributes:
        pixels: sRGB.
        start: first row and column of the picture in the square.
        content: its height and width there.
        size: the picture's own height and width.
    """

    pixels: UInt8[np.ndarray, "s s 3"]
    start: tuple[int, int]
    content: tuple[int, int]
    size: tuple[int, int]


def in_square(picture: UInt8[np.ndarray, "h w 3"], side: int) -> Square:
    """Resizes the longer side to `side` (smaller by area, larger bilinearly) and fills up by the edge, both ends alike.

    `auxiliary.squared` does the same to pictures that have their size already.
    """
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = (side - h) // 2, (side - w) // 2
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    inner = picture if (h, w) == (height, width) else cv2.resize(picture, (w, h), interpolation=way)
    ends = (top, side - h - top, left, side - w - left)
    square = cv2.copyMakeBorder(inner, *ends, cv2.BORDER_REPLICATE) if any(ends) else inner
    return Square(square, (top, left), (h, w), (height, width))
