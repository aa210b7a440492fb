"""Digests of files: equal for copies, different after any change, and files that did not change are not read again."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest

from jsplat.captures.capture import write_capture
from jsplat.captures.index import list_captures
from jsplat.captures.pictures import write_png
from jsplat.errors import InputError, Stopped
from jsplat.fitting import FitConfig
from jsplat.pipeline import RunConfig, digests
from jsplat.pipeline.digests import DIGESTS, Digests, digests_in
from jsplat.pipeline.fingerprints import contents, of_fit, of_label, of_parse, of_render
from jsplat.pipeline.work_folder import fingerprint
from jsplat.runtime.stop import STOP
from tests import ball


@pytest.fixture
def settled(monkeypatch):
    """Files count as old enough to be remembered."""
    monkeypatch.setattr(digests, "SETTLED", 0)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read."""
    names, real = [], digests._read

    def count(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(digests, "_read", count)
    return names


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("one")
    (tmp_path / "in" / "deep" / "b.txt").write_text("two")
    return tmp_path / "in"


def test_a_fingerprint_follows_settings():
    first = fingerprint(FitConfig(), 3)
    assert fingerprint(FitConfig(), 3) == first
    assert len({first, fingerprint(FitConfig(steps=1), 3), fingerprint(FitConfig(), 4), fingerprint(3)}) == 4


def test_a_copy_is_the_same_and_a_change_is_not(folder, tmp_path):
    first = Digests().path(folder)
    os.utime(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile) / "a.txt", (1, 1))
    assert Digests().path(tmp_path / "copy") == first
    (folder / "run.json").write_text("{}")  # says when, not what
    (folder / DIGESTS).write_text("{}")
    (folder / "deep" / ".DS_Store").write_text("somebody looked")
    (folder / "deep" / "up").symlink_to(folder)
    seen = Digests().path(folder)
    (folder / "deep" / "up").unlink()
    assert Digests().path(folder) == first != seen
    (folder / "a.txt").write_text("owe")
    assert Digests().path(folder) != first
    (folder / "a.txt").write_text("one")
    (folder / "deep" / "b.txt").rename(folder / "deep" / "c.txt")
    assert Digests().path(folder) != first
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'no'}: wanted a folder or file to read, got nothing")):
        Digests().path(tmp_path / "no")


def test_linked_folders_are_read_as_others_read_them(folder, tmp_path):
    first = Digests().path(folder)
    shutil.move(folder / "deep", tmp_path / "elsewhere")
    (folder / "deep").symlink_to(tmp_path / "elsewhere")
    assert Digests().path(folder) == first
    (tmp_path / "elsewhere" / "b.txt").write_text("owt")
    assert Digests().path(folder) != first


def test_what_did_not_change_is_read_once(folder, tmp_path, settled, read):
    def ask():
        known = Digests(tmp_path / DIGESTS)
        found = known.path(folder)
        known.save()
        return found, [read.pop() for _ in list(read)]

    first, names = ask()
    assert sorted(names) == ["a.txt", "b.txt"]
    written = (tmp_path / DIGESTS).stat().st_mtime_ns
    assert ask() == (first, [])
    assert (tmp_path / DIGESTS).stat().st_mtime_ns == written, "nothing new, and written again"
    at = (folder / "a.txt").stat()
    (folder / "a.txt").write_text("owe")
    os.utime(folder / "a.txt", ns=(at.st_atime_ns, at.st_mtime_ns))  # size and time of writing as they were
    second, names = ask()
    assert second != first
    assert names
    os.utime(folder / "a.txt")
    assert ask()[0] == second
    (folder / "new.txt").write_text("")
    assert ask()[0] not in (first, second)


def test_a_change_within_one_tick_of_a_coarse_clock_is_seen(folder, tmp_path, monkeypatch):
    """As git has it: what was written just before it was read is not known by its time."""
    real = digests._look

    def coarse(path):
        at = real(path)
        return at and [at[0], *(moment // 10**9 * 10**9 for moment in at[1:])]

    monkeypatch.setattr(digests, "_look", coarse)
    known = Digests(tmp_path / DIGESTS)
    seen = set()
    for text in ("one", "owe", "two"):
        (folder / "a.txt").write_text(text)
        seen.add(known.path(folder))
    assert len(seen) == 3
    known.save()
    assert not (tmp_path / DIGESTS).exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"x": 3}', b'{"x": [1]}', b'{"x": [1, 2, 3]}', b'{"x": null}'],
)
def test_a_damaged_memory_costs_reading(folder, tmp_path, damage, settled):
    known = Digests(tmp_path / DIGESTS)
    first = known.path(folder)
    known.save()
    (tmp_path / DIGESTS).write_bytes(damage)
    known = Digests(tmp_path / DIGESTS)
    assert known.path(folder) == first
    known.save()
    assert list(json.loads((tmp_path / DIGESTS).read_text())) == [f"{folder}|all"]


def test_files_that_are_gone_are_forgotten(folder, tmp_path, settled):
    for path in (folder, folder / "deep"):
        known = Digests(tmp_path / DIGESTS)
        known.path(path)
        known.save()
    assert len(json.loads((tmp_path / DIGESTS).read_text())) == 2
    shutil.rmtree(folder / "deep")
    known = Digests(tmp_path / DIGESTS)
    known.path(folder)
    known.save()
    assert list(json.loads((tmp_path / DIGESTS).read_text())) == [f"{folder}|all"]


def test_the_memory_is_kept_in_finished_folders_of_ours_only(folder, tmp_path, settled):
    (tmp_path / "out").mkdir()
    with digests_in(tmp_path / "out") as known:
        known.path(folder)
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out" / "run.json").write_text("{}")
    with digests_in(tmp_path / "out") as known:
        known.path(folder)
    assert (tmp_path / "out" / DIGESTS).is_file()


# What captures hold


@pytest.fixture
def captures(tmp_path):
    """Two balls, the first with masks of what is valid."""
    for name in ("ada", "bob"):
        shown = ball.capture(name, [0.0, 90.0], size=8)
        valid = np.arange(shown.labels.size).reshape(shown.labels.shape) > 0 if name == "ada" else None
        write_capture(tmp_path / "captures" / name, dataclasses.replace(shown, valid=valid))
    return tmp_path / "captures"


def look(path, **options):
    return contents(list_captures(path, None, **options), Digests())


def header(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_copy_of_captures_holds_the_same(captures, tmp_path):
    first = look(captures)
    copy = shutil.copytree(captures, tmp_path / "copy", copy_function=shutil.copyfile)
    header(copy / "ada" / "transforms.json", lambda data: None)  # laid out otherwise, the same JSON
    (copy / "ada" / "notes.txt").write_text("nobody reads this")
    assert look(copy) == first
    (copy / "bob").rename(copy / "bobby")  # its header names it
    assert look(copy) == first
    assert look(copy, labels=False) == {n: type(c)(c.photos, None) for n, c in first.items()}


@pytest.mark.parametrize(
    ("change", "photos", "labels"),
    [
        (lambda f: write_png(f / "images" / "001.png", np.zeros((8, 8, 3), np.uint8)), True, False),
        (lambda f: (f / "images" / "001.png").unlink(), True, False),
        (lambda f: write_png(f / "masks" / "000.png", np.zeros((8, 8), np.uint8)), True, False),
        (lambda f: header(f / "transforms.json", lambda d: d.update(fl_x=20.0)), True, False),
        (lambda f: header(f / "transforms.json", lambda d: d.update(background=None)), True, False),
        (lambda f: header(f / "transforms.json", lambda d: d.update(identity="eve")), True, False),
        (lambda f: write_png(f / "labels" / "001.png", np.ones((8, 8), np.uint8)), False, True),
        (lambda f: (f / "labels" / "001.png").unlink(), False, True),
        (lambda f: header(f / "transforms.json", lambda d: d["frames"].reverse()), True, True),
        (lambda f: header(f / "transforms.json", lambda d: d["labelset"]["colors"].reverse()), False, True),
    ],
    ids=["picture", "lost-picture", "mask", "lens", "background", "name", "label", "lost-label", "order", "classes"],
)
def test_a_change_concerns_one_capture_and_only_what_it_is_about(captures, change, photos, labels):
    before = look(captures)
    change(captures / "ada")
    after = look(captures)
    assert after["bob"] == before["bob"]
    now = next(content for name, content in after.items() if name != "bob")
    assert (now.photos != before["ada"].photos, now.labels != before["ada"].labels) == (photos, labels)


def test_captures_that_did_not_change_are_not_read(captures, tmp_path, settled, read):
    listed, known = list_captures(captures, None), Digests(tmp_path / DIGESTS)
    first = contents(listed, known)
    assert len(read) == 2 * (2 + 2) + 2
    known.save()
    read.clear()
    assert contents(listed, Digests(tmp_path / DIGESTS)) == first
    assert read == []
    write_png(captures / "bob" / "images" / "000.png", np.zeros((8, 8, 3), np.uint8))
    contents(listed, Digests(tmp_path / DIGESTS))
    assert read == ["000.png", "001.png"], "more than the pictures of one capture"


def test_looking_at_captures_ends_when_asked_to(captures, monkeypatch):
    monkeypatch.setattr(STOP, "is_set", lambda: True)
    with pytest.raises(Stopped, match="at ada"):
        look(captures)


def test_labels_reach_the_oracle_and_no_other_fingerprint(captures):
    config, before = RunConfig(), look(captures)["ada"]
    write_png(captures / "ada" / "labels" / "001.png", np.ones((8, 8), np.uint8))
    after = look(captures)["ada"]
    assert of_parse(after, "parser", config) == of_parse(before, "parser", config)
    assert of_fit(after, "first", config) == of_fit(before, "first", config)
    assert of_label(after, "first", "scene", config) != of_label(before, "first", "scene", config)
    assert of_render(after, "scene", "label", "", config) == of_render(before, "scene", "label", "", config)
