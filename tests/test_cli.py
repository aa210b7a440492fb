"""The command line: help with examples, settings, and bad input in one line."""

import shlex

import click
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures.capture import write_capture
from jsplat.cli import group
from jsplat.files.atomic import write_json
from tests import ball

SETTINGS = {"heads", "train-parser", "parse", "predict", "fit", "label", "render", "evaluate", "run", "demo", "import"}
SETTINGS |= {"edit", "export-masks", "import-masks", "ply", "sides"}
COMMANDS = SETTINGS | {"status", "convert", "export", "study", "study-results", "turntable", "view"}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """The number of devices cannot change once JAX runs, and no test writes into the user's cache."""
    monkeypatch.setattr(group, "prepare", lambda: None)


def call(*args: object):
    return CliRunner().invoke(cli.main, [str(a) for a in args])


def refusal(*args: object) -> str:
    """The one line that a command with bad input ends in."""
    result = call(*args)
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    lines = [line for line in result.output.splitlines() if not line.startswith("== ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_these_are_the_commands():
    assert set(cli.main.commands) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_an_example_that_parses(name):
    result = call(name, "--help")
    assert result.exit_code == 0
    examples = [line.strip() for line in result.output.splitlines() if line.strip().startswith(f"jsplat {name}")]
    assert examples, result.output
    command = cli.main.commands[name]
    for example in examples:
        args = shlex.split(example)[2:]
        context = click.Context(command, info_name=name)
        command.parse_args(context, args)  # an unknown option or a missing argument is an error here
    assert ("--config" in result.output) == ("--set" in result.output) == (name in SETTINGS)


def test_the_first_page_names_every_command():
    output = call("--help").output
    assert all(f"  {name} " in output for name in COMMANDS)
    assert "jsplat demo out/demo" in output


def test_an_unknown_key_names_the_nearest(tmp_path):
    line = refusal("demo", tmp_path / "out", "--set", "fit.stesp=3")
    assert line == "Error: --set fit.stesp: wanted a known key (nearest: fit.steps), got 'fit.stesp'"
    (tmp_path / "a.toml").write_text("[views]\ncuont = 4\n")
    line = refusal("demo", tmp_path / "out", "--config", tmp_path / "a.toml")
    assert line == "Error: a.toml: views.cuont: wanted a known key (nearest: views.count), got 'views.cuont'"
    assert not (tmp_path / "out").exists()


def test_a_value_of_the_wrong_kind_is_one_line(tmp_path):
    assert "fit.steps: wanted int, got 'many'" in refusal("demo", tmp_path, "--set", "fit.steps=many")
    assert "vote.method: wanted" not in call("demo", "--help").output
    assert "VoteConfig.method: wanted one of plain" in refusal("demo", tmp_path, "--set", "vote.method=loudest")


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures")
    write_capture(path / "ada", ball.capture("ada", size=16))
    return path


@pytest.mark.parametrize(
    "args",
    [
        ["parse", "NOWHERE", "CAPTURES", "OUT"],
        ["parse", "CAPTURES", "NOWHERE", "OUT"],
        ["predict", "NOWHERE", "CAPTURES", "OUT"],
        ["predict", "CAPTURES", "NOWHERE", "OUT"],
        ["fit", "NOWHERE", "OUT"],
        ["fit", "CAPTURES", "OUT", "--labels", "NOWHERE"],
        ["label", "CAPTURES", "NOWHERE", "LABELS", "OUT"],
        ["label", "CAPTURES", "CAPTURES", "NOWHERE", "OUT"],
        ["render", "CAPTURES", "CAPTURES", "NOWHERE", "OUT"],
        ["evaluate", "NOWHERE", "CAPTURES", "OUT"],
        ["train-parser", "NOWHERE", "OUT"],
        ["train-parser", "CAPTURES", "OUT", "--from", "NOWHERE"],
        ["run", "OUT", "--captures", "NOWHERE", "--parser", "CAPTURES"],
        ["run", "OUT", "--captures", "CAPTURES", "--parser", "NOWHERE", "--set", "unseen=0"],
    ],
    ids=" ".join,
)
def test_a_missing_folder_is_one_line_that_names_it(args, captures, tmp_path):
    names = {"NOWHERE": tmp_path / "nowhere", "CAPTURES": captures, "OUT": tmp_path / "out", "LABELS": tmp_path / "l"}
    write_json(tmp_path / "l" / "labelset.json", ball.SIDES.to_json())
    assert "nowhere" in refusal(*(names.get(a, a) for a in args))
    assert not (tmp_path / "out").exists()


def test_too_many_unseen_people_are_refused(captures, tmp_path):
    line = refusal("run", tmp_path, "--captures", captures, "--parser", captures, "--set", "unseen=1")
    assert line == "Error: unseen: wanted fewer than the 1 captures, got 1"


def test_people_are_written_and_not_written_twice(tmp_path):
    args = ["heads", tmp_path / "h", "--people", 2, "--views", 2, "--first", 5, "--set", "heads.size=16"]
    assert call(*args).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "h").iterdir()) == [".written.json", "head0005", "head0006", "run.json"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "h").rglob("*")}
    assert call(*args).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "h").rglob("*")} == before
