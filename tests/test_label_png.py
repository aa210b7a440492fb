"""PNG files of class ids: written and read again, as other programs store them, damaged, and hostile."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_exchange import chunk

from jsplat.captures import label_png
from jsplat.captures.label_png import Colors, Indices, colors_of, decode, encode, read
from jsplat.captures.pictures import picture_header
from jsplat.errors import InputError

IDS = np.random.default_rng(0).integers(0, 11, (9, 13)).astype(np.uint8)
PALETTE = np.arange(33, dtype=np.uint8).reshape(11, 3)
GREY, RGB, INDEXED, GREY_ALPHA = 0, 2, 3, 4
# Rows of the first, second, ... pass of an interlaced picture: a copy of the specification's table in 8.2.
PASSES = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))


def png(shape, color: int, rows: bytes, *extra: bytes, bits: int = 8, passes: int = 0, behind: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], bits, color, 0, 0, passes))
    parts = [head, *extra, chunk(b"IDAT", zlib.compress(rows)), behind, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rows_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels if row.size)


PLTE = chunk(b"PLTE", PALETTE.tobytes())
GOOD = png(IDS.shape, INDEXED, rows_of(IDS), PLTE)


@pytest.mark.parametrize("colors", [2, 4, 5, 16, 17, 256])
def test_what_was_written_is_read(colors):
    ids = (np.arange(9 * 13) % colors).astype(np.uint8).reshape(9, 13)
    palette = np.random.default_rng(1).integers(0, 256, (colors, 3)).astype(np.uint8)
    text = {"ascii": "{}", "latin": "größe", "any": "顔 " * 500}
    data = encode(ids[:, ::-1], palette, text)
    got = decode(data, "x")
    np.testing.assert_array_equal(got.ids, ids[:, ::-1])
    np.testing.assert_array_equal(got.palette, palette)
    assert got.text == text
    assert got.ids.flags.writeable
    with Image.open(io.BytesIO(data)) as seen:
        np.testing.assert_array_equal(np.asarray(seen.convert("RGB")), palette[ids[:, ::-1]])


def test_a_palette_has_a_colour_for_every_number():
    with pytest.raises(InputError, match=r"palette: wanted a colour per number, .* got 10 colours for .* up to 10"):
        encode(IDS, PALETTE[:10])


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (2, 3), (5, 1), (1, 9)])
def test_interlaced_pictures(size):
    ids = IDS[: size[0], : size[1]]
    rows = b"".join(rows_of(ids[y::dy, x::dx]) for x, dx, y, dy in PASSES)
    for color, extra in ((INDEXED, PLTE), (GREY, b"")):
        got = decode(png(size, color, rows, extra, passes=1), "x")
        np.testing.assert_array_equal(got.ids, ids)
    with pytest.raises(InputError, match=r"x: wanted \d+ bytes of pixels, got \d+"):
        decode(png(size, GREY, rows[:-1], passes=1), "x")


@pytest.mark.parametrize(("rows", "got"), [(rows_of(IDS[:-1]), r"112"), (rows_of(IDS) + b"\0", "more"), (b"", "0")])
def test_a_whole_stream_of_too_few_or_too_many_pixels(rows, got):
    """Picture libraries fill up with 0, which is a class."""
    with pytest.raises(InputError, match=rf"x: wanted 126 bytes of pixels, got {got}$"):
        decode(png(IDS.shape, INDEXED, rows, PLTE), "x")


def test_the_opacity_of_a_palette_changes_no_ids():
    clear = chunk(b"tRNS", bytes([0, 128, 255]))
    got = decode(png(IDS.shape, INDEXED, rows_of(IDS), PLTE, clear), "x")
    np.testing.assert_array_equal(got.ids, IDS)
    np.testing.assert_array_equal(got.palette, PALETTE)
    np.testing.assert_array_equal(colors_of(got, "x"), PALETTE[IDS])


def test_colours_are_opaque():
    rgb = PALETTE[IDS]
    plain = png(IDS.shape, RGB, rows_of(rgb))
    got = read(plain, "x")
    assert isinstance(got, Colors)
    np.testing.assert_array_equal(colors_of(got, "x"), rgb)
    for key, clear in ((rgb[0, 0], True), (np.array([255, 255, 255]), False)):
        data = png(IDS.shape, RGB, rows_of(rgb), chunk(b"tRNS", struct.pack(">3H", *key)))
        with pytest.raises(InputError, match="opaque colours") if clear else contextlib.nullcontext():
            np.testing.assert_array_equal(colors_of(read(data, "x"), "x"), rgb)
    with pytest.raises(InputError, match=r"x: wanted an 8-bit colour PNG, got grey levels"):
        colors_of(read(png(IDS.shape, GREY, rows_of(IDS)), "x"), "x")


@pytest.mark.parametrize(
    ("extra", "behind"),
    [
        (chunk(b"tEXt", b"key\0value"), b""),
        (b"", chunk(b"tEXt", b"key\0value")),
        (b"", chunk(b"zTXt", b"key\0\0" + zlib.compress(b"value"))),
        (chunk(b"iTXt", b"key\0\0\0\0\0value"), b""),
    ],
)
def test_text_of_every_kind_before_and_behind_the_pixels(extra, behind):
    for color, pixels in ((INDEXED, IDS), (RGB, PALETTE[IDS])):
        got = read(png(IDS.shape, color, rows_of(pixels), PLTE, extra, behind=behind), "x")
        assert got.text == {"key": "value"}


BAD = {  # name: (bytes, message)
    "no PNG": (b"GIF89a", r"wanted a PNG file, got 6 bytes that begin with b'GIF89a'"),
    "cut off": (GOOD[:-20], rf"wanted a whole PNG file, got {len(GOOD) - 20} bytes, cut off or damaged"),
    "a bit of the pixels": (GOOD[:-20] + b"\xff" + GOOD[-19:], "wanted a whole PNG file, got .* damaged .*IDAT"),
    "a bit of the palette": (GOOD.replace(bytes(range(9)), bytes(range(8)) + b"\xff"), "a whole PNG file, .*PLTE"),
    "no pixels": (GOOD[:33] + chunk(b"IEND", b""), "wanted a whole PNG file"),
    "16 bits": (png((1, 1), GREY, b"\0\0\1", bits=16), "8-bit class ids .* got 16 bits a channel, grey"),
    "16-bit colours": (png((1, 1), RGB, bytes(7), bits=16), "or colours, got 16 bits a channel, RGB"),
    "grey with opacity": (png((1, 1), GREY_ALPHA, b"\0\1\2"), "got 8 bits a channel, grey with transparency"),
    "colours for ids": (png((1, 1), RGB, bytes(4)), r"wanted 8-bit class ids \(an .*\), got 8 bits a channel, RGB"),
    "no palette": (png(IDS.shape, INDEXED, rows_of(IDS)), "wanted a palette of more than 10 colours, got 0 bytes"),
    "a short palette": (
        png(IDS.shape, INDEXED, rows_of(IDS), chunk(b"PLTE", bytes(30))),
        "wanted a palette of more than 10 colours, got 30 bytes",
    ),
    "half a colour": (png(IDS.shape, INDEXED, rows_of(IDS), chunk(b"PLTE", bytes(34))), "got 34 bytes"),
    "too large a palette": (png(IDS.shape, INDEXED, rows_of(IDS), chunk(b"PLTE", bytes(771))), "x: wanted a"),
    "a bomb": (png((20_000, 20_000), GREY, b""), "wanted 1 to 100,000,000 pixels, got 20000x20000"),
    "a larger bomb": (png((2**31 - 1, 2**31 - 1), INDEXED, b"", PLTE), "wanted 1 to 100,000,000 pixels"),
    "pixels without end": (png((9, 13), GREY, bytes(10**7)), "got more"),
    "text without end": (
        png((1, 1), GREY, bytes(2), chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10**7)))),
        "wanted a whole PNG file, got .*too large",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_used(name):
    data, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        decode(data, "x")
    assert str(caught.value).startswith("x: ")


@given(st.data())
def test_any_damage_is_an_error_or_leaves_the_picture(data):
    """Every chunk that matters has a checksum: a picture that can be read is the one that was written."""
    good = encode(IDS, PALETTE, {"key": "value"})
    at = data.draw(st.integers(0, len(good) - 1))
    content = good[:at] + data.draw(st.binary(max_size=9)) + good[at + data.draw(st.integers(0, 9)) :]
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(decode(content, "x").ids, IDS)


@given(st.lists(st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"fcTL", b"acTL", b"fdAT", b"iCCP", b"IDAT", b"eXIf"])))
def test_chunks_in_any_order(kinds):
    body = {b"IHDR": GOOD[16:29], b"PLTE": PALETTE.tobytes(), b"IDAT": zlib.compress(rows_of(IDS))}
    parts = [chunk(kind, body.get(kind, bytes(26))) for kind in kinds]
    with contextlib.suppress(InputError):
        got = read(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""), "x")
        assert isinstance(got, Indices)
        np.testing.assert_array_equal(got.ids, IDS)


def test_a_png_may_say_where_up_is():
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = png(IDS.shape, GREY, rows_of(IDS), chunk(b"eXIf", tiff))
    assert picture_header(data) == (13, 9, 1, 6)
    assert picture_header(GOOD) == (13, 9, 1, 1)
    assert label_png.decode(data, "x").ids.shape == (9, 13)
