"""What a run moved and took per identity, measured in its folder, and what 100,000 identities on a cluster then cost.

python -m bench.plan RUN CAPTURES    # measures a finished run into bench/history/plan.json
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bench.tables import markdown
from jsplat.files.atomic import write_json
from jsplat.pipeline.work_folder import refused
from jsplat.runtime.progress import read_log

PLAN = Path(__file__).resolve().parent / "history" / "plan.json"
STAGES = ("parse", "fit", "label", "render")  # what is done for every identity
WORKERS, MANY = 64, 100_000
LINK = 3.125e9  # bytes a second: 25 Gbit/s from one file server to all workers together


def size_of(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure(run: Path, captures: Path) -> dict:
    """Seconds and bytes per identity of a finished run, and what its checkpoints cost.

    Args:
        run: folder of `jsplat run`.
        captures: what it was made from.
    """
    about = {stage: json.loads((run / stage / "run.json").read_text()) for stage in STAGES}
    people = len(json.loads((run / "fit" / "fit.json").read_text())["identities"])
    if any(refused(run / stage) for stage in STAGES):
        raise ValueError(f"{run}: wanted a run in which nobody failed")
    own = {stage: size_of(run / stage) / people for stage in STAGES}
    for name in ("student", "truth_student"):  # training sets, which are made once and not for everyone
        own["render"] -= size_of(run / "render" / name) / people if (run / "render" / name).is_dir() else 0
    saved = [e for e in read_log(run / "events.jsonl") if e["event"] == "checkpoint"]
    settings, first = about["fit"]["config"], json.loads(next(captures.glob("*/transforms.json")).read_text())
    found = {
        "device": about["fit"]["device"],
        "commit": about["fit"].get("commit", "unknown"),
        "identities": people,
        "views": len(first["frames"]),
        "pixels": [first["w"], first["h"]],
        "gaussians": settings["gaussians"],
        "steps": settings["steps"],
        "seconds": {stage: about[stage]["seconds"] / people for stage in STAGES},
        "read": size_of(captures) / people,
        "written": own,
    }
    if saved:
        found["checkpoint"] = {
            "bytes": float(np.median([e["bytes"] for e in saved])),
            "seconds": float(np.median([e["seconds"] for e in saved])),
        }
    return found


def _per_identity(plan: dict) -> list[list[str]]:
    own = [[s, f"{plan['seconds'][s]:.1f}", "-", f"{plan['written'][s] / 1e6:.2f}"] for s in STAGES]
    return [["its capture, read by every stage", "-", f"{plan['read'] / 1e6:.2f}", "-"], *own]


def section(plan: dict) -> str:
    """The page's part, from the measured numbers alone."""
    seconds, written = sum(plan["seconds"].values()), sum(plan["written"].values())
    read = plan["read"] * len(STAGES) + sum(plan["written"][stage] for stage in ("parse", "fit", "label"))
    moved, workers = read + written, WORKERS
    wide, high = plan["pixels"]
    hours = seconds * MANY / workers / 3600
    saturated = workers * moved / LINK
    parts = [
        f"Measured on {plan['device']} (one process), commit {plan['commit']}: {plan['identities']} identities of"
        f" {plan['views']} views at {wide}x{high}, {plan['gaussians']:,} Gaussians, {plan['steps']} steps.",
        markdown(["per identity", "seconds", "MB read", "MB written"], _per_identity(plan)),
        f"**{MANY:,} identities on {workers} workers**, each as fast as what was measured:",
        markdown(
            ["what", "how it follows", "cost"],
            [
                ["wall time", f"{seconds:.1f} s x {MANY:,} / {workers}", f"{hours:,.0f} hours"],
                ["captures", f"{plan['read'] / 1e6:.2f} MB x {MANY:,}", f"{plan['read'] * MANY / 1e12:.2f} TB"],
                ["results kept", f"{written / 1e6:.2f} MB x {MANY:,}", f"{written * MANY / 1e12:.2f} TB"],
                [
                    "network, captures and results",
                    f"{moved / 1e6:.1f} MB x {workers} workers / {seconds:.1f} s",
                    f"{moved * workers / seconds / 1e6:,.1f} MB/s of {LINK / 1e6:,.0f}",
                ],
                *_checkpoints(plan, workers),
            ],
        ),
        "**Where the bottleneck moves.** Nothing is sent between workers while they work: time falls with their number"
        f" until the file server is full: at {LINK * 8 / 1e9:.0f} Gbit/s that is when an identity takes less than"
        f" {saturated * 1e3:,.0f} ms on each of the {workers}, {seconds / saturated:,.0f} times faster than measured."
        f" Before that, what does not grow with devices shows: one host merges the stages and trains on what was"
        f" rendered. A GPU's time per identity: not measured; put it in the place of {seconds:.1f} s.",
    ]
    return "\n\n".join(parts)


def _checkpoints(plan: dict, workers: int) -> list[list[str]]:
    if "checkpoint" not in plan:
        return [["checkpoints", "-", "not measured"]]
    size, seconds = plan["checkpoint"]["bytes"], plan["checkpoint"]["seconds"]
    return [
        [
            "checkpoints, one a minute, written beside the work",
            f"{size / 1e6:.1f} MB in {seconds:.2f} s, x {workers} / 60 s",
            f"{size * workers / 60 / 1e6:,.1f} MB/s; {size * workers / 1e9:,.1f} GB kept",
        ]
    ]


def main() -> None:
    """Measures, and writes bench/history/plan.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("captures", type=Path)
    given = parser.parse_args()
    write_json(PLAN, measure(given.run, given.captures))


if __name__ == "__main__":
    main()
