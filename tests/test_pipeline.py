"""Stages that leave nothing half done, and the whole loop on the smallest people."""

import dataclasses
import json
import math
import os
import re
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures.capture import read_capture, write_capture
from jsplat.captures.index import list_captures
from jsplat.cli import group
from jsplat.config import load
from jsplat.errors import InputError, Stopped, Unusable
from jsplat.files.ownership import DIGESTS, RECORDS
from jsplat.fitting import FitConfig
from jsplat.metrics.agreement import agreement
from jsplat.metrics.masks import score
from jsplat.pipeline import RunConfig, reporting, write_people
from jsplat.pipeline.packing import load_labelled
from jsplat.pipeline.parsers import open_parser
from jsplat.pipeline.plan import _student_captures
from jsplat.pipeline.work_folder import (
    checkpoint_folder,
    failures,
    fingerprint,
    finished,
    leaving_out,
    load_arrays,
    save_arrays,
    stage,
)
from jsplat.runtime.stop import STOP
from jsplat.synthetic import HeadsConfig
from jsplat.training_sets.auxiliary import concatenate, from_captures, read_auxiliary, write_auxiliary, write_parts
from jsplat.training_sets.reading import DatasetConfig
from tests import ball
from tests.tiny import SETTINGS

METHODS = ("teacher", "vote_plain", "plain_sharpened", "refined", "oracle", "control", "truth_student", "student")
BINS = {"0-15", "15-45", "45-75", "75-105", ">105", "steep", "side", "all"}
SCORES = {"f1", "f1_core", "miou", "miou_fg", "boundary_iou", "n"}
STAGES = ["parse", "fit", "label", "masks", "overlays", "render", "student", "truth_student", "control", "simulation"]


# A stage


def test_a_stage_appears_when_it_is_done(tmp_path):
    wanted = fingerprint({"a": 1})
    with stage(tmp_path / "fit", wanted, FitConfig(steps=3), 7, command="fit") as folder:
        (folder / "data").write_text("x")
        assert not (tmp_path / "fit").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    about = json.loads((tmp_path / "fit" / "run.json").read_text())
    assert about["config"]["steps"] == 3
    assert about["seed"] == 7
    assert {"fingerprint", "seconds", "commit", "device", "versions"} <= set(about)
    assert finished(tmp_path / "fit", wanted) == about["seconds"]


def test_a_stage_that_fails_keeps_what_was_there_and_what_it_has_done(tmp_path):
    def fill(wanted, text, *, fail=False):
        with stage(tmp_path / "fit", wanted, {}, 0, command="fit") as folder:
            before = sorted(p.name for p in folder.iterdir())
            checkpoint_folder(folder).mkdir(exist_ok=True)
            (folder / text).write_text(text)
            (folder / f".{text}.1.tmp").write_text("torn")
            if fail:
                raise KeyboardInterrupt
        return before

    old, new = "0" * 16, "1" * 16
    with pytest.raises(KeyboardInterrupt):
        fill(old, "half", fail=True)
    assert [p.name for p in tmp_path.iterdir()] == [f".fit.{old}"]
    assert "half" in fill(old, "whole"), "the second attempt starts from nothing"
    assert sorted(p.name for p in (tmp_path / "fit").iterdir()) == [".written.json", "half", "run.json", "whole"]
    (tmp_path / ".fit.note").write_text("somebody's own")
    with pytest.raises(KeyboardInterrupt):
        fill(new, "other", fail=True)
    assert (tmp_path / "fit" / "whole").read_text() == "whole"
    assert fill("2" * 16, "third") == ["run.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fit.note", "fit"], "attempts of other settings go too"


def test_an_identity_that_is_left_out_is_named_until_it_succeeds(tmp_path, capsys):
    assert failures(tmp_path) == {}
    with leaving_out(tmp_path, "bob"):
        raise Unusable("bob", wanted="light", got="darkness")
    assert failures(tmp_path) == {"bob": "bob: wanted light, got darkness"}
    assert "bob is left out: bob: wanted light, got darkness" in capsys.readouterr().err
    with leaving_out(tmp_path, "bob"):
        pass
    assert failures(tmp_path) == {}
    with pytest.raises(KeyError), leaving_out(tmp_path, "bob"):
        raise KeyError
    # Our own misuse of our own functions is nobody's bad data.
    with (
        pytest.raises(InputError, match="bob: rasterize: features: wanted 310 rows, got 300"),
        leaving_out(tmp_path, "bob"),
    ):
        raise InputError("rasterize: features", wanted="310 rows", got=300)
    assert failures(tmp_path) == {}


def test_a_damaged_run_json_is_none(tmp_path):
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "run.json").write_text("{")
    assert finished(tmp_path / "fit", fingerprint(1)) is None


# Parts of the loop that can be had without the whole


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_people_that_are_there_are_not_rendered_again(tmp_path, monkeypatch):
    module = sys.modules[write_people.__module__]
    config, rendered, real = RunConfig(heads=HeadsConfig(size=16, samples=1)), [], module.render_captures

    def render(identities, *args):
        rendered.extend(identities)
        return real(identities, *args)

    def render_until_killed(identities, *args):
        if identities[0] >= 2:
            raise KeyboardInterrupt
        return real(identities, *args)

    write_people(tmp_path / "whole", range(4), 2, "frontal", config)
    monkeypatch.setattr(module, "render_captures", render_until_killed)
    with pytest.raises(KeyboardInterrupt):
        write_people(tmp_path / "heads", range(4), 2, "frontal", config)
    (work,) = tmp_path.glob(".heads.*")
    torn = work / ".head0002.1.tmp" / "images"
    torn.mkdir(parents=True)
    (torn / "000.png").write_bytes(b"torn")
    finished_before = times(work / "head0000") | times(work / "head0001")
    monkeypatch.setattr(module, "render_captures", render)
    monkeypatch.setattr(module, "cores", lambda: 1)  # one after the other
    monkeypatch.setattr(STOP, "is_set", lambda: len(rendered) == 1)
    with pytest.raises(Stopped, match="stopped at person 3"):
        write_people(tmp_path / "heads", range(4), 2, "frontal", config)
    monkeypatch.undo()
    monkeypatch.setattr(module, "render_captures", render)
    write_people(tmp_path / "heads", range(4), 2, "frontal", config)
    assert rendered == [2, 3]
    assert times(tmp_path / "heads" / "head0000") | times(tmp_path / "heads" / "head0001") == finished_before
    got, want = contents(tmp_path / "heads"), contents(tmp_path / "whole")
    for name in RECORDS:
        assert len(want.pop(name, "")) > 0 or name == DIGESTS  # not of a folder that was made just now
        got.pop(name, None)
    assert got == want


def test_a_set_in_parts_is_the_set_in_one(tmp_path):
    """Photographs come first whatever the parts, and every file is the same."""
    people = [from_captures([ball.capture(name, np.arange(n) * 60.0)]) for name, n in (("a", 2), ("b", 4), ("c", 3))]
    renders = [dataclasses.replace(p, source=("render",) * len(p), images=p.images[::-1].copy()) for p in people]
    write_auxiliary(tmp_path / "one", concatenate([*people, *renders]))
    write_parts(tmp_path / "parts", (concatenate(list(pair)) for pair in zip(people, renders)), photos=9)
    assert len(contents(tmp_path / "one")) == 2 * 18 + 2
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")
    with pytest.raises(InputError, match="write_parts: parts: wanted 8 photographs, got 9"):
        write_parts(tmp_path / "bad", people, photos=8)
    with pytest.raises(InputError, match="write_parts: parts: wanted 0 photographs, got 0"):
        write_parts(tmp_path / "bad", [], photos=0)
    small = from_captures([ball.capture("d", [0.0, 60.0], size=16)])
    with pytest.raises(InputError, match=r"write_parts: d: wanted size and classes of the others, got 16x16 pixels, "):
        write_parts(tmp_path / "bad", [*people, small], photos=11)
    assert not (tmp_path / "bad").exists()


# The whole loop


def call(*args: object):
    result = CliRunner().invoke(cli.main, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """`jsplat demo` on two people."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "prepare", lambda: None)  # tests keep their devices, and write into no cache of the user
        path, settings = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("settings") / "config.toml"
        varied = SETTINGS.replace("fraction = 0.0", "fraction = 0.5")
        settings.write_text(f"procedural_people = 1\n{varied}")
        call("demo", path, "--config", settings)
        settings.rename(path / "config.toml")
        yield path


def times(folder):
    """When each file was written, but for what is remembered of the files that were read."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != DIGESTS]
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in files}


def touch(*folders):
    """Makes of every file what a copy without times is."""
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
        os.utime(path)


def test_the_report_has_the_documented_keys(out):
    report = json.loads((out / "run" / "report.json").read_text())
    assert list(report["stages"]) == STAGES
    assert all(seconds > 0 for seconds in report["stages"].values())
    assert {"psnr", "ssim"} <= set(report["fit"])
    assert {"ablation", "config", "commit", "device", "versions", "seed"} <= set(report)
    assert report["config"]["fit"]["steps"] == 4
    assert report["ablation"]
    pairs = [("student", b) for b in ("teacher", "truth_student", "control")]
    pairs += [("refined", b) for b in ("teacher", "plain_sharpened", "vote_plain")]
    assert list(dict.fromkeys((row["a"], row["b"]) for row in report["differences"])) == pairs
    for row in report["differences"]:
        of_a, of_b = (report[row[key]][row["group"]]["bins"][row["bin"]]["f1"] for key in "ab")
        assert row["difference"] == pytest.approx(of_a - of_b, abs=1e-12)  # a mean of differences, one of means
        assert (row["interval"], row["people"]) == (None, 2 if row["group"] == "test" else 1)
    assert report["people"]["test"] == {"all": 2, "scored": 2}
    parsers = {name for name in METHODS if report[name].pop("test", {}).get("bins", {}).get("all", {}).get("n") == 4}
    assert parsers == {"teacher", "student", "truth_student", "control"}
    for method in METHODS:
        assert set(report[method]) == {"fitted", "unseen"}
        for scores in report[method].values():
            assert {"bins", "classes", "f1_merged", "agreement"} <= set(scores)
            assert set(scores["bins"]) >= BINS
            assert scores["bins"]["all"]["n"] == 5
            for row in scores["bins"].values():
                assert set(row) >= SCORES
                shares = [row[key] for key in SCORES - {"n"} if row[key] is not None]
                assert all(0 <= fraction <= 1 and math.isfinite(fraction) for fraction in shares)
            assert all({"iou", "f1"} <= set(row) for row in scores["classes"].values())
    page = (out / "run" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "head0000" in page
    assert "<h2>Variants</h2>" in page
    beside = read_auxiliary(out / "run" / "render" / "procedural")
    assert (len(beside), set(beside.identity)) == (14, {"head5000"})
    assert json.loads((out / "run" / "student" / "run.json").read_text())["config"]["procedural_people"] == 1
    assert "procedural_people" not in json.loads((out / "run" / "truth_student" / "run.json").read_text())["config"]
    assert load_arrays(out / "run" / "student" / "seen_variants.npz")["images"].shape[1:] == (32, 32, 3)
    assert not (out / "run" / "truth_student" / "seen_variants.npz").exists(), (
        "true labels of photographs and renders alone"
    )
    for name in STAGES:
        assert json.loads((out / "run" / name / "run.json").read_text())["seconds"] == report["stages"][name]


def test_a_run_that_ends_with_its_renders_has_the_training_sets_of_all_students(out, tmp_path, monkeypatch):
    """Whoever goes on from there would else train on what is there, or not at all."""
    monkeypatch.setattr(group, "prepare", lambda: None)
    again = shutil.copytree(out / "run", tmp_path / "run")
    shutil.rmtree(again / "render")
    words = ("--captures", out / "captures", "--parser", out / "teacher", "--config", out / "config.toml")
    call("run", again, *words, "--until", "render")
    ended, whole = (
        {str(p.relative_to(of / "render")) for p in (of / "render").rglob("*")} for of in (again, out / "run")
    )
    assert ended == whole
    assert {"student", "truth_student", "procedural"} <= ended


def test_the_report_tells_what_all_pictures_together_score(out):
    report = json.loads((out / "run" / "report.json").read_text())
    config = load(RunConfig, out / "config.toml")
    people = [read_capture(out / "captures" / f"head000{i}", config.size) for i in range(2)]
    known = [load_labelled(out / "run" / "label", c.identity) for c in people]

    def scores(chosen, key):
        return score(
            np.concatenate([known[i][key] for i in chosen]),
            np.concatenate([people[i].labels for i in chosen]),
            np.concatenate([people[i].yaw for i in chosen]),
            np.concatenate([people[i].pitch for i in chosen]),
            tuple(people[i].identity for i in chosen for _ in people[i].images),
            people[0].labelset,
        )

    for method in ("vote_plain", "plain_sharpened", "refined", "oracle"):
        for i, name in enumerate(("fitted", "unseen")):
            across = agreement(known[i][method], known[i]["depth"], people[i].cameras)
            assert report[method][name] == scores([i], method) | {"agreement": across}, (method, name)
    bins = scores([0, 1], "oracle")["bins"]
    assert report["ablation"]["oracle, sharpened"]["f1_side"] == bins["side"]["f1"]
    palette = scores([0, 1], "palette")["bins"]["0-15"]["f1"]
    assert report["ablation"]["palette, k-means (ours)"]["f1_frontal"] == palette


def test_whom_nothing_can_be_scored_by_is_read_only_to_be_shown(out, monkeypatch):
    teacher, monkey = open_parser(out / "teacher"), "jsplat.pipeline.reporting.SHOWN"
    shown, gone = list_captures(out / "captures", 32, labels=False)
    monkeypatch.setattr("jsplat.pipeline.reporting.LOOKED_AT", 1)
    gone = dataclasses.replace(gone, path=out / "gone")
    monkeypatch.setattr(monkey, 1)
    counts, rows = reporting.count(out / "run", {"fitted": [shown, gone]}, {"teacher": teacher}, ())
    assert counts.scores()["refined"].keys() == {"fitted"}
    assert {row.title.split(",")[0] for row in rows} == {"head0000"}
    monkeypatch.setattr(monkey, 2)
    with pytest.raises(InputError, match="gone"):
        reporting.count(out / "run", {"fitted": [shown, gone]}, {"teacher": teacher}, ())


def test_a_training_set_that_memory_does_not_hold_is_refused_before_anything_is_done(out, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)
    people = list_captures(out / "captures", 32)
    assert _student_captures(people, RunConfig(student_people=1)) == people[:1]
    assert _student_captures([*people, *people[:1]], RunConfig(student_people=2)) == people[:2]
    small = RunConfig(size=32, dataset=DatasetConfig(max_gigabytes=1e-4))
    with pytest.raises(InputError, match=r"58 pictures: wanted at most 0\.0001 GB, got 0\.000238 GB"):
        _student_captures(people, small)
    words = ("--captures", out / "captures", "--parser", out / "teacher", "--set", "dataset.max_gigabytes=1e-5")
    args = [str(a) for a in ("run", tmp_path / "run", *words, "--config", out / "config.toml")]
    refused = CliRunner().invoke(cli.main, args)
    assert refused.exit_code == 1
    assert "`--set student_people=N` takes fewer people" in refused.output
    assert not list(tmp_path.iterdir())


def test_the_oracle_knows_more_than_the_untrained_teacher(out):
    report = json.loads((out / "run" / "report.json").read_text())
    oracle, refined = (report[m]["fitted"]["bins"]["all"]["f1"] for m in ("oracle", "refined"))
    assert oracle > refined + 0.1


def test_unseen_people_are_not_trained_on(out):
    for name in ("student", "truth_student"):
        assert set(read_auxiliary(out / "run" / "render" / name).identity) == {"head0000"}


def test_nothing_is_done_twice_whenever_its_files_were_written(out):
    touch(out / "captures", out / "frontal", out / "teacher", out / "run" / "render")
    before = times(out)
    result = call("demo", out, "--config", out / "config.toml")
    assert f"report: {out / 'run' / 'report.html'}" in result.output
    after = times(out)
    rewritten = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert rewritten <= {"run/report.json", "run/report.html", "run/events.jsonl", "run/.written.json"}


def test_a_dry_run_measures_every_stage_and_writes_nothing(out):
    before = times(out)
    run = ("run", out / "new", "--captures", out / "captures", "--config", out / "config.toml", "--dry-run")
    told = call(*run, "--parser", out / "teacher").output
    for name in (*STAGES[:-1], "report", "all of it"):
        assert re.search(rf"^  {name} +\d+", told, re.M), f"{name}: {told}"
    assert re.search(r"^memory of this host: fit .* GB, label .* GB, student .* GB; of", told, re.M)
    assert times(out) == before


@pytest.fixture(scope="module")
def lied_to(out):
    """The same photographs with garbage for labels, through the single commands."""
    random = np.random.default_rng(0)
    for path in sorted((out / "captures").glob("head*")):
        capture = read_capture(path)
        garbage = random.integers(0, 19, capture.labels.shape).astype(np.uint8)
        write_capture(out / "lies" / "captures" / path.name, dataclasses.replace(capture, labels=garbage))
    lies, config = out / "lies", ("--config", out / "config.toml")
    call("parse", out / "teacher", lies / "captures", lies / "parse", *config)
    call("fit", lies / "captures", lies / "fit", "--labels", lies / "parse", *config)
    call("label", lies / "captures", lies / "fit", lies / "parse", lies / "label", *config)
    call("render", lies / "captures", lies / "fit", lies / "label", lies / "render", *config)
    return lies


def test_truth_changes_no_bit_of_masks_or_training_data(out, lied_to):
    for name in ("head0000", "head0001"):
        got, want = (load_arrays(p / "label" / f"{name}.npz") for p in (lied_to, out / "run"))
        for key in ("refined", "vote_plain", "rows_refined", "confidence", "seen"):
            assert np.array_equal(got[key], want[key]), key
        assert not np.array_equal(got["oracle"], want["oracle"]), "the lies never arrived"
    got, want = read_auxiliary(lied_to / "render" / "set"), read_auxiliary(out / "run" / "render" / "student")
    own = np.asarray(got.identity) == "head0000"
    assert want.source == ("photo",) * 5 + ("render",) * 3
    for key in ("images", "labels", "weights", "yaw"):
        assert np.array_equal(getattr(got, key)[own], getattr(want, key)), key


def test_refined_masks_can_be_looked_at(lied_to):
    folder = lied_to / "label" / "head0000"
    assert len(list((folder / "labels").glob("*.png"))) == len(list((folder / "colors").glob("*.png"))) == 5


def test_labels_cost_the_oracle_of_whom_they_show(out, lied_to):
    """The first head gets its true labels back."""
    there = "captures", "head0000", "labels"
    shutil.copytree(out.joinpath(*there), lied_to.joinpath(*there), dirs_exist_ok=True)
    touch(lied_to)
    before, config = times(lied_to), ("--config", out / "config.toml")
    call("parse", out / "teacher", lied_to / "captures", lied_to / "parse", *config)
    call("fit", lied_to / "captures", lied_to / "fit", "--labels", lied_to / "parse", *config)
    assert times(lied_to) == before
    call("label", lied_to / "captures", lied_to / "fit", lied_to / "parse", lied_to / "label", *config)
    after = times(lied_to)
    changed = {name for name in before if before[name] != after[name] and name.endswith(".npz")}
    assert changed == {"label/head0000.npz"}
    got, want = (load_arrays(p / "label" / "head0000.npz") for p in (lied_to, out / "run"))
    assert np.array_equal(got["oracle"], want["oracle"])
    about = json.loads((lied_to / "label" / "run.json").read_text())
    assert (about["taken_over"], about["made"]) == (1, 1)


def test_a_changed_setting_runs_its_stage_again_and_no_other(out, lied_to):
    config = ("--config", out / "config.toml")
    changed = ("--set", "mask.alpha_gate=0.4")
    before = times(lied_to)
    call("fit", lied_to / "captures", lied_to / "fit", "--labels", lied_to / "parse", *config)
    assert times(lied_to) == before
    call("label", lied_to / "captures", lied_to / "fit", lied_to / "parse", lied_to / "label", *config, *changed)
    after = times(lied_to)
    assert {name.split("/")[0] for name in before if before[name] != after.get(name)} == {"label"}


def test_a_parser_is_scored(out):
    call("evaluate", out / "teacher", out / "captures", out / "scores", "--config", out / "config.toml")
    scores = json.loads((out / "scores" / "scores.json").read_text())
    assert scores["bins"]["all"]["n"] == 10
    assert set(scores["bins"]) >= BINS


def test_arrays_come_back(tmp_path):
    save_arrays(tmp_path / "a.npz", x=np.arange(3), y=np.float16([0.5]))
    got = load_arrays(tmp_path / "a.npz")
    assert set(got) == {"x", "y"}
    assert got["y"].dtype == np.float16
