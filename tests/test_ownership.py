"""Whose a folder is, and that a kill at any moment leaves the old one or the new one under its name."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from jsplat.errors import InputError
from jsplat.files import ownership
from jsplat.files.atomic import new_file, new_folder, write_json
from jsplat.files.ownership import check_ours, check_untouched, made_by, put, remove, restore, seal, write_kept


def ours(folder: Path, text: str, command: str = "fit") -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "data").write_text(text)
    write_json(folder / "run.json", {"command": command, "text": text})
    seal(folder)
    return folder


def text_in(folder: Path) -> str:
    """What lies in a folder, which is whole."""
    text = (folder / "sub" / "data").read_text()
    check_untouched(folder)
    assert text in (folder / "run.json").read_text()
    return text


class Killed(BaseException):
    """What ends a process in the middle; nothing catches it."""


@contextlib.contextmanager
def killed_before(step: int, monkeypatch):
    """Raises before the numbered change to the disk within the block; yields a list that counts them."""
    done = []

    def counted(change):
        def counting(*args, **options):
            if len(done) == step:
                raise Killed
            done.append(change)
            return change(*args, **options)

        return counting

    with monkeypatch.context() as patch:
        for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
            patch.setattr(module, name, counted(getattr(module, name)))
        for name in ("replace", "unlink", "rmdir"):  # Python 3.11 to 3.13 do not agree on whom pathlib calls
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(ownership, "_exchange", counted(ownership._exchange))
        yield done


@pytest.mark.parametrize("swaps", [True, False], ids=["exchanged", "renamed"])
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(swaps, tmp_path, monkeypatch):
    if not swaps:
        monkeypatch.setattr(ownership, "_exchange", lambda *_: False)
    elif not ownership._exchange(ours(tmp_path / "a", "a"), ours(tmp_path / "b", "b")):
        pytest.skip("this file system cannot exchange two names")
    found = []
    for step in range(30):
        place = tmp_path / str(step)
        path, work = ours(place / "out", "old"), ours(place / ".out.work", "new")
        with killed_before(step, monkeypatch):
            try:
                put(work, path)
                killed = False
            except Killed:
                killed = True
        if swaps:
            assert text_in(path) in ("old", "new"), "nothing under the name, at one moment"
        restore(path)
        found.append(text_in(path))
        remaining = sorted(p.name for p in place.iterdir())
        assert remaining in ([".out.work", "out"], ["out"]), remaining
        if not killed:
            break
    assert not killed
    assert found == sorted(found, reverse=True), "first the old one, then the new one"
    assert {"old", "new"} == set(found)


def test_what_a_kill_leaves_of_a_removal_is_not_taken_for_a_folder(tmp_path, monkeypatch):
    """Not even when the new folder was moved away meanwhile."""
    monkeypatch.setattr(ownership, "_exchange", lambda *_: False)
    for step in range(30):
        path = ours(tmp_path / str(step) / "out", "old")
        with killed_before(step, monkeypatch), contextlib.suppress(Killed):
            put(ours(tmp_path / str(step) / ".w", "new"), path)
        if path.exists() and text_in(path) == "new":
            path.rename(tmp_path / str(step) / "elsewhere")
        restore(path)
        if path.exists():
            assert text_in(path) == "old"
    assert not path.exists()


def test_somebody_elses_folder_of_the_name_that_we_use_aside_stays(tmp_path):
    (tmp_path / ".out.jsplat-old").mkdir()
    (tmp_path / ".out.jsplat-old" / "thesis.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"jsplat-old: wanted a folder that jsplat put aside, got other files; move it away"
    ):
        restore(tmp_path / "out")


@pytest.mark.parametrize(
    ("contents", "got"),
    [
        ({"thesis.txt": "x"}, "a folder with other files in it"),
        ({"run.json": "{}"}, "a run.json that names no command"),
        ({"run.json": "{torn"}, "a run.json that names no command"),
        ({"run.json": '{"command": ["fit"]}'}, "a run.json that names no command"),
        ({"run.json": '{"command": "parse"}'}, "one that `jsplat parse` wrote"),
    ],
)
def test_a_folder_is_ours_only_if_it_names_this_command(tmp_path, contents, got):
    check_ours(tmp_path, "fit")
    check_ours(tmp_path / "none", "fit")
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        check_ours(tmp_path, "fit")
    assert f"got {got}" in str(error.value)
    assert "move it away, or name another" in str(error.value)
    with pytest.raises(InputError, match="got a file"):
        check_ours(tmp_path / next(iter(contents)), "fit")
    write_json(tmp_path / "run.json", {"command": "fit"})
    check_ours(tmp_path, "fit")


def _added(folder: Path) -> str:
    (folder / "sub" / "thesis.txt").write_text("mine")
    return "sub/thesis.txt"


def _touched_up(folder: Path) -> str:
    """As many bytes, the same time of day: a careful program's save."""
    path, about = folder / "sub" / "data", (folder / "sub" / "data").stat()
    path.write_text("new")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    return "sub/data"


def _linked(folder: Path) -> str:
    (folder / "sub" / "link").symlink_to(folder.parent)
    return "sub/link"


def _exchanged_for_a_link(folder: Path) -> str:
    (folder / "sub" / "data").rename(folder.parent / "data")
    (folder / "sub" / "data").symlink_to(folder.parent / "data")
    return "sub/data"


def _forgotten(folder: Path) -> str:
    (folder / ".written.json").unlink()
    return "run.json, sub/data"


@pytest.mark.parametrize("change", [_added, _touched_up, _linked, _exchanged_for_a_link, _forgotten])
def test_what_somebody_added_or_touched_up_is_named(tmp_path, change):
    folder = ours(tmp_path / "out", "old")
    check_untouched(folder)
    name = change(folder)
    with pytest.raises(
        InputError, match=f"wanted only what jsplat wrote there, got {name}, added or changed since; move it away"
    ):
        check_untouched(folder)


def test_a_copy_and_what_systems_leave_are_no_changes(tmp_path):
    ours(tmp_path / "out", "old")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "out", copy, copy_function=shutil.copyfile)
    assert (copy / "sub" / "data").stat().st_mtime_ns != (tmp_path / "out" / "sub" / "data").stat().st_mtime_ns
    (copy / ".DS_Store").write_text("x")
    (copy / "sub" / "data").unlink()
    check_untouched(copy)
    remove(copy)
    assert not copy.exists()


def test_of_many_foreign_files_some_are_named(tmp_path):
    folder = ours(tmp_path / "out", "old")
    for i in range(9):
        (folder / f"{i}.txt").write_text("x")
    with pytest.raises(InputError, match=r"got 0\.txt, 1\.txt, 2\.txt and 6 more, added"):
        check_untouched(folder)


def test_a_file_beside_others_is_replaced_only_as_we_wrote_it(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    page.write_text("somebody's")
    with pytest.raises(InputError, match=r"got report\.html, added or changed since"):
        write_kept(page, b"ours")
    page.unlink()
    write_kept(page, b"one")
    for step in range(6):  # a kill at any moment leaves one that we know
        with killed_before(step, monkeypatch), contextlib.suppress(Killed):
            write_kept(page, b"two%d" % step)
        check_untouched(tmp_path, ["report.html"])
    assert page.read_bytes() == b"two5"
    page.write_text("two6")
    with pytest.raises(InputError, match=r"report\.html"):
        write_kept(page, b"three")
    assert page.read_text() == "two6"


def test_new_folders_and_files_replace_nothing(tmp_path):
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    for path in (full / "thesis.txt", file):
        path.write_text("mine")
    (tmp_path / "link").symlink_to(full)
    for new in (new_folder, new_file):
        for path in (full, file, tmp_path / "link"):
            with pytest.raises(InputError, match="wanted a new name"), new(path):
                raise AssertionError("work began")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="wanted a new name"), new_folder(empty):
        (empty / "thesis.txt").write_text("put there meanwhile")
    with pytest.raises(InputError, match="wanted a new name"), new_file(tmp_path / "film.mp4"):
        (tmp_path / "film.mp4").write_text("put there meanwhile")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "film.mp4"])
    assert {p.read_text() for p in (full / "thesis.txt", file)} == {"mine"}
    with new_folder(tmp_path / "new") as folder:
        (folder / "x").write_text("x")
    assert made_by(tmp_path / "new") is None
