"""Runs suites, appends one JSON line per measurement to the history, and compares with the baseline of this device.

python -m bench.run --suite cpu-raster cpu-step   # measure, print, append to bench/history/<device>.jsonl
python -m bench.run --list                        # what there is
python -m bench.run --gate                        # and fail when something got worse
python -m bench.run --save-baseline               # these numbers become the baseline
"""

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from bench.history import HERE
from bench.machine import about, device_name
from bench.metric import complaints, slug
from bench.tables import why_not
from bench.timing import Job, chosen, measure
from bench.workloads import SUITES, Fit, Lift, Network, Product, Raster, Step, Work
from jsplat.kernels.blend import BACKENDS
from jsplat.kernels.select import use_backend
from jsplat.runtime.programs import configure_xla

FEWEST = 5  # rounds of a suite that has a baseline
# Module and function; imported when there is such work, for some need PyTorch and flax.
PREPARE = {
    Raster: ("raster", "prepare"),
    Step: ("fits", "prepare_step"),
    Fit: ("fits", "prepare_fit"),
    Lift: ("fits", "prepare_lift"),
    Network: ("networks", "prepare"),
    Product: ("networks", "prepare_product"),
}


def on_backend(prepare: Callable[..., Job], work: Work) -> Job:
    """A job made and called on the backend that the workload names, if it names one."""
    with use_backend(work.implementation if work.implementation in BACKENDS else None):
        job = prepare(work)

    def call():
        with use_backend(work.implementation if work.implementation in BACKENDS else None):
            return job.call()

    return dataclasses.replace(job, call=call)


def prepare(work: Work) -> Job:
    """Makes a workload ready to be timed."""
    module, function = PREPARE[type(work)]
    job = on_backend(getattr(importlib.import_module(f"bench.{module}"), function), work)
    return dataclasses.replace(job, work={**work.described(), **job.work})


def _shown(line: dict) -> str:
    if line["value"] is None:
        return f"{line['name']:44} {why_not(line)}"
    spread = f"(IQR {line['spread']:.0%}, best {line['fastest']:.4g})"
    text = f"{line['name']:44} {line['value']:10.4g} {line['unit']:2} {spread}"
    if line["floor"]:
        seconds = line["fastest"] / 1e3
        gops, gb = line["floor"]["operations"] / 1e9, line["floor"]["bytes"] / 1e9
        text += f"; floor {gops:.3g} Gop, {gb:.3g} GB: {gops / seconds:.3g} Gop/s, {gb / seconds:.3g} GB/s"
    if line["bound"] is not None:
        text += f"; goal {'at most' if line['direction'] == 'lower' else 'at least'} {line['bound']:g}"
    return text + (f"; {line['note']}" if line["note"] else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when the gate has a complaint."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=["cpu-small"])
    parser.add_argument("--only", default="", help="only workloads whose name matches this regular expression")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="fail unless JAX computes on it")
    parser.add_argument("--rounds", type=int, help="instead of the suite's own")
    parser.add_argument("--out", type=Path, help="the .jsonl to append to; default: bench/history/<device>.jsonl")
    parser.add_argument("--baseline", type=Path, help="default: bench/baseline/<device>.json")
    parser.add_argument("--gate", action="store_true", help="fail on a regression, a missing metric or a crash")
    parser.add_argument("--save-baseline", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the suites and what is in them")
    given = parser.parse_args(arguments)
    configure_xla()  # what is timed is what our commands run
    if given.list:
        for name, suite in SUITES.items():
            print(name, *(f"  {work}" for work in suite.workloads), sep="\n")
        return 0
    if given.rounds is not None and given.rounds < FEWEST and (given.gate or given.save_baseline):
        parser.error(f"--rounds: wanted at least {FEWEST}, got {given.rounds}")
    if given.device and jax.devices()[0].platform != given.device:
        parser.error(f"--device: wanted {given.device}, JAX has {jax.devices()[0].platform}")
    name = slug(device_name())
    path = given.baseline or HERE / "baseline" / f"{name}.json"
    out = given.out or HERE / "history" / f"{name}.jsonl"
    if given.gate and not path.is_file():
        parser.error(f"--gate: no baseline for this device ({path.name}); make one with --save-baseline")

    out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for suite in given.suite:
        where = about(suite)
        found = measure(chosen(SUITES[suite], given.only), prepare, given.rounds)
        if any(metric.work.get("kind") == "fit" for metric in found):
            from bench.fits import to_the_same_psnr

            found += to_the_same_psnr(found)
        own = [metric.line(**where) for metric in found]
        with out.open("a", encoding="utf-8") as file:  # at once: a later suite may be the last one
            file.writelines(json.dumps(line) + "\n" for line in own)
        print(*map(_shown, own), sep="\n", flush=True)
        lines += own
    wrong = complaints(lines, json.loads(path.read_text())) if given.gate else []
    if given.save_baseline:
        crashed = [line["name"] for line in lines if line["error"]]
        if crashed:
            parser.error(f"--save-baseline: no value for {', '.join(crashed)}")
        kept = {line["name"]: line for line in lines if line["value"] is not None}
        path.write_text(json.dumps(kept, indent=1) + "\n")
    for complaint in wrong:
        print(f"gate: {complaint}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
