"""Picture files: what headers say, checked before anything is decoded, and pixels as they are stored.

Pillow reads headers. OpenCV decodes and encodes photographs: 16-bit colours, which Pillow cuts to 8, and it writes two
to three times as fast.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from jsplat.errors import InputError, remedy
from jsplat.labelsets.labelset import LabelSet

# What a header may claim; a hostile one costs memory before its data is looked at. Pillow's own limit is one for the
# whole process, and warns.
MOST_PIXELS = 100_000_000
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SMALLER = "make it smaller"
CONVERT = "convert it to PNG or JPEG"
AGAIN = "copy it again from where it came, or save it anew"
DAMAGE = (SyntaxError, OSError, ValueError, EOFError, LookupError, struct.error)  # what Pillow raises for it


def check_size(width: int, height: int, where: str) -> None:
    """InputError unless a picture of that size is one somebody could have meant; asked before memory is taken."""
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise InputError(where, wanted=f"1 to {MOST_PIXELS:,} pixels", got=f"{width}x{height}")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of what each chunk of a PNG holds; EOFError where it is cut off.

    By hand: Pillow finds the end of a file only by its checksums, which takes six times as long as reading the file.
    """
    kind, end = b"", len(PNG) - 4
    while kind != b"IEND":
        start = end + 12
        kind, end = data[start - 4 : start], start + int.from_bytes(data[start - 8 : start - 4], "big")
        if end + 4 > len(data):
            raise EOFError("a chunk ends behind the file")
        yield kind, start, end


def picture_header(data: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, channels and Exif orientation (1 = upright) of a whole PNG or JPEG; None for anything else.

    A palette counts as one channel.
    """
    try:
        if data.startswith(PNG):
            image = PngImageFile(io.BytesIO(data))
            for _ in png_chunks(data):  # all there? Decoders make room for what a chunk claims to hold
                pass
        else:
            stream = io.BytesIO(data)
            image = JpegImageFile(stream)
            # An end marker cannot occur inside entropy-coded data; cameras append more pictures behind it.
            if not image.tile or data.find(b"\xff\xd9", stream.tell()) < 0:
                return None
    except DAMAGE:
        return None
    return *image.size, len(image.getbands()), _orientation(image.info.get("exif", b""))


def _orientation(stored: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(stored)
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except DAMAGE:  # a broken tag says nothing
        orientation = 1
    return int(orientation) if orientation in range(1, 9) else 1


def file_bytes(path: Path, where: str) -> bytes:
    """A picture file as it is; InputError (`where`: file and field) if there is none, or it cannot be read."""
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError as error:
        got = f"{path.name[:80]}: {error.strerror}"
        raise InputError(where, wanted="an image", got=got, hint=remedy(error)) from error
    if data is None:
        raise InputError(where, wanted="an image", got=f"no file {path.name}")
    return data


def picture_file(path: Path, where: str) -> tuple[bytes, tuple[int, int, int, int]]:
    """A PNG or JPEG as bytes, and its header (see `picture_header`); nothing is decoded.

    Raises:
        InputError: (`where`: file and field) for what is cut off, too large, a CMYK JPEG, or something else.
    """
    data = file_bytes(path, where)
    header = picture_header(data)
    if header is None:
        ours = data.startswith((PNG, JPEG))
        got = f"{path.name}, {len(data)} bytes, {'cut off or damaged' if ours else 'neither PNG nor JPEG'}"
        raise InputError(where, wanted="a readable image", got=got, hint=AGAIN if ours else CONVERT)
    width, height, channels, _ = header
    if width * height > MOST_PIXELS:
        got, hint = f"{path.name}, {width}x{height}", SMALLER
        raise InputError(where, wanted=f"at most {MOST_PIXELS:,} pixels", got=got, hint=hint)
    if channels == 4 and data.startswith(JPEG):
        got, hint = f"{path.name}, a CMYK JPEG", "convert it to RGB"
        raise InputError(where, wanted="an RGB or grey picture", got=got, hint=hint)
    return data, header


def read_pixels(path: Path, where: str) -> np.ndarray:
    """Decodes a PNG or JPEG as it is stored: channels in OpenCV's order, Exif rotation not applied (calibrations are
    made on stored pixels); InputError (`where`: file and field) as of `picture_file`, and for damage inside."""
    data, _ = picture_file(path, where)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # OpenCV's own limits
        image = None
    if image is None:
        got = f"{path.name}, {len(data)} bytes, damaged"
        raise InputError(where, wanted="a readable image", got=got, hint=AGAIN)
    return image


def read_image(path: Path, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an 8-bit photograph as sRGB; InputError (`where`: file and field) if it cannot be used as it is."""
    image = read_pixels(path, where)
    if image.dtype != np.uint8 or (image.ndim != 2 and image.shape[2] != 3):
        wanted = "an 8-bit picture, RGB or grey, without transparency"
        hint = "`jsplat import` of the original takes 16 bits and transparency"
        raise InputError(where, wanted=wanted, got=f"{path.name}, {image.dtype} {image.shape}", hint=hint)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def read_labels(path: Path, where: str, labelset: LabelSet, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Reads a label map of (width, height); InputError (`where`: file and field) unless every pixel has a class."""
    labels = read_pixels(path, where)
    if labels.shape != size[::-1] or labels.dtype != np.uint8:
        wanted = f"one 8-bit channel of {size[0]}x{size[1]} pixels"
        raise InputError(where, wanted=wanted, got=f"{path.name}, {labels.dtype} {labels.shape}")
    labelset.check(labels, where)
    return labels


def read_mask(path: Path, where: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Reads a mask of (width, height): 0 = the pixel says nothing, as nerfstudio's `mask_path`."""
    mask = read_pixels(path, where)
    if mask.ndim == 3 and mask.shape[2] == 3 and np.array_equal(mask, np.repeat(mask[..., :1], 3, -1)):
        mask = mask[..., 0]  # colour copies of one grey channel occur
    if mask.shape != size[::-1] or mask.dtype != np.uint8:
        wanted = f"one 8-bit channel of {size[0]}x{size[1]} pixels"
        raise InputError(where, wanted=wanted, got=f"{path.name}, {mask.dtype} {mask.shape}")
    return mask > 0


def encode_png(image: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """A PNG of an RGB or one-channel 8-bit picture."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(".png", bgr)[1].tobytes()


def write_png(path: Path, image: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes an RGB or one-channel 8-bit picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))
