"""Damaged and hostile pictures in captures: every one ends in one clear error, or is handled right."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from layouts import run, save

from jsplat.captures.capture import read_capture
from jsplat.captures.importers import ImportConfig
from jsplat.captures.pictures import picture_header, read_image
from jsplat.errors import InputError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, color: int, rows: bytes, *extra: bytes, bits: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(path: Path, orientation: int | None = None, order: str = "<") -> bytes:
    """A file's JPEG with an Exif orientation in front."""
    data = path.read_bytes()
    if orientation is None:
        return data
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


def cmyk(data: bytes) -> bytes:
    """A JPEG whose frame header declares four components."""
    at = data.index(b"\xff\xc0")
    length = 8 + 3 * 4
    head = (
        b"\xff\xc0"
        + struct.pack(">H", length)
        + data[at + 4 : at + 9]
        + b"\x04"
        + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))
    )
    old = struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + head + data[at + 2 + old :]


PALETTE = chunk(b"PLTE", bytes(range(30)))
BAD_PICTURES = {  # name: (bytes from the good JPEG, message)
    "16 bits": (lambda p: png(48, 36, 2, b"", bits=16), r"1: wanted a readable image, got 1.jpg, .*damaged"),
    "12 bits in 16": (
        lambda p: png(48, 36, 0, (b"\0" + b"\x0f\xff" * 48) * 36, bits=16),
        r"1: wanted 16-bit levels from 0 to 65535, got 1.jpg with levels up to 4095",
    ),
    "a bomb": (lambda p: png(20_000, 20_000, 2, b""), r"1: wanted at most 100,000,000 pixels, got 1.jpg, 20000x20000"),
    "a larger bomb": (lambda p: png(2**31 - 1, 2**31 - 1, 2, b""), r"1: wanted at most 100,000,000 pixels"),
    "an endless chunk": (
        lambda p: png(48, 36, 2, b"", struct.pack(">I", 2**31 - 9) + b"IDAT"),
        r"1: wanted a readable image, got 1.jpg, 73 bytes, cut off",
    ),
    "a JPEG bomb": (
        lambda p: jpeg(p).replace(struct.pack(">HH", 36, 48), struct.pack(">HH", 65500, 65500)),
        r"1: wanted at most 100,000,000 pixels, got 1.jpg, 65500x65500",
    ),
    "truncated": (lambda p: jpeg(p)[:-40], r"1: wanted a readable image, got 1.jpg, .*cut off"),
    "CMYK": (lambda p: cmyk(jpeg(p)), r"1: wanted an RGB or grey picture, got 1.jpg, a CMYK JPEG"),
    "no picture": (lambda p: b"GIF89a", r"1: wanted a readable image, got 1.jpg, 6 bytes, neither PNG nor JPEG"),
    "mirrored": (lambda p: jpeg(p, 2), r"1: wanted a picture that is not mirrored, got Exif orientation 2"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_that_cannot_be_used(made, name):
    make, message = BAD_PICTURES[name]
    folder = made("facescape")
    path = folder / "1.jpg"
    path.write_bytes(make(path))
    with pytest.raises(InputError, match=message) as caught:
        run(folder)
    assert str(caught.value).startswith("7/params.json: ")


def test_a_palette_picture_has_its_colours(tmp_path):
    rows = b"".join(b"\0" + bytes([1, 2, 9]) for _ in range(2))
    (tmp_path / "a.png").write_bytes(png(3, 2, 3, rows, PALETTE))
    assert read_image(tmp_path / "a.png", "a").tolist() == [[[3, 4, 5], [6, 7, 8], [27, 28, 29]]] * 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_rotation_is_not_applied_but_tells_where_up_is(made, order):
    """Calibrations are made on stored pixels; a tag that says "turn clockwise" turns picture and camera together."""
    folder = made("facescape", rig={"roll": 90.0})
    for i in range(4):
        path = folder / f"{i}.jpg"
        path.write_bytes(jpeg(path, 6, order))
        assert picture_header(path.read_bytes()) == (48, 36, 3, 6)
    capture = run(folder, ImportConfig(), 48)
    assert capture.images.shape[1] > capture.images.shape[2]
    assert [v["quarter_turns"] for v in json.loads((folder.parent / "out" / "import.json").read_text())["views"]] == [
        1
    ] * 3
    up = np.asarray(capture.cameras.camera_from_world)[:, 1, 1]
    assert np.all(up < -0.9)


def test_intrinsics_of_turned_pixels_are_refused(made):
    folder = made("facescape")
    path = folder / "params.json"
    data = json.loads(path.read_text())
    data |= {"2_width": 36, "2_height": 48}
    path.write_text(json.dumps(data))
    picture = folder / "2.jpg"
    picture.write_bytes(jpeg(picture, 6))
    message = (
        r"2: wanted 36x48 pixels as calibrated, got 2.jpg with 48x36, which its Exif tag turns; calibrate on stored"
    )
    with pytest.raises(InputError, match=message):
        run(folder)


@pytest.mark.parametrize(
    "tail", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"XX" * 20, b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01"]
)
def test_a_broken_exif_tag_says_nothing(made, tail):
    folder = made("facescape")
    data = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(
        data[:2] + b"\xff\xe1" + struct.pack(">H", len(tail) + 8) + b"Exif\0\0" + tail + data[2:]
    )
    assert run(folder).images.shape[0] == 3


def test_a_photograph_may_carry_more_behind_its_end(made):
    """Phones append previews and depth."""
    folder = made("facescape")
    path = folder / "0.jpg"
    path.write_bytes(path.read_bytes() + b"SEFT" * 9)
    assert run(folder).images.shape[0] == 3


def test_our_own_format_meets_the_same_pictures(made):
    folder = made("nerfstudio", rig={})
    run(folder)
    path = folder.parent / "out" / "images" / "001.png"
    for data, message in (
        (png(20_000, 20_000, 2, b""), r"frames\[1\].file_path: wanted at most 100,000,000 pixels"),
        (png(2**31 - 1, 2**31 - 1, 2, b""), r"frames\[1\].file_path: wanted at most 100,000,000 pixels"),
        (b"II*\0", r"frames\[1\].file_path: wanted a readable image, got 001.png, 4 bytes, neither PNG nor JPEG"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_capture(folder.parent / "out")


def test_masks_and_mattes_of_another_size(made):
    def change(data):
        for frame in data["frames"]:
            frame["mask_path"] = "m.png"

    folder = made("nerfstudio", change)
    save(folder / "m.png", np.full((36, 47, 1), 255, np.uint8))
    with pytest.raises(InputError, match=r"file_path: wanted one 8-bit channel of 48x36 pixels, got m.png"):
        run(folder)
    shutil.rmtree(folder)
    folder = made("vhap")
    save(folder / "fg_masks" / "00000_01.png", np.full((35, 48, 1), 255, np.uint8))
    with pytest.raises(
        InputError, match=r"frames\[1\].file_path: wanted an 8-bit matte of 48x36 pixels, got 00000_01.png"
    ):
        run(folder)
