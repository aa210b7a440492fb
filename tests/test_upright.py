"""Photographs of every kind that people have, as they look: upright, sRGB, 8 bits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from jsplat.captures import upright
from jsplat.captures.upright import read_upright
from jsplat.errors import InputError

rng = np.random.default_rng(0)
PICTURE = cv2.resize(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8), (31, 22), interpolation=cv2.INTER_CUBIC)
ALPHA = np.linspace(0, 255, 22 * 31).reshape(22, 31).round().astype(np.uint8)
GREY = np.repeat(np.asarray(Image.fromarray(PICTURE).convert("L"))[..., None], 3, -1)
TWO = np.where(GREY > 99, 255, 0).astype(np.uint8)


def over_white(picture: np.ndarray) -> np.ndarray:
    part = ALPHA[..., None] / 255
    return np.round(picture * part + 255 * (1 - part)).astype(np.uint8)


def keyed(grey: np.ndarray) -> np.ndarray:
    return np.where(grey == grey[0, 0], 255, grey).astype(np.uint8)


def rgba(mode: str) -> Image.Image:
    image = Image.fromarray(PICTURE).convert(mode[:-1])
    image.putalpha(Image.fromarray(ALPHA))
    return image


def palette(**options: object) -> tuple[Image.Image, dict]:
    return Image.fromarray(PICTURE).quantize(8), options


FEW = np.asarray(Image.fromarray(PICTURE).quantize(8).convert("RGB"))
FIRST = np.asarray(Image.fromarray(PICTURE).quantize(8)) == 0
RGB, L, BITS = (Image.fromarray(x) for x in (PICTURE, GREY[..., 0], TWO[..., 0]))
# Name -> picture, how it is saved, what is seen, largest mean difference.
KINDS = {
    "rgba.png": (rgba("RGBA"), {}, over_white(PICTURE), 0),
    "grey and alpha.png": (rgba("LA"), {}, over_white(GREY), 0),
    "palette.png": (*palette(), FEW, 0),
    "palette with a transparent colour.png": (*palette(transparency=0), np.where(FIRST[..., None], 255, FEW), 0),
    "transparent grey.png": (L, {"transparency": int(GREY[0, 0, 0])}, keyed(GREY), 0),
    "one bit.png": (BITS.convert("1"), {}, TWO, 0),
    "one bit.tif": (BITS.convert("1"), {"compression": "group4"}, TWO, 0),
    "rgba.tif": (rgba("RGBA"), {}, over_white(PICTURE), 0),
    "grey and alpha.tif": (rgba("LA"), {}, over_white(GREY), 0),
    "palette.tif": (*palette(), FEW, 0),
    "inks.tif": (RGB.convert("CMYK"), {}, PICTURE, 0),
    "inks.jpg": (RGB.convert("CMYK"), {"quality": 100}, PICTURE, 3),
    "progressive.jpg": (RGB, {"progressive": True, "quality": 100, "subsampling": 0}, PICTURE, 1),
    "lossless.webp": (RGB, {"lossless": True}, PICTURE, 0),
    "clear.webp": (rgba("RGBA"), {"lossless": True, "exact": True}, over_white(PICTURE), 0),
    "a.bmp": (RGB, {}, PICTURE, 0),
    "a.gif": (Image.fromarray(PICTURE).quantize(8), {}, FEW, 0),
    "a.jp2": (RGB, {}, PICTURE, 0),
    "a.jfif": (RGB, {"format": "JPEG", "quality": 100, "subsampling": 0}, PICTURE, 1),
    "webp by its contents.jpg": (RGB, {"format": "WEBP", "lossless": True}, PICTURE, 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_looks_as_it_is(tmp_path, name):
    image, options, seen, off = KINDS[name]
    image.save(tmp_path / name, **options)
    got = read_upright(tmp_path / name, name)
    assert got.dtype == np.uint8
    assert got.shape == seen.shape
    assert np.abs(got.astype(int) - seen).mean() <= off


def test_webp_stands_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    RGB.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.webp", lossless=True, exif=exif)
    np.testing.assert_array_equal(read_upright(tmp_path / "a.webp", "a"), PICTURE)


def _several(path: Path) -> None:
    RGB.save(
        path, save_all=True, append_images=[L.convert("RGB")], **({"duration": 9} if path.suffix != ".tif" else {})
    )


def _text(path: Path) -> None:
    path.write_bytes(b"no picture" * 9)


REFUSED = {
    "moving.gif": (_several, r"one picture in the file, got moving.gif with 2; save .* an animation as MP4"),
    "pages.tif": (_several, r"one picture in the file, got .* of several pages; save the page that is meant"),
    "far.tif": (
        lambda path: Image.fromarray(GREY[..., 0].astype(np.float32)).save(path),
        r"8 or 16 bits a channel, got .* floating point numbers of 32 bits; save it as PNG or TIFF",
    ),
    "camera.png": (
        lambda path: Image.fromarray(GREY[..., 0].astype(np.uint16) * 15).save(path),
        r"16-bit levels from 0 to 65535, got camera.png with levels up to \d+; multiply them",
    ),
    "phone.heic": (_text, r"got phone.heic, 90 bytes.*; `pip install 'jsplat\[heic\]'` reads it, `heif-convert`"),
    "raw.nef": (_text, "got raw.nef, 90 bytes, another kind or damaged; save it as JPEG"),
    "notes.txt": (_text, "wanted a picture in PNG, JPEG, TIFF, WebP, .* got notes.txt, 90 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, monkeypatch, name):
    monkeypatch.setattr(upright, "_heic_is_read", lambda: False)
    make, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_upright(tmp_path / name, name)


def test_what_is_cut_off_is_not_half_read(tmp_path):
    for name in ("lossless.webp", "a.jp2", "a.gif"):
        image, options, *_ = KINDS[name]
        image.save(tmp_path / name, **options)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(InputError, match="damaged"):
            read_upright(tmp_path / name, name)


def test_a_size_that_nobody_means_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(upright, "MOST_PIXELS", 31 * 22 - 1)
    RGB.save(tmp_path / "a.bmp")
    with pytest.raises(InputError, match=r"at most 681 pixels, got a.bmp, 31x22; make it smaller"):
        read_upright(tmp_path / "a.bmp", "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"at most 681 pixels, got a\.bmp, more"):
        read_upright(tmp_path / "a.bmp", "a")
