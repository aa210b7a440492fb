"""What other programs leave in folders, and how they write text and names."""

import json
from pathlib import Path, PurePosixPath

import pytest

from jsplat.captures.capture import capture_folders, read_json
from jsplat.errors import InputError
from jsplat.files import foreign
from jsplat.runtime import progress


@pytest.mark.parametrize("name", ["._0001.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX"])
def test_what_systems_leave(name):
    assert foreign.is_litter(name)


@pytest.mark.parametrize("name", ["0001.jpg", "_0001.jpg", ".hidden.png", "DS_Store", "a._b.png", "MACOSX"])
def test_what_people_name(name):
    assert not foreign.is_litter(name)


def test_folders_count_too():
    paths = [Path("d/__MACOSX/a.json"), Path("d/b.json"), Path("d/._b.json"), Path("d/a/a.json")]
    assert foreign.without_litter(paths, Path("d")) == [Path("d/a/a.json"), Path("d/b.json")]
    assert foreign.without_litter(paths) == [Path("d/__MACOSX/a.json"), Path("d/a/a.json"), Path("d/b.json")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_with_and_without_a_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes('{"ä": 1}'.encode(encoding))
    assert foreign.read_text(tmp_path / "a.txt") == '{"ä": 1}'
    assert read_json(tmp_path / "a.txt") == {"ä": 1}


@pytest.mark.parametrize("data", [b"\xff", b"\xff\xfe\x00", b"\xef\xbb\xbf\xe4", b"\xe4 "])
def test_no_text(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=r"^here: wanted text in UTF-8, got '"):
        foreign.read_text(tmp_path / "a.txt", "here")
    with pytest.raises(InputError, match=r"^there: wanted a readable file, got No such file"):
        foreign.read_text(tmp_path / "b.txt", "there")


def test_backslashes():
    assert foreign.with_slashes("./images\\left\\000.png") == "./images/left/000.png"


def test_what_is_passed_over_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(foreign, "_logged", set())
    names = ["b.TXT", "a.txt", "._a.txt", "m/dynamic_mask_001.png", "m/dynamic_mask_02.png", "README", "Thumbs.db"]
    kinds = foreign.kinds_of(map(PurePosixPath, names))
    assert kinds == {".txt": 2, "dynamic_mask_*.png": 2, "._ files": 1, "without an ending": 1, "Thumbs.db": 1}
    progress.log_to(tmp_path / "events.jsonl")
    try:
        for _ in range(2):
            foreign.log_skipped("in", kinds)
        foreign.log_skipped("empty", {})
    finally:
        progress.log_to(None)
    want = "2 .txt, 2 dynamic_mask_*.png, 1 ._ files, 1 without an ending, 1 Thumbs.db"
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(line.removeprefix("in: passed over ").split(", ")) == sorted(want.split(", "))
    (event,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(event)["event"] == "passed over"
    assert json.loads(event)["files"] == kinds


def test_many_kinds_are_counted(capsys, monkeypatch):
    monkeypatch.setattr(foreign, "_logged", set())
    foreign.log_skipped("in", {f".{i}": 1 for i in range(11)})
    assert capsys.readouterr().err.endswith("1 .7, 3 more\n")


def test_folders_that_are_no_captures_are_named(tmp_path, capsys, monkeypatch):
    """A misnamed transforms.json would lose a person without a word."""
    monkeypatch.setattr(foreign, "_logged", set())
    for name in ("ada/transforms.json", "bob/transform.json", "__MACOSX/transforms.json", ".git/config"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    for _ in range(2):
        assert capture_folders(tmp_path) == [tmp_path / "ada"]
    assert capsys.readouterr().err == f"{tmp_path}: passed over folders without transforms.json: 1 (bob)\n"
