"""Masks from elsewhere: what their labels mean, how they are found, and a run on them without a parser."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures import label_png
from jsplat.captures.capture import read_capture, write_capture
from jsplat.captures.index import list_captures
from jsplat.captures.pictures import write_png
from jsplat.cli import group
from jsplat.errors import InputError, Unusable
from jsplat.exchange import export_masks
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE
from jsplat.labelsets.vocabulary import BODIES, known_table, read_table
from jsplat.pipeline import reporting
from jsplat.pipeline.elsewhere import gather
from jsplat.pipeline.work_folder import load_arrays
from jsplat.training_sets.elsewhere import open_source
from tests import ball
from tests.tiny import TINY

COARSE = {"names": ["background", "all"], "means": {"all": ["left", "right"]}}


def names(ids, classes=CELEBAMASK_HQ):
    return [{classes.names[i] for i in of} for of in ids]


def test_every_known_table_says_what_its_labels_mean():
    for name, body in BODIES.items():
        ids = dict(zip(body.labelset.names, names(body.ids_in(CELEBAMASK_HQ, name))))
        face = ids.get("Face", ids.get("face-skin"))
        assert {"skin", "nose", "l_eye", "u_lip"} <= face, name
        assert "hair" in ids.get("Hair", ids.get("hair")), name
        assert not body.trusts_front(body.ids_in(CELEBAMASK_HQ, name), CELEBAMASK_HQ)
    lapa = known_table("lapa")
    ids = lapa.ids_in(CELEBAMASK_HQ, "lapa")
    told = dict(zip(lapa.labelset.names, names(ids)))
    assert told["skin"] == {"skin", "l_ear", "r_ear"}
    assert told["background"] == {"background", "neck", "neck_l", "cloth", "hat"}
    assert lapa.trusts_front(ids, CELEBAMASK_HQ)
    assert BODIES["lip"].labelset.colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_a_table_file_says_what_labels_mean():
    table = read_table(
        {"names": ["background", "brows", "head", "junk"], "means": {"head": ["skin", "nose"], "junk": None}}, "t"
    )
    assert names(table.ids_in(CELEBAMASK_HQ, "t")) == [{"background"}, {"l_brow", "r_brow"}, {"skin", "nose"}, set()]
    assert table.numbered
    for said, message in (
        ({"names": ["a"], "mean": {}}, "also mean"),
        ({"names": ["a"], "means": {"b": "skin"}}, "labels among a"),
        ([], "names of labels by number"),
        ({"names": ["a"], "frontal": "yes"}, "true or false"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(said, "t.json")
    with pytest.raises(InputError, match="a table file says so"):
        read_table({"names": ["background", "thing"]}, "t").ids_in(CELEBAMASK_HQ, "t")
    with pytest.raises(InputError, match="classes among background"):
        read_table({"names": ["x"], "means": {"x": "snout"}}, "t").ids_in(CELEBAMASK_HQ, "t")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two balls, all their masks, and coarse ones of one of them but for a picture."""
    path = tmp_path_factory.mktemp("elsewhere")
    known = {}
    for name in ("a", "b"):
        capture = ball.capture(name)
        write_capture(path / "captures" / name, capture)
        known |= {f"{name}/images/{i:03d}": mask for i, mask in enumerate(capture.labels)}
    export_masks(known, ball.SIDES, "indexed", path / "fine")
    for i, mask in enumerate(ball.capture("b").labels[1:], 1):
        write_png(path / "coarse" / "b" / f"{i:03d}.png", (mask > 0).astype(np.uint8))
    (path / "coarse" / "labels.json").write_text(json.dumps(COARSE))
    return path


def test_masks_are_found_by_the_names_of_pictures(folder):
    a, b = list_captures(folder / "captures", 32)
    fine, coarse = (open_source(str(folder / name)) for name in ("fine", "coarse"))
    assert all(fine.masks_of(a, alone=False))
    found = coarse.masks_of(b, alone=False)
    assert found[0] is None
    assert found[1].name == "001.png"
    capture = b.read()
    read = coarse.read(found, capture)
    assert (read[0] == IGNORE).all()
    assert ((read[1:] == 1) == (capture.labels[1:] > 0)).all()
    assert coarse.vocabulary.numbered
    alone = open_source(f"{folder / 'coarse' / 'b'}={folder / 'coarse' / 'labels.json'}")
    assert alone.masks_of(b, alone=True)[1] is not None
    assert alone.masks_of(b, alone=False)[1] is None


def test_what_cannot_be_used_is_said(folder, tmp_path):
    listed = list_captures(folder / "captures", 32)
    for given, message in (
        (str(tmp_path / "x"), "no such folder"),
        (f"{folder / 'coarse'}=nonsense", "one of celebamask-hq"),
        (str(folder / "captures" / "a" / "images"), "=TABLE"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(given)
    with pytest.raises(InputError, match="labels that are classes"):
        gather(None, [str(folder / "coarse")], listed)
    with pytest.raises(InputError, match="names of their own"):
        gather(None, [str(folder / "fine")] * 2, listed)
    with pytest.raises(InputError, match="--parser, --labels, or both"):
        gather(None, [], listed)
    tall = tmp_path / "tall" / "a"
    write_png(tall / "000.png", np.zeros((64, 32), np.uint8))
    (tmp_path / "tall" / "labels.json").write_text(json.dumps(COARSE))
    source = open_source(str(tmp_path / "tall"))
    with pytest.raises(Unusable, match=r"tall/a/000\.png: wanted the shape of its picture"):
        source.read(source.masks_of(listed[0], alone=False), listed[0].read())
    (tall / "000.png").write_bytes(label_png.encode(np.full((32, 32), 7, np.uint8), np.zeros((8, 3), np.uint8)))
    with pytest.raises(Unusable, match="class ids below 2"):
        source.read(source.masks_of(listed[0], alone=False), listed[0].read())


def test_a_run_on_masks_alone(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(group, "prepare", lambda: None)
    monkeypatch.setattr("jsplat.files.foreign._told", set())  # each thing is told once in a process
    sources = ("--labels", folder / "fine", "--labels", folder / "coarse")
    words = ("--captures", folder / "captures", "--config", TINY, "--set", "unseen=0")

    def call(*more):
        return CliRunner().invoke(cli.main, [str(a) for a in ("run", tmp_path / "run", *words, *more)])

    refused = call(*sources, "--until", "student")
    assert refused.exit_code == 1
    assert "a --parser, to be measured or taught" in refused.output
    done = call(*sources, "--until", "label")
    assert done.exit_code == 0, done.output
    told = refused.output + done.output + capfd.readouterr().err
    assert "has nothing of 1 people: a" in told
    assert "has no masks of 1 pictures: 1 of 8 of b" in told
    voters = json.loads((tmp_path / "run" / "parse" / "voters.json").read_text())
    assert [v["name"] for v in voters] == ["fine", "coarse"]
    assert (voters[1]["people"], voters[1]["pictures"], voters[1]["lacks_pictures"]) == (1, 7, 1)
    known = {name: load_arrays(tmp_path / "run" / "label" / f"{name}.npz") for name in "ab"}
    assert "belief" not in known["a"]
    assert known["b"]["belief"].shape == (2, 3)
    assert known["b"]["belief"][1, 1:].min() > 0.5
    truth = read_capture(folder / "captures" / "b", 32).labels
    solid = (known["b"]["refined"] > 0) & (truth > 0)
    assert solid.mean() > 0.1
    assert (known["b"]["refined"] == truth)[solid].mean() > 0.9
    listed = list_captures(folder / "captures", 32)
    fine, coarse = reporting.voters_of(tmp_path / "run", {"fitted": listed}, ball.SIDES)
    assert set(fine["believed"]) == set(coarse["believed"]) == {"left", "right"}
    again = call(*sources, "--until", "label")
    assert "== parse" not in again.output + capfd.readouterr().err
