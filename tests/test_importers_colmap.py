"""Damaged and hostile COLMAP models: one clear error each, and no memory for a declared count."""

import shutil
import struct
from pathlib import Path

import pytest
from layouts import SMALL, run

from jsplat.captures.importers import read_source
from jsplat.errors import InputError


def _patch(path: Path, at: int, data: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:at] + data + old[at + len(data) :])


ENDLESS = struct.pack("<Q", 2**60)
POINTS_AT = 8 + 64 + len("sub/00.png") + 1  # the first image's number of observed points
BAD_COLMAP = {  # name: (file, what happens to it, message)
    "endless cameras": (
        "cameras.bin",
        lambda p: _patch(p, 0, ENDLESS),
        r"cameras.bin: .*a declared count of 1152921504606846976",
    ),
    "endless images": (
        "images.bin",
        lambda p: _patch(p, 0, ENDLESS),
        r"images.bin: .*a declared count of 1152921504606846976",
    ),
    "endless points": (
        "images.bin",
        lambda p: _patch(p, POINTS_AT, ENDLESS),
        r"images.bin: .*a declared count of 11529215",
    ),
    "cut cameras": (
        "cameras.bin",
        lambda p: p.write_bytes(p.read_bytes()[:-8]),
        r"cameras.bin: wanted 64 more bytes at 32, got",
    ),
    "cut images": ("images.bin", lambda p: p.write_bytes(p.read_bytes()[:-30]), r"images.bin: wanted "),
    "empty": ("images.bin", lambda p: p.write_bytes(b""), r"images.bin: wanted 8 more bytes at 0"),
    "gone": ("images.bin", lambda p: p.unlink(), r"images.bin: wanted a readable file, got No such file"),
    "FOV": (
        "cameras.bin",
        lambda p: _patch(p, 12, struct.pack("<i", 7)),
        r"camera 3: wanted a camera model among .*, got FOV",
    ),
    "a model of the future": (
        "cameras.bin",
        lambda p: _patch(p, 12, struct.pack("<i", 99)),
        r"camera 3: wanted a camera model among .*, got number 99",
    ),
    "no size": (
        "cameras.bin",
        lambda p: _patch(p, 16, ENDLESS),
        r"camera 3: wanted a picture size, got 1152921504606846976x36",
    ),
    "NaN focal length": (
        "cameras.bin",
        lambda p: _patch(p, 32, struct.pack("<d", float("nan"))),
        r"camera 3: wanted finite numbers and positive focal lengths",
    ),
    "no rotation": (
        "images.bin",
        lambda p: _patch(p, 12, bytes(32)),
        r"image 1: wanted a unit quaternion and a finite transl",
    ),
    "NaN translation": (
        "images.bin",
        lambda p: _patch(p, 44, struct.pack("<d", float("inf"))),
        r"image 1: wanted a unit quaternion and a finite translation",
    ),
    "unknown camera": (
        "images.bin",
        lambda p: _patch(p, 68, struct.pack("<I", 9)),
        r"sub/00.png: wanted a camera of 0/cameras",
    ),
    "parent path": (
        "images.bin",
        lambda p: _patch(p, 72, b"../../a.pn"),
        r"images.bin: ../../a.pn: wanted a path inside the fol",
    ),
    "absolute path": (
        "images.bin",
        lambda p: _patch(p, 72, b"/etc/motd0"),
        r"/etc/motd0: wanted a path inside the folder",
    ),
    "no text": ("images.bin", lambda p: _patch(p, 72, b"\xff\xfe"), r"images.bin: wanted a name in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_COLMAP)
def test_damaged_colmap_models(made, name):
    file, damage, message = BAD_COLMAP[name]
    folder = made("colmap")
    damage(folder / "sparse" / "0" / file)
    with pytest.raises(InputError, match=message):
        run(folder)


BAD_TEXT = {
    "unknown model": (
        "cameras.txt",
        "3 FOV 48 36 1 1 1 1 1\n",
        r"cameras.txt: camera 3: wanted a camera model among .*got FOV",
    ),
    "too few": ("cameras.txt", "3 OPENCV 48 36 1 1 1\n", r"camera 3: wanted 8 parameters of OPENCV, got 3"),
    "no words": ("cameras.txt", "3 OPENCV\n", r"cameras.txt: wanted CAMERA_ID MODEL WIDTH HEIGHT PARAMS"),
    "words": ("cameras.txt", "3 PINHOLE 48 36 a b c d\n", r"cameras.txt: camera 3: wanted numbers, got a b c d"),
    "short image": ("images.txt", "1 1 0 0 0\n\n", r"images.txt: wanted IMAGE_ID QW"),
    "binary": ("images.txt", b"\xff\xfe\x00", r"images.txt: wanted text in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_damaged_colmap_text(made, name):
    file, text, message = BAD_TEXT[name]
    folder = made("colmap", text=True)
    (folder / "sparse" / "0" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        run(folder)


def test_two_models_of_colmap(made):
    folder = made("colmap")
    shutil.copytree(folder / "sparse" / "0", folder / "sparse" / "1")
    with pytest.raises(InputError, match=r"7/sparse: wanted one model, got 0, 1; keep the one with most images"):
        run(folder)


def _lines(folder: Path) -> list[str]:
    return [x for x in (folder / "sparse/0/images.txt").read_text().splitlines() if x and x[0] != "#" and "sub/" in x]


SOUND = {  # how an image's own line is followed by others
    "no points": "{}\n\n",
    "two empty lines": "{}\n\n\n",
    "points": "{}\n1.5 2.5 -1\n",
    "whole numbers": "{}\n1 2 -1 3 4 7\n",
    "points and empty lines": "\n{}\n1.5 2.5 -1 3.5 4.5 7\n\n  \n",
    "comments": "# one\n{}\n# its points\n1.5 2.5 -1\n",
    "Windows": "\r\n{}\r\n\r\n",
}


@pytest.mark.parametrize("name", SOUND)
def test_empty_lines_in_images_txt(made, name):
    folder = made("colmap", text=True)
    text = "# Number of images: 4, mean observations per image: 1.5\n"
    text += "".join(SOUND[name].format(line) for line in _lines(folder))
    (folder / "sparse/0/images.txt").write_text(text, newline="")
    assert len(read_source(folder, SMALL).photos) == 4
    (folder / "sparse/0/images.txt").write_text(text.rstrip())
    assert len(read_source(folder, SMALL).photos) == 4


UNSOUND = {
    "no second lines": ("{}\n", r"images.txt: behind image 1: wanted a line of points, .*got 2 "),
    "points come late": ("{}\n\n1.5 2.5 -1\n", r"images.txt: wanted IMAGE_ID QW .*, got 1.5 2.5 -1"),
    "many points come late": ("{}\n\n" + "1.5 2.5 -1 " * 4 + "\n", r"images.txt: wanted numbers, got 1.5 -1"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_images_txt_that_would_lose_views(made, name):
    folder = made("colmap", text=True)
    form, message = UNSOUND[name]
    (folder / "sparse/0/images.txt").write_text("".join(form.format(line) for line in _lines(folder)))
    with pytest.raises(InputError, match=message):
        read_source(folder, SMALL)


def test_images_txt_with_fewer_images_than_announced(made):
    folder = made("colmap", text=True)
    text = "# Number of images: 5, mean observations per image: 0\n" + "".join(f"{x}\n\n" for x in _lines(folder))
    (folder / "sparse/0/images.txt").write_text(text)
    with pytest.raises(InputError, match=r"images.txt: wanted the 5 images that its first lines announce, got 4; "):
        read_source(folder, SMALL)


def test_a_name_of_three_words_is_no_point(made):
    folder = made("colmap", text=True)
    rows = [x.replace("sub/00.png", "sub/my best photo.png") for x in _lines(folder)]
    (folder / "images/sub/00.png").rename(folder / "images/sub/my best photo.png")
    (folder / "sparse/0/images.txt").write_text("".join(f"{x}\n\n" for x in rows))
    assert len(read_source(folder, SMALL).photos) == 4
    (folder / "sparse/0/images.txt").write_text("".join(f"{x}\n" for x in reversed(rows)))
    with pytest.raises(InputError, match=r"wanted a line of points"):
        read_source(folder, SMALL)
