"""How far the demo's scores reach: `python -m bench.demo_seeds OUT [SEED ...]`, five minutes of two cores a seed.

Every seed is a demo of its own: other people, another teacher, other random choices. What is done already in OUT is not
done again. Writes bench/history/demo_seeds.json: F1 of each method, by group of people and pose bin, for each seed.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench.history import HERE
from bench.run import about
from jsplat.files.atomic import write_json
from jsplat.report.findings import METHODS

SEEDS = (0, 1, 2, 3, 4)


def demo(out: Path, seed: int) -> dict:
    """Runs the demo of a seed; its report."""
    settings = ["--config", "demo", "--set", f"seed={seed}"]
    subprocess.run([sys.executable, "-m", "jsplat", "demo", str(out), *settings], check=True)
    return json.loads((out / "run" / "report.json").read_text())


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
    write_json(HERE / "history" / "demo_seeds.json", {**about("demo seeds"), "people": people, "seeds": found})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SEEDS)
