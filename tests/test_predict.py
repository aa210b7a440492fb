"""A parser on anybody's pictures: any sizes, folders with anything in them, films."""

import json
import shutil
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jsplat import cli
from jsplat.captures import films, label_png
from jsplat.captures.films import frames_of, write_film
from jsplat.captures.pictures import AGAIN, read_image, write_png
from jsplat.captures.upright import read_upright
from jsplat.cli import group
from jsplat.errors import InputError
from jsplat.exchange import import_masks
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Architecture, any_size, new_parser, predict, predict_labels, save_parser
from jsplat.parser.any_size import labels_of_any_size
from jsplat.parser.resize import normalise
from jsplat.pipeline import predicting
from jsplat.pipeline.predicting import find_input, output_names

SIDE = 64
THREE = LabelSet(
    ("background", "left", "right"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)), ("background", "right", "left")
)
PARSER = new_parser(Architecture(18, 0.05, SIDE), THREE, seed=1)
NETWORK = jax.jit(lambda images: PARSER.network(images))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)


@pytest.fixture(scope="module")
def parser(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parser") / "parser"
    save_parser(path, PARSER)
    return path


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs of colour that look alike at any resolution."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def put(path: Path, image: np.ndarray) -> Path:
    write_png(path, image)
    return path


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def mask_of(path: Path) -> np.ndarray:
    return label_png.decode(path.read_bytes(), path.name).ids


# Sizes


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (50, 31), (90, 151)])
def test_pictures_of_one_size_get_what_predict_says(size, flip):
    """Whether they come as an array, as a list or one by one; also where they are no squares, smaller or larger."""
    images = np.stack([picture(*size, seed) for seed in range(3)])
    seen = predict(PARSER, images, 2, flip=flip)
    assert len(np.unique(seen.argmax(-1))) > 1
    # What the network sees is rounded to 8 bits where pictures are resized one by one.
    sure = np.ptp(np.sort(seen, -1)[..., -2:], -1) > (0 if size == (SIDE, SIDE) else 2e-3)
    assert sure.mean() > 0.9
    array, listed = (predict_labels(PARSER, x, 2, flip=flip) for x in (images, [*images]))
    assert isinstance(listed, list)
    for got in (array, np.stack(listed), np.stack([*labels_of_any_size(PARSER, images, 2, flip=flip)])):
        np.testing.assert_array_equal(got[sure], seen.argmax(-1)[sure])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (300, 520), (517, 301), (1, 1), (3, 700), (40, 23)])
def test_other_sizes_are_those_logits_in_their_own_pixels(height, width, flip):
    """Against a plain bilinear interpolation of what the network says of the square that it sees."""
    image = picture(height, width, 3)
    (got,) = labels_of_any_size(PARSER, [image], 1, flip=flip)
    assert got.shape == (height, width)
    square = any_size.in_square(image, SIDE)
    seen = [NETWORK(normalise(jnp.asarray(x[None], jnp.float32) / 255))[0] for x in _looks(square.pixels, flip)]
    native = [np.asarray(seen[0])] + [np.asarray(x)[:, ::-1, THREE.mirror_ids] for x in seen[1:]]
    n = native[0].shape[0]
    y, x = (
        (square.start[a] + (np.arange(square.size[a]) + 0.5) * square.content[a] / square.size[a] - 0.5)
        * (n - 1)
        / (SIDE - 1)
        for a in (0, 1)
    )
    both = np.mean([_softmax(_bilinear(logits, y.clip(0, n - 1), x.clip(0, n - 1))) for logits in native], 0)
    sure = np.ptp(np.sort(both, -1)[..., -2:], -1) > 1e-4  # else rounding decides
    np.testing.assert_array_equal(got[sure], both.argmax(-1)[sure])
    assert sure.mean() > 0.98


def _looks(square: np.ndarray, flip: bool) -> list[np.ndarray]:
    return [square, square[:, ::-1]] if flip else [square]


def _bilinear(logits: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    low = np.minimum(y.astype(int), len(logits) - 2)[:, None], np.minimum(x.astype(int), len(logits) - 2)[None]
    dy, dx = (y[:, None] - low[0])[..., None], (x[None] - low[1])[..., None]
    top = logits[low] * (1 - dx) + logits[low[0], low[1] + 1] * dx
    return top * (1 - dy) + (logits[low[0] + 1, low[1]] * (1 - dx) + logits[low[0] + 1, low[1] + 1] * dx) * dy


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_pictures_of_any_sizes_share_two_programs():
    any_size._logits.clear_cache()
    any_size._tile.clear_cache()
    sizes = [(64, 64), (65, 31), (300, 40), (40, 300), (7, 9), (600, 511), (64, 64)]
    masks = list(labels_of_any_size(PARSER, (picture(*size) for size in sizes), 3))
    assert [mask.shape for mask in masks] == sizes
    np.testing.assert_array_equal(masks[0], masks[-1])
    assert any_size._logits._cache_size() == any_size._tile._cache_size() == 1


def test_few_pictures_are_in_memory(monkeypatch):
    read = []

    def coming():
        for i in range(12):
            read.append(i)
            yield picture(64, 48, i)

    for done, _ in enumerate(labels_of_any_size(PARSER, coming(), 2)):
        assert len(read) <= done + 4
    monkeypatch.setattr(any_size, "MOST_PIXELS", 64 * 48)
    read.clear()
    next(labels_of_any_size(PARSER, coming(), 8))
    assert len(read) == 2, "large pictures come one at a time"


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_what_is_no_picture_is_named(image):
    with pytest.raises(InputError, match=r"labels_of_any_size: pictures: wanted uint8 of shape \(h, w, 3\)"):
        next(labels_of_any_size(PARSER, [image]))
    with pytest.raises(InputError, match="batch: wanted at least 1, got 0"):
        next(labels_of_any_size(PARSER, [], 0))


# Reading


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_pictures_stand_as_exif_says(tmp_path, orientation, ending):
    upright = picture(24, 40, 2)
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow's names of transpositions
    stored = Image.fromarray(upright)
    stored = stored if back is None else stored.transpose(Image.Transpose(back))
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if ending == "jpg" else {}))
    got = read_upright(path, "a")
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 2


def test_grey_deep_and_transparent_pictures_become_rgb(tmp_path):
    image = picture(8, 6)
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_upright(tmp_path / "deep.png", "x"), image)
    put(tmp_path / "grey.png", image[..., 0])
    np.testing.assert_array_equal(read_upright(tmp_path / "grey.png", "x"), np.repeat(image[..., :1], 3, -1))
    alpha = np.zeros((8, 6, 1), np.uint8)
    alpha[:4] = 255
    Image.fromarray(np.concatenate([image, alpha], -1)).save(tmp_path / "clear.png")
    got = read_upright(tmp_path / "clear.png", "x")
    np.testing.assert_array_equal(got[:4], image[:4])
    assert (got[4:] == 255).all()


# The command


def test_a_folder_with_subfolders_and_litter(parser, tmp_path):
    sizes = {"a.png": (50, 90), "sub/b.jpg": (90, 50), "sub/deep/c.PNG": (33, 33)}
    sizes |= {"two.jpg": (20, 30), "two.png": (30, 20)}
    photos = tmp_path / "photos"
    for name, size in sizes.items():
        put(photos / f"{name}.png", picture(*size)).rename(photos / name)
    for name in ("._a.png", ".hidden/x.png", "notes.txt", "__MACOSX/a.png", "Thumbs.db"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"\0\1")
    status, output = run("predict", parser, photos, tmp_path / "out")
    assert status == 0, output
    assert "photos: passed over 1 .txt" in output
    assert "pictures a second" in output
    out = tmp_path / "out"
    names = {"a": "a.png", "sub/b": "sub/b.jpg", "sub/deep/c": "sub/deep/c.PNG"}
    names |= {"two.jpg": "two.jpg", "two.png": "two.png"}
    for folder, ending in (("labels", "png"), ("overlays", "jpg")):
        found = {p.relative_to(out / folder).as_posix() for p in (out / folder).rglob(f"*.{ending}")}
        assert found == {f"{name}.{ending}" for name in names}
    masks = import_masks(out / "labels", THREE)
    for name, file in names.items():
        image = read_upright(photos / file, name)
        (wanted,) = labels_of_any_size(PARSER, [image], 1, flip=True)
        np.testing.assert_array_equal(masks[name], wanted)
        shown = read_image(out / "overlays" / f"{name}.jpg", name)
        assert shown.shape == image.shape
    background = masks["a"] == 0
    shown, photo = (read_upright(p, "a").astype(int) for p in (out / "overlays/a.jpg", photos / "a.png"))
    inner = cv2.erode(background.astype(np.uint8), np.ones((17, 17))) > 0
    assert inner.any()
    assert np.abs(shown - photo)[inner].mean() < 6, "background stays the photograph"
    about = json.loads((out / "run.json").read_text())
    assert about["command"] == "predict"
    looks = {"flip": True, "enlarge": 1.1, "input_size": SIDE}
    assert about["config"] == {"parser": str(parser), "input": str(photos), **looks}
    assert LabelSet.from_json(json.loads((out / "labelset.json").read_text())) == THREE
    before = (out / "labels/a.png").stat().st_mtime_ns
    status, output = run("predict", parser, photos, out)
    assert (status, "out: made before, of the same pictures and parser" in output) == (0, True)
    assert (out / "labels/a.png").stat().st_mtime_ns == before, "what is done is not done again"


def test_one_broken_picture_is_named_and_left_out(parser, tmp_path):
    put(tmp_path / "in/good.png", picture(30, 40))
    data = put(tmp_path / "in/sub/bad.png", picture(30, 40)).read_bytes()
    (tmp_path / "in/sub/bad.png").write_bytes(data[:-40])
    (tmp_path / "in/phone.heic").write_bytes(b"\0")
    for _ in range(2):  # the second time nothing is done
        status, output = run("predict", parser, tmp_path / "in", tmp_path / "out")
        assert status == 3
        assert "left out: 2 (phone.heic, sub/bad.png)" in output
    assert run("predict", parser, tmp_path / "in", tmp_path / "out", "--allow-failures", 2)[0] == 0
    assert [p.name for p in (tmp_path / "out/labels").rglob("*.*")] == ["good.png"]
    why = json.loads((tmp_path / "out/failed.json").read_text())
    assert (
        why["sub/bad.png"]
        == f"sub/bad.png: wanted a readable image, got bad.png, {len(data) - 40} bytes, cut off or damaged; {AGAIN}"
    )
    assert "heif-convert" in why["phone.heic"]


def test_what_a_killed_attempt_finished_stays(parser, tmp_path, monkeypatch):
    for i in range(3):
        put(tmp_path / f"in/{i}.png", picture(20, 30, i))
    monkeypatch.setattr(predicting, "AHEAD", 0)
    read, write = predicting.read_upright, predicting.write_bytes

    def killed(path, data):
        if path.name == "1.png":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(predicting, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        predicting.predict(parser, tmp_path / "in", tmp_path / "out", predicting.RunConfig())
    monkeypatch.setattr(predicting, "write_bytes", write)
    again = []
    monkeypatch.setattr(predicting, "read_upright", lambda path, where: again.append(where) or read(path, where))
    assert predicting.predict(parser, tmp_path / "in", tmp_path / "out", predicting.RunConfig()) == {}
    assert again == ["1.png", "2.png"]
    assert len(list((tmp_path / "out/labels").iterdir())) == 3


def test_only_new_and_changed_pictures_are_predicted(parser, tmp_path, monkeypatch):
    photos, out = tmp_path / "in", tmp_path / "out"
    for i in range(3):
        put(photos / f"{i}.png", picture(20, 30, i))
    assert run("predict", parser, photos, out)[0] == 0
    before = [(out / f"labels/{i}.png").stat().st_ino for i in range(3)]
    put(photos / "1.png", picture(20, 30, 7))
    put(photos / "3.png", picture(20, 30, 3))
    (photos / "2.png").unlink()
    status, output = run("predict", parser, photos, out)
    assert (status, "predict: 1 of 3 were made before, of the same pictures and parser" in output) == (0, True), output
    assert [(out / f"labels/{i}.png").stat().st_ino == before[i] for i in range(2)] == [True, False]
    (wanted,) = labels_of_any_size(PARSER, [picture(20, 30, 7)], 1, flip=True)
    np.testing.assert_array_equal(import_masks(out / "labels", THREE)["1"], wanted)
    for folder in ("labels", "overlays"):
        assert {p.stem for p in (out / folder).iterdir()} == {"0", "1", "3"}, (
            "of the picture that is gone nothing is left"
        )
    assert "made before" not in run("predict", parser, photos, out, "--set", "flip=false")[1], "another setting"


def test_an_overlay_too_long_for_jpeg_is_a_png(parser, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "LONGEST_JPEG", 40)
    put(tmp_path / "in/long.png", picture(20, 41))
    put(tmp_path / "in/short.v2.png", picture(20, 40))
    assert run("predict", parser, tmp_path / "in", tmp_path / "out")[0] == 0
    assert {p.name for p in (tmp_path / "out/overlays").iterdir()} == {"long.png", "short.v2.jpg"}
    shown = read_image(tmp_path / "out/overlays/long.png", "long")
    wanted = predicting._overlaid(picture(20, 41), mask_of(tmp_path / "out/labels/long.png"), THREE)
    np.testing.assert_array_equal(shown, wanted)


def test_a_parser_is_a_checkpoint_or_the_folder_that_holds_one(parser, tmp_path):
    put(tmp_path / "a.png", picture(30, 40))
    shutil.copytree(parser, tmp_path / "teacher/parser")  # as `train-parser` and `convert` write it
    assert run("predict", parser, tmp_path / "a.png", tmp_path / "one")[0] == 0
    assert run("predict", tmp_path / "teacher", tmp_path / "a.png", tmp_path / "two")[0] == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "one/labels/a.png"), mask_of(tmp_path / "two/labels/a.png"))


def test_one_picture_and_patterns(parser, tmp_path, monkeypatch):
    put(tmp_path / "in/a.png", picture(30, 40))
    put(tmp_path / "in/sub/b.png", picture(41, 30))
    put(tmp_path / "in/sub/c.png", picture(41, 30))
    assert run("predict", parser, tmp_path / "in/a.png", tmp_path / "one")[0] == 0
    assert mask_of(tmp_path / "one/labels/a.png").shape == (30, 40)
    assert run("predict", parser, tmp_path / "in/*/b.*", tmp_path / "two")[0] == 0
    assert [p.relative_to(tmp_path / "two").as_posix() for p in (tmp_path / "two").rglob("*.png")] == [
        "labels/sub/b.png"
    ]
    assert find_input(tmp_path / "in/**/*.png").pictures.keys() == {"a.png", "sub/b.png", "sub/c.png"}
    monkeypatch.chdir(tmp_path / "in")
    assert run("predict", parser, "*.png", "out")[0] == 0
    assert (tmp_path / "in/out/labels/a.png").is_file()


def test_names_of_results():
    assert output_names(["a.png", "b.c/d.jpg"]) == {"a.png": "a", "b.c/d.jpg": "b.c/d"}
    assert output_names(["x.jpg", "X.png"]) == {"x.jpg": "x.jpg", "X.png": "X.png"}
    with pytest.raises(InputError, match="wanted names that differ in more than case"):
        output_names(["x.jpg", "X.jpg"])


def test_bad_input_is_one_clear_error(parser, tmp_path):
    put(tmp_path / "in/a.png", picture(30, 40))
    (tmp_path / "empty").mkdir()
    (tmp_path / "films").mkdir()
    for name in ("films/a.mp4", "broken.mp4", "notes.txt", "broken.png"):
        (tmp_path / name).write_bytes(b"no picture" * 9)
    wanted = "wanted a picture, a folder of pictures, a pattern in quotes, or a video, got"
    for given, out, message in (
        ("empty", "out", f"empty: {wanted} no files"),
        ("films", "out", f"films: {wanted} 1 .mp4"),
        ("absent", "out", f"absent: {wanted} nothing there"),
        ("in/*.jpg", "out", f"in/*.jpg: {wanted} no files"),
        ("in", "in/out", "OUT: "),
        ("in/**/*.png", "in/out", "OUT: "),
        ("in/a.png", "in", "OUT: "),
        ("broken.mp4", "out", "broken.mp4: wanted a video that this OpenCV can decode, got 90 bytes"),
        ("notes.txt", "out", "notes.txt: wanted a picture in PNG"),
        ("broken.png", "out", "predict: wanted a picture that can be read, got broken.png: wanted a picture in PNG"),
    ):
        status, output = run("predict", parser, tmp_path / given, tmp_path / out)
        assert (status, message in output) == (1, True), (given, output)
    status, output = run("predict", tmp_path / "in", tmp_path / "in", tmp_path / "out")
    assert (status, "in: wanted a parser (parser.json, variables)" in output) == (1, True), output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x").touch()
    status, output = run("predict", parser, tmp_path / "in", tmp_path / "mine")
    assert (status, "got a folder with other files in it" in output) == (1, True), output


# Films


def test_a_video_gets_masks_by_frame_and_a_film(parser, tmp_path):
    frames = [picture(48, 65, i // 3) for i in range(11)]
    assert write_film(tmp_path / "talk.mp4", 12.0, frames) == 11
    status, output = run("predict", parser, tmp_path / "talk.mp4", tmp_path / "out")
    assert status == 0, output
    stored = list(frames_of(tmp_path / "talk.mp4"))
    assert stored[0].shape == (48, 66, 3), "one more column, as the format wants"
    assert np.abs(stored[4][:, :65].astype(int) - frames[4]).mean() < 8
    names = sorted(p.relative_to(tmp_path / "out/labels").as_posix() for p in (tmp_path / "out/labels").rglob("*.png"))
    assert names == [f"talk/{i:06d}.png" for i in range(11)]
    for i, wanted in enumerate(labels_of_any_size(PARSER, stored, 8, flip=True)):
        np.testing.assert_array_equal(mask_of(tmp_path / f"out/labels/talk/{i:06d}.png"), wanted)
    assert films.about_film(tmp_path / "out/overlays/talk.mp4") == (11, 12)
    shown = next(frames_of(tmp_path / "out/overlays/talk.mp4"))
    wanted = predicting._overlaid(stored[0], mask_of(tmp_path / "out/labels/talk/000000.png"), THREE)
    assert np.abs(shown.astype(int) - wanted).mean() < 12


def test_a_video_goes_on_where_a_kill_left_it(parser, tmp_path, monkeypatch):
    frames = [picture(48, 66, i // 2) for i in range(9)]
    write_film(tmp_path / "talk.mp4", 12.0, frames)
    predicting.predict(parser, tmp_path / "talk.mp4", tmp_path / "whole", predicting.RunConfig())
    write = predicting.write_bytes

    def killed(path, data):
        if path.name == "000005.png":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(predicting, "AHEAD", 0)
    monkeypatch.setattr(predicting, "write_bytes", killed)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predicting.predict(parser, tmp_path / "talk.mp4", out, predicting.RunConfig())
    monkeypatch.setattr(predicting, "write_bytes", write)
    (work,) = tmp_path.glob(".out.*/labels/talk")
    (work / "000002.png").write_bytes((work / "000002.png").read_bytes()[:60])  # as a machine that stops leaves it
    seen, labels = [], predicting.labels_of_any_size
    monkeypatch.setattr(
        predicting, "labels_of_any_size", lambda p, pictures, *_, **how: labels(p, _noted(pictures, seen), 8, **how)
    )
    assert predicting.predict(parser, tmp_path / "talk.mp4", out, predicting.RunConfig()) == {}
    assert len(seen) == 5, "frames 2 and 5 to 8"
    for file in ("labels/talk/000002.png", "labels/talk/000008.png", "overlays/talk.mp4"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not list(out.rglob(".*.tmp*"))
    assert [p.name for p in tmp_path.glob(".out*")] == []
    (tmp_path / "talk.mp4").unlink()
    write_film(tmp_path / "talk.mp4", 12.0, frames[:4])
    predicting.predict(parser, tmp_path / "talk.mp4", out, predicting.RunConfig())
    assert len(list((out / "labels/talk").iterdir())) == 4, "another video leaves nothing of the older one"


def _noted(pictures, seen: list):
    for one in pictures:
        seen.append(one)
        yield one


def test_a_video_whose_frames_change_size_keeps_them_all(tmp_path, capsys):
    sizes = [(48, 64), (32, 64), (64, 48)]
    assert write_film(tmp_path / "a.mp4", 12.0, [picture(*size) for size in sizes]) == 3
    assert [frame.shape for frame in frames_of(tmp_path / "a.mp4")] == [(48, 64, 3)] * 3
    assert "a.mp4: frames are scaled to 64x48, the size of the first" in capsys.readouterr().err


def test_a_video_that_ends_early_is_told(tmp_path, capsys, monkeypatch):
    write_film(tmp_path / "a.mp4", 12.0, [picture(48, 64)] * 3)
    monkeypatch.setattr(films, "about_film", lambda path: (9, 12.0))
    assert len(list(frames_of(tmp_path / "a.mp4"))) == 3
    assert "a.mp4: 3 of 9 frames can be decoded" in capsys.readouterr().err
    with pytest.raises(InputError, match="wanted at least one picture to film, got none"):
        write_film(tmp_path / "b.mp4", 12.0, [])
