"""What a result was made with: version, commit, device, packages. Nothing here fails, and nothing is guessed."""

import functools
import os
import platform
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jax

from jsplat.runtime.devices import cores
from jsplat.version import VERSION

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
_PATIENCE = 20  # seconds for git, which a network file system can hold up


def provenance(seed: int) -> dict:
    """For run.json and report.json: version, commit, device, versions of packages, and the seed.

    "commit" is there only where the package lies in a checkout of its own repository. What is not known is left out.
    """
    return {**_facts(), "seed": seed}


@functools.cache
def _facts() -> dict:
    device, commit = jax.devices()[0], commit_of(Path(__file__).resolve().parents[1])
    return {
        "version": VERSION,
        **({} if commit is None else {"commit": commit}),
        "device": f"{device.device_kind} x{jax.device_count()} ({platform.machine()}, {cores()} cores)",
        "versions": {"python": platform.python_version(), **versions()},
    }


def versions() -> dict[str, str]:
    """Of the packages that decide numbers, whoever distributed them."""
    found = {name: _distributed(name) or _imported(name) for name in PACKAGES}
    # OpenCV comes under several names of distributions, and under none from a system's packages.
    found["opencv"] = _imported("cv2")
    return {name: version for name, version in found.items() if version is not None}


def _distributed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, KeyError, OSError, ValueError):  # none, or metadata that is damaged
        return None


def _imported(name: str) -> str | None:
    return getattr(sys.modules.get(name), "__version__", None)


def commit_of(package: Path) -> str | None:
    """The commit of a package's folder, with "-dirty" where files differ from it.

    None without git, and where the folder is no part of a checkout of this project: an installation may lie within
    somebody else's repository.
    """
    root = package.parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    top = _git(root, "rev-parse", "--show-toplevel")
    ours = project == "jsplat" and top is not None and os.path.isdir(top) and os.path.samefile(top, root)
    if not ours or _git(root, "ls-files", "--error-unmatch", f"{package.name}/__init__.py") is None:
        return None
    return _git(root, "describe", "--always", "--dirty")


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it cannot say anything."""
    # Variables such as GIT_DIR, set within a hook, would point it at another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=_PATIENCE, env=own
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
