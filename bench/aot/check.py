"""Compiles every kernel for GPUs that are not there, and compares what they cost with the committed table.

python -m bench.aot.check                     # exit status 1, one line for each reason, when a kernel may not pass
python -m bench.aot.check --write             # these numbers become the baseline
python -m bench.aot.check --only mosaic_gpu   # one implementation, in BACKENDS or not yet, and no sorts

Needs the wheels of requirements-kernels.lock on the path: `make check-kernels`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from bench.aot.compare import blocks, faults, part, regressions, turn
from bench.aot.entries import ARCHITECTURES
from bench.aot.ptx import tool
from bench.aot.target import TARGETS
from jsplat.kernels.blend import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "bench" / "baseline" / "aot.json"
PROCESSES = 2
LIMIT = 600  # seconds for one process
COLUMNS = ("registers", "spills", "shared", "blocks", "threads", "instructions a pair")


def shares(only: str | None) -> list[tuple[str, str]]:
    """(implementation or "sorts", architecture) of each process.

    Raises:
        KeyError: an implementation that `bench.aot.entries` does not know.
    """
    names = (only,) if only else BACKENDS
    kernels = [(name, architecture) for name in names for architecture in ARCHITECTURES[name]]
    return kernels if only else kernels + [("sorts", architecture) for architecture in TARGETS]


def _share(what: str, architecture: str) -> dict[str, Any]:
    """Runs one process; its results, or why there are none.

    The process sees the wheels' assembler and no other: a toolkit of this machine would hide a missing wheel.
    """
    home = tool("ptxas").parents[1]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA", "XLA_", "MOSAIC_"))}
    environment = inherited | {
        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
        "XLA_FLAGS": f"--xla_gpu_cuda_data_dir={home}",
        "JAX_PLATFORMS": "cpu",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "share.json")
        command = [sys.executable, "-m", "bench.aot.unit", what, architecture, str(out)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return {f"{what} {architecture}": {"error": f"not done after {LIMIT} s"}}
        if out.is_file():
            return json.loads(out.read_text(encoding="utf-8"))
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {f"{what} {architecture}": {"error": f"exit status {done.returncode}: {last}"}}


def check(only: str | None = None) -> dict[str, dict[str, Any]]:
    """Compiles everything: {"kernels": entry -> kernel -> numbers, "sorts": what -> numbers}."""
    found: dict[str, dict[str, Any]] = {"kernels": {}, "sorts": {}}
    todo = shares(only)
    with ThreadPoolExecutor(PROCESSES) as pool:
        for (what, architecture), share in zip(todo, pool.map(lambda share: _share(*share), todo)):
            print(f"compiled: {what} for {architecture}", flush=True)
            found["sorts" if what == "sorts" else "kernels"] |= share
    return found


def table(run: dict[str, dict[str, Any]]) -> str:
    """What was found, a line for each kernel and each set of sorts."""
    rows: list[tuple[str, ...]] = [("entry", "kernel", *COLUMNS)]
    for entry, kernels in run["kernels"].items():
        if "error" in kernels:
            rows.append((entry, kernels["error"], *[""] * len(COLUMNS)))
            continue
        for name, kernel in kernels.items():
            spills = kernel["spill_stores"] + kernel["spill_loads"]
            pair = f"{turn(kernel):.4g}" if kernel["pairs"] else f"({kernel['loop']} a turn)" if kernel["loop"] else "-"
            numbers = (kernel["registers"], spills, kernel["shared"], blocks(kernel), kernel["threads"], pair)
            rows.append((entry, name, *map(str, numbers)))
    widths = [max(len(row[k]) for row in rows if k != 1 or row[2]) for k in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    for what, sorts in run["sorts"].items():
        lines.append(f"sorts of {what}: {sorts.get('error') or '{cub} by CUB, {generic} generic'.format(**sorts)}")
    return "\n".join(lines)


def baseline_text(baselines: dict[str, Any]) -> str:
    """The file's text: version of JAX -> section -> entry, one line each, so that a change is read line by line."""

    def lines(level: dict[str, Any], depth: int) -> str:
        if depth == 3:
            return json.dumps(level, sort_keys=True)
        pad = " " * (depth + 1)
        inside = (f"{pad}{json.dumps(key)}: {lines(level[key], depth + 1)}" for key in sorted(level))
        return "{\n" + ",\n".join(inside) + f"\n{pad[1:]}}}" if level else "{}"

    return lines(baselines, 0) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when something may not pass."""
    parser = argparse.ArgumentParser(prog="python -m bench.aot.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make these numbers the baseline")
    kernels = [name for name, architectures in ARCHITECTURES.items() if architectures]
    parser.add_argument("--only", choices=kernels, help="check the kernels of one implementation")
    given = parser.parse_args(arguments)
    if given.only and given.write:
        parser.error("--write wants everything, not --only one implementation")
    try:
        for name in ("ptxas", "nvdisasm"):
            tool(name)
    except FileNotFoundError as error:
        parser.error(str(error))
    unknown = [name for name in BACKENDS if name not in ARCHITECTURES]
    if unknown:
        parser.error(f"bench/aot/entries.py does not say for which architectures {', '.join(unknown)} is compiled")
    begin = time.monotonic()
    run = check(given.only)
    print(table(run))
    print(f"{len(run['kernels'])} entries, {time.monotonic() - begin:.0f} s, jax {jax.__version__}")

    # Another version of JAX compiles to other code: each has a table of its own.
    version = ".".join(jax.__version__.split(".")[:2])
    baselines = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.is_file() else {}
    wrong = list(faults(run))
    if given.write and any("error" in found for section in run.values() for found in section.values()):
        wrong.append("the baseline was not written: not everything could be compiled")
    elif given.write:
        BASELINE.write_text(baseline_text(baselines | {version: run}), encoding="utf-8")
    elif version in baselines:
        wrong += regressions(run, part(baselines[version], given.only))
    elif baselines:
        print(f"no baseline for jax {version}: only spills, blocks and sorts were judged")
    else:
        wrong.append(f"no {BASELINE.relative_to(ROOT)}; make one with --write")
    for line in wrong:
        print(f"check: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
