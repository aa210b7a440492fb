"""OUT of every command: what is not the command's own is refused before any work, and stays as it is."""

import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jsplat import cli
from jsplat.cli import group
from jsplat.files.atomic import write_json
from jsplat.files.ownership import made_by, seal
from jsplat.pipeline import write_people
from tests import ball

RUN = sys.modules[write_people.__module__]

COMMANDS = {name: command for name, command in cli.main.commands.items() if "out" in [p.name for p in command.params]}
# Where OUT is a file, how it ends; the others write folders.
FILES = {"turntable": ".mp4", "export": ".onnx", "export-masks to an archive": ".zip"}
FOLDERS = sorted(COMMANDS.keys() - FILES.keys())
ADDED_TO = {"run", "demo", "study"}  # folders that are not exchanged as a whole
# These write into a folder that the user gave as an input, or nowhere; each has tests of its own.
WITHOUT_OUT = {"settings", "status", "check-sides", "view", "edit", "study-results"}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(group, "prepare", lambda: None)


def inputs(name: str) -> list[click.Parameter]:
    """The parameters of a command that name what it reads."""
    params = COMMANDS[name].params
    return [p for p in params if isinstance(p.type, click.Path) and p.name not in ("out", "toml")]


def call(name: str, out: Path, root: Path, **given: Path):
    """A command on inputs that hold nothing: whatever it does but refuse OUT ends in another error."""
    words = [name]
    for param in COMMANDS[name].params:
        path = given.get(param.name or "", root / "in" / (param.name or ""))
        if param.name == "out":
            words.append(str(out))
        elif param in inputs(name) and (param.required or param.name in given):
            path.mkdir(parents=True, exist_ok=True)
            words += [str(path)] if isinstance(param, click.Argument) else [param.opts[0], str(path)]
    return CliRunner().invoke(cli.main, words)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refused(name: str, out: Path, root: Path, **given: Path) -> str:
    """The one line of a refusal, which changed nothing."""
    before = files(root)
    result = call(name, out, root, **given)
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert files(root) == before
    (line,) = result.output.splitlines()
    return line


def spelled(case: str) -> tuple[str, str]:
    """Name of a command, and the ending of its OUT."""
    return case.split(" ")[0], FILES.get(case, "")


def test_every_command_that_writes_is_held_to_this():
    assert set(cli.main.commands) == COMMANDS.keys() | WITHOUT_OUT
    assert {spelled(case)[0] for case in (*FOLDERS, *FILES)} == set(COMMANDS)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_other_files_is_refused(name, tmp_path):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    message = f"Error: {out}: wanted a new name, or a folder that `jsplat {name}` wrote"
    line = refused(name, out, tmp_path)
    assert line == f"{message}, got a folder with other files in it; move it away, or name another"
    (tmp_path / "link").symlink_to(out)
    assert "got a folder with other files in it" in refused(name, tmp_path / "link", tmp_path)
    write_json(out / "run.json", {"seconds": 3})
    assert "got a run.json that names no command (an older version's" in refused(name, out, tmp_path)
    write_json(out / "run.json", {"command": "knit"})
    assert "got one that `jsplat knit` wrote" in refused(name, out, tmp_path)
    assert "got a file" in refused(name, out / "thesis.txt", tmp_path)
    assert f"{out / 'thesis.txt'}: wanted a folder to write to, got a file" in refused(
        name, out / "thesis.txt" / "x", tmp_path
    )


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_there_is_refused(case, tmp_path):
    (name, ending), out = spelled(case), tmp_path / f"film{FILES[case]}"
    out.write_text("somebody's, or ours: nobody can tell")
    assert refused(name, out, tmp_path).endswith(f"{out}: wanted a new name, got a file; move it away, or name another")
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / f"folder{ending}" / "thesis.txt").write_text("mine")
    assert "got a folder with files in it" in refused(name, tmp_path / f"folder{ending}", tmp_path)
    (tmp_path / f"link{ending}").symlink_to(out)
    assert "got a file" in refused(name, tmp_path / f"link{ending}", tmp_path)


@pytest.mark.parametrize("case", [case for case in (*FOLDERS, *FILES) if inputs(spelled(case)[0])])
def test_a_place_in_around_or_of_an_input_is_refused(case, tmp_path):
    name, ending = spelled(case)
    for param in inputs(name):
        key = param.name or ""
        place = tmp_path / key / f"folder{ending}"
        place.mkdir(parents=True)
        (place / "photo.png").write_text("precious")
        (tmp_path / f"{key}-link{ending}").symlink_to(place)
        wanted = "wanted a place apart from what the command reads, got one that"
        outs = {place: "is", tmp_path / f"{key}-link{ending}": "is", place / "new" / f"out{ending}": "lies in"}
        outs |= {tmp_path / key: "holds"} if not ending else {}
        for out, relation in outs.items():
            line = refused(name, out, tmp_path, **{key: place})
            assert line == f"Error: OUT: {out}: {wanted} {relation} {place}; name another OUT"
        link = tmp_path / f"{key}-link{ending}"
        assert f"{wanted} is {link}" in refused(name, place, tmp_path, **{key: link})


def test_a_file_system_that_ignores_case_is_not_fooled(tmp_path, monkeypatch):
    """Two spellings of one folder: what such a system says of them."""
    (tmp_path / "Captures").mkdir()
    (tmp_path / "captures").mkdir()
    real = os.path.samefile
    monkeypatch.setattr(os.path, "samefile", lambda a, b: str(a).lower() == str(b).lower() or real(a, b))
    line = refused("parse", tmp_path / "captures" / "out", tmp_path, captures=tmp_path / "Captures")
    assert "got one that lies in" in line


@pytest.mark.parametrize("name", sorted(set(FOLDERS) - ADDED_TO))
def test_the_folder_in_which_the_command_runs_is_refused_and_so_is_a_mount_point(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    line = refused(name, Path("."), tmp_path)
    assert line.endswith(
        "wanted a folder that can be exchanged for a new one, "
        "got the folder in which the command runs, or one above it; name one inside it"
    )
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    assert refused(name, tmp_path / "disk", tmp_path).endswith("got a mount point; name one inside it")


@pytest.mark.parametrize("case", [*FOLDERS, *FILES])
def test_a_place_that_may_not_be_written_to_is_refused(case, tmp_path, monkeypatch):
    (name, ending), closed = spelled(case), tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != closed)  # root may write everywhere
    assert f"{closed}: wanted a folder to write to, got one that may not" in refused(
        name, closed / f"out{ending}", tmp_path
    )


def a_folder_of(command: str, path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "mask.png").write_text("ours")
    write_json(path / "run.json", {"command": command})
    seal(path)
    return path


@pytest.fixture
def people(monkeypatch):
    """`jsplat heads`, but of nobody in particular."""
    monkeypatch.setattr(RUN, "render_captures", lambda *_: [ball.capture("head0000", size=16)])
    return heads


def heads(out: Path, seed: int = 0):
    words = ["heads", out, "--people", 1, "--set", f"seed={seed}"]
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def test_a_folder_of_the_same_command_is_replaced_and_a_hand_in_it_is_not(tmp_path, people):
    out = a_folder_of("heads", tmp_path / "out")
    for name in ("mask.png", "thesis.txt"):
        before = (out / name).read_bytes() if (out / name).exists() else None
        (out / name).write_text("a person's hand")
        result = people(out)
        assert result.exit_code == 1
        assert f"Error: {out.resolve()}: wanted only what jsplat wrote there, got" in result.output
        assert f"got {name}, added or changed since" in result.output
        assert (out / name).read_text() == "a person's hand"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
        (out / name).unlink() if before is None else (out / name).write_bytes(before)
    (tmp_path / "link").symlink_to(out)
    assert people(tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in out.iterdir()) == [".written.json", "head0000", "run.json"]
    assert people(out, seed=1).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out"]


def test_work_folders_that_are_not_ours_stay(tmp_path, people):
    assert people(tmp_path / "other").exit_code == 0
    name = "." + "heads" + "." + "0" * 16
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    a_folder_of("heads", tmp_path / f".heads.{'1' * 16}")
    assert people(tmp_path / "heads").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "heads", "other"]
    assert made_by(tmp_path / "heads") == "heads"


def test_a_run_answers_for_its_stages_and_its_report_before_it_begins(tmp_path):
    out = a_folder_of("run", tmp_path / "run")
    (out / "edits").mkdir()
    (out / "edits" / "notes.txt").write_text("a person's")  # that folder is theirs
    (out / "notes.txt").write_text("beside our files")
    (out / "parse").mkdir()
    assert "wanted a capture (a folder with transforms.json)" in refused("run", out, tmp_path)
    (out / "label").mkdir()
    (out / "label" / "thesis.txt").write_text("mine")
    assert f"{out / 'label'}: wanted a new name, or a folder that `jsplat run label` wrote" in refused(
        "run", out, tmp_path
    )
    write_json(out / "label" / "run.json", {"command": "run label"})
    assert "got run.json, thesis.txt, added or changed since" in refused("run", out, tmp_path)
    (out / "label" / "thesis.txt").unlink()
    seal(out / "label")
    assert "wanted a capture" in refused("run", out, tmp_path)
    (out / "report.html").write_text("a report of somebody's own")
    assert "got report.html, added or changed since" in refused("run", out, tmp_path)
    for folder in ("captures", "teacher", "frontal", "run"):
        demo = a_folder_of("demo", tmp_path / f"demo-{folder}")
        (demo / folder).mkdir()
        (demo / folder / "photo.png").write_text("mine")
        assert f"{demo / folder}: wanted a new name" in refused("demo", demo, tmp_path)
