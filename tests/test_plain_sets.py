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


def plain(root: Path, data: AuxiliarySet, beside: bool = False) -> Path:
    images, labels = (root, root) if beside else (root / "images", root / "labels")
    for name, image in zip(data.identity, data.images):
        put(images / f"{name}.png", image)
        if beside:
            Image.fromarray(image).save(images / f"{name}.tif")
            (images / f"{name}.png").unlink()
    export_masks(dict(zip(data.identity, data.labels)), THREE, "indexed", root / "masks")
    labels.mkdir(exist_ok=True)
    for file in (root / "masks").iterdir():
        shutil.move(file, labels / file.name)
    (root / "masks").rmdir()
    return root


def scores(parser: Path, data: Path, out: Path) -> tuple[dict, str]:
    status, said = run("evaluate", parser, data, out, "--set", f"size={SIDE}", "--set", "dataset.side_checks=0")
    assert status == 0, said
    return json.loads((out / "scores.json").read_text()), said


@pytest.mark.parametrize("beside", [False, True])
def test_a_plain_folder_scores_as_the_auxiliary_set_does(parser, labelled, tmp_path, beside):
    known = AuxiliarySet(**{**vars(labelled), "yaw": np.zeros(4, np.float32), "pitch": np.zeros(4, np.float32)})
    write_auxiliary(tmp_path / "aux", known)
    wanted, _ = scores(parser, tmp_path / "aux", tmp_path / "scores")
    got, said = scores(parser, plain(tmp_path / "plain", labelled, beside), tmp_path / "other")
    assert got["bins"]["all"] == wanted["bins"]["all"]
    assert 0 < got["bins"]["all"]["f1"] < 1
    assert got["classes"] == wanted["classes"]
    assert {name: got["bins"][name]["n"] for name in BINS} == {name: 4 if name == "all" else 0 for name in BINS}
    assert said.splitlines()[-1].startswith("    all  f1 ")


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
