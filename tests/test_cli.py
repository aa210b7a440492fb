"""The command line: help with examples, settings, and bad input in one line."""

import dataclasses
import functools
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.captures.capture import write_capture
from jsplat.cli import group
from jsplat.config import load
from jsplat.files.atomic import write_json
from jsplat.pipeline import RunConfig
from jsplat.runtime import progress
from tests import ball
from tests.tiny import TINY

SETTINGS = {"heads", "train-parser", "parse", "fit", "label", "render", "evaluate", "run", "demo", "import"}
SETTINGS |= {"edit", "export-masks", "import-masks", "export-splats", "check-sides", "predict"}
COMMANDS = SETTINGS | {"status", "convert", "export", "study", "study-results", "turntable", "view", "settings"}


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
        assert not re.search(r"(?<!jsplat )\bheads/", example), "folders of `make demo` are there"
        assert {*re.findall(r"out/demo/(\w+)", example)} <= {"captures", "frontal", "teacher", "run"}
    assert ("--config" in result.output) == ("--set" in result.output) == (name in SETTINGS)


def commands_on_pages() -> list[str]:
    """What README and docs/ tell people to type."""
    root = Path(__file__).parent.parent
    texts = [path.read_text() for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))]
    blocks = [block for text in texts for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(srun )?jsplat [a-z]", line)]


@pytest.mark.parametrize("line", commands_on_pages())
def test_what_the_pages_tell_people_to_type_parses(line):
    words = shlex.split(line, comments=True)
    name, *args = words[words.index("jsplat") + 1 :]
    command = cli.main.commands[name]
    context = click.Context(command, info_name=name)
    command.parse_args(context, args)
    for override in context.params.get("overrides", ()):
        assert group._holds(command.callback.reads, override.partition("=")[0]), f"{name} does not read {override}"


def test_the_first_page_names_every_command():
    output = call("--help").output
    assert all(f"  {name} " in output for name in COMMANDS)
    assert sorted(name for names in group.SECTIONS.values() for name in names) == sorted(COMMANDS)
    assert "jsplat demo out/demo" in output


def test_a_quiet_command_says_nothing_of_how_far_it_is(capsys):
    for words, heard in ((["--quiet", "settings", "fit"], False), (["settings", "fit"], True)):
        call(*words)
        progress.Progress("fit", 1).advance()
        assert ("fit: 1/1" in capsys.readouterr().err) == heard


def those(stage: str) -> str:
    return f"`jsplat settings {stage}` prints them with what they are"


def test_an_unknown_key_names_the_nearest(tmp_path):
    line = refusal("demo", tmp_path / "out", "--set", "fit.stesp=3")
    assert line == f"Error: --set fit.stesp: wanted a known key (nearest: fit.steps), got 'fit.stesp'; {those('fit')}"
    (tmp_path / "a.toml").write_text("[views]\ncuont = 4\n")
    line = refusal("demo", tmp_path / "out", "--config", tmp_path / "a.toml")
    assert (
        line
        == f"Error: a.toml: views.cuont: wanted a known key (nearest: views.count), got 'views.cuont'; {those('views')}"
    )
    assert not (tmp_path / "out").exists()


def test_a_value_of_the_wrong_kind_is_one_line(tmp_path):
    assert "fit.steps: wanted a whole number, got 'many'" in refusal("demo", tmp_path, "--set", "fit.steps=many")
    assert "vote.method: wanted" not in call("demo", "--help").output
    assert "--set vote.method: wanted one of plain" in refusal("demo", tmp_path, "--set", "vote.method=loudest")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["fit", "A", "OUT", "--set", "teacher.steps=3"],
            "--set teacher.steps: wanted a setting that fit reads (size, seed, fit), got one that is read by demo, "
            "train-parser",
        ),
        (["label", "A", "B", "C", "OUT", "--set", "fit.steps=3"], "got one that is read by demo, fit, run"),
        (["parse", "A", "B", "OUT", "--set", "fit={steps=3}"], "--set fit.steps: wanted a setting that parse reads"),
        (
            ["export-splats", "A", "OUT", "--set", "size=3"],
            "(seed), got one that is read by check-sides, demo, ",
        ),
        (
            ["train-parser", "A", "OUT", "--set", "finetune.steps=3"],
            "(size, seed, dataset, teacher), got one that is read by demo, run, train-parser with other options",
        ),
        (
            ["train-parser", "A", "OUT", "--from", "B", "--set", "teacher.steps=3"],
            "(size, seed, dataset, finetune), got",
        ),
    ],
)
def test_a_setting_that_a_command_does_not_read_is_refused(args, message, tmp_path):
    assert message in refusal(*(tmp_path / a if a.isupper() else a for a in args))
    assert not (tmp_path / "OUT").exists()


def test_a_file_may_hold_what_other_commands_read(tmp_path):
    (tmp_path / "run.toml").write_text("[teacher]\nsteps = 3\n[fit]\nsteps = 4\n")
    assert "nowhere" in refusal("fit", tmp_path / "nowhere", tmp_path / "out", "--config", tmp_path / "run.toml")


def test_every_setting_is_read_by_a_command():
    assert [field.name for field in dataclasses.fields(RunConfig) if not group.readers(field.name)] == []
    assert group.readers("label") == []
    assert group.readers("fit.label_weight") == ["demo", "fit", "label", "run"]
    assert all(_known(name) for c in cli.main.commands.values() for name in getattr(c.callback, "reads", ()))


def _known(name: str) -> bool:
    try:
        functools.reduce(getattr, name.split("."), RunConfig())
    except AttributeError:
        return False
    return True


def test_a_bare_name_is_a_file_that_comes_along_unless_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(RunConfig, group.settings_file("tiny")) == load(RunConfig, TINY)
    line = refusal("demo", "out", "--config", "tini")
    known = "cpu, demo, gpu, heads_512_cpu, heads_cpu, tiny"
    assert line == f"Error: --config tini: wanted a TOML file, or a name that comes along: {known}, got neither"
    assert "wanted a TOML file, got no such file" in refusal("demo", "out", "--config", "tiny.toml")
    assert "wanted a TOML file, got no such file" in refusal("demo", "out", "--config", "./tiny")
    (tmp_path / "tiny").write_text("size = 7\n")
    assert load(RunConfig, group.settings_file("tiny")).size == 7


def test_all_settings_are_printed_and_load_back_to_the_defaults(tmp_path):
    text = call("settings").output
    (tmp_path / "all.toml").write_text(text)
    assert load(RunConfig, tmp_path / "all.toml") == RunConfig()
    told, lines = True, text.splitlines()
    for line in lines:  # a comment may stand above several settings that are explained together
        assert told or not line or line[0] in "#[", f"{line}: explained nowhere"
        told = bool(line) and (line[0] == "#" or (told and line[0] != "["))
    assert "# Read by: demo, train-parser.\n[teacher]\n" in text


def test_the_settings_of_one_stage_are_printed(tmp_path):
    (tmp_path / "teacher.toml").write_text(call("settings", "teacher").output)
    table = tomllib.loads((tmp_path / "teacher.toml").read_text())
    assert [*table] == ["teacher"]
    assert table["teacher"].keys() == {field.name for field in dataclasses.fields(RunConfig().teacher)}
    assert load(RunConfig, tmp_path / "teacher.toml") == RunConfig()
    assert "STAGE: wanted a stage (dataset, capture, fit," in refusal("settings", "teachers")


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


def test_people_are_written_and_not_written_twice(tmp_path):
    args = ["heads", tmp_path / "h", "--people", 2, "--views", 2, "--first", 5, "--set", "heads.size=16"]
    assert call(*args).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "h").iterdir()) == [".written.json", "head0005", "head0006", "run.json"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "h").rglob("*")}
    assert call(*args).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "h").rglob("*")} == before
