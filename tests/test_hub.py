"""Weights from the hub: which file is asked of its package, and what is said when there is none."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jsplat.errors import InputError
from jsplat.pipeline import commands
from jsplat.pipeline.hub import local_file


def test_what_is_asked_of_the_hub(tmp_path, monkeypatch):
    asked = []

    def download(**what):
        asked.append(what)
        return str(tmp_path / "a.pth")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    assert local_file(Path("weights/a.pth")) == Path("weights/a.pth")
    assert local_file(Path("hub:ada/face-parser/sub/a.pth")) == tmp_path / "a.pth"
    local_file(Path("hub:ada/face-parser/a.pth@refs/pr/1"))
    assert asked == [
        {"repo_id": "ada/face-parser", "filename": "sub/a.pth", "revision": None},
        {"repo_id": "ada/face-parser", "filename": "a.pth", "revision": "refs/pr/1"},
    ]
    (tmp_path / "a.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"a\.pth"):  # that far: what came is read as weights
        commands.convert(Path("hub:ada/face-parser/a.pth"), tmp_path / "out", None, None, None)


def test_what_is_said_when_the_hub_has_nothing(monkeypatch):
    def refuse(**_):
        raise OSError("404 Client Error\nmore")

    with pytest.raises(InputError, match=r"wanted hub:OWNER/NAME/FILE or .*, got another form"):
        local_file(Path("hub:ada/a.pth"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=refuse))
    with pytest.raises(InputError, match=r"hub:ada/b/a.pth: wanted .*, got OSError: 404 Client Error; check the names"):
        local_file(Path("hub:ada/b/a.pth"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"wanted the package huggingface_hub, .*`pip install 'jsplat\[hub\]'`"):
        local_file(Path("hub:ada/b/a.pth"))
