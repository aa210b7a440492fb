"""Scores on plain folders: pictures and masks paired by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_predict import PARSER, SIDE, THREE, parser, picture, put, run

from jsplat.captures import label_png
from jsplat.cli import group
from jsplat.errors import InputError
from jsplat.exchange import export_masks
from jsplat.files.atomic import write_json
from jsplat.labelsets.labelset import IGNORE
from jsplat.metrics.masks import BINS
from jsplat.parser import predict_labels
from jsplat.training_sets.auxiliary import AuxiliarySet, write_auxiliary
from jsplat.training_sets.reading import DatasetConfig, read_training_set

__all__ = ["parser"]  # a fixture


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)


@pytest.fixture
def labelled() -> AuxiliarySet:
    images = np.stack([picture(SIDE, SIDE, seed) for seed in range(4)])
    labels = predict_labels(PARSER, images)
    labels[:, :20] = 1
    labels[:, -3:] = IGNORE
    n = len(images)
    names = tuple(f"p{i}" for i in range(n))
    nothing = np.full(n, np.nan, np.float32)
    return AuxiliarySet(images, labels, np.ones(n, np.float32), names, nothing, nothing, ("photo",) * n, THREE)


def plain(root: Path, data: AuxiliarySet, flat: bool = False) -> Path:
    images, labels = (root, root) if flat else (root / "images", root / "labels")
    for name, image in zip(data.identity, data.images):
        put(images / f"{name}.png", image)
        if flat:
            Image.fromarray(image).save(images / f"{name}.tif")
            (images / f"{name}.png").unlink()
    export_masks(dict(zip(data.identity, data.labels)), THREE, "indexed", root / "masks")
    labels.mkdir(exist_ok=True)
    for file in (root / "masks").iterdir():
        shutil.move(file, labels / file.name)
    (root / "masks").rmdir()
    return root


def scores(parser: Path, data: Path, out: Path) -> tuple[dict, str]:
    status, output = run("evaluate", parser, data, out, "--set", f"size={SIDE}", "--set", "dataset.side_checks=0")
    assert status == 0, output
    return json.loads((out / "scores.json").read_text()), output


@pytest.mark.parametrize("flat", [False, True])
def test_a_plain_folder_scores_as_the_auxiliary_set_does(parser, labelled, tmp_path, flat):
    known = AuxiliarySet(**{**vars(labelled), "yaw": np.zeros(4, np.float32), "pitch": np.zeros(4, np.float32)})
    write_auxiliary(tmp_path / "aux", known)
    wanted, _ = scores(parser, tmp_path / "aux", tmp_path / "scores")
    got, output = scores(parser, plain(tmp_path / "plain", labelled, flat), tmp_path / "other")
    assert got["bins"]["all"] == wanted["bins"]["all"]
    assert 0 < got["bins"]["all"]["f1"] < 1
    assert got["classes"] == wanted["classes"]
    assert {name: got["bins"][name]["n"] for name in BINS} == {name: 4 if name == "all" else 0 for name in BINS}
    assert output.splitlines()[-1].startswith("    all  f1 ")


def test_names_and_colours_decide_in_plain_folders(labelled, tmp_path):
    def read(root: Path) -> np.ndarray:
        return read_training_set(root, None, DatasetConfig(side_checks=0)).labels

    root = plain(tmp_path / "plain", labelled)
    np.testing.assert_array_equal(read(root), labelled.labels)
    first = root / "labels/p0.png"
    stored = label_png.decode(first.read_bytes(), "p0")
    first.write_bytes(label_png.encode(stored.ids, stored.palette))  # without its names: labels.json knows them
    Image.fromarray(THREE.colorize(labelled.labels[1])).save(root / "labels/p1.png")  # colours instead of numbers
    put(root / "labels/p2.png", labelled.labels[2])  # bare ids, of what labels.json says
    np.testing.assert_array_equal(read(root), labelled.labels)
    (root / "labels/labels.json").unlink()
    with pytest.raises(
        InputError, match=r"plain/labels/p0\.png: wanted class names in its text or in labels\.json, got none"
    ):
        read(root)
    write_json(root / "labelset.json", THREE.to_json())
    np.testing.assert_array_equal(read(root), labelled.labels)
    (root / "labels/p3.png").unlink()
    with pytest.raises(InputError, match=r"images/p3\.png: wanted an image, got no file p3\.png \(1 of 4"):
        read(root)


def test_masks_of_predict_are_a_plain_folder(parser, labelled, tmp_path):
    for name, image in zip(labelled.identity, labelled.images):
        put(tmp_path / f"images/sub/{name}.png", image)
    run("predict", parser, tmp_path / "images", tmp_path / "out", "--set", "flip=false")
    shutil.copytree(tmp_path / "images", tmp_path / "set/images")
    shutil.copytree(tmp_path / "out/labels", tmp_path / "set/labels")
    got, _ = scores(parser, tmp_path / "set", tmp_path / "scores")
    assert got["bins"]["all"]["miou"] == 1.0


def evaluated(parser: Path, data: Path, out: Path, *options: object) -> tuple[int, dict]:
    status, output = run("evaluate", parser, data, out, "--set", "dataset.side_checks=0", *options)
    assert status in (0, 3), output
    return status, json.loads((out / "scores.json").read_text())


def test_pictures_of_any_sizes_are_scored_in_their_masks_pixels(parser, tmp_path):
    """Masks of the parser's own opinion are all right, whatever their size and their picture's kind."""
    root, sizes = tmp_path / "set", {"a": (90, 151), "b": (64, 64), "c": (200, 40)}
    images = {name: picture(*size, seed) for seed, (name, size) in enumerate(sizes.items())}
    masks = dict(zip(images, predict_labels(PARSER, [*images.values()])))
    export_masks(masks, THREE, "indexed", root / "labels")
    (root / "images").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(root / f"images/{name}.webp", lossless=True)
    status, got = evaluated(parser, root, tmp_path / "scores")
    assert (status, got["bins"]["all"]["miou"], got["bins"]["all"]["n"]) == (0, 1.0, 3)
    Image.fromarray(np.repeat(np.repeat(images["a"], 2, 0), 2, 1)).save(root / "images/a.webp", lossless=True)
    status, got = evaluated(parser, root, tmp_path / "larger")
    assert (status, got["bins"]["all"]["n"]) == (0, 3)
    assert got["bins"]["all"]["miou"] > 0.97, "a picture of twice the size"
    (root / "images/b.webp").write_bytes(b"RIFF")
    Image.fromarray(images["c"][:100]).save(root / "images/c.webp", lossless=True)
    status, got = evaluated(parser, root, tmp_path / "fewer")
    assert (status, got["bins"]["all"]["n"]) == (3, 1)
    why = json.loads((tmp_path / "fewer/failed.json").read_text())
    assert "damaged" in why["b"]
    assert "wanted picture and label map of one shape, got 40x100 for a 40x200 label map" in why["c"]
    status, output = run(
        "evaluate", parser, root, tmp_path / "fewer", "--allow-failures", 2, "--set", "dataset.side_checks=0"
    )
    assert (status, "pictures: 1" in output) == (0, True)


def test_a_table_says_what_masks_mean(parser, labelled, tmp_path):
    root = plain(tmp_path / "plain", labelled)
    wanted = evaluated(parser, root, tmp_path / "wanted")[1]
    (root / "labels/labels.json").unlink()
    for name, ids in zip(labelled.identity, labelled.labels):
        put(root / f"labels/{name}.png", np.where(ids == IGNORE, 3, ids).astype(np.uint8))
    status, output = run("evaluate", parser, root, tmp_path / "out")
    assert (status, "`--set dataset.table=TABLE` says them: a JSON file, or one of celebamask-hq" in output) == (
        1,
        True,
    )
    table = {"names": ["background", "left", "right", "smoke"], "means": {"smoke": None}}
    write_json(tmp_path / "table.json", table)
    told = ("--set", f"dataset.table={tmp_path / 'table.json'}")
    got = evaluated(parser, root, tmp_path / "by file", *told)[1]
    assert got["bins"]["all"]["f1"] == wanted["bins"]["all"]["f1"]
    write_json(root / "labels.json", table)
    assert evaluated(parser, root, tmp_path / "beside")[1] == got
    # One label of both sides: wrong sides are right.
    write_json(tmp_path / "table.json", {**table, "means": {"smoke": None, "left": ["left", "right"], "right": None}})
    coarse = evaluated(parser, root, tmp_path / "coarse", *told)[1]["classes"]
    assert coarse["right"]["f1"] is None
    assert coarse["left"]["f1"] != wanted["classes"]["left"]["f1"]
    write_json(tmp_path / "table.json", {"names": ["background", "hair", "face", "smoke"]})
    status, output = run("evaluate", parser, root, tmp_path / "out", *told)
    assert status == 1
    assert "what background, hair, face, smoke do not name, got left, right; a table with `means` says" in output
    status, output = run("evaluate", parser, root, tmp_path / "out", "--set", "dataset.table=mine")
    assert (status, "table: wanted a table file, or one of celebamask-hq" in output) == (1, True)


def test_sides_are_read_off_the_names_of_a_table(labelled, tmp_path):
    root = plain(tmp_path / "plain", labelled)
    write_json(root / "labels/labels.json", {"names": ["background", "l_eye", "r_eye"]})
    for name in labelled.identity:
        put(root / f"labels/{name}.png", np.zeros((SIDE, SIDE), np.uint8))
    read = read_training_set(root, None, DatasetConfig(side_checks=0))
    assert read.labelset.mirror == (
        "background",
        "r_eye",
        "l_eye",
    )
