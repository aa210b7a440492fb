"""Photographs for looking at: upright, sRGB, 8 bits, whatever a picture file holds.

Calibrated photographs are read by `jsplat.captures.importers`: as they are stored, and from fewer kinds of files.
"""

import functools
import importlib
import io
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jsplat.captures.importers.source import OTHER_PICTURES, PICTURES, eight_bits, stored_pixels
from jsplat.captures.importers.tiff import OtherPixels, decode_tiff, is_tiff, open_tiff
from jsplat.captures.pictures import DAMAGE, JPEG, MOST_PIXELS, PNG, SMALLER, file_bytes, picture_header
from jsplat.errors import InputError

_TO_RGB = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGR2RGB}
# Endings, in small letters, of what is always read; HEIC is where pillow-heif is.
ENDINGS = (*PICTURES, ".webp", ".avif", ".jp2", ".jfif", ".bmp", ".gif")
_HEIC = (".heic", ".heif", ".hif")
_FORMATS = ("TIFF", "WEBP", "AVIF", "JPEG2000", "BMP", "GIF", "JPEG", "PNG")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits
_WANTED = "a picture in PNG, JPEG, TIFF, WebP, AVIF, JPEG 2000, BMP or GIF"


@functools.cache
def _heic_is_read() -> bool:
    """Whether pillow-heif is here; it is told to tell Pillow."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def read_upright(path: Path, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a photograph, turned as its Exif tag says; 16 bits are rounded to 8, transparency lies over white.

    Colour profiles are not applied: numbers are taken for sRGB, inks for its complements.

    Raises:
        InputError: (`where`: file and field) if it cannot be used.
    """
    data = file_bytes(path, where)
    if is_tiff(path):
        try:
            tiff = open_tiff(path, where)
        except OtherPixels as refused:
            return _by_pillow(data, path, where, refused)
        pixels, orientation = decode_tiff(tiff, path.name, where), tiff.orientation
    elif data.startswith((PNG, JPEG)):
        header = picture_header(data)
        if header is not None and _needs_pillow(data, header[2]):
            return _by_pillow(data, path, where)
        pixels, orientation = stored_pixels(path, where), 1 if header is None else header[3]
    else:
        return _by_pillow(data, path, where)
    if pixels.dtype == np.uint16:
        pixels = eight_bits(pixels, path.name, where)
    channels = pixels.shape[2] if pixels.ndim == 3 else 2
    if pixels.dtype != np.uint8 or channels not in _TO_RGB:
        raise InputError(where, wanted="8 or 16 bits, RGB or grey", got=f"{path.name}, {pixels.dtype} {pixels.shape}")
    if channels == 4:
        pixels = _over_white(pixels)
    # Exif: 5 to 8 are stored along the other diagonal; then left and right, up and down.
    pixels = pixels.swapaxes(0, 1) if orientation > 4 else pixels
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return cv2.cvtColor(np.ascontiguousarray(pixels[::down, ::right]), _TO_RGB[channels])


def _over_white(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _needs_pillow(data: bytes, channels: int) -> bool:
    """What OpenCV does not decode for `stored_pixels`: JPEGs of inks, and PNGs of one grey that is transparent."""
    if data.startswith(PNG):
        return channels == 1 and b"tRNS" in data and b"PLTE" not in data
    return channels == 4


def _by_pillow(data: bytes, path: Path, where: str, refused: InputError | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of what only Pillow reads, of 8 bits.

    Args:
        refused: what is raised for what Pillow does not read either.
    """
    heic = ("HEIF",) if _heic_is_read() else ()
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS + heic)
        if (count := getattr(image, "n_frames", 1)) > 1:
            hint = "save the one that is meant, or an animation as MP4"
            raise InputError(where, wanted="one picture in the file", got=f"{path.name} with {count}", hint=hint)
        if image.width * image.height > MOST_PIXELS:
            got = f"{path.name}, {image.width}x{image.height}"
            raise InputError(where, wanted=f"at most {MOST_PIXELS:,} pixels", got=got, hint=SMALLER)
        if image.mode not in _MODES:
            got = f"{path.name} with pixels of Pillow's kind {image.mode}"
            raise refused or InputError(where, wanted="8 bits a channel", got=got, hint="save it as PNG")
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            return _over_white(np.asarray(image.convert("RGBA")))
        return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            where, wanted=f"at most {MOST_PIXELS:,} pixels", got=f"{path.name}, more", hint=SMALLER
        ) from error
    except DAMAGE as error:
        raise refused or _unknown(data, path, where) from error


def _unknown(data: bytes, path: Path, where: str) -> InputError:
    """What is said of a file that nothing reads."""
    ending, hint = path.suffix.lower(), ""
    if ending in _HEIC and not _heic_is_read():
        hint = "`pip install 'jsplat[heic]'` reads it, `heif-convert` makes a JPEG of it"
    elif ending in OTHER_PICTURES and ending not in _HEIC + ENDINGS:
        hint = "save it as JPEG, or as TIFF of 16 bits"
    return InputError(where, wanted=_WANTED, got=f"{path.name}, {len(data)} bytes, another kind or damaged", hint=hint)
