"""Masks and scenes leave the pipeline and come back; public sets are looked at and scored."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from test_capture import small_capture
from test_exchange_ply import scene
from test_training_sets import labels_of, viewers_face

from jsplat import cli
from jsplat.captures.capture import read_capture, write_capture
from jsplat.cli import group
from jsplat.exchange import read_ply
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import save_scenes
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE
from jsplat.labelsets.tables import LAPA
from jsplat.metrics.masks import score
from jsplat.parser import Architecture, new_parser
from jsplat.pipeline import scoring
from jsplat.pipeline.work_folder import save_arrays
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.training_sets.reading import read_training_set

TINY = Architecture(18, 0.05, 32)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)


def call(*args: object) -> str:
    result = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refusal(*args: object) -> str:
    result = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert result.exit_code == 1, (result.output, result.exception)
    return result.output


@pytest.fixture
def captures(tmp_path) -> Path:
    for name in ("ada", "eve"):
        write_capture(tmp_path / "captures" / name, small_capture(name))
    return tmp_path / "captures"


@pytest.mark.parametrize("form", ["indexed", "cvat", "labelme", "coco"])
def test_masks_of_captures_come_back(captures, tmp_path, form):
    size = ("--set", f"size={max(small_capture('ada').images.shape[1:3])}")
    call("export-masks", captures, tmp_path / "masks.zip", "--format", form, *size)
    call("import-masks", tmp_path / "masks.zip", captures, tmp_path / "back", *size)
    for name in ("ada", "eve"):
        np.testing.assert_array_equal(read_capture(tmp_path / "back" / name).labels, small_capture(name).labels)


def test_masks_of_nobody_here_are_counted(captures, tmp_path, capfd):
    size = ("--set", f"size={max(small_capture('ada').images.shape[1:3])}")
    call("export-masks", captures, tmp_path / "of_two.zip", *size)
    output = call("import-masks", tmp_path / "of_two.zip", captures / "ada", tmp_path / "back", *size)
    line = f"of_two.zip: passed over {len(small_capture('eve').images)} masks of no view"
    assert line in output + capfd.readouterr().err


def test_refined_masks_leave_and_arrive_at_their_own_size(captures, tmp_path):
    labels = np.full((3, 4, 6), CELEBAMASK_HQ.id("nose"), np.uint8)
    (tmp_path / "label").mkdir()
    save_arrays(tmp_path / "label/ada.npz", refined=labels)
    write_json(tmp_path / "label/labelset.json", CELEBAMASK_HQ.to_json())
    call("export-masks", tmp_path / "label", tmp_path / "masks", "--format", "coco")
    text = refusal(
        "import-masks", tmp_path / "masks", captures / "ada", tmp_path / "out", "--labels", tmp_path / "label"
    )
    assert "masks: ada/000: wanted a mask of " in text
    assert "pixels, got 6x4; `--set size=6` reads captures so" in text
    save_arrays(tmp_path / "label/ada.npz", probabilities=labels)
    assert "wanted refined masks from `label`" in refusal("export-masks", tmp_path / "label", tmp_path / "x")


def test_scenes_become_splats(tmp_path):
    one = scene(4, 1, len(CELEBAMASK_HQ))
    parts = (one.gaussians.means, one.gaussians.quats, one.gaussians.log_scales, one.gaussians.logit_opacities)
    batch = Scene(
        Gaussians(*(jnp.stack([x, x + 1]) for x in parts)),
        Attributes(*(jnp.stack([x, x]) for x in (one.attributes.sh, one.attributes.label_logits))),
    )
    for folder in ("fit", "label"):
        (tmp_path / folder).mkdir()
    save_scenes(tmp_path / "fit", batch, ["ada", "eve"], CELEBAMASK_HQ)
    for name in ("ada", "eve"):
        save_arrays(tmp_path / f"label/{name}.npz", rows_refined=np.asarray(one.attributes.label_logits))
    write_json(tmp_path / "label/labelset.json", CELEBAMASK_HQ.to_json())
    call("export-splats", tmp_path / "fit", tmp_path / "out", "--labelled", tmp_path / "label")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.ply")) == [
        *("ada.ply", "ada_labels.ply", "eve.ply", "eve_labels.ply")
    ]
    eve, labels = read_ply(tmp_path / "out/eve.ply")
    np.testing.assert_array_equal(eve.gaussians.means, one.gaussians.means + 1)
    np.testing.assert_array_equal(labels.probabilities, one.attributes.label_logits)
    np.testing.assert_array_equal(read_ply(tmp_path / "out/eve_labels.ply")[1].ids, labels.ids)


def test_sides_are_told_even_when_they_are_wrong(tmp_path):
    labels_of(tmp_path / "good", "lapa", viewers_face())
    labels_of(tmp_path / "bad", "lapa", viewers_face()[:, ::-1].copy())
    assert call("check-sides", tmp_path / "good").startswith("subject (confidence ")
    output = call("check-sides", tmp_path / "bad")
    assert output.startswith("viewer (confidence ")
    assert "3 of 3 pictures tell" in output


def test_a_parser_is_scored_in_the_classes_of_the_set(tmp_path, monkeypatch):
    """The parser knows ears and glasses, LaPa does not: an ear is skin, glasses are no answer."""
    data = read_training_set(labels_of(tmp_path, "lapa", viewers_face()))
    seen = np.zeros((3, 8, 8), np.uint8)
    for name in LAPA.names:
        seen[data.labels == LAPA.id(name)] = CELEBAMASK_HQ.id(name)
    seen[:, 7, 1] = CELEBAMASK_HQ.id("l_ear")
    monkeypatch.setattr(scoring, "predict_labels", lambda parser, images: seen)

    parser = new_parser(TINY, CELEBAMASK_HQ, seed=0)
    scores = scoring.set_scores(parser, data)
    assert scores["bins"]["all"]["f1"] == 1.0
    seen[:, 7, 1] = CELEBAMASK_HQ.id("eye_g")
    skin = scoring.set_scores(parser, data)["classes"]["skin"]
    assert skin["iou"] == pytest.approx(1 - 1 / (data.labels[0] == LAPA.id("skin")).sum(), rel=1e-12)


def test_what_cannot_be_scored_is_a_dash():
    """A set without foreground, or a pose bin without a core class."""
    hat = {"f1": 0.5, "f1_core": None, "miou": 0.25, "n": 2}
    assert scoring.bin_lines({"0-15": hat, "15-45": hat | {"n": 0}}) == [
        "   0-15  f1 0.500  f1_core     -  miou 0.250  n 2"
    ]
    labels, yaw = np.full((1, 8, 8), IGNORE, np.uint8), np.zeros(1, np.float32)
    for label in (0, IGNORE):
        bins = score(labels * 0, labels * 0 + np.uint8(label), yaw, yaw, ("ada",), CELEBAMASK_HQ)["bins"]
        lines = scoring.bin_lines(json.loads(json.dumps(bins, allow_nan=False)))
        assert [line.split()[:3] for line in lines] == [["0-15", "f1", "-"], ["all", "f1", "-"]]
