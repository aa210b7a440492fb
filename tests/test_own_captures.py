"""A stranger's way (docs/own_captures.md): photographs that COLMAP oriented, somebody's BiSeNet, no truth."""

import json
import lzma
import os
import re
import tempfile
from pathlib import Path

import jax
import layouts
import numpy as np
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures import label_png
from jsplat.captures.capture import read_capture
from jsplat.captures.own_pixels import own_pixels
from jsplat.captures.pictures import read_image
from jsplat.cli import group
from jsplat.edit import EditConfig
from jsplat.files.ownership import DIGESTS
from jsplat.labelsets.labelset import IGNORE
from jsplat.parser.weights.files import read_weights
from jsplat.pipeline.editing import open_run
from jsplat.pipeline.importing import foreign
from jsplat.pipeline.showing import TurntableConfig, turntable
from jsplat.pipeline.status import status
from jsplat.training_sets.auxiliary import read_auxiliary
from tests.tiny import TINY
from tests.torch_bytes import checkpoint

WEIGHTS = Path(__file__).parent / "golden" / "bisenet_zllrunning.pth.xz"
SOURCES = {"ada": 48, "bob": 36}  # rows of their pictures, of 48 columns each


def call(*words: object, code: int = 0):
    result = CliRunner().invoke(cli.main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def times(folder: Path) -> dict[str, int]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != DIGESTS]
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in files}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two people as COLMAP leaves them, a folder that is nothing, and a converted parser."""
    root = tmp_path_factory.mktemp("own")
    for name, height in SOURCES.items():
        rig = layouts.Rig(height=height, distortion=layouts.PARAMETERS["SIMPLE_RADIAL"], square=True)
        layouts.colmap(root / "photos" / name, rig, 3.0, "SIMPLE_RADIAL")
    (root / "photos" / "notes").mkdir()
    (root / "golden.pth").write_bytes(lzma.decompress(WEIGHTS.read_bytes()))
    state = {key: value.read() for key, value in read_weights(root / "golden.pth").tree.items()}
    # Of these pictures the random network sees three quarters as its class 15, the rest as 9: background and skin now.
    rows = [15, 9, *range(2, 9), 1, *range(10, 15), 0, 16, 17, 18]
    state["conv_out.conv_out.weight"] = state["conv_out.conv_out.weight"][rows]
    (root / "weights.pth").write_bytes(checkpoint(state))
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # nearly all of the time goes to the compiler
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "prepare", lambda: None)
        patch.setattr("jsplat.cli.convert.prepare", lambda: None)
        assert "none missing" in call("convert", root / "weights.pth", root / "parser", "--size", 32)
        yield root
    jax.config.update("jax_disable_most_optimizations", quick)


def run(place: Path, *words: object, code: int = 0) -> str:
    settings = ("--config", TINY, "--set", "unseen=none")
    parts = ("--captures", place / "photos", "--parser", place / "parser")
    return call("run", place / "out", *parts, *settings, *words, code=code)


@pytest.fixture(scope="module")
def labelled(place):
    """The run, ended after its labels; what it said."""
    return run(place, "--until", "label")


def test_a_run_imports_on_the_way_and_ends_where_it_was_asked_to(place, labelled):
    out = place / "out"
    assert "passed over folders that are no captures: 1 (notes)" in labelled
    assert f"label: {out / 'label'}" in labelled
    assert "WITHOUT REPLAY" not in labelled, "nobody was taught"
    assert sorted(p.name for p in (out / "captures").iterdir() if p.is_dir()) == [*SOURCES]
    assert [name for name, _ in status(out)] == ["parse", "fit", "label", "masks", "overlays"]
    assert all(found.startswith("done") for _, found in status(out))
    about = json.loads((out / "run.json").read_text())
    assert about["captures"] == str(out / "captures")
    assert about["imported_from"] == str(place / "photos")


def test_masks_have_the_names_and_the_pixels_of_the_photographs(place, labelled):
    assert "masks in own pixels: 10/10" in labelled
    for name in SOURCES:
        for own in own_pixels(place / "out" / "captures" / name):
            mask = label_png.decode((place / "out" / "masks" / name / f"{own.name}.png").read_bytes(), own.name)
            assert mask.ids.shape == own.read().shape[:2] == own.size[::-1] != (32, 32)
            shown = read_image(place / "out" / "overlays" / name / f"{own.name}.jpg", own.name)
            assert shown.shape[:2] == mask.ids.shape


def test_what_has_labels_is_opened_without_naming_the_captures(place, labelled):
    assert set(open_run(place / "out", None, EditConfig()).captures) == {*SOURCES}
    film = place / "turn.mp4"
    assert turntable(place / "out", film, TurntableConfig(seconds=0.05, size=16)) == 1


def test_a_dry_run_imports_for_itself_with_all_voters_and_leaves_nothing(place, labelled, tmp_path, monkeypatch):
    before = times(place)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    labels = ("--labels", place / "out" / "masks")
    parts = ("--captures", place / "photos", "--parser", place / "parser", "--config", TINY, "--set", "unseen=none")
    told = call("run", place / "new", *parts, *labels, "--until", "label", "--dry-run")
    assert "2 people, 5 pictures of 32x32, 5 pictures of 32x24" in told, told
    for name in ("parse", "fit", "label", "all of it"):
        assert re.search(rf"^  {name} +\d+", told, re.M), f"{name}: {told}"
    log = "out/events.jsonl"  # of this process, by the commands before
    assert times(place) | {log: 0} == before | {log: 0}
    assert not (place / "new").exists()
    assert not [*tmp_path.iterdir()], "what was imported is removed"


@pytest.fixture(scope="module")
def whole(place, labelled):
    """The run to its end, after every file of the sources got another time."""
    before = times(place / "out" / "captures")
    for path in (place / "photos").rglob("*"):
        os.utime(path)
    output = run(place)
    assert times(place / "out" / "captures") == before, "imported again"
    return output


def test_without_truth_a_student_is_trained_and_nothing_is_called_a_success(place, whole):
    out = place / "out"
    assert "run: WITHOUT REPLAY the student learns" in whole
    assert "parser does not say what it was trained on" in whole
    rows = dict(status(out))
    assert [*rows] == ["parse", "fit", "label", "masks", "overlays", "render", "student", "report"]
    assert "waiting" not in rows.values()
    report = json.loads((out / "report.json").read_text())
    assert [*report["stages"]] == ["parse", "fit", "label", "masks", "overlays", "render", "student"]
    assert report["people"] == {"fitted": {"all": 2, "scored": 0}, "unseen": {"all": 0, "scored": 0}}
    assert (out / "student" / "parser").is_dir()
    assert report["vote"]["people"] == 2
    assert report["vote"]["bins"]["all"]["n"] == 10
    assert set(report["findings"].values()) == {None}
    assert "Nothing was scored against a goal." in whole
    assert "Where two neighbouring views see one point" in whole
    page = (out / "report.html").read_text()
    for told in ("WITHOUT REPLAY", "What the vote changed", "Goals that could not be scored: gap closed;"):
        assert told in page, told
    assert " met." not in page
    assert "<span class=met>" not in page


def test_pictures_of_another_shape_are_taught_beside_the_others(place, whole):
    wide = read_capture(place / "out" / "captures" / "bob")
    with np.load(place / "out" / "label" / "bob.npz") as arrays:
        assert arrays["refined"].shape == wide.images.shape[:3] == (5, 24, 32)
    taught = read_auxiliary(place / "out" / "render" / "student")
    theirs = np.asarray(taught.identity) == "bob"
    photo = theirs & (np.asarray(taught.source) == "photo")
    assert np.array_equal(taught.images[photo][:, 4:-4], wide.images)
    assert (taught.labels[theirs][:, [0, 3, -4, -1]] == IGNORE).all()
    assert (taught.labels[~theirs] != IGNORE).any((1, 2)).all()


def test_a_source_that_changed_is_imported_again_and_no_other(place, whole):
    before = times(place / "out" / "captures")
    picture = sorted((place / "photos" / "bob" / "images").rglob("*.png"))[0]
    layouts.save(picture, 255 - layouts.Rig(height=SOURCES["bob"]).picture(0, 3.0))
    run(place, "--until", "parse")
    after = times(place / "out" / "captures")
    assert {name.split("/")[0] for name in after if after[name] != before.get(name)} == {"bob"}


def test_what_is_ours_is_used_as_it_is(place, labelled, tmp_path):
    assert foreign(place / "out" / "captures") == {}
    assert foreign(place / "out" / "captures" / "ada") == {}
    assert foreign(place / "photos" / "ada") == {"ada": place / "photos" / "ada"}
    assert [*foreign(place / "photos")] == [*SOURCES]
    assert foreign(layouts.nerfstudio(tmp_path / "eve", layouts.Rig())) == {"eve": tmp_path / "eve"}
