"""Photographs in TIFF, whole and damaged, and those in formats that nobody here can read."""

import contextlib
import json
import struct
import sys

import cv2
import layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SMALL, Rig, run, save

from jsplat.captures.importers import detect
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.source import Photo, read_photo, stored_size
from jsplat.captures.importers.tiff import decode_tiff, open_tiff
from jsplat.errors import InputError

SHORT, LONG = 3, 4
RIG = Rig(views=3)
PICTURE = np.random.default_rng(3).integers(0, 256, (RIG.height, RIG.width, 3)).astype(np.uint8)


def tiff(pixels: np.ndarray, order: str = "<", **fields) -> bytes:
    """Pixels in one strip, not packed; `fields` (tag as "t274") are added or replace what is there; None takes away."""
    h, w, c = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = pixels.dtype.itemsize * 8
    values = {256: (LONG, [w]), 257: (LONG, [h]), 258: (SHORT, [bits] * c), 259: (SHORT, [1])}
    values |= {262: (SHORT, [2 if c > 1 else 1]), 273: (LONG, [8]), 277: (SHORT, [c]), 278: (LONG, [h])}
    values |= {279: (LONG, [len(data)])} | {int(tag[1:]): value for tag, value in fields.items()}
    far, entries = 8 + len(data), b""
    behind = b""
    for tag, (kind, numbers) in sorted((t, v) for t, v in values.items() if v is not None):
        raw = struct.pack(f"{order}{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(raw) > 4:
            raw, behind = struct.pack(f"{order}I", far + len(behind)), behind + raw
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + raw.ljust(4, b"\0")
    start = far + len(behind)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    directory = struct.pack(f"{order}H", len(entries) // 12) + entries + struct.pack(f"{order}I", 0)
    return head + data + behind + directory


def photographs(folder, pictures: list[bytes], names: str = "{:02d}.tif"):
    """A nerfstudio capture of one view per picture."""
    layouts.nerfstudio(folder, Rig(views=len(pictures)))
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    for i, (frame, picture) in enumerate(zip(data["frames"], pictures)):
        frame["file_path"] = "images/" + names.format(i)
        (folder / frame["file_path"]).write_bytes(picture)
    path.write_text(json.dumps(data))
    return folder


def read(tmp_path, data: bytes) -> np.ndarray:
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    width, height, _ = stored_size(path, "a")
    return read_photo(Photo("a", path, Lens(RIG.k, width, height), np.eye(4)))[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_of_8_and_16_bits(tmp_path, order, deep, grey):
    want = PICTURE[..., :1] if grey else PICTURE
    stored = want.astype(np.uint16) * 257 if deep else want
    got = read(tmp_path, tiff(stored, order))
    assert np.array_equal(got, np.repeat(want, 3, -1) if grey else want)


def test_16_bits_are_rounded_to_the_nearest_of_8(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    got = read(tmp_path, tiff(levels))[..., 0]
    assert np.array_equal(got, (levels[..., 0].astype(np.int64) + 128) // 257)


@pytest.mark.parametrize("end", [".tif", ".png"])
def test_packed_files_as_opencv_writes_them(tmp_path, end):
    """LZW with a predictor, and PNG: both bit depths give the same capture, from the importer."""
    made = []
    for name, kind in (("8", np.uint8), ("16", np.uint16)):
        one = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2BGR).astype(kind) * (257 if kind == np.uint16 else 1)
        data = cv2.imencode(end, one)[1].tobytes()
        made.append(run(photographs(tmp_path / name / "in", [data] * 2, "{:02d}" + end), size=0))
    assert np.array_equal(made[0].images, made[1].images)
    assert np.ptp(made[0].images) > 200


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_the_orientation_is_told_and_not_applied(tmp_path, order, deep, kind):
    """OpenCV turns a TIFF by itself; calibrations are made on stored pixels."""
    stored = PICTURE.astype(np.uint16) * 257 if deep else PICTURE
    path = tmp_path / "a.tif"
    for orientation in range(1, 9):
        path.write_bytes(tiff(stored, order, t274=(kind, [orientation])))
        assert stored_size(path, "a") == (RIG.width, RIG.height, orientation)
        assert np.array_equal(decode_tiff(open_tiff(path, "a"), "a", "a")[..., ::-1], stored)
    path.write_bytes(tiff(stored, order, t274=(kind, [77])))
    assert stored_size(path, "a")[2] == 1


def test_a_turned_photograph_is_imported_upright(tmp_path):
    turned = tiff(PICTURE, t274=(SHORT, [6]))
    capture = run(photographs(tmp_path / "in", [turned] * 2), size=0)
    assert capture.images.shape[1:3] == (RIG.width, RIG.height)
    (tmp_path / "in" / "images" / "00.tif").write_bytes(tiff(PICTURE, t274=(SHORT, [2])))
    with pytest.raises(InputError, match="wanted a picture that is not mirrored, got Exif orientation 2"):
        run(tmp_path / "in")


GOOD = tiff(PICTURE)
FOUR = np.concatenate([PICTURE, PICTURE[..., :1]], -1)


def paged(reduced: int) -> bytes:
    """A second picture behind the first."""
    start = struct.unpack_from("<I", GOOD, 4)[0]
    (entries,) = struct.unpack_from("<H", GOOD, start)
    own = GOOD[start + 2 : start + 2 + 12 * entries]
    page = struct.pack("<HHHII", entries + 1, 254, LONG, 1, reduced) + own + struct.pack("<I", 0)
    return GOOD[:-4] + struct.pack("<I", len(GOOD)) + page


def packed() -> bytes:
    """16 bits as OpenCV packs them (LZW), with damage inside; of 8 bits it fills up what it cannot read."""
    data = cv2.imencode(".tif", PICTURE.astype(np.uint16) * 257)[1].tobytes()
    return data[:20] + b"\xff" * 80 + data[100:]


BAD = {  # name: (bytes, message)
    "cut off in the directory": (GOOD[:-30], r"wanted a readable image, got 00.tif, \d+ bytes, cut off"),
    "nothing but a beginning": (b"II*\0", r"wanted a readable image, got 00.tif, 4 bytes, cut off"),
    "a directory beyond the end": (b"II*\0\xff\xff\xff\xff", r"wanted a readable image, got 00.tif, 8 bytes, cut off"),
    "a strip that is cut off": (tiff(PICTURE, t279=(LONG, [10**6])), r"a readable image, got 00.tif, \d+ bytes, cut"),
    "a strip without a size": (tiff(PICTURE, t279=None), r"got 00.tif, a TIFF of 1 strips with 0 sizes"),
    "endless strips": (GOOD.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 2**32 - 1)), "cut off"),
    "an empty strip": (tiff(PICTURE, t279=(LONG, [0])), "cut off"),
    "damage inside": (packed(), r"wanted a readable image, got 00.tif, \d+ bytes, damaged"),
    "no width": (tiff(PICTURE, t256=None), "got 00.tif, a TIFF without field 256"),
    "a bomb": (
        tiff(PICTURE, t256=(LONG, [20_000]), t257=(LONG, [20_000])),
        r"at most 100,000,000 pixels, got 00.tif, 20000x20000",
    ),
    "a larger bomb": (tiff(PICTURE, t256=(LONG, [2**32 - 1]), t257=(LONG, [2**32 - 1])), "at most 100,000,000 pixels"),
    "a bomb of one tile": (
        tiff(PICTURE, t322=(LONG, [2**16]), t323=(LONG, [2**16]), t324=(LONG, [8]), t325=(LONG, [9])),
        "at most 100,000,000 pixels, got 00.tif, 48x36 in tiles of 65536x65536",
    ),
    "CMYK": (tiff(FOUR, t262=(SHORT, [5])), "wanted an RGB or grey picture, got 00.tif, a TIFF with CMYK"),
    "CIELAB": (tiff(PICTURE, t262=(SHORT, [8])), "wanted an RGB or grey picture, got 00.tif, a TIFF with CIELAB"),
    "white as 0": (tiff(PICTURE[..., :1], t262=(SHORT, [0])), "got 00.tif, a TIFF with white as 0"),
    "transparency": (tiff(FOUR, t338=(SHORT, [2])), "without transparency, got 00.tif, a TIFF of 4 channels"),
    "planes": (tiff(PICTURE, t284=(SHORT, [2])), "wanted a TIFF whose channels lie pixel by pixel"),
    "floating point": (
        tiff(PICTURE.astype(np.float32), t339=(SHORT, [3, 3, 3])),
        "wanted 8 or 16 bits a channel, got 00.tif, a TIFF of floating point numbers of 32 bits",
    ),
    "signed": (tiff(PICTURE, t339=(SHORT, [2, 2, 2])), "a TIFF of signed numbers of 8 bits"),
    "uneven": (tiff(PICTURE, t258=(SHORT, [5, 6, 5])), "a TIFF of whole numbers of 5, 6 bits"),
    "a BigTIFF": (b"II+\0" + GOOD[4:], "wanted a classic TIFF, got 00.tif, a BigTIFF"),
    "several pages": (paged(0), "wanted one picture in the file, got 00.tif, a TIFF of several pages"),
    "another size": (tiff(PICTURE[1:]), "wanted 48x36 pixels as calibrated, got 00.tif with 48x35"),
    "12 bits in 16": (
        tiff(PICTURE.astype(np.uint16) * 16),
        "wanted 16-bit levels from 0 to 65535, got 00.tif with levels up to 4080",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_tiff_that_cannot_be_used(tmp_path, name):
    data, message = BAD[name]
    folder = photographs(tmp_path / "in", [data, GOOD])
    with pytest.raises(InputError, match=message) as caught:
        run(folder)
    assert str(caught.value).startswith("in/transforms.json: frames[0].file_path: ")
    assert not (tmp_path / "out").exists()


def test_a_preview_behind_the_picture_is_left(tmp_path):
    assert np.array_equal(read(tmp_path, paged(1)), PICTURE)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=12))
def test_any_damage_ends_in_an_error_or_a_picture(tmp_path_factory, at, new):
    # Mostly the directory, which lies at the end.
    at = len(GOOD) - 1 - at % 200 if at % 2 else at
    path = tmp_path_factory.mktemp("damaged") / "a.tif"
    path.write_bytes(GOOD[:at] + new + GOOD[at + len(new) :])
    with contextlib.suppress(InputError):
        opened = open_tiff(path, "a")
        assert decode_tiff(opened, "a", "a").shape[:2] == (opened.height, opened.width)


# Formats that cannot be read


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(12)


def test_what_phones_make_is_named_in_a_folder_of_photographs(tmp_path):
    folder = tmp_path / "in"
    for i in range(2):
        save(folder / f"IMG_{i}.JPG", RIG.picture(i))
    (folder / "a.tiff").write_bytes(GOOD)
    (folder / "IMG_7.HEIC").write_bytes(HEIC)
    (folder / "IMG_8.dng").write_bytes(GOOD)
    (folder / "notes.txt").write_text("x")
    assert detect(folder) == "photographs"
    convert = "; convert it to JPEG, as `heif-convert` does with what phones make$"
    with pytest.raises(InputError, match=rf"in: wanted PNG, JPEG or TIFF, got IMG_7.HEIC, IMG_8.dng{convert}"):
        run(folder)
    for i in range(10, 15):
        (folder / f"IMG_{i}.heic").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"got IMG_10.heic, .*, IMG_14.heic and 2 more; convert"):
        run(folder)


def test_a_folder_of_nothing_else_says_what_to_do(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.heic").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"wanted PNG, JPEG or TIFF, got 0.heic, 1.heic, 2.heic"):
        run(tmp_path / "in")


def test_originals_beside_what_was_made_of_them_are_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    for i in range(3):
        save(tmp_path / "in" / f"{i}.jpg", RIG.picture(i))
        (tmp_path / "in" / f"{i}.HEIC").write_bytes(HEIC)
    with pytest.raises(InputError, match="wanted the package pycolmap"):  # that far
        run(tmp_path / "in")


def test_a_layout_that_names_such_a_file(tmp_path):
    folder = photographs(tmp_path / "in", [HEIC, GOOD], "{:02d}.heic")
    with pytest.raises(InputError, match=r"frames\[0\].file_path: wanted PNG, JPEG or TIFF, got 00.heic"):
        run(folder, SMALL)


def test_endings_in_any_letters(tmp_path):
    for i, end in enumerate((".Jpg", ".TIF", ".Png")):
        (tmp_path / f"{i}{end}").write_bytes(cv2.imencode(end.lower(), PICTURE)[1].tobytes())
    assert detect(tmp_path) == "photographs"
