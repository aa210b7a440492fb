"""Runs a suite, writes one JSON line per measurement, and compares with the baseline of this kind of device.

python -m bench.run                                   # measure and print
python -m bench.run --out bench/history/DEVICE.jsonl  # and append
python -m bench.run --gate                            # and fail when something got worse
python -m bench.run --save-baseline                   # these numbers become the baseline
"""

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from bench.metric import Metric, complaints, paired_ratio, slug, summary
from bench.workloads import SUITES, Suite, Workload, accuracy, runner, weights_of

ROOT = Path(__file__).resolve().parent
ROUNDS = 7
TURN = 0.3  # seconds: a shorter workload is repeated within its turn, so that all meet the same disturbances


def measure(suite: Suite, rounds: int = ROUNDS) -> list[Metric]:
    """Every workload once per round, in turn, after a warm-up; then the ratios, round by round.

    A workload that crashes becomes a metric without a value, and so do its ratios.
    """
    ready, failed, right = {}, {}, {}
    for work in suite.workloads:
        try:
            run, args = runner(work)
            right[work.name] = accuracy(work, run, args)  # compiles as well
            args = (weights_of(work), *args)
            ready[work.name] = (run, args, max(1, math.ceil(TURN / _seconds(run, args, 1))))
        except Exception as error:  # whatever it is, the other workloads are still worth measuring
            failed[work.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, timed in ready.items():
            seconds[name].append(_seconds(*timed))
    found = [
        _time(work, seconds.get(work.name), right.get(work.name), failed.get(work.name)) for work in suite.workloads
    ]
    for ratio in suite.ratios:
        broken = next((n for n in (ratio.over, ratio.under) if n not in seconds), None)
        if broken:
            found.append(Metric(ratio.name, None, "x", ratio.direction, bound=ratio.bound, error=f"{broken} crashed"))
            continue
        value, spread = paired_ratio(seconds[ratio.over], seconds[ratio.under])
        both = {f"{n}.{key}": x for n in (ratio.over, ratio.under) for key, x in right[n].items()}
        found.append(Metric(ratio.name, value, "x", ratio.direction, spread, rounds, ratio.bound, both))
    return found


def _seconds(run: Callable, args: tuple, repeats: int) -> float:
    """Mean wall time of one call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(run(*args))
    return (time.perf_counter() - begin) / repeats


def _time(work: Workload, seconds: list[float] | None, right: dict | None, error: str | None) -> Metric:
    if seconds is None:
        return Metric(work.name, None, "ms", "lower", error=error)
    value, spread = summary(seconds)
    return Metric(work.name, 1e3 * value, "ms", "lower", spread, len(seconds), accuracy=right or {})


def device_name() -> str:
    """The accelerator's own name, or the processor's with its number of cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()} {os.cpu_count()} cores"


def about(suite: str) -> dict[str, object]:
    """Where and with what a run was made."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return {
        "suite": suite,
        "device": device_name(),
        "commit": commit,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy")}
        | {"python": platform.python_version()},
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when the gate has a complaint."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, default="cpu-small")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="a .jsonl file to append to")
    parser.add_argument("--baseline", type=Path, help="default: bench/baseline/<device>.json")
    parser.add_argument("--gate", action="store_true", help="fail on a regression, a missing metric or a crash")
    parser.add_argument("--save-baseline", action="store_true")
    given = parser.parse_args(arguments)
    if given.rounds < 5:
        parser.error(f"--rounds: wanted at least 5, got {given.rounds}")
    where = about(given.suite)
    path = given.baseline or ROOT / "baseline" / f"{slug(str(where['device']))}.json"
    if given.gate and not path.is_file():
        parser.error(f"--gate: no baseline for this device ({path.name}); make one with --save-baseline")

    lines = [metric.line(**where) for metric in measure(SUITES[given.suite], given.rounds)]
    for line in lines:
        print(json.dumps(line))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    wrong = complaints(lines, json.loads(path.read_text())) if given.gate else []
    if given.save_baseline:
        crashed = [line["name"] for line in lines if line["value"] is None]
        if crashed:
            parser.error(f"--save-baseline: no value for {', '.join(crashed)}")
        path.write_text(json.dumps({line["name"]: line for line in lines}, indent=1) + "\n")
    for complaint in wrong:
        print(f"gate: {complaint}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
