"""PNG files of class ids: palette indices as they are stored, which picture libraries turn into colours.

An indexed PNG is a grey PNG whose header says "palette" (PNG specification, 11.2.2 and 11.2.3), so OpenCV packs and
unpacks the pixels, and this module changes the header and adds palette and text.
"""

import dataclasses
import struct
import typing
import zlib

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import MOST_PIXELS
from jsplat.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_MOST_TEXT = 1 << 20


@dataclasses.dataclass(frozen=True)
class Indices:
    """What an indexed or grey PNG holds.

    Attributes:
        ids: the stored numbers.
        palette: RGB per number; None in a grey picture.
        text: its text entries.
    """

    ids: UInt8[np.ndarray, "h w"]
    palette: UInt8[np.ndarray, "k 3"] | None
    text: dict[str, str]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes, where: str) -> list[tuple[bytes, bytes]]:
    if not data.startswith(_SIGNATURE):
        raise InputError(where, wanted="a PNG file", got=f"{len(data)} bytes that begin with {data[:8]!r}")
    found, at = [], len(_SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind, body, crc = data[at + 4 : at + 8], data[at + 8 : end], data[end : end + 4]
        if len(crc) != 4 or int.from_bytes(crc, "big") != zlib.crc32(kind + body):
            raise InputError(where, wanted="a whole PNG file", got=f"damage at byte {at} of {len(data)}")
        found.append((kind, body))
        at = end + 4
    return found


def check_size(width: int, height: int, where: str) -> None:
    """InputError unless a picture of that size is one somebody could have meant; asked before memory is taken."""
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise InputError(where, wanted=f"1 to {MOST_PIXELS} pixels", got=f"{width}x{height}")


# Start and step in x and y of the seven passes of an interlaced picture (PNG specification, 8.2).
_PASSES = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _check_whole(chunks: list[tuple[bytes, bytes]], where: str) -> None:
    """InputError unless the packed pixels are exactly as many as the header says: libraries fill up what is missing."""
    width, height, bits, color = _header(chunks, where)
    passes = _PASSES if chunks[0][1][12] else ((0, 1, 0, 1),)
    sizes = [((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, dx, y, dy in passes]
    wanted = sum(h * (1 + (w * bits * _CHANNELS[color] + 7) // 8) for w, h in sizes if w > 0)
    inflate = zlib.decompressobj()
    try:
        got = len(inflate.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"), wanted + 1))
    except zlib.error as error:
        raise InputError(where, wanted="a readable PNG", got=error) from error
    if got != wanted:
        raise InputError(where, wanted=f"{wanted} bytes of pixels", got="more" if got > wanted else got)


def _header(chunks: list[tuple[bytes, bytes]], where: str) -> tuple[int, int, int, int]:
    """Width, height, bits, colour type."""
    kind, body = chunks[0]
    if kind != b"IHDR" or len(body) != 13:
        raise InputError(where, wanted="a PNG header", got=f"{kind!r} of {len(body)} bytes")
    width, height, bits, color = struct.unpack(">IIBB", body[:10])
    if color not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise InputError(where, wanted="a PNG header", got=f"{bits} bits, colour type {color}")
    check_size(width, height, where)
    return width, height, bits, color


def _text(chunks: list[tuple[bytes, bytes]], where: str) -> dict[str, str]:
    """Entries of tEXt and, as programs store longer ones, zTXt (key, zero, method zero, packed)."""
    found = {}
    for kind, body in chunks:
        if kind not in (b"tEXt", b"zTXt"):
            continue
        key, _, value = body.partition(b"\0")
        if kind == b"zTXt":
            try:
                value = zlib.decompressobj().decompress(value[1:], _MOST_TEXT)
            except zlib.error as error:
                raise InputError(f"{where}: text", wanted="readable text", got=error) from error
        found[key.decode("latin-1")] = value.decode("latin-1")
    return found


def _pixels(data: bytes, size: tuple[int, int], where: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(where, wanted="a readable PNG", got=error) from error
    if image is None or image.shape[1::-1] != size:
        raise InputError(where, wanted="a readable PNG", got=None if image is None else image.shape)
    return image


def encode(
    ids: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"], text: dict[str, str] | None = None
) -> bytes:
    """An 8-bit indexed PNG.

    Args:
        ids: numbers below k.
        palette: RGB per number, 1 to 256.
        text: tEXt entries in ASCII; keys of at most 79 characters.
    """
    if not 1 <= len(palette) <= 256 or (ids.size and int(ids.max()) >= len(palette)):
        got = f"{len(palette)} colours for numbers up to {ids.max(initial=0)}"
        raise InputError("png.encode: palette", wanted="a colour per number, at most 256", got=got)
    plain = _chunks(cv2.imencode(".png", ids)[1].tobytes(), "png.encode")
    out = [_SIGNATURE]
    for kind, body in plain:
        if kind == b"IHDR":
            out.append(_chunk(kind, body[:9] + bytes([_PALETTE]) + body[10:]))
            out.append(_chunk(b"PLTE", palette.tobytes()))
            out += [_chunk(b"tEXt", f"{k}\0{v}".encode("ascii")) for k, v in (text or {}).items()]
        elif kind in (b"IDAT", b"IEND"):
            out.append(_chunk(kind, body))
    return b"".join(out)


def decode(data: bytes, where: str) -> Indices:
    """The numbers an indexed or grey PNG of at most 8 bits stores.

    Raises:
        InputError: (`where`: file and field) for colours, 16 bits, damage, or more than `MOST_PIXELS`.
    """
    chunks = _chunks(data, where)
    width, height, bits, color = _header(chunks, where)
    if color not in (_GREY, _PALETTE) or bits > 8:
        got = f"{bits} bits, colour type {color}"
        raise InputError(where, wanted="8-bit class ids (an indexed or grey PNG)", got=got)
    _check_whole(chunks, where)
    head = chunks[0][1]
    pixels = [_chunk(kind, body) for kind, body in chunks if kind in (b"IDAT", b"IEND")]
    grey = b"".join([_SIGNATURE, _chunk(b"IHDR", head[:9] + bytes([_GREY]) + head[10:]), *pixels])
    image = _pixels(grey, (width, height), where)
    if image.ndim != 2:
        raise InputError(where, wanted="one channel", got=image.shape)
    # Decoders stretch 1, 2 and 4 bits over 0..255.
    ids = image // (255 // (2**bits - 1))
    palette = next((body for kind, body in chunks if kind == b"PLTE"), b"")
    if color == _PALETTE and (len(palette) % 3 or not 3 * int(ids.max()) < len(palette) <= 768):
        raise InputError(where, wanted=f"a palette of more than {ids.max()} colours", got=f"{len(palette)} bytes")
    colors = np.frombuffer(palette, np.uint8).reshape(-1, 3) if color == _PALETTE else None
    return Indices(ids, colors, _text(chunks, where))


def decode_colors(data: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of an 8-bit colour PNG; an indexed one is looked up in its palette.

    Raises:
        InputError: (`where`: file and field) for grey, 16 bits, transparent pixels, damage, or more than `MOST_PIXELS`.
    """
    chunks = _chunks(data, where)
    width, height, bits, color = _header(chunks, where)
    if color == _PALETTE:
        indices = decode(data, where)
        assert indices.palette is not None  # decode refuses a palette picture without one
        return indices.palette[indices.ids]
    if color not in (2, 6) or bits != 8:
        raise InputError(where, wanted="an 8-bit colour PNG", got=f"{bits} bits, colour type {color}")
    _check_whole(chunks, where)
    image = _pixels(data, (width, height), where)
    if image.ndim != 3 or image.shape[2] < 3 or (image.shape[2] == 4 and image[..., 3].min() < 255):
        raise InputError(where, wanted="opaque colours", got="transparent pixels")
    return np.ascontiguousarray(image[..., 2::-1])


def kind_of(data: bytes, where: str) -> typing.Literal["grey", "indexed", "colors"]:
    """What the pixels of a PNG are: one channel, numbers in a palette, or colours (with opacity or without)."""
    color = _header(_chunks(data, where), where)[3]
    return "grey" if color == _GREY else "indexed" if color == _PALETTE else "colors"


def text_of(data: bytes, where: str) -> dict[str, str]:
    """The text entries of a PNG, compressed or not."""
    return _text(_chunks(data, where), where)
