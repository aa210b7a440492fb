"""Which captures to take: `python -m bench.captures_needed RUN OUT`, an hour of two cores.

RUN: a finished `jsplat run --config heads_cpu` on captures with true labels, some of whose people are unseen. One thing
at a time is varied: the views of a person (every second, every fourth), the people that a student learns from, and the
corrected views of a person (the first of the queue, which get their true labels). Scored against the truth, |yaw| at
least 60 degrees: refined masks on the views that all have, students on the unseen, edits on the unseen's refined masks,
in edited views as they would be without what was said there. What is done already in OUT is not done again. Writes
bench/history/captures_needed.json.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.history import HERE
from bench.run import about
from jsplat.captures.capture import write_capture
from jsplat.captures.index import Listed, list_captures
from jsplat.edit import EditConfig, SimulationConfig
from jsplat.files.atomic import write_json
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.masks import score
from jsplat.parser import load_parser, predict_labels
from jsplat.pipeline.editing import edits_of, open_run
from jsplat.pipeline.packing import load_labelled

EVERY = (4, 2, 1)  # of the views
PEOPLE = (2, 4)  # beside all of them
EDITS = (2, 8)  # of each person


class Study:
    """A finished run, and what is made from it."""

    def __init__(self, run: Path, out: Path):
        self.run, self.out = run, out
        told = json.loads((run / "run.json").read_text())
        self.heads, self.parser, self.config = Path(told["captures"]), Path(told["parser"]), told["config"]
        self.listed = list_captures(self.heads, self.config["size"])
        self.classes = LabelSet.from_json(json.loads((run / "label" / "labelset.json").read_text()))
        learnt = len(self.listed) - self.config["unseen"]
        self.groups = {"fitted": self.listed[:learnt], "unseen": self.listed[learnt:]}

    def command(self, out: Path, heads: Path, *more: str) -> None:
        """`jsplat run` with the settings of the run."""
        same = ["--config", "heads_cpu", "--set", f"baselines={json.dumps(self.config['baselines'])}"]
        words = ["run", str(out), "--captures", str(heads), "--parser", str(self.parser), *same, *more]
        subprocess.run([sys.executable, "-m", "jsplat", *words], check=True)

    def f1(self, people: list[Listed], masks: dict[str, np.ndarray], step: int = 1) -> float:
        """Side F1 of masks of every so many views, all people together."""
        read = [one.read() for one in people]
        names = tuple(one.identity for one in read for _ in one.images[::step])
        truth = np.concatenate([one.labels[::step] for one in read if one.labels is not None])
        yaw, pitch = (np.concatenate([getattr(one, angle)[::step] for one in read]) for angle in ("yaw", "pitch"))
        found = score(np.concatenate([masks[one.identity] for one in read]), truth, yaw, pitch, names, self.classes)
        return float(found["bins"]["side"]["f1"])

    def views(self, every: int) -> Path:
        """A run to refined masks with every so many of the views."""
        if every == 1:
            return self.run
        heads, out = self.out / f"heads_every_{every}", self.out / f"every_{every}"
        for one in self.listed:
            if not (heads / one.identity).exists():
                whole = one.read()
                kept = {key: getattr(whole, key)[::every] for key in ("images", "labels", "cameras")}
                write_capture(heads / one.identity, dataclasses.replace(whole, **kept))
        self.command(out, heads, "--set", "unseen=0", "--set", "ablation=false", "--until", "label")
        return out

    def of_views(self) -> list[dict]:
        """Refined masks by the number of views."""
        found = []
        for every in EVERY:
            label, step = self.views(every) / "label", max(EVERY) // every
            row: dict[str, float] = {"views": len(self.listed[0].read().images[::every])}
            for group, people in self.groups.items():
                arrays = {one.identity: load_labelled(label, one.identity) for one in people}
                for method in ("refined", "oracle"):
                    masks = {name: of[method][::step] for name, of in arrays.items()}
                    row[f"{method} {group}"] = self.f1(people, masks, max(EVERY))
            found.append(row)
        return found

    def of_people(self) -> list[dict]:
        """Students by the number of people that they learnt from."""
        found = []
        for count in (*PEOPLE, len(self.groups["fitted"])):
            out = self.run
            if count in PEOPLE:
                out = self.out / f"people_{count}"
                if not out.exists():
                    shutil.copytree(self.run, out)
                settings = (f"unseen={self.config['unseen']}", f"student_people={count}")
                more = [part for setting in settings for part in ("--set", setting)]
                self.command(out, self.heads, *more, "--until", "student")
            student, people = load_parser(out / "student" / "parser", self.classes), self.groups["unseen"]
            masks = {one.identity: predict_labels(student, one.unlabelled().read().images) for one in people}
            found.append({"people": count, "student unseen": self.f1(people, masks)})
        return found

    def of_edits(self) -> list[dict]:
        """Refined masks of the unseen by the number of corrected views: mIoU, mean over people."""
        opened = open_run(self.run, self.heads, EditConfig())
        found: dict[int, list[float]] = {0: [], **{count: [] for count in EDITS}}
        for one in self.groups["unseen"]:
            for count in EDITS:
                share = (count - 0.5) / len(one.read().images)
                told = edits_of(opened, [one.identity], SimulationConfig(revealed_fraction=share))
                assert told["revealed"] == count
                found[count].append(told["side_after_others"])
            found[0].append(told["side_before"])
        return [{"edits": count, "miou": float(np.mean(of)), "each": of} for count, of in found.items()]


def main(run: Path, out: Path) -> None:
    """Runs, scores, writes and prints."""
    study = Study(run, out)
    found = {"views": study.of_views(), "edits": study.of_edits(), "people": study.of_people()}
    counts = {group: len(people) for group, people in study.groups.items()}
    write_json(HERE / "history" / "captures_needed.json", {**about("captures needed"), "counts": counts, **found})
    print(*(f"{name}: {rows}" for name, rows in found.items()), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
