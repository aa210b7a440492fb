"""What a wider network is worth: `python -m bench.widths FRONTAL CAPTURES OUT`, twenty minutes of two cores.

A teacher of each of WIDTHS learns from FRONTAL by configs/heads_cpu.toml, into OUT (what is done already there is not
done again); the wider ones take as many steps as fit into the time that the first one's take, by the cost of a step in
this run. They are scored on CAPTURES, labelled people from whom they did not learn, on whom settings may be chosen. Of
the FULL width, that of released weights, a step is measured alone.
Writes bench/history/widths.json and prints its table.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from bench.history import HERE
from bench.machine import about
from bench.scoring import tally_of
from bench.tables import markdown, percent
from jsplat.captures.index import list_captures
from jsplat.config import load
from jsplat.files.atomic import write_json
from jsplat.metrics.masks import Tally, scores_of
from jsplat.parser import TeacherConfig, new_parser, predict_labels, try_training
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.parsers import open_parser
from jsplat.training_sets.auxiliary import from_captures

WIDTHS = (0.25, 0.375, 0.5)  # the first one is the default
FULL = 1.0
BINS = ("0-15", "15-45", "side", "all")
CONFIG = "heads_cpu"


def trained(frontal: Path, out: Path, config: TeacherConfig, default: TeacherConfig) -> None:
    """A teacher by these settings, where they differ from those of the file."""
    fields = [field.name for field in dataclasses.fields(config)]
    changed = {n: getattr(config, n) for n in fields if getattr(config, n) != getattr(default, n)}
    more = [part for name, value in changed.items() for part in ("--set", f"teacher.{name}={value}")]
    words = ["train-parser", str(frontal), str(out), "--config", CONFIG, *more]
    subprocess.run([sys.executable, "-m", "jsplat", *words], check=True)


def main(frontal: Path, captures: Path, out: Path) -> None:
    """Measures a step of each, trains, scores, writes and prints."""
    config = load(RunConfig, HERE.parent / "configs" / f"{CONFIG}.toml")
    people = list_captures(captures, config.size)
    first = people[0].read()
    assert first.labelset is not None
    data, rows = from_captures([first]), []
    settings = [dataclasses.replace(config.teacher, width=width) for width in (*WIDTHS, FULL)]
    costs = [try_training(new_parser(s.architecture, first.labelset, 0), data, s).step.seconds for s in settings]
    print(costs, flush=True)
    for one, cost in zip(settings[:-1], costs):
        one = dataclasses.replace(one, steps=round(one.steps * costs[0] / cost))
        place = out / f"{one.width:g}"
        trained(frontal, place, one, config.teacher)
        parser, found = open_parser(place), Tally.empty(len(first.labelset))
        for person in people:
            seen = person.read()
            found.add(tally_of(seen, predict_labels(parser, seen.images), parser.labelset))
        scores, told = scores_of(found, parser.labelset), json.loads((place / "run.json").read_text())
        row = {"width": one.width, "steps": one.steps, "step, ms": 1000 * cost, "seconds": told["seconds"]}
        rows.append(row | {"trained_at": told["commit"], "scores": {b: scores["bins"][b]["f1"] for b in BINS}})
        print(rows[-1], flush=True)
    who = {"people": [one.identity for one in people], "seed": config.seed, "batch": config.teacher.batch}
    who["full"] = {"width": FULL, "step, ms": 1000 * costs[-1], "hours": costs[-1] * config.teacher.steps / 3600}
    write_json(HERE / "history" / "widths.json", {**about("widths"), **who, "rows": rows})
    print(table({**who, "rows": rows}))


def table(measured: dict) -> str:
    """The widths, with what they took."""
    rows = []
    for of in measured["rows"]:
        cells = [f"{of['width']:g}", f"{of['step, ms']:.0f}", of["steps"], f"{of['seconds']:.0f}"]
        rows.append([*map(str, cells), *(percent(of["scores"][b]) for b in BINS)])
    made = dict.fromkeys(of["trained_at"] for of in measured["rows"])
    where = (
        f"Teachers, {measured['batch']} pictures a step, as many steps as fit into the time of the first one's; scored"
        f" on {', '.join(measured['people'])}, F1 in %, seed {measured['seed']}, trained at commit {', '.join(made)}."
    )
    full = measured["full"]
    where += (
        f" A step of width {full['width']:g} takes {full['step, ms']:.0f} ms, and as many steps as the default's"
        f" {full['hours']:.1f} hours: it was not trained."
    )
    return "\n\n".join([where, markdown(["width", "a step, ms", "steps", "seconds", *BINS], rows)])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
