"""Compiles every kernel for GPUs that are not there, and compares what they cost with the committed table.

python -m bench.aot.check                     # exit status 1, one line for each reason, when a kernel may not pass
python -m bench.aot.check --write             # these numbers become the baseline
python -m bench.aot.check --only mosaic_gpu   # one implementation, in BACKENDS or not yet

A kernel may not spill, nor take more registers or shared memory than in the baseline, nor have more barriers there to
which threads come apart, nor hold another number of barriers.

Needs the wheels of requirements-kernels.lock on the path: `make check-kernels`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from bench.aot.entries import ARCHITECTURES
from bench.aot.ptx import tool
from jsplat.kernels.blend import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "bench" / "baseline" / "aot.json"
PROCESSES = 2
LIMIT = 600  # seconds for one process
SPILLED = ("stack", "spill_stores", "spill_loads")
# No more than before; of barriers no other number: one that is gone was lost.
WATCHED = {
    "registers": "registers",
    "shared": "bytes of shared memory",
    "barriers": "barriers",
    "apart": "barriers behind a branch",
}

Run = Mapping[str, Mapping[str, Any]]  # entry -> kernel -> numbers, or {"error": text} for what could not be had


def _compiled(implementation: str, architecture: str) -> dict[str, Any]:
    """Runs one process; its results, or why there are none.

    The process sees the wheels' assembler and no other: a toolkit of this machine would hide a missing wheel.
    """
    home, name = tool("ptxas").parents[1], f"{implementation} {architecture}"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA", "XLA_", "MOSAIC_"))}
    environment = inherited | {
        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
        "XLA_FLAGS": f"--xla_gpu_cuda_data_dir={home}",
        "JAX_PLATFORMS": "cpu",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        command = [sys.executable, "-m", "bench.aot.compile", implementation, architecture, str(out)]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return {name: {"error": f"not done after {LIMIT} s"}}
        if out.is_file():
            return json.loads(out.read_text(encoding="utf-8"))
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {name: {"error": f"exit status {done.returncode}: {last}"}}


def check(implementations: Sequence[str]) -> dict[str, Any]:
    """Compiles all entries of these implementations; KeyError for one that `bench.aot.entries` does not know."""
    found: dict[str, Any] = {}
    todo = [(name, architecture) for name in implementations for architecture in ARCHITECTURES[name]]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for (name, architecture), part in zip(todo, pool.map(_compiled, *zip(*todo))):
            print(f"compiled: {name} for {architecture}", flush=True)
            found |= part
    return found


def faults(run: Run) -> Iterator[str]:
    """What is wrong whatever the baseline says."""
    for entry, kernels in run.items():
        if "error" in kernels:
            yield f"{entry}: {kernels['error']}"
    for where, kernel in _each(run):
        if spilled := [f"{kernel[key]} bytes of {key}" for key in SPILLED if kernel[key]]:
            yield f"{': '.join(where)}: {', '.join(spilled)}"


def _each(run: Run) -> Iterator[tuple[tuple[str, str], Mapping[str, int]]]:
    """(Entry, kernel) and numbers of all that was compiled."""
    for entry, kernels in run.items():
        yield from (((entry, name), numbers) for name, numbers in kernels.items() if "error" not in kernels)


def regressions(run: Run, baseline: Run) -> Iterator[str]:
    """What is missing, new, or worse than the baseline."""
    for entry in baseline.keys() - run.keys():
        yield f"{entry}: in the baseline, but was not checked"
    for entry in run.keys() - baseline.keys():
        if "error" not in run[entry]:
            yield f"{entry}: not in the baseline; add it with --write"
    both = {entry for entry in run.keys() & baseline.keys() if "error" not in run[entry]}
    now, before = ({where: n for where, n in _each(each) if where[0] in both} for each in (run, baseline))
    for where in sorted(now.keys() | before.keys()):
        name = ": ".join(where)
        if where not in now or where not in before:
            yield f"{name}: {'a new kernel; add it with --write' if where in now else 'the kernel is gone'}"
            continue
        for key, unit in WATCHED.items():
            new, old = now[where][key], before[where][key]
            if new > old or (key == "barriers" and new != old):
                yield f"{name}: {new} {unit}, was {old}"


def table(run: Run) -> str:
    """What was found, a line for each kernel."""
    rows = [("entry", "kernel", "registers", "spills", "shared", "threads", "barriers", "apart")]
    for (entry, name), kernel in _each(run):
        spills = kernel["spill_stores"] + kernel["spill_loads"]
        numbers = (
            kernel["registers"],
            spills,
            kernel["shared"],
            kernel["threads"],
            kernel["barriers"],
            kernel["apart"],
        )
        rows.append((entry, name, *map(str, numbers)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines + [f"{entry}  {found['error']}" for entry, found in run.items() if "error" in found])


def baseline_text(baselines: Mapping[str, Run]) -> str:
    """The file's text: version of JAX -> entry, one line each, so that a change is read line by line."""
    versions = []
    for version in sorted(baselines):
        entries = [f"  {json.dumps(e)}: {json.dumps(k, sort_keys=True)}" for e, k in sorted(baselines[version].items())]
        versions.append(f" {json.dumps(version)}: {{\n" + ",\n".join(entries) + "\n }")
    return "{\n" + ",\n".join(versions) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when something may not pass."""
    parser = argparse.ArgumentParser(prog="python -m bench.aot.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make these numbers the baseline")
    parser.add_argument("--only", choices=[n for n, a in ARCHITECTURES.items() if a], help="one implementation alone")
    given = parser.parse_args(arguments)
    if given.only and given.write:
        parser.error("--write wants everything, not --only one implementation")
    try:
        tool("ptxas")
    except FileNotFoundError as error:
        parser.error(str(error))
    begin = time.monotonic()
    run = check([given.only] if given.only else BACKENDS)
    print(table(run))
    print(f"{len(run)} entries, {time.monotonic() - begin:.0f} s, jax {jax.__version__}")

    # Another version of JAX compiles to other code: each has a table of its own.
    version = ".".join(jax.__version__.split(".")[:2])
    baselines = json.loads(BASELINE.read_text(encoding="utf-8"))
    wrong = list(faults(run))
    if given.write and any("error" in found for found in run.values()):
        wrong.append("the baseline was not written: not everything could be compiled")
    elif given.write:
        BASELINE.write_text(baseline_text(baselines | {version: run}), encoding="utf-8")
    elif version in baselines:
        held = {e: k for e, k in baselines[version].items() if given.only in (None, e.split()[0])}
        wrong += regressions(run, held)
    else:
        print(f"no baseline for jax {version}: only spills were judged")
    for line in wrong:
        print(f"check: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
