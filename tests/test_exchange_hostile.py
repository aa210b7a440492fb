"""Mask files from strangers: archives and folders that lie, JSON that is none, and bytes changed at random."""

import contextlib
import json
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_exchange import SMALL, THREE, written

from jsplat.errors import InputError
from jsplat.exchange import FORMATS, import_masks


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "C:/a.png", "a\\..\\b.png", "a//b.png"])
def test_archives_that_leave_their_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(InputError, match=r"x\.zip: entry: wanted a plain relative path with forward slashes, got"):
        import_masks(tmp_path / "x.zip", THREE)


def test_archives_that_unpack_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("jsplat.exchange.store.MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1001))
    with pytest.raises(InputError, match=r"x\.zip: wanted at most 1,000 bytes in 100,000 files, unpacked, got 1,001"):
        import_masks(tmp_path / "x.zip", THREE)
    # One that lies about it: the size in the directory says 1 byte.
    data = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(struct.pack("<I", 1001), struct.pack("<I", 1)))
    with pytest.raises(InputError, match=r"x\.zip"):
        import_masks(tmp_path / "x.zip", THREE)


def test_archives_with_links_or_names_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"x\.zip: a\.png: wanted a file, got a link"):
        import_masks(tmp_path / "x.zip", THREE)
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("a.png", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"")
    with pytest.raises(InputError, match=r"y\.zip: a\.png: wanted a name that occurs once, got twice"):
        import_masks(tmp_path / "y.zip", THREE)


def test_folders_with_links_and_nothing_at_all(tmp_path):
    with pytest.raises(InputError, match="wanted a file, a folder or an archive, got nothing there"):
        import_masks(tmp_path / "none", THREE)
    with pytest.raises(InputError, match=r"wanted indexed PNGs, .* got nothing"):
        import_masks(tmp_path, THREE)
    (tmp_path / "a.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"a\.png: wanted a file of the folder's own, got a link"):
        import_masks(tmp_path, THREE)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"3", b'{"shapes": 1' + b"0" * 5000 + b"}", b"\xff\xfe{}"])
def test_json_that_is_none(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: (wanted JSON|wanted a JSON object|shapes: wanted)"):
        import_masks(tmp_path / "x.json", THREE)


def test_small_files_cannot_ask_for_endless_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("jsplat.exchange.shapes.MOST_TOTAL", 11)
    for name in FORMATS:
        path = written(tmp_path / name, name, {"a": SMALL, "b": SMALL})
        with pytest.raises(InputError, match="wanted at most 11 pixels in all, got more"):
            import_masks(path, THREE)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_only_input_errors_escape(tmp_path_factory, name, data):
    """Bytes of a good file are changed, cut or repeated; most of it must be noticed, none of it may crash."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = written(folder / ("x.zip" if data.draw(st.booleans()) else "x"), name)
    file = path if path.is_file() else data.draw(st.sampled_from(sorted(p for p in path.rglob("*") if p.is_file())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        content = content or bytearray(b"x")
    file.write_bytes(bytes(content))
    try:
        for mask in import_masks(path, THREE).values():
            THREE.check(mask, "fuzz")
    except InputError:
        pass


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: object) -> list[tuple[object, object]]:
    """Every (container, key) of a JSON value."""
    here = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [place for key, inner in here for place in [(value, key), *places(inner)]]


@pytest.mark.parametrize("name", ["labelme", "coco", "indexed"])
@given(data=st.data())
def test_json_may_hold_anything_anywhere(tmp_path_factory, name, data):
    path = written(tmp_path_factory.mktemp("fuzz") / "x", name)
    file = next(path.rglob("*.json"))
    content = json.loads(file.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(content)))
        container[key] = data.draw(ANYTHING)
    file.write_text(json.dumps(content))
    with contextlib.suppress(InputError):
        for mask in import_masks(path, THREE).values():
            THREE.check(mask, "fuzz")
