"""Writing results so that a kill loses nothing: a temporary name first, then a rename."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax

from jsplat.devices import cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "opencv-python-headless")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: Path, data: object) -> None:
    """Writes JSON whole or not at all; NaN is refused."""
    write_bytes(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name only when the block ends without an error, replacing an older one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def provenance(seed: int) -> dict:
    """Commit, device, versions and seed, for run.json and report.json."""
    root = Path(__file__).parent.parent
    git = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    device = jax.devices()[0]
    return {
        "commit": git.stdout.strip() or "unknown",
        "device": f"{device.device_kind} x{jax.device_count()} ({platform.machine()}, {cores()} cores)",
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
        "seed": seed,
    }
