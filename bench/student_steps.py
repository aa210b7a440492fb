"""Students that are trained for longer: `python -m bench.student_steps RUN OUT`, twenty minutes of two cores.

RUN: a finished `jsplat run --config heads_cpu` on captures with true labels, some of whose people are unseen. Its
student is trained once more, for TIMES as many steps, into OUT (what is done already there is not done again). The
teacher and both students are scored on the unseen, on whom nothing is chosen. Writes bench/history/student_steps.json.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.scoring import tally_of
from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.metrics.classes import class_counts, f1_per_class
from jsplat.metrics.masks import BINS, Tally, scores_of
from jsplat.metrics.statistics import f1_difference
from jsplat.parser import Parser, load_parser, predict_labels

TIMES = 2
ENOUGH = 200  # true pixels of a class in a bin of poses, below which its F1 says nothing


def longer(study: Study, out: Path) -> int:
    """Trains the student for TIMES as many steps into `out`; how many these are."""
    count = TIMES * study.config["finetune"]["steps"]
    if not out.exists():
        shutil.copytree(study.run, out)
    settings = (f"unseen={study.config['unseen']}", f"finetune.steps={count}")
    study.command(out, study.heads, *(part for one in settings for part in ("--set", one)), "--until", "student")
    return count


def counted(study: Study, parser: Parser, people: list[Listed]) -> Tally:
    """What a parser says of people, beside their truth."""
    found = Tally.empty(len(study.classes))
    for one in people:
        seen = one.read()
        found.add(tally_of(seen, predict_labels(parser, seen.images), study.classes))
    return found


def losses(of: Tally, before: Tally, names: tuple[str, ...]) -> list[dict]:
    """By how much F1 of each foreground class with ENOUGH pixels in a bin of poses has changed; worst first."""
    found = []
    for at, name in enumerate(BINS):
        counts = [class_counts(one.matrices[at]) for one in (of, before)]
        change = np.subtract(*map(f1_per_class, counts))
        enough = [k for k in range(1, len(names)) if counts[0][1, k] >= ENOUGH]
        found += [{"bin": name, "class": names[k], "change": float(change[k])} for k in enough]
    return sorted(found, key=lambda row: row["change"])


def main(run: Path, out: Path) -> None:
    """Trains, scores, writes and prints."""
    study = Study(run, out)
    count = longer(study, out)
    parsers = {"teacher": study.parser / "parser", "student": run / "student" / "parser"}
    parsers[f"student, {count} steps"] = out / "student" / "parser"
    nets = {name: load_parser(path, study.classes) for name, path in parsers.items()}
    tallies = {name: counted(study, net, study.groups["unseen"]) for name, net in nets.items()}
    teacher, short, long = tallies.values()
    found = {
        "trained_at": json.loads((out / "student" / "run.json").read_text())["commit"],
        "people": len(study.groups["unseen"]),
        "seed": study.config["seed"],
        "steps": [study.config["finetune"]["steps"], count],
        "scores": {name: scores_of(one, study.classes)["bins"] for name, one in tallies.items()},
        "longer minus shorter, side": f1_difference([long.people["side"]], [short.people["side"]]),
        "longer minus teacher": {
            name: f1_difference([long.people[name]], [teacher.people[name]]) for name in ("side", "0-15")
        },
        "class losses against the teacher": losses(long, teacher, study.classes.names)[:5],
    }
    write_json(HERE / "history" / "student_steps.json", {**about("student steps"), **found})
    for name, bins in found["scores"].items():
        print(name, *(f"{b} {100 * of['f1']:.1f} (core {100 * of['f1_core']:.1f})" for b, of in bins.items()), sep="  ")
    print(*(f"{key}: {found[key]}" for key in list(found)[5:]), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
