"""Where something was measured: device, commit, versions, load."""

import contextlib
import datetime
import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

from bench.history import HERE
from jsplat.kernels.blend.cpu.compiled import instruction_set

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "torch", "gsplat")


def device_name() -> str:
    """The accelerator's own name, or the processor's with its number of cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()} {os.cpu_count()} cores"


@functools.cache
def commit() -> str:
    """Of this tree, as the process first asked: the results of one suite are no change of what the next one times."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def about(suite: str) -> dict[str, object]:
    """Where and with what a run was made, and how busy the machine was.

    Returns:
        among others `load`, processes that wanted a core, and `instructions`, the processor's best set that the C++
        kernel has: machines of one name differ in it.
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "suite": suite,
        "device": device_name(),
        "commit": commit(),
        "versions": versions,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cores": os.cpu_count(),
        "instructions": instruction_set(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
