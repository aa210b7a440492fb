"""What a result was made with is known whatever the machine lacks, and is never somebody else's."""

import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from jsplat import __version__
from jsplat.runtime import provenance

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a package in it, as far as provenance looks at one."""
    if shutil.which("git") is None:
        pytest.skip("no git on this machine")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "x")

    def make(root: Path, project: str, package: str = "jsplat") -> Path:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
        (root / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
            subprocess.run(["git", "-C", str(root), *words], check=True)
        return root / package

    return make


def test_the_commit_is_that_of_our_own_checkout(tmp_path, checkout, monkeypatch):
    package = checkout(tmp_path / "jsplat", "jsplat")
    commit = provenance.commit_of(package)
    assert commit is not None
    assert len(commit) >= 7
    checkout(tmp_path / "other", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))  # as within a hook of theirs
    assert provenance.commit_of(package) == commit
    (package / "__init__.py").write_text("changed = True")
    assert provenance.commit_of(package) == f"{commit}-dirty"


def test_a_foreign_repository_around_the_package_is_not_taken_for_ours(tmp_path, checkout):
    root = checkout(tmp_path / "theirs", "theirs").parent
    installed = root / ".venv" / "lib" / "site-packages" / "jsplat"
    installed.mkdir(parents=True)
    assert provenance.commit_of(installed) is None
    assert provenance.commit_of(root / "jsplat") is None, "a package of our name in a project of another"
    vendored = root / "vendored"
    (vendored / "jsplat").mkdir(parents=True)
    (vendored / "pyproject.toml").write_text('[project]\nname = "jsplat"\n')
    assert provenance.commit_of(vendored / "jsplat") is None
    fork = checkout(tmp_path / "fork", "jsplat", "src").parent  # our name, but this package is not in it
    (fork / "jsplat").mkdir()
    assert provenance.commit_of(fork / "jsplat") is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), PermissionError("git"), subprocess.TimeoutExpired("git", 1)]
)
def test_without_git_there_is_no_commit_and_no_traceback(error, monkeypatch):
    def missing(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.commit_of(ROOT / "jsplat") is None
    provenance._facts.cache_clear()
    about = provenance.provenance(3)
    provenance._facts.cache_clear()
    assert "commit" not in about
    assert about["version"] == __version__
    assert about["seed"] == 3


def test_packages_from_elsewhere_have_versions_too(monkeypatch):
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    import cv2
    import jax
    import numpy as np

    found = provenance.versions()
    assert found["opencv"] == cv2.__version__
    assert found["jax"] == jax.__version__
    assert found["numpy"] == np.__version__
    monkeypatch.delitem(sys.modules, "cv2")
    assert "opencv" not in provenance.versions()


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jsplat.version.VERSION"}
