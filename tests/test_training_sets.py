"""Public training sets, as their authors lay them out and damaged."""

import contextlib
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_capture import small_capture

from jsplat.captures import label_png
from jsplat.captures.capture import write_capture
from jsplat.captures.pictures import write_png
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE
from jsplat.labelsets.tables import FACESYNTHETICS, IBUGMASK_14, LAPA
from jsplat.metrics.masks import score
from jsplat.training_sets.auxiliary import from_captures, write_auxiliary
from jsplat.training_sets.reading import DatasetConfig, list_dataset, read_sample, read_training_set, with_labelset

ALL = DatasetConfig(split="all")


def photo(path: Path, size: tuple[int, int] = (8, 8), value: int = 90) -> None:
    write_png(path, np.full((size[1], size[0], 3), value, np.uint8))
    if path.suffix == ".jpg":
        path.write_bytes(cv2.imencode(".jpg", np.full((size[1], size[0], 3), value, np.uint8))[1].tobytes())


def face(left: str = "l", eyes: bool = True) -> np.ndarray:
    """8 x 8 in CelebAMask-HQ's ids, the person's left (`left`: what it is called) on the right of the picture."""
    ids = np.zeros((8, 8), np.uint8)
    ids[1:7, 1:7] = CELEBAMASK_HQ.id("skin")
    right = {"l": "r", "r": "l"}[left]
    if eyes:
        ids[2, 2], ids[2, 5] = CELEBAMASK_HQ.id(f"{right}_eye"), CELEBAMASK_HQ.id(f"{left}_eye")
    ids[4, 3:5] = CELEBAMASK_HQ.id("nose")
    return ids


def celebamask(root: Path, count: int = 3, left: str = "l") -> Path:
    for i in range(count):
        photo(root / f"CelebA-HQ-img/{i}.jpg", (16, 16), 40 * i)
        ids = face(left)
        for name in ("skin", "l_eye", "r_eye", "nose"):
            covered = ids > 0 if name == "skin" else ids == CELEBAMASK_HQ.id(name)
            part = np.repeat(covered[..., None], 3, 2).astype(np.uint8) * 255
            write_png(root / f"CelebAMask-HQ-mask-anno/0/{i:05d}_{name}.png", part)
    return root


def splits(root: Path, of: str = "021") -> None:
    rows = [f"{i}  {100 + i}  {100 + i:06d}.jpg" for i in range(len(of))]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx orig_idx orig_file", *rows]))
    (root / "list_eval_partition.txt").write_text("\n".join(f"{100 + i:06d}.jpg {s}" for i, s in enumerate(of)))


def labels_of(root: Path, kind: str, ids: np.ndarray, count: int = 3) -> Path:
    """A set with one label map per picture, all alike, as `kind` is laid out."""
    for i in range(count):
        for split in ("train", "test"):
            image, label = {
                "lapa": (f"{split}/images/{i}.jpg", f"{split}/labels/{i}.png"),
                "helen": (f"{split}/{i}_image.jpg", f"{split}/{i}_label.png"),
                "ibugmask": (f"{split}/{i}.jpg", f"{split}/{i}.png"),
                "facesynthetics": (f"{i:06d}.png", f"{i:06d}_seg.png"),
            }[kind]
            photo(root / image, ids.shape[::-1])
            write_png(root / label, ids)
    return root


def viewers_face(size: int = 8) -> np.ndarray:
    """A face in LaPa's ids."""
    ids = np.zeros((size, size), np.uint8)
    ids[2:, 1:7], ids[3, 2], ids[3, 5], ids[5, 3:5], ids[:2] = 1, 4, 5, 6, 10
    return ids


def test_celebamask_is_composed_of_its_parts(tmp_path):
    got = read_training_set(celebamask(tmp_path), None, ALL)
    np.testing.assert_array_equal(got.labels, [face()] * 3)
    assert got.images.shape == (3, 8, 8, 3)
    why = "JPEG, quality 95: a flat grey changes by at most one level"
    np.testing.assert_allclose(got.images[:, 4, 4, 0], [0, 40, 80], atol=1, err_msg=why)
    assert (got.identity, got.source) == (("0", "1", "2"), ("photo",) * 3)
    assert got.labelset == CELEBAMASK_HQ
    assert np.isnan(got.yaw).all()


@pytest.mark.parametrize(("composition", "top"), [("zllrunning", "neck_l"), ("official", "neck"), ("farl", "neck_l")])
def test_the_order_of_painting_decides_who_hides_whom(tmp_path, composition, top):
    """The official order paints the neck over the necklace, which is then gone from the benchmark."""
    celebamask(tmp_path, 1)
    for name in ("neck", "neck_l"):
        write_png(tmp_path / f"CelebAMask-HQ-mask-anno/0/00000_{name}.png", np.eye(8, dtype=np.uint8))
    got = read_training_set(tmp_path, None, DatasetConfig(split="all", composition=composition))
    assert got.labels[0, 0, 0] == CELEBAMASK_HQ.id(top)


def test_parts_are_on_wherever_they_are_not_black(tmp_path):
    """Annotations are found as RGB, grey and indexed pictures, with 255, 225 or 1 for on."""
    folder = celebamask(tmp_path, 1) / "CelebAMask-HQ-mask-anno/0"
    nose = (face() == CELEBAMASK_HQ.id("nose")).astype(np.uint8)
    palette = np.array([[0, 0, 0], [225, 225, 225]], np.uint8)
    for data in (nose, nose * 225, np.repeat(nose[..., None], 3, 2)):
        write_png(folder / "00000_nose.png", data)
        np.testing.assert_array_equal(read_training_set(tmp_path, None, ALL).labels[0], face())
    (folder / "00000_nose.png").write_bytes(label_png.encode(nose, palette))
    np.testing.assert_array_equal(read_training_set(tmp_path, None, ALL).labels[0], face())


def test_celebamask_splits_are_those_of_celeba(tmp_path):
    celebamask(tmp_path)
    with pytest.raises(InputError, match=r"list_eval_partition\.txt: wanted CelebA's .*, or dataset\.split=all"):
        read_training_set(tmp_path)
    splits(tmp_path)
    config = {s: DatasetConfig(split=s) for s in ("train", "val", "test")}
    assert {s: read_training_set(tmp_path, None, c).identity for s, c in config.items()} == {
        **{"train": ("0",), "val": ("2",), "test": ("1",)}
    }
    splits(tmp_path, "02")
    with pytest.raises(InputError, match=r"mapping\.txt: wanted a line for picture 2, got none"):
        read_training_set(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000100.jpg 3")
    with pytest.raises(InputError, match=r"partition\.txt: line 1: wanted FILE 0\|1\|2, got 000100\.jpg 3"):
        read_training_set(tmp_path)


def test_celebamask_poses(tmp_path):
    pose = celebamask(tmp_path) / "CelebAMask-HQ-pose-anno.txt"
    pose.write_text("3\nYaw Pitch Raw\n0.jpg -6.5 -1.25 9\n2.jpg 30 2 1\n")
    got = read_training_set(tmp_path, None, ALL)
    np.testing.assert_array_equal(got.yaw, [-6.5, math.nan, 30])
    np.testing.assert_array_equal(got.pitch, [-1.25, math.nan, 2])
    pose.write_text("3\nYaw Pitch Raw\n0.jpg -6.5\n")
    with pytest.raises(InputError, match=r"pose-anno\.txt: line 3: wanted a file and three angles, got 0\.jpg -6\.5"):
        read_training_set(tmp_path, None, ALL)
    pose.write_text("3\n")
    with pytest.raises(InputError, match=r"pose-anno\.txt: line 2: wanted a header with Yaw and Pitch"):
        read_training_set(tmp_path, None, ALL)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        (
            "00000_beard",
            np.ones((8, 8), np.uint8),
            r"0/00000_beard\.png: wanted NUMBER_PART.png with a part .* got 'b",
        ),
        ("eye", np.ones((8, 8), np.uint8), r"0/eye\.png: wanted NUMBER_PART.png"),
        (
            "00001_hair",
            np.ones((8, 9), np.uint8),
            r"1, 00001_hair\.png: wanted 8x8 pixels, as the other .* got 9x8",
        ),
        ("00001_hair", np.ones((8, 8), np.uint16), r": 1, 00001_hair\.png: wanted an 8-bit picture"),
        ("00009_hair", np.ones((8, 8), np.uint8), r"CelebA-HQ-img/9\.jpg: wanted an image, got no file 9\.jpg \("),
    ],
)
def test_damaged_parts_are_named(tmp_path, file, data, message):
    folder = celebamask(tmp_path) / "CelebAMask-HQ-mask-anno/0"
    (folder / f"{file}.png").write_bytes(cv2.imencode(".png", data)[1].tobytes())
    with pytest.raises(InputError, match=message):
        read_training_set(tmp_path, None, ALL)


def test_cut_and_missing_parts(tmp_path):
    folder = celebamask(tmp_path) / "CelebAMask-HQ-mask-anno/0"
    (folder / "00001_r_eye.png").unlink()
    assert CELEBAMASK_HQ.id("r_eye") not in read_training_set(tmp_path, None, ALL).labels[1]
    file = folder / "00001_nose.png"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"1, 00001_nose\.png: wanted a readable image, got .* cut off"):
        read_training_set(tmp_path, None, ALL)
    for part in folder.iterdir():
        part.unlink()
    with pytest.raises(InputError, match="mask-anno: wanted masks of pictures of split all, got none"):
        read_training_set(tmp_path, None, ALL)


@pytest.mark.parametrize("kind", ["lapa", "helen", "ibugmask"])
def test_viewer_side_sets_keep_their_ids_under_the_persons_names(tmp_path, kind):
    got = read_training_set(labels_of(tmp_path, kind, viewers_face()))
    np.testing.assert_array_equal(got.labels, [viewers_face()] * 3)
    assert got.labelset == LAPA
    assert got.identity[0].startswith("train/")
    assert len(read_training_set(tmp_path, None, ALL)) == 6
    assert len(read_training_set(tmp_path / "test")) == 3
    with pytest.raises(InputError, match="split: wanted one of train, test, all, got 'val'"):
        read_training_set(tmp_path, None, DatasetConfig(split="val"))
    other = read_training_set(tmp_path, None, DatasetConfig(labels="celebamask-hq"))
    assert other.labels[0, 3, [2, 5]].tolist() == [CELEBAMASK_HQ.id("r_eye"), CELEBAMASK_HQ.id("l_eye")]
    assert other.labels[0, 2, 0] == IGNORE  # LaPa's background may be a neck
    assert other.labelset == with_labelset(got, CELEBAMASK_HQ).labelset == CELEBAMASK_HQ


def test_ibugmask_with_fourteen_classes_is_asked_for(tmp_path):
    ids = viewers_face()
    ids[4, 0], ids[4, 7] = 11, 12
    labels_of(tmp_path, "ibugmask", ids)
    with pytest.raises(InputError, match=r"train/0, 0\.png: wanted class ids below 11 or 255, got \[11, 12\]"):
        read_training_set(tmp_path)
    assert read_training_set(tmp_path, None, DatasetConfig(kind="ibugmask-14")).labelset == IBUGMASK_14


def test_facesynthetics_with_its_ignored_pixels(tmp_path):
    ids = np.zeros((8, 8), np.uint8)
    ids[1:7, 1:7], ids[2, 2], ids[2, 5], ids[4, 3:5], ids[0, 0] = 1, 3, 4, 2, IGNORE
    got = read_training_set(labels_of(tmp_path, "facesynthetics", ids))
    assert got.labelset == FACESYNTHETICS
    np.testing.assert_array_equal(got.labels, [ids] * 3)
    assert got.identity == ("000000", "000001", "000002")
    (tmp_path / "000001_seg.png").unlink()
    with pytest.raises(
        InputError,
        match=r"000001\.png: wanted an image, got no file 000001_seg\.png \(1 of 3 .*dataset\.max_missing=0\.34`",
    ):
        read_training_set(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((8, 8), np.uint16), r"1\.png: wanted 8-bit class ids .* got 16 bits"),
        (np.zeros((8, 8, 3), np.uint8), r"1\.png: wanted 8-bit class ids .* got 8 bits a channel, RGB"),
        (
            np.zeros((8, 9), np.uint8),
            r"train/1, 1\.jpg: wanted picture and label .* got 8x8 for a 9x8",
        ),
        (np.full((8, 8), 11, np.uint8), r"1\.png: wanted class ids below 11 or 255, got \[11\]"),
    ],
)
def test_damaged_label_maps_are_named(tmp_path, data, message):
    file = labels_of(tmp_path, "lapa", viewers_face()) / "train/labels/1.png"
    file.write_bytes(cv2.imencode(".png", data)[1].tobytes())
    with pytest.raises(InputError, match=message):
        read_training_set(tmp_path)


def test_label_maps_with_a_palette_are_read_by_index(tmp_path):
    file = labels_of(tmp_path, "lapa", viewers_face()) / "train/labels/1.png"
    file.write_bytes(label_png.encode(viewers_face(), np.zeros((256, 3), np.uint8)))
    np.testing.assert_array_equal(read_training_set(tmp_path).labels[1], viewers_face())


def test_pictures_are_resized_and_padded_to_squares(tmp_path):
    """16 wide, 8 high, at 8: one half, with two rows of nothing above and below."""
    ids = np.repeat(np.repeat(viewers_face()[::2], 2, 0), 2, 1)
    listing = list_dataset(labels_of(tmp_path, "lapa", ids))
    image, labels = read_sample(listing.samples[0], listing, 8)
    np.testing.assert_array_equal(labels[2:6], ids[::2, ::2])
    assert (labels[[0, 1, 6, 7]] == IGNORE).all()
    assert (image[[0, 1, 6, 7]] == 0).all()
    assert (image[2:6] > 0).all()


def test_pictures_of_several_sizes_need_one(tmp_path):
    labels_of(tmp_path, "lapa", viewers_face())
    photo(tmp_path / "train/images/2.jpg", (10, 10))
    write_png(tmp_path / "train/labels/2.png", viewers_face(10))
    with pytest.raises(InputError, match=r"train/2: wanted 8x8 pixels, as the first, got 10x10; `--set size="):
        read_training_set(tmp_path)
    assert read_training_set(tmp_path, 6).images.shape == (3, 6, 6, 3)


def test_large_sets_are_read_in_part(tmp_path):
    labels_of(tmp_path, "lapa", viewers_face(), count=7)
    got = read_training_set(tmp_path, None, DatasetConfig(limit=3))
    assert got.identity == ("train/0", "train/2", "train/4")
    with pytest.raises(
        InputError, match=r"lapa: 7 pictures: wanted at most 1e-06 GB, got 0.0 GB; `--set dataset.limit="
    ):
        read_training_set(tmp_path, None, DatasetConfig(max_gigabytes=1e-6))


def test_sides_that_contradict_the_names_stop_the_reader(tmp_path):
    celebamask(tmp_path, left="r")
    with pytest.raises(InputError, match=r"celebamask-hq: sides: .*, got the opposite on 3 of 3"):
        read_training_set(tmp_path, None, ALL)
    got = read_training_set(tmp_path, None, DatasetConfig(split="all", sides="swapped"))
    np.testing.assert_array_equal(got.labels, [face()] * 3)
    assert got.labelset == CELEBAMASK_HQ
    read_training_set(tmp_path, None, DatasetConfig(split="all", side_checks=0))
    ids = viewers_face()[:, ::-1].copy()
    with pytest.raises(InputError, match="lapa: sides"):
        read_training_set(labels_of(tmp_path / "lapa", "lapa", ids))
    got = read_training_set(tmp_path / "lapa", None, DatasetConfig(sides="swapped"))
    assert [got.labelset.names[i] for i in got.labels[0, 3, [2, 5]]] == ["r_eye", "l_eye"]


def test_captures_and_auxiliary_sets_are_read_as_ever(tmp_path):
    write_capture(tmp_path / "captures/ada", small_capture("ada"))
    write_auxiliary(tmp_path / "aux", from_captures([small_capture("ada")]))
    for path in ("captures", "captures/ada", "aux"):
        assert read_training_set(tmp_path / path).identity == ("ada",) * 3
    (tmp_path / "empty").mkdir()
    labels_of(tmp_path / "lapa", "lapa", viewers_face())
    assert read_training_set(tmp_path / "lapa/train").labelset == LAPA
    (tmp_path / "lapa/train").rename(tmp_path / "lapa/photos")
    unnamed = r"photos/labels/0.png: wanted class names in its text or in labels.json, got none"
    with pytest.raises(InputError, match=unnamed):
        read_training_set(tmp_path / "lapa/photos")
    with pytest.raises(InputError, match=r"empty: wanted captures, .*, got none of them; `jsplat import`"):
        read_training_set(tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: wanted captures, .* got none of them"):
        list_dataset(tmp_path / "empty")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ade20k"}, r"dataset.kind: wanted one of auto, celebamask-hq, lapa, .*, got 'ade20k'"),
        ({"split": "dev"}, "dataset.split: wanted one of train, val, test, all, got 'dev'"),
        ({"labels": "voc"}, "dataset.labels: wanted one of own, celebamask-hq, .*, got 'voc'"),
        ({"sides": "left"}, "dataset.sides: wanted one of named, swapped, got 'left'"),
        ({"limit": -1}, "dataset.limit, side_checks, max_gigabytes: wanted >= 0, >= 0, > 0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        DatasetConfig(**changes)


def test_a_parser_is_scored_on_pictures_of_unknown_pose(tmp_path):
    data = read_training_set(labels_of(tmp_path, "lapa", viewers_face()))
    bins = score(data.labels, data.labels, data.yaw, data.pitch, data.identity, data.labelset)["bins"]
    assert {name: b["n"] for name, b in bins.items() if b["n"]} == {"all": 3}
    assert bins["all"]["f1"] == 1.0


@pytest.mark.parametrize("kind", ["celebamask-hq", "lapa", "helen", "ibugmask", "facesynthetics"])
@given(data=st.data())
def test_only_input_errors_escape(tmp_path_factory, kind, data):
    """Bytes of one file of a set are changed, or the file is gone."""
    root = tmp_path_factory.mktemp("fuzz")
    if kind == "celebamask-hq":
        splits(celebamask(root), "000")
        (root / "CelebAMask-HQ-pose-anno.txt").write_text("1\nYaw Pitch Raw\n0.jpg 1 2 3\n")
    else:
        labels_of(root, kind, viewers_face())
    file = data.draw(st.sampled_from(sorted(p for p in root.rglob("*") if p.is_file())))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    file.write_bytes(bytes(content))
    if data.draw(st.integers(0, 4)) == 0:
        file.unlink()
    with contextlib.suppress(InputError):
        read = read_training_set(root, data.draw(st.sampled_from([None, 5])), DatasetConfig(side_checks=0))
        read.labelset.check(read.labels, "fuzz")


def test_an_unknown_composition_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.composition: wanted one of zllrunning, official, farl, got 'best'"):
        read_training_set(celebamask(tmp_path), None, DatasetConfig(split="all", composition="best"))
