"""Whom a command leaves out: names that files cannot have, captures that cannot be read; and its exit status."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures.capture import write_capture
from jsplat.captures.identities import check_identity
from jsplat.captures.index import list_captures
from jsplat.cli import group
from jsplat.errors import InputError, Unusable, of_a_person
from jsplat.fitting import FailedIdentity, FitConfig, PendingIdentity, fit_batches
from jsplat.labels.opinions import Maps
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.parser import Architecture, new_parser, save_parser
from tests import ball

NAMES = {
    "x" * 201: "at most 200 bytes",
    "\u00e9" * 101: "at most 200 bytes",
    "\ud800": "at most 200 bytes",
    "a/b": "without slashes",
    "a\\b": "without slashes",
    "a:b": "without slashes",
    "a\nb": "without slashes",
    "..": "without slashes",
    "": "without slashes",
    ".hidden": "begins with no dot",
    "ada.": "ends with neither",
    " ada": "begins with no dot or space",
    "ada ": "ends with neither",
    "con": "Windows keeps",
    "NUL.x": "Windows keeps",
    "lpt1": "Windows keeps",
    "failed": "stages use",
    "Batches": "stages use",
    "labelset": "stages use",
    "run": "stages use",
    "student": "stages use",
    "scenes-0": "stages use",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_files_cannot_have_is_refused(name):
    with pytest.raises(InputError, match=f"here: wanted .*{NAMES[name]}"):
        check_identity(name, "here")


def test_other_names_are_taken():
    for name in (
        "x" * 200,
        "\u00e9" * 100,
        "ada.b",
        "1_neutral",
        "J\u00f6rg M\u00fcller",
        "contessa",
        "fitz",
        "runner",
        "com10",
    ):
        check_identity(name, "here")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three who can be used, and three who cannot."""
    root = tmp_path_factory.mktemp("people")
    for folder, identity in {"a": "ada", "b": "failed", "c": "ADA", "d": "dan", "e": "x" * 300, "f": "eve"}.items():
        write_capture(root / folder, ball.capture(identity, size=16))
    torn = root / "f" / "images" / "001.png"
    torn.write_bytes(torn.read_bytes()[:100])
    return root


LEFT = {"b": "another name (stages use", "c": "'ADA', as a has 'ada'", "e": "at most 200 bytes"}


def test_who_cannot_be_listed_stops_nobody_else(people, capsys):
    refused = {}
    assert [one.identity for one in list_captures(people, None, refused=refused)] == ["ada", "dan", "eve"]
    assert refused.keys() == LEFT.keys()
    log = capsys.readouterr().err
    assert all(LEFT[name] in why and f"{name} is left out: {why}" in log for name, why in refused.items())
    with pytest.raises(InputError, match=r"b/transforms.json: identity: wanted another name \(stages use this one\)"):
        list_captures(people, None)
    with pytest.raises(InputError, match="at most 200 bytes"):
        list_captures(people / "e", None, refused={})


def call(*words: object):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def parser(tmp_path, monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)
    monkeypatch.setattr(
        "jsplat.pipeline.stages.parse.opinions",
        lambda parser, images, **_: Maps(np.zeros(images.shape[:3], np.uint8), len(parser.labelset.names)),
    )
    save_parser(tmp_path / "parser", new_parser(Architecture(18, 0.05, 32), ball.SIDES, seed=0))
    return tmp_path / "parser"


def test_the_exit_status_says_whether_somebody_was_left_out(people, parser, tmp_path):
    words = ("parse", parser, people, tmp_path / "out", "--set", "size=16")
    for _ in range(2):  # done, and found to be done
        result = call(*words)
        assert result.exit_code == 3, result.output
        assert "left out: 4 (b, c, e, eve)\n  b: " in result.output
        assert result.output.count("\n  c: ") == 1
    assert call(*words, "--allow-failures", 3).exit_code == 3
    assert call(*words, "--allow-failures", 4).exit_code == 0
    assert call(*words, "--allow-failures", -1).exit_code == 2
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.npz")) == ["ada", "dan"]
    result = call("parse", parser, people / "a", tmp_path / "one", "--set", "size=16")
    assert result.exit_code == 0, result.output
    for lone in ("e", "f"):
        assert call("parse", parser, people / lone, tmp_path / "none", "--set", "size=16").exit_code == 1
    assert not (tmp_path / "none").exists()


def test_labels_that_the_parser_does_not_know_are_an_error_that_says_how_to_go_on(people, parser, tmp_path):
    save_parser(tmp_path / "other", new_parser(Architecture(18, 0.05, 32), CELEBAMASK_HQ, seed=0))
    words = ("run", tmp_path / "out", "--captures", people / "a", "--parser", tmp_path / "other", "--set", "unseen=0")
    assert "capture ada: classes: wanted those that are voted on (" in call(*words).output
    passed_over = call(*words, "--no-score", "--until", "parse")
    assert passed_over.exit_code == 0, passed_over.output
    assert f"parse: {tmp_path / 'out' / 'parse'}" in passed_over.output


def test_procedural_people_teach_only_their_own_classes(people, parser, tmp_path):
    words = ("run", tmp_path / "out", "--captures", people / "a", "--parser", parser, "--set", "procedural_people=2")
    output = call(*words, "--no-score", "--set", "unseen=0").output
    assert "procedural_people: wanted 0, where classes are not those of procedural people, got 2" in output
    assert not (tmp_path / "out" / "parse").exists()


def test_an_error_of_ours_is_no_reason_to_leave_somebody_out(people, parser, tmp_path, monkeypatch):
    def misused(*_, **__):
        raise InputError("rasterize: features", wanted="310 rows", got=300)

    monkeypatch.setattr("jsplat.pipeline.stages.parse.opinions", misused)
    result = call("parse", parser, people / "a", tmp_path / "out", "--set", "size=16", "--allow-failures", 9)
    assert result.exit_code == 1
    assert "Error: ada: rasterize: features: wanted 310 rows, got 300" in result.output
    assert "left out" not in result.output


def test_what_an_error_says_of_what_to_do_stays_with_it():
    error = InputError("fl_x", wanted="light", got="darkness", hint="light a candle")
    assert str(error.at("ada: fl_x")) == "ada: fl_x: wanted light, got darkness; light a candle"
    assert str(InputError(**error.parts)) == str(error)
    with pytest.raises(Unusable, match=r"; light a candle$"), of_a_person():
        raise error


def test_a_fit_leaves_out_whom_it_cannot_read_and_ends_on_other_errors():
    def read(error):
        raise error

    def lost(error):
        return [PendingIdentity("ada", (8, 16, 16), lambda: read(error))]

    (found,) = fit_batches(lost(InputError("ada", wanted="light", got="darkness")), ball.SIDES, FitConfig(steps=2))
    assert isinstance(found, FailedIdentity)
    with pytest.raises(ZeroDivisionError):
        list(fit_batches(lost(ZeroDivisionError()), ball.SIDES, FitConfig(steps=2)))


def test_commands_that_may_leave_somebody_out_say_how_many_are_allowed():
    allowing = {n for n, c in cli.main.commands.items() if "--allow-failures" in [o for p in c.params for o in p.opts]}
    assert allowing == {"parse", "predict", "fit", "label", "render", "evaluate", "run", "demo"}


def test_a_header_that_is_no_json_is_one_persons(people, tmp_path):
    write_capture(tmp_path / "ada", ball.capture("ada", size=16))
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "transforms.json").write_text(json.dumps({"frames": []}))
    refused = {}
    assert [one.identity for one in list_captures(tmp_path, None, refused=refused)] == ["ada"]
    assert "wanted a list of at least 2 views" in refused["bob"]
