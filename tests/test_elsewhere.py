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
from jsplat.edit import EditConfig
from jsplat.errors import InputError, Unusable
from jsplat.exchange import export_masks
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE
from jsplat.labelsets.tables import LAPA
from jsplat.labelsets.vocabulary import BODIES, known_table, read_table
from jsplat.pipeline import editing, reporting
from jsplat.pipeline.elsewhere import gather
from jsplat.pipeline.work_folder import load_arrays
from jsplat.report import page
from jsplat.training_sets.elsewhere import open_source
from tests import ball
from tests.tiny import TINY

COARSE = {"names": ["background", "all"], "means": {"all": ["left", "right"]}}


def names(ids, classes=CELEBAMASK_HQ):
    return [{classes.names[i] for i in of} for of in ids]


def test_every_known_table_says_what_its_labels_mean():
    for name, body in BODIES.items():
        found = body.ids_in(CELEBAMASK_HQ, name)
        ids = dict(zip(body.labelset.names, names(found)))
        face = next(ids[label] for label in ("Face", "face-skin", "Face_Neck") if label in ids)
        assert {"skin", "nose", "l_eye", "l_ear", "ear_r"} <= face, name
        assert ids.get("Hair", ids.get("hair")) == {"hair"}, name
        assert not body.trusts_front(found, CELEBAMASK_HQ)
        body.ids_in(LAPA, name)  # also where the parser has fewer classes
    lapa = known_table("lapa")
    ids = lapa.ids_in(CELEBAMASK_HQ, "lapa")
    told = dict(zip(lapa.labelset.names, names(ids)))
    assert told["skin"] == {"skin", "l_ear", "r_ear", "ear_r", "eye_g"}
    assert told["l_eye"] == {"l_eye", "eye_g"}
    assert told["background"] == {"background", "neck", "neck_l", "cloth", "hat"}
    assert lapa.trusts_front(ids, CELEBAMASK_HQ)
    assert BODIES["lip"].labelset.colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_the_numbers_of_body_parsers():
    """Facts of the published sets: which number is what."""
    facts = {
        "lip": (20, {2: "hair", 4: "eye_g", 5: "cloth", 10: "cloth", 11: "cloth"}, 13),
        "cihp": (20, {1: "hat", 2: "hair", 5: "cloth", 7: "cloth", 10: "neck"}, 13),
        "atr": (18, {1: "hat", 2: "hair", 3: "eye_g", 4: "cloth", 7: "cloth", 17: "cloth"}, 11),
        "selfie": (6, {0: "background", 1: "hair", 2: "neck", 4: "cloth"}, 3),
        "sapiens": (28, {3: "hair", 21: "neck", 22: "cloth", 23: "l_lip", 24: "u_lip", 25: "mouth", 27: "mouth"}, 2),
    }
    assert facts.keys() == BODIES.keys()
    for name, (count, numbers, face) in facts.items():
        ids = names(BODIES[name].ids_in(CELEBAMASK_HQ, name))
        assert len(ids) == count
        assert {number: ids[number] & {meant} for number, meant in numbers.items()} == {
            number: {meant} for number, meant in numbers.items()
        }
        assert "skin" in ids[face]
        limbs = [
            of for label, of in zip(BODIES[name].labelset.names, ids) if label.lower().startswith(("left", "right"))
        ]
        assert limbs.count(set()) == len(limbs)


def test_classes_without_a_label_are_what_they_lie_on():
    def told(*labels, **means):
        table = read_table({"names": labels, "means": means}, "t")
        return dict(zip(labels, names(table.ids_in(CELEBAMASK_HQ, "t")))), table.presumed(CELEBAMASK_HQ, "t")

    ids, presumed = told("background", "hair")
    assert ids["hair"] == {"hair"}
    assert ids["background"] == set(CELEBAMASK_HQ.names) - {"hair", "hat", "neck", "neck_l", "cloth"}
    assert "not known what for neck, neck_l, cloth, hat" in presumed
    ids, _ = told("background", "hair", "skin", "neck", "ear", ear=["l_ear", "r_ear"])
    assert ids["skin"] >= {"skin", "nose", "mouth", "eye_g", "l_brow"}
    assert ids["neck"] == {"neck", "neck_l"}
    assert ids["ear"] == {"l_ear", "r_ear", "ear_r"}
    assert ids["background"] == {"background"}
    assert told(*CELEBAMASK_HQ.names)[1] == ""


def test_a_table_file_says_what_labels_mean():
    table = read_table(
        {"names": ["background", "brows", "head", "junk"], "means": {"head": ["skin", "nose"], "junk": None}}, "t"
    )
    background, brows, head, junk = names(table.ids_in(CELEBAMASK_HQ, "t"))
    assert (background, brows, junk) == ({"background"}, {"l_brow", "r_brow"}, set())
    assert head >= {"skin", "nose", "l_eye"}  # what lies on skin and has no label
    assert table.numbered is True
    for content, message in (
        ({"names": ["a"], "mean": {}}, "also mean"),
        ({"names": ["a"], "means": {"b": "skin"}}, "labels among a"),
        ([], "names of labels by number"),
        ({"names": ["a", "b"], "colors": [[0, 0, 0], [0, 0, 0]]}, "one of its own for every label"),
        ({"names": ["a"], "frontal": "yes"}, "true or false"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(content, "t.json")
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
    assert found[1].path.name == "001.png"
    capture = b.read()
    read = coarse.read(found, capture)
    assert (read[0] == IGNORE).all()
    assert ((read[1:] == 1) == (capture.labels[1:] > 0)).all()
    assert coarse.vocabulary.numbered is True
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


def test_black_and_white_masks_need_their_colours(folder, tmp_path):
    (b,) = [one for one in list_captures(folder / "captures", 32) if one.identity == "b"]
    mask = np.zeros((32, 32), np.uint8)
    mask[8:, 8:] = 255
    write_png(tmp_path / "m" / "000.png", mask)
    write_png(tmp_path / "m" / "001.png", np.zeros((32, 32), np.uint8))
    table = tmp_path / "t.json"
    table.write_text(json.dumps(COARSE))
    source = open_source(f"{tmp_path / 'm'}={table}")
    with pytest.raises(Unusable, match=r"m/000\.png: wanted numbers 0 and 1, got 0 and 255: black and white\?"):
        source.read(source.masks_of(b, alone=True), b.read())
    table.write_text(json.dumps(COARSE | {"colors": [[0, 0, 0], [255, 255, 255]]}))
    source = open_source(f"{tmp_path / 'm'}={table}")
    read = source.read(source.masks_of(b, alone=True), b.read())
    np.testing.assert_array_equal(read[0], mask == 255)
    assert (read[1] == 0).all()
    write_png(tmp_path / "m" / "000.png", (mask == 255).astype(np.uint8))  # numbers still do
    np.testing.assert_array_equal(source.read(source.masks_of(b, alone=True), b.read())[0], mask == 255)


def test_a_run_on_masks_alone(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(group, "prepare", lambda: None)
    monkeypatch.setattr("jsplat.files.foreign._logged", set())  # each thing is told once in a process
    sources = ("--labels", folder / "fine", "--labels", folder / "coarse")
    words = ("--captures", folder / "captures", "--config", TINY, "--set", "unseen=0")

    def call(*more):
        return CliRunner().invoke(cli.main, [str(a) for a in ("run", tmp_path / "run", *words, *more)])

    refused = call(*sources, "--until", "student")
    assert refused.exit_code == 1
    assert "a --parser, to be taught" in refused.output
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
    opened = editing.open_run(tmp_path / "run", folder / "captures", EditConfig())
    head = editing.ready(opened, "b", read_capture(folder / "captures" / "b", 32)).head
    assert [voice.confusion.shape[2] for voice in head.voices] == [3, 2]  # the editor hears both
    fine, coarse = reporting.voters_of(tmp_path / "run", {"fitted": listed}, ball.SIDES)
    assert set(fine["believed"]) == set(coarse["believed"]) == {"left", "right"}
    assert coarse["labels"] == {"background": ["background"], "all": ["left", "right"]}
    assert page._voters({"voters": [fine, coarse]}).count(" as all") == 2
    again = call(*sources, "--until", "label")
    assert "== parse" not in again.output + capfd.readouterr().err
