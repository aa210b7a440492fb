"""Captures on disk: what is written comes back, and every kind of damage gets one clear error."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from close import assert_close
from hypothesis import given
from hypothesis import strategies as st

from jsplat.captures.capture import Capture, capture_folders, read_capture, resize_labels, write_capture
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.raster.camera import Camera, orbit

W, H = 12, 8


def small_capture(identity="ada", views=3) -> Capture:
    rng = np.random.default_rng(0)
    yaw, pitch = np.linspace(-40, 60, views), np.linspace(-10, 30, views)
    lens = np.asarray([[30.0, 0, 5.5], [0, 31.0, 4.25], [0, 0, 1]])
    cameras = orbit(yaw, pitch, np.full(views, 4.0), np.full(views, 1.2), lens, (W, H))
    labels = rng.integers(0, 19, (views, H, W)).astype(np.uint8)
    labels[0, 0, 0] = IGNORE
    images = rng.integers(0, 256, (views, H, W, 3)).astype(np.uint8)
    head = np.eye(4)
    head[:3, 3] = [0.01, -0.02, 0.03]
    return Capture(identity, images, labels, cameras, CELEBAMASK_HQ, head, (10, 20, 30))


@pytest.fixture
def folder(tmp_path) -> Path:
    write_capture(tmp_path / "ada", small_capture())
    return tmp_path / "ada"


def edit(folder: Path, change) -> None:
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_capture_comes_back(folder):
    want, got = small_capture(), read_capture(folder)
    assert np.array_equal(got.images, want.images)
    assert np.array_equal(got.labels, want.labels)
    why = "float32 matrices inverted twice, entries about 1"
    assert_close(got.cameras.camera_from_world, want.cameras.camera_from_world, 1e-6, why)
    assert np.array_equal(got.cameras.intrinsics, want.cameras.intrinsics)
    assert (got.cameras.width, got.cameras.height) == (W, H)
    assert np.array_equal(got.head_from_world, want.head_from_world)
    assert (got.identity, got.background, got.labelset) == ("ada", (10, 20, 30), CELEBAMASK_HQ)


def test_a_capture_without_labels_or_background_comes_back(tmp_path):
    bare = dataclasses.replace(small_capture().with_labels(None, None), background=None)
    write_capture(tmp_path / "ada", bare)
    got = read_capture(tmp_path / "ada")
    assert got.labels is None
    assert got.labelset is None
    assert got.background is None


def test_another_label_set_comes_back(tmp_path):
    pair = LabelSet(("background", "left", "right"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)), ("background", "right", "left"))
    want = small_capture()
    write_capture(tmp_path / "ada", want.with_labels(want.labels % 3, pair))
    assert read_capture(tmp_path / "ada").labelset == pair


def test_the_format_is_the_usual_one(folder):
    """Camera-to-world with OpenGL axes: the third column points from the head to the camera."""
    data = json.loads((folder / "transforms.json").read_text())
    matrix = np.asarray(data["frames"][0]["transform_matrix"])
    center = np.asarray(small_capture().cameras.centers[0])
    assert_close(matrix[:3, 3], center, 1e-6, "float32 camera matrices")
    assert_close(matrix[:3, 2], center / np.linalg.norm(center), 1e-6, "float32 camera matrices")
    assert (data["fl_x"], data["cy"], data["w"], data["classes"][8]) == (30.0, 4.25, W, "r_ear")


def test_a_smaller_size_shrinks_pictures_labels_and_lens_together(folder):
    got = read_capture(folder, size=6)
    assert got.images.shape == (3, 4, 6, 3)
    assert got.labels is not None
    assert got.labels.shape == (3, 4, 6)
    assert np.asarray(got.cameras.intrinsics[0]).tolist() == [[15.0, 0, 2.75], [0, 15.5, 2.125], [0, 0, 1]]
    first = small_capture().images[0, :2, :2].astype(np.float64).mean((0, 1))
    assert_close(got.images[0, 0, 0].astype(np.float64), first, 0.5, "the mean is rounded to whole numbers")


def test_shrunken_labels_take_the_class_that_covers_most():
    labels = np.asarray([[3, 3, 7, 7, 255, 255], [3, 1, 7, 9, 255, 1]], np.uint8)
    assert resize_labels(labels, (3, 1)).tolist() == [[3, 7, 255]]


def test_enlarged_labels_repeat_pixels():
    labels = np.asarray([[3, 9], [255, 1]], np.uint8)
    assert np.array_equal(resize_labels(labels, (4, 4)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(resize_labels(labels, (2, 4)), labels.repeat(2, 0))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_resized_labels_invent_no_class(w, h, seed):
    labels = np.random.default_rng(seed).choice(np.asarray([0, 3, 18, 255], np.uint8), (5, 7))
    resized = resize_labels(labels, (w, h))
    assert resized.shape == (h, w)
    assert set(np.unique(resized)) <= set(np.unique(labels))


def test_a_capture_replaces_nothing_and_an_unfinished_one_leaves_nothing(folder, monkeypatch):
    before = (folder / "transforms.json").read_bytes()
    with pytest.raises(InputError, match=r"ada: wanted a new name, got a folder with files in it"):
        write_capture(folder, small_capture("eve"))
    assert (folder / "transforms.json").read_bytes() == before
    monkeypatch.setattr("jsplat.captures.capture.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_capture(folder.parent / "eve", small_capture("eve"))
    assert [p.name for p in folder.parent.iterdir()] == ["ada"]


def _flip(data):
    data["frames"][1]["transform_matrix"][0] = [-x for x in data["frames"][1]["transform_matrix"][0]]


def _nan(data):
    data["frames"][2]["transform_matrix"][0][3] = float("nan")


DAMAGES = {  # name: (change of transforms.json, what the message must say)
    "one view": (
        lambda d: d.update(frames=d["frames"][:1]),
        r"transforms.json: frames: wanted a list of at least 2 views, got 1",
    ),
    "no frames": (lambda d: d.pop("frames"), r"frames: wanted a list of at least 2 views, got None"),
    "frame is no object": (lambda d: d["frames"].insert(0, 7), r"frames\[0\]: wanted an object, got 7"),
    "a mirror, not a rotation": (_flip, r"frames\[1\].transform_matrix: wanted a rigid transform"),
    "a scaled matrix": (
        lambda d: d["frames"][1].update(transform_matrix=(2 * np.eye(4)).tolist()),
        r"frames\[1\].transform_matrix: wanted a rigid",
    ),
    "NaN in a matrix": (_nan, r"frames\[2\].transform_matrix: wanted a finite 4x4 matrix"),
    "2x4 matrix": (
        lambda d: d["frames"][0].update(transform_matrix=d["frames"][0]["transform_matrix"][:2]),
        r"frames\[0\].transform_matrix: wanted a finite 4x4 matrix",
    ),
    "words in a matrix": (
        lambda d: d["frames"][0].update(transform_matrix="here"),
        r"frames\[0\].transform_matrix: wanted a 4x4 matrix of numbers",
    ),
    "no matrix": (lambda d: d["frames"][0].pop("transform_matrix"), r"frames\[0\].transform_matrix: wanted"),
    "head pose not rigid": (lambda d: d.update(head_from_world=np.zeros((4, 4)).tolist()), r"head_from_world: wanted"),
    "no focal length": (lambda d: d.pop("fl_x"), r"transforms.json: fl_x: wanted a finite number, got None"),
    "NaN focal length": (lambda d: d.update(fl_x=float("nan")), r"fl_x: wanted a finite number, got nan"),
    "focal length in words": (lambda d: d.update(fl_y="long"), r"fl_y: wanted a finite number, got 'long'"),
    "negative focal length": (lambda d: d.update(fl_x=-3.0), r"w, h, fl_x, fl_y: wanted positive numbers"),
    "half a pixel": (lambda d: d.update(w=W + 0.5), r"w, h, fl_x, fl_y: wanted positive numbers, w and h whole"),
    "one lens per frame": (
        lambda d: d["frames"][1].update(fl_x=3.0),
        r"frames\[1\].fl_x: wanted one lens .*`jsplat import`",
    ),
    "distortion": (lambda d: d.update(k1=0.1), r"k1: wanted 0, got 0.1; `jsplat import` undoes"),
    "a fisheye": (lambda d: d.update(camera_model="OPENCV_FISHEYE"), r"camera_model: wanted .*, got 'OPENCV_FISHEYE'"),
    "size mismatch": (lambda d: d.update(w=W + 2), r"frames\[0\].file_path: wanted 14x8 pixels, got 12x8"),
    "missing image": (
        lambda d: d["frames"][1].update(file_path="images/009.png"),
        r"frames\[1\].file_path: wanted an image, got no file 009.png",
    ),
    "no file name": (lambda d: d["frames"][1].pop("file_path"), r"frames\[1\].file_path: wanted a path inside"),
    "a path that climbs out": (
        lambda d: d["frames"][1].update(file_path="../ada/images/000.png"),
        r"frames\[1\].file_path: wanted a path inside the folder, got '../ada",
    ),
    "an absolute path": (
        lambda d: d["frames"][1].update(label_path="/etc/passwd"),
        r"frames\[1\].label_path: wanted a path inside the folder, got '/etc/passwd'",
    ),
    "missing label": (
        lambda d: d["frames"][2].update(label_path="labels/009.png"),
        r"frames\[2\].label_path: wanted an image, got no file 009.png",
    ),
    "labels for some": (lambda d: d["frames"][1].pop("label_path"), r"frames\[1\].label_path: wanted labels for all"),
    "labels without classes": (
        lambda d: (d.pop("labelset"), d.pop("classes")),
        r"transforms.json: classes: wanted a list of class names, as labels are given, got none",
    ),
    "unknown class name": (
        lambda d: (d.pop("labelset"), d["classes"].__setitem__(3, "beard")),
        r"transforms.json: classes: wanted the 19 names .* got unknown names \['beard'\]",
    ),
    "classes in another order": (
        lambda d: (d.pop("labelset"), d["classes"].reverse()),
        r"classes: wanted the 19 names .* got another order",
    ),
    "a broken label set": (lambda d: d["labelset"].pop("mirror"), r"transforms.json: labelset: wanted names, colors"),
    "a label set that is no object": (lambda d: d.update(labelset=3), r"transforms.json: labelset: wanted names"),
    "background of two numbers": (lambda d: d.update(background=[1, 2]), r"background: wanted three whole numbers"),
    "background out of range": (lambda d: d.update(background=[1, 2, 256]), r"background: wanted three whole numbers"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_transforms_say_which_field(folder, name):
    change, message = DAMAGES[name]
    edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        read_capture(folder)
    assert str(caught.value).startswith("ada/transforms.json: ")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def write(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


FILES = {  # name: (file, what happens to it, what the message must say)
    "truncated image": (
        "images/001.png",
        cut,
        r"frames\[1\].file_path: wanted a readable image, got 001.png.*cut off",
    ),
    "truncated label": (
        "labels/001.png",
        cut,
        r"frames\[1\].label_path: wanted a readable image, got 001.png.*cut off",
    ),
    "empty file": ("images/002.png", lambda p: p.write_bytes(b""), r"frames\[2\].file_path: .*got 002.png, 0 bytes"),
    "no image": ("images/002.png", lambda p: p.write_text("hello"), r"frames\[2\].file_path: wanted a readable image"),
    "image of another size": (
        "images/001.png",
        lambda p: write(p, np.zeros((H, W + 1, 3), np.uint8)),
        r"frames\[1\].file_path: wanted 12x8 pixels, got 13x8",
    ),
    "label of another size": (
        "labels/001.png",
        lambda p: write(p, np.ones((H + 1, W), np.uint8)),
        r"frames\[1\].label_path: wanted one 8-bit channel of 12x8 pixels, got 001.png, uint8 \(9, 12\)",
    ),
    "16-bit label": (
        "labels/000.png",
        lambda p: write(p, np.ones((H, W), np.uint16)),
        r"frames\[0\].label_path: wanted one 8-bit channel .* uint16",
    ),
    "coloured label": (
        "labels/000.png",
        lambda p: write(p, np.ones((H, W, 3), np.uint8)),
        r"frames\[0\].label_path: wanted one 8-bit channel .* \(8, 12, 3\)",
    ),
    "16-bit image": (
        "images/000.png",
        lambda p: write(p, np.ones((H, W, 3), np.uint16)),
        r"frames\[0\].file_path: wanted an 8-bit picture, .* uint16",
    ),
    "transparent image": (
        "images/000.png",
        lambda p: write(p, np.ones((H, W, 4), np.uint8)),
        r"frames\[0\].file_path: wanted .* without transparency, got 000.png, uint8 \(8, 12, 4\)",
    ),
    "unknown class": (
        "labels/002.png",
        lambda p: write(p, np.full((H, W), 19, np.uint8)),
        r"frames\[2\].label_path: wanted class ids below 19 or 255, got \[19\]",
    ),
    "empty mask": (
        "labels/002.png",
        lambda p: write(p, np.zeros((H, W), np.uint8)),
        r"frames\[2\].label_path: wanted a mask with some foreground, got an empty mask",
    ),
    "nothing but ignored": (
        "labels/002.png",
        lambda p: write(p, np.full((H, W), IGNORE, np.uint8)),
        r"frames\[2\].label_path: wanted a mask with some foreground, got an empty mask",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_pictures_say_which_file_and_field(folder, name):
    file, damage, message = FILES[name]
    damage(folder / file)
    with pytest.raises(InputError, match=message) as caught:
        read_capture(folder)
    assert str(caught.value).startswith("ada/transforms.json: ")


def test_a_truncated_jpeg_is_not_filled_with_grey(folder):
    picture = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    edit(folder, lambda d: d["frames"][0].update(file_path="images/000.jpg"))
    (folder / "images/000.jpg").write_bytes(data)
    assert read_capture(folder).images.shape == (3, H, W, 3)
    (folder / "images/000.jpg").write_bytes(data[:-30])
    with pytest.raises(InputError, match=r"frames\[0\].file_path: wanted a readable image, got 000.jpg.*cut off"):
        read_capture(folder)


def test_a_grey_photograph_is_read_as_rgb(folder):
    grey = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    write(folder / "images/000.png", grey)
    assert np.array_equal(read_capture(folder).images[0], np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"transforms.json: wanted JSON"),
        ("[]", r"transforms.json: wanted a JSON object, got list"),
        (b"\xff\xfe\x00", r"transforms.json: wanted text in UTF-8"),
    ],
)
def test_a_file_that_is_no_json_object(folder, text, message):
    (folder / "transforms.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_capture(folder)


def test_a_missing_transforms_file(tmp_path):
    with pytest.raises(InputError, match=r"transforms.json: wanted a readable file, got No such file"):
        read_capture(tmp_path)


def test_an_impossible_size(folder):
    with pytest.raises(InputError, match=r"read_capture: size: wanted at least 1 pixel, got 0"):
        read_capture(folder, size=0)


def test_what_the_format_cannot_say_is_not_written(tmp_path):
    capture = small_capture()
    lenses = np.asarray(capture.cameras.intrinsics) * np.asarray([1.0, 1.5, 1.0])[:, None, None]
    zoomed = Camera(capture.cameras.camera_from_world, jnp.asarray(lenses, jnp.float32), W, H)
    with pytest.raises(InputError, match=r"capture.cameras.intrinsics: wanted one lens for all views, got 2 different"):
        write_capture(tmp_path / "x", dataclasses.replace(capture, cameras=zoomed))
    with pytest.raises(InputError, match=r"capture.images: wanted at least 2 views, got 1"):
        write_capture(tmp_path / "x", small_capture(views=1))
    assert not list(tmp_path.iterdir())


def test_capture_folders(tmp_path):
    for name in ("eve", "ada"):
        write_capture(tmp_path / name, small_capture(name))
    assert [p.name for p in capture_folders(tmp_path)] == ["ada", "eve"]
    assert capture_folders(tmp_path / "eve") == [tmp_path / "eve"]
    with pytest.raises(
        InputError, match=re.escape(f"{tmp_path / 'nobody'}: wanted a capture (a folder with transforms.json)")
    ):
        capture_folders(tmp_path / "nobody")
