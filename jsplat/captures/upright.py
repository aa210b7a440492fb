"""Photographs for looking at: upright, sRGB, 8 bits, whatever PNG, JPEG or TIFF holds."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.captures.importers.source import eight_bits, stored_pixels, stored_size
from jsplat.errors import InputError

_TO_RGB = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGR2RGB}


def read_upright(path: Path, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a photograph, turned as its Exif tag says; 16 bits are rounded to 8, transparency lies over white.

    Raises:
        InputError: (`where`: file and field) if it cannot be used.
    """
    orientation = stored_size(path, where)[2]
    pixels = stored_pixels(path, where)
    if pixels.dtype == np.uint16:
        pixels = eight_bits(pixels, path.name, where)
    channels = pixels.shape[2] if pixels.ndim == 3 else 2
    if pixels.dtype != np.uint8 or channels not in _TO_RGB:
        raise InputError(where, wanted="8 or 16 bits, RGB or grey", got=f"{path.name}, {pixels.dtype} {pixels.shape}")
    if channels == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    # Exif: 5 to 8 are stored along the other diagonal; then left and right, up and down.
    pixels = pixels.swapaxes(0, 1) if orientation > 4 else pixels
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return cv2.cvtColor(np.ascontiguousarray(pixels[::down, ::right]), _TO_RGB[channels])
