"""Photographs in TIFF: what the header says, checked before OpenCV decodes, which turns such pictures as they say and
fills up or guesses what is missing.

Pillow reads the fields. It cuts 16-bit colours to 8, and tifffile needs imagecodecs for LZW: OpenCV decodes.
Facts: TIFF 6.0, sections 2 (header and directory), 8 (baseline fields), 15 (tiles).
"""

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from jsplat.captures.pictures import AGAIN, DAMAGE, MOST_PIXELS, file_bytes
from jsplat.errors import InputError

_WHOLE_NUMBERS = (1, 3, 4)  # the field types BYTE, SHORT, LONG
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COLOURS, _ORIENTATION, _SAMPLES, _PLANAR = 254, 256, 257, 258, 262, 274, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _FORMAT = 322, 323, 339
_STRIPS, _TILES = (273, 279), (324, 325)  # where each lies, and how many bytes it has
_MEANINGS = {0: "white as 0", 3: "a palette", 4: "a mask", 5: "CMYK", 8: "CIELAB", 32803: "a raw sensor", 34892: "raw"}


class OtherPixels(InputError):
    """A TIFF that may be whole, of pixels that this module does not read."""


@dataclasses.dataclass(frozen=True)
class Tiff:
    """A TIFF that holds one photograph: 8 or 16 bits, grey or RGB.

    Attributes:
        orientation: as Exif counts, 1 = upright.
    """

    data: bytes
    width: int
    height: int
    orientation: int


def is_tiff(path: Path) -> bool:
    """Whether there is a file that begins like a TIFF, classic or big."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:  # whoever reads it all says why it cannot be read
        return False


def open_tiff(path: Path, where: str) -> Tiff:
    """Reads a TIFF's bytes and its header; nothing is decoded.

    Raises:
        InputError: (`where`: file and field) for what is cut off, damaged, too large, or no single picture of 8 or 16
            bits in grey or RGB; `OtherPixels` for what another program may read.
    """
    data = file_bytes(path, where)
    try:
        return _opened(data, path.name, where)
    except InputError:  # a ValueError too
        raise
    except DAMAGE as error:
        got = f"{path.name}, {len(data)} bytes, cut off or damaged"
        raise InputError(where, wanted="a readable image", got=got, hint=AGAIN) from error


def decode_tiff(tiff: Tiff, name: str, where: str) -> np.ndarray:
    """Pixels as they are stored, not turned, uint8 or uint16: grey, or OpenCV's order of colours.

    Raises:
        InputError: (`where`: file and field) for damage inside.
    """
    try:
        image = cv2.imdecode(np.frombuffer(tiff.data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # OpenCV's own limits
        image = None
    if image is not None:
        # OpenCV turns a TIFF whatever it is asked; calibrations are made on stored pixels.
        down, right = -1 if tiff.orientation in (3, 4, 7, 8) else 1, -1 if tiff.orientation in (2, 3, 6, 7) else 1
        image = image[::down, ::right]
        image = np.ascontiguousarray(image.swapaxes(0, 1) if tiff.orientation > 4 else image)
    if image is None or image.shape[:2] != (tiff.height, tiff.width):
        got = f"{name}, {len(tiff.data)} bytes, damaged"
        raise InputError(where, wanted="a readable image", got=got, hint=AGAIN)
    return image


def _opened(data: bytes, name: str, where: str) -> Tiff:
    def refused(wanted: str, got: str, hint: str = "save it as a plain TIFF of 8 or 16 bits, or as PNG") -> InputError:
        return InputError(where, wanted=wanted, got=f"{name}, {got}", hint=hint)

    def of_other_pixels(wanted: str, got: str) -> InputError:
        return OtherPixels(**refused(wanted, got, "save it as PNG or TIFF of 8 or 16 bits").parts)

    if 43 in data[2:4]:
        raise refused("a classic TIFF", "a BigTIFF")
    fields = _directory(data, ImageFileDirectory_v2(data[:8]).next)
    if fields.next and not _numbers(_directory(data, fields.next), _SUBFILE, (0,))[0] & 0b101:
        raise refused("one picture in the file", "a TIFF of several pages", "save the page that is meant")

    def value(tag: int, default: int | None = None) -> int:
        found = _numbers(fields, tag, () if default is None else (default,))
        if not found:
            raise refused("a readable image", f"a TIFF without field {tag}", AGAIN)
        return found[0]

    width, height, samples = value(_WIDTH), value(_HEIGHT), value(_SAMPLES, 1)
    tile = (value(_TILE_WIDTH, 1), value(_TILE_HEIGHT, 1))
    if max(width * height, tile[0] * tile[1]) > MOST_PIXELS:
        raise refused(f"at most {MOST_PIXELS:,} pixels", f"{width}x{height} in tiles of {tile[0]}x{tile[1]}")
    colours = value(_COLOURS)
    if colours not in (1, 2, 6):
        raise of_other_pixels(
            "an RGB or grey picture", f"a TIFF with {_MEANINGS.get(colours, f'colours of kind {colours}')}"
        )
    if samples != (1 if colours == 1 else 3):
        raise of_other_pixels("an RGB or grey picture without transparency", f"a TIFF of {samples} channels")
    if samples > 1 and value(_PLANAR, 1) != 1:
        raise of_other_pixels("a TIFF whose channels lie pixel by pixel", "one plane after the other")
    bits, formats = (set(_numbers(fields, tag, (1,))) for tag in (_BITS, _FORMAT))
    if len(bits) != 1 or not bits <= {8, 16} or formats != {1} or (colours == 6 and bits != {8}):
        kind = {1: "whole", 2: "signed", 3: "floating point"}.get(max(formats), "unknown")
        got = f"a TIFF of {kind} numbers of {', '.join(map(str, sorted(bits)))} bits"
        raise of_other_pixels("8 or 16 bits a channel", got)
    starts, sizes = (_numbers(fields, tag, ()) for tag in (_TILES if _TILES[0] in fields else _STRIPS))
    if not starts or len(starts) != len(sizes):
        got = f"a TIFF of {len(starts)} strips with {len(sizes)} sizes, cut off or damaged"
        raise refused("a readable image", got, AGAIN)
    if max(start + size for start, size in zip(starts, sizes)) > len(data) or min(width, height, *sizes) < 1:
        raise refused("a readable image", f"{len(data)} bytes, cut off", AGAIN)
    orientation = value(_ORIENTATION, 1)
    return Tiff(data, width, height, orientation if 1 <= orientation <= 8 else 1)


def _directory(data: bytes, start: int) -> ImageFileDirectory_v2:
    """The fields that lie there, whose `next` says where the next directory starts, 0 for nowhere."""
    fields, stream = ImageFileDirectory_v2(data[:8]), io.BytesIO(data)
    fields.next = -1
    stream.seek(start)
    fields.load(stream)
    if fields.next < 0:  # Pillow warns, and keeps what it has found
        raise EOFError("the directory is cut off")
    return fields


def _numbers(fields: ImageFileDirectory_v2, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    if fields.tagtype.get(tag) not in _WHOLE_NUMBERS:
        return default
    found = fields[tag]
    return tuple(found) if isinstance(found, (bytes, tuple)) else (found,)
