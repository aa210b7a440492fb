"""Photographs in TIFF: what the header says, checked before OpenCV decodes, which turns such pictures as they say and
fills up or guesses what is missing.

Facts: TIFF 6.0, sections 2 (header and directory), 8 (baseline fields), 15 (tiles).
"""

import dataclasses
import struct
from pathlib import Path

import cv2
import numpy as np

from jsplat.captures.capture import MOST_PIXELS
from jsplat.errors import InputError

_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of the field types that matter here: BYTE, SHORT, LONG
_FORMS = {1: "B", 3: "H", 4: "I"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COLOURS, _ORIENTATION, _SAMPLES, _PLANAR = 254, 256, 257, 258, 262, 274, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _FORMAT = 322, 323, 339
_STRIPS, _TILES = (273, 279), (324, 325)  # where each lies, and how many bytes it has
_MEANINGS = {0: "white as 0", 3: "a palette", 4: "a mask", 5: "CMYK", 8: "CIELAB", 32803: "a raw sensor", 34892: "raw"}


@dataclasses.dataclass(frozen=True)
class Tiff:
    """A TIFF that holds one photograph: 8 or 16 bits, grey or RGB.

    Attributes:
        orientation: as Exif counts, 1 = upright.
        orientation_at: where the file says so (byte), and how; None where it does not.
    """

    data: bytes
    width: int
    height: int
    orientation: int
    orientation_at: tuple[int, str] | None


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
            bits in grey or RGB.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(where, wanted="an image", got=f"{path.name[:80]}: {error.strerror}") from error
    try:
        return _opened(data, path.name, where)
    except (struct.error, IndexError) as error:
        got = f"{path.name}, {len(data)} bytes, cut off"
        raise InputError(where, wanted="a readable image", got=got) from error


def decode_tiff(tiff: Tiff, name: str, where: str) -> np.ndarray:
    """Pixels as they are stored, not turned, uint8 or uint16: grey, or OpenCV's order of colours.

    Raises:
        InputError: (`where`: file and field) for damage inside.
    """
    data = bytearray(tiff.data)
    if tiff.orientation_at is not None:
        # OpenCV turns a TIFF whatever it is asked; calibrations are made on stored pixels.
        at, form = tiff.orientation_at
        struct.pack_into(form, data, at, 1)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # OpenCV's own limits
        image = None
    if image is None or image.shape[:2] != (tiff.height, tiff.width):
        raise InputError(where, wanted="a readable image", got=f"{name}, {len(data)} bytes, damaged")
    return image


def _opened(data: bytes, name: str, where: str) -> Tiff:
    def refused(wanted: str, got: str) -> InputError:
        return InputError(where, wanted=wanted, got=f"{name}, {got}")

    order = "<" if data[:2] == b"II" else ">"
    if 43 in data[2:4]:
        raise refused("a classic TIFF", "a BigTIFF")
    fields, (following,) = _directory(data, order, struct.unpack_from(f"{order}I", data, 4)[0])
    if following and not _values(data, order, _directory(data, order, following)[0], _SUBFILE, (0,))[0] & 0b101:
        raise refused("one picture in the file", "a TIFF of several pages")

    def value(tag: int, default: int | None = None) -> int:
        found = _values(data, order, fields, tag, () if default is None else (default,))
        if not found:
            raise refused("a readable image", f"a TIFF without field {tag}")
        return found[0]

    width, height, samples = value(_WIDTH), value(_HEIGHT), value(_SAMPLES, 1)
    tile = (value(_TILE_WIDTH, 1), value(_TILE_HEIGHT, 1))
    if max(width * height, tile[0] * tile[1]) > MOST_PIXELS:
        raise refused(f"at most {MOST_PIXELS:,} pixels", f"{width}x{height} in tiles of {tile[0]}x{tile[1]}")
    colours = value(_COLOURS)
    if colours not in (1, 2, 6):
        raise refused("an RGB or grey picture", f"a TIFF with {_MEANINGS.get(colours, f'colours of kind {colours}')}")
    if samples != (1 if colours == 1 else 3):
        raise refused("an RGB or grey picture without transparency", f"a TIFF of {samples} channels")
    if samples > 1 and value(_PLANAR, 1) != 1:
        raise refused("a TIFF whose channels lie pixel by pixel", "one plane after the other")
    bits, formats = (set(_values(data, order, fields, tag, (1,))) for tag in (_BITS, _FORMAT))
    if len(bits) != 1 or not bits <= {8, 16} or formats != {1} or (colours == 6 and bits != {8}):
        kind = {1: "whole", 2: "signed", 3: "floating point"}.get(max(formats), "unknown")
        raise refused("8 or 16 bits a channel", f"a TIFF of {kind} numbers of {', '.join(map(str, sorted(bits)))} bits")
    starts, sizes = (_values(data, order, fields, tag, ()) for tag in (_TILES if _TILES[0] in fields else _STRIPS))
    if not starts or len(starts) != len(sizes):
        raise refused("a readable image", f"a TIFF of {len(starts)} strips with {len(sizes)} sizes")
    if max(start + size for start, size in zip(starts, sizes)) > len(data) or min(width, height, *sizes) < 1:
        raise refused("a readable image", f"{len(data)} bytes, cut off")
    orientation = value(_ORIENTATION, 1)
    where_said = None
    if _ORIENTATION in fields:
        kind, _, at = fields[_ORIENTATION]
        where_said = (at, f"{order}{_FORMS[kind]}")
    return Tiff(data, width, height, orientation if 1 <= orientation <= 8 else 1, where_said)


def _directory(data: bytes, order: str, start: int) -> tuple[dict[int, tuple[int, int, int]], tuple[int]]:
    """Tag -> (type, count, where its value lies) of the types that matter, and where the next directory starts."""
    (entries,) = struct.unpack_from(f"{order}H", data, start)
    fields = {}
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
        if kind in _SIZES and count:
            near = _SIZES[kind] * count <= 4
            fields[tag] = (kind, count, at + 8 if near else struct.unpack_from(f"{order}I", data, at + 8)[0])
    return fields, struct.unpack_from(f"{order}I", data, start + 2 + 12 * entries)


def _values(data: bytes, order: str, fields: dict, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    if tag not in fields:
        return default
    kind, count, at = fields[tag]
    return struct.unpack_from(f"{order}{count}{_FORMS[kind]}", data, at)
