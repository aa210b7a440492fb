"""Readers fed with damaged files: whatever lies in a folder, they import it or say InputError."""

import copy
import json
import shutil
from pathlib import Path

import layouts
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from layouts import SMALL, Rig

from jsplat.captures.capture import read_capture
from jsplat.captures.importers import import_capture
from jsplat.captures.pictures import picture_header
from jsplat.errors import InputError

RIG = Rig(width=24, height=18, views=3, distortion=(-0.1, 0.02, 0.001, 0.001))
HOSTILE = [
    None, True, -1, 0, 1, 3, 48.5, 1e-300, 1e300, -1e200, 10**400, float("nan"), float("inf"), "", ".", "..", "/",
    "/etc/passwd", "../../etc/passwd", "\0", "\ud800", "x" * 5000, "00.png", [], {}, [[]], [None], {"a": [1]},
    [[1, 0, 0, 0]] * 4, "OPENCV_FISHEYE", 2**63, -(2**63),
]  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Every layout once, and our own format."""
    root = tmp_path_factory.mktemp("originals")
    made = {name: write(root / name, RIG) for name, write in layouts.LAYOUTS.items()}
    made["text"] = layouts.colmap(root / "text", RIG, text=True)
    import_capture(made["nerfstudio"], root / "own", SMALL)
    return made | {"own": root / "own"}


def attempt(folder: Path, out: Path, own: bool) -> None:
    try:
        if own:
            read_capture(folder)
        else:
            import_capture(folder, out, SMALL)
        event("read all the same")
    except InputError:
        event("refused")


def places(data, path=()) -> list[tuple]:
    """The ways to all values inside nested JSON."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = [(*path, key) for key, _ in inner]
    return found + [way for key, value in inner for way in places(value, (*path, key))]


@st.composite
def damage(draw, size: int):
    """What happens to a file of so many bytes: cut, overwrite, insert or remove."""
    at = draw(st.integers(0, max(size - 1, 0)))
    kind = draw(st.sampled_from(["cut", "overwrite", "insert", "remove"]))
    return kind, at, draw(st.binary(min_size=1, max_size=12)), draw(st.integers(1, 40))


def damaged(data: bytes, how: tuple) -> bytes:
    kind, at, new, length = how
    if kind == "cut":
        return data[:at]
    tail = {"overwrite": at + len(new), "insert": at, "remove": at + length}[kind]
    return data[:at] + (b"" if kind == "remove" else new) + data[tail:]


NAMES = (*layouts.LAYOUTS, "text", "own")
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("colmap", "text")])
@FUZZ
@given(data=st.data())
def test_any_value_in_json(name, originals, tmp_path, data):
    (file,) = originals[name].rglob("transforms.json" if name in ("vhap", "nerfstudio", "own") else "*params.json")
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(originals[name], folder)
    changed = copy.deepcopy(json.loads(file.read_text()))
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(st.sampled_from(places(changed)))
        inner = changed
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = copy.deepcopy(data.draw(st.sampled_from(HOSTILE)))
    (folder / file.relative_to(originals[name])).write_text(json.dumps(changed))
    attempt(folder, tmp_path / "out", name == "own")


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(data=st.data())
def test_any_damage_to_any_file(name, originals, tmp_path, data):
    files = sorted(p for p in originals[name].rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(originals[name], folder)
    good = file.read_bytes()
    target = folder / file.relative_to(originals[name])
    target.write_bytes(damaged(good, data.draw(damage(len(good)))))
    attempt(folder, tmp_path / "out", name == "own")
    target.write_bytes(good)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n"]))
def test_a_header_of_any_bytes(data, start):
    header = picture_header(start + data)
    assert header is None or 1 <= header[3] <= 8
