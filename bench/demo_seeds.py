"""How far the demo's scores reach: `python -m bench.demo_seeds OUT [SEED ...]`, five minutes of two cores a seed.

Every seed is a demo of its own: other people, another teacher, other random choices, and nothing is compiled before it.
What is done already in OUT is not done again. Writes bench/history/demo_seeds.json: for each seed F1 of each method, by
group of people and pose bin, the seconds that the command took, and the share of the processor's time that it used; the
last two only where the command began it.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.history import HERE
from bench.run import about
from jsplat.files.atomic import write_json
from jsplat.report.findings import METHODS
from jsplat.runtime.devices import cores

SEEDS = (0, 1, 2, 3, 4)


def demo(out: Path, seed: int) -> dict:
    """Runs the demo of a seed; its report, and what it took."""
    settings, begun = ["--config", "demo", "--set", f"seed={seed}"], not out.exists()
    cache = {"XDG_CACHE_HOME": str(out.with_name(f"{out.name}_cache").resolve())}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words = [sys.executable, "-m", "jsplat", "demo", str(out), *settings]
    subprocess.run(words, check=True, env={**os.environ, **cache})
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads((out / "run" / "report.json").read_text())
    took = {"seconds": seconds, "busy": used / (seconds * cores())} if begun else {}
    return report | {"took": took}


def f1(report: dict) -> dict:
    """Method -> group of people -> pose bin -> F1; null where there is nothing to score."""
    scored = {method: report[method] for method in METHODS if method in report}
    return {
        method: {group: {name: of["f1"] for name, of in found["bins"].items()} for group, found in groups.items()}
        for method, groups in scored.items()
    }


def main(folder: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    """Runs them one after the other, and writes."""
    reports = {seed: demo(folder / f"seed_{seed}", seed) for seed in seeds}
    people = {group: of["scored"] for group, of in reports[seeds[0]]["people"].items()}
    found = {str(seed): f1(report) for seed, report in reports.items()}
    took = {str(seed): report["took"] for seed, report in reports.items()}
    whole = {**about("demo seeds"), "people": people, "took": took, "seeds": found}
    write_json(HERE / "history" / "demo_seeds.json", whole)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SEEDS)
