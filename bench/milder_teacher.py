"""What is left to gain with a better parser: `python -m bench.milder_teacher RUN FRONTAL OUT SEEN`, 30 minutes.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels, some of whose
people are unseen. SEEN: some of its fitted people, with commas between. A milder teacher learns from the labelled
captures in FRONTAL, as the run's own did, and from those views of SEEN that are at most 60 degrees from the front; the
other fitted people teach its student, by the same settings. Both are scored on the unseen, on whom nothing is chosen.
What is done already in OUT is not done again. Writes bench/history/milder_teacher.json and prints it.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.strangers import PLACES, counted_all, parsers_of
from bench.tables import markdown, percent
from jsplat.captures.capture import write_capture
from jsplat.files.atomic import write_json
from jsplat.metrics.masks import scores_of
from jsplat.metrics.statistics import f1_difference

WIDEST = 60  # degrees of yaw and of pitch
MASKS = ("refined", "oracle")


def seen_by_teacher(study: Study, frontal: Path, names: list[str], folder: Path) -> Path:
    """The frontal captures, and the views of some people that are not extreme."""
    for one in frontal.iterdir():
        if one.is_dir() and not (folder / one.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / one.name).symlink_to(one.resolve())
    for one in study.groups["fitted"]:
        if one.identity in names and not (folder / one.identity).exists():
            whole = one.read()
            kept = np.flatnonzero((np.abs(whole.yaw) <= WIDEST) & (np.abs(whole.pitch) <= WIDEST))
            parts = {key: getattr(whole, key)[kept] for key in ("images", "labels", "cameras")}
            write_capture(folder / one.identity, dataclasses.replace(whole, **parts))
    return folder


def made(run: Path, frontal: Path, out: Path, names: list[str]) -> Study:
    """The run with the milder teacher, as far as its student."""
    study, heads = Study(run, out), out / "heads"
    data = seen_by_teacher(study, frontal, names, out / "seen")
    for one in study.listed:
        if one.identity not in names and not (heads / one.identity).exists():
            heads.mkdir(parents=True, exist_ok=True)
            (heads / one.identity).symlink_to((study.heads / one.identity).resolve())
    train = ["train-parser", str(data), str(out / "teacher"), "--config", "heads_cpu"]
    subprocess.run([sys.executable, "-m", "jsplat", *train], check=True)
    if not (out / "run").exists():
        shutil.copytree(run, out / "run")  # fits do not depend on the parser
    study.parser = out / "teacher"
    study.command(out / "run", heads, "--set", f"unseen={study.config['unseen']}", "--until", "student")
    return Study(out / "run", out)


def measured(study: Study) -> dict:
    """What a run and its parsers reached on the unseen."""
    found = counted_all(study, MASKS, parsers_of(study))
    told = {stage: json.loads((study.run / stage / "run.json").read_text())["commit"] for stage in ("label", "student")}
    gain = f1_difference([found["student"].people["side"]], [found["teacher"].people["side"]])
    rows = {name: scores_of(of, study.classes)["bins"] for name, of in found.items()}
    for name, of in rows.items():
        print(name, *(f"{place} {of[b][key]:.3f}" for place, (b, key) in PLACES.items()))
    counts = {group: [one.identity for one in people] for group, people in study.groups.items()}
    return {"people": counts, "seed": study.config["seed"], "made at": told, "gain": gain, "scores": rows}


def main(run: Path, frontal: Path, out: Path, names: list[str]) -> None:
    """Trains, scores, writes and prints."""
    found = {"seen": names, **measured(made(run, frontal, out, names))}
    write_json(HERE / "history" / "milder_teacher.json", {**about("milder teacher"), **found})


def table(found: dict) -> str:
    """The scores of what a milder teacher leads to."""
    taught = ", ".join(found["people"]["fitted"])
    who = (
        f"The teacher learnt from frontal pictures and from views of {', '.join(found['seen'])} up to {WIDEST} degrees,"
        f" the student from {taught}."
    )
    return scores_table(found, who)


def scores_table(found: dict, who: str) -> str:
    """The scores by pose, who taught whom said above."""
    rows = [[name, *(percent(of[b][key]) for b, key in PLACES.values())] for name, of in found["scores"].items()]
    value, (low, high) = found["gain"]
    where = (
        f"{len(found['people']['unseen'])} people nobody trained on, F1 in %, seed {found['seed']}, made at commit"
        f" {found['made at']['student']}. {who} Student minus teacher from the side, with 95 % interval:"
        f" {100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]."
    )
    return "\n\n".join([where, markdown(["", *PLACES], rows)])


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:4]), sys.argv[4].split(","))
