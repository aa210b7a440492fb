"""The wheel: what lies in it, what it says of itself, and that it works outside the checkout."""

import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from jsplat.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('dist')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy: a build leaves folders beside the sources, and takes in those of an earlier one."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("jsplat", "kernels", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    # The wheel for every machine; the library of the others was compiled when this environment was made.
    environment = os.environ | {"JSPLAT_PURE": "1"}
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").iterdir()
    assert path.name == f"jsplat-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_every_source_lies_in_it_and_nothing_else(wheel):
    def under(folder: str, package: str) -> set[str]:
        files = (p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file())
        return {f"{package}/{name}" for name in files if "__pycache__" not in name and not name.endswith(".so")}

    about = f"jsplat-{VERSION}.dist-info"
    held = {name for name in wheel.namelist() if not name.startswith(about)}
    wanted = under("jsplat", "jsplat") | under("kernels", "jsplat/kernels") | under("configs", "jsplat/configs")
    assert held == wanted - {"jsplat/kernels/README.md"}
    assert held >= {"jsplat/py.typed", "jsplat/__init__.pyi", "jsplat/edit/page/page.js", "jsplat/configs/gpu.toml"}
    assert f"{about}/licenses/LICENSE" in wheel.namelist()
    assert b"jsplat = jsplat.cli:main" in wheel.read(f"{about}/entry_points.txt")


def test_it_says_what_it_is(wheel):
    about = email.message_from_bytes(wheel.read(f"jsplat-{VERSION}.dist-info/METADATA"))
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("jsplat", VERSION, "Apache-2.0")
    assert about["License-File"] == "LICENSE"
    assert about["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in about.get_all("Classifier")
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len([line for line in about.get_all("Requires-Dist") if "extra ==" not in line]) == len(needs)


def test_version_and_license_are_told_alike_everywhere():
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert "\nlicense: Apache-2.0\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


EVERYTHING = """
import importlib, pkgutil, sys, jsplat
for module in pkgutil.walk_packages(jsplat.__path__, "jsplat."):
    if module.name != "jsplat.__main__":
        importlib.import_module(module.name)
print(*{m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "jsplat"}, sep="\\n")
jsplat.cli.main()
"""


def test_it_works_outside_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "installed")
    command = [sys.executable, "-P", "-c", EVERYTHING, "fit", "nowhere", "out", "--config", "tiny"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    files = [Path(line) for line in done.stdout.splitlines()]
    assert len(files) > 100, done.stderr
    assert all(path.is_relative_to(tmp_path / "installed" / "jsplat") for path in files)
    # The settings were found, and only the captures are missing.
    assert done.stderr.startswith("Error: nowhere: wanted a capture"), done.stderr
