"""A wider network, or a rate that stays: `python -m bench.student_nets RUN OUT TAUGHT PEOPLE`, forty minutes.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels. Students learn
from its pictures of TAUGHT, names with commas between, and of procedural people, without variants, and are scored on
PEOPLE, from whom they did not learn, on whom settings may be chosen. Beside the default there is one whose rate stays
at its height after the warm-up, so that the averages alone calm it down, and one of a network of twice the width, with
a teacher of its own. All take the same time, by the cost of a step in this run. Of the FULL width, that of released
weights, a step is measured alone. What is done already in OUT is not done again. Writes bench/history/student_nets.json
and prints its table.
"""

import dataclasses
import json
import sys
import time
import unittest.mock
from pathlib import Path

import numpy as np

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.student_steps import counted
from bench.tables import markdown, percent
from jsplat.config import load
from jsplat.files.atomic import new_folder, write_json
from jsplat.metrics.masks import scores_of
from jsplat.parser import Parser, ParserConfig, load_parser, new_parser, save_parser, train, train_parser, try_training
from jsplat.pipeline.config import RunConfig
from jsplat.runtime.programs import configure_xla
from jsplat.training_sets.auxiliary import AuxiliarySet, concatenate, read_auxiliary
from jsplat.training_sets.reading import read_training_set

WIDER, FULL = 0.5, 1.0
COSINE = train.paces
BINS = ("0-15", "15-45", "side", "all")


def of_people(data: AuxiliarySet, names: list[str]) -> AuxiliarySet:
    """The pictures of some people."""
    rows = np.flatnonzero(np.isin(data.identity, names))
    arrays = {name: getattr(data, name)[rows] for name in ("images", "labels", "weights", "yaw", "pitch")}
    texts = {name: tuple(getattr(data, name)[i] for i in rows) for name in ("identity", "source")}
    return dataclasses.replace(data, **arrays, **texts)


def constant(config: ParserConfig) -> list[train.Pace]:
    """As COSINE, without the cosine."""
    warmup = min(config.warmup, config.steps // 2)
    rates = np.minimum(1, (1 + np.arange(config.steps)) / (1 + warmup)) * config.learning_rate
    return [train.Pace(np.float32(rate), pace.kept) for rate, pace in zip(rates, COSINE(config))]


def trained(place: Path, config: ParserConfig, data: AuxiliarySet, pace=COSINE, **options) -> tuple[Parser, float]:
    """A parser, and the seconds that its training took; one that is there already is read."""
    if not place.exists():
        begun = time.monotonic()
        with unittest.mock.patch.object(train, "paces", pace):
            parser, _ = train_parser(data, config, 0, resume=place.with_name(f"{place.name}_resume"), **options)
        with new_folder(place) as folder:
            save_parser(folder / "parser", parser)
            write_json(folder / "took.json", {"seconds": time.monotonic() - begun})
    return load_parser(place / "parser"), json.loads((place / "took.json").read_text())["seconds"]


def main(run: Path, out: Path, taught: list[str], names: list[str]) -> None:
    """Measures steps, trains, scores, writes and prints."""
    configure_xla()
    out.mkdir(parents=True, exist_ok=True)
    study, config = Study(run, out), load(RunConfig, HERE.parent / "configs" / "heads_cpu.toml")
    people = [one for one in study.listed if one.identity in names]
    replay = read_training_set(Path(json.loads((run / "run.json").read_text())["replay"]), config.size)
    own = of_people(read_auxiliary(run / "render" / "student"), taught)
    data = concatenate([own, read_auxiliary(run / "render" / "procedural")])
    first = load_parser(study.parser / "parser")
    fine = config.finetune.for_side(config.size, first.architecture.input_size)
    nets = {width: dataclasses.replace(config.teacher, width=width) for width in (WIDER, FULL)}
    blank = {width: new_parser(net.architecture, first.labelset, 0) for width, net in nets.items()}

    def cost(start: Parser, settings: ParserConfig) -> float:
        return try_training(start, own, settings).step.seconds

    costs = {"teacher": cost(first, config.teacher), "student": cost(first, fine)}
    wider = {"teacher": cost(blank[WIDER], config.teacher), "student": cost(blank[WIDER], fine)}
    full = cost(blank[FULL], fine)
    print(costs, wider, full, flush=True)
    fewer = {name: costs[name] / wider[name] for name in costs}
    wide = dataclasses.replace(nets[WIDER], steps=round(config.teacher.steps * fewer["teacher"]))
    short = dataclasses.replace(fine, steps=round(fine.steps * fewer["student"]))
    rows = []

    def add(name: str, parser: Parser, steps: int, seconds: float | None) -> None:
        scores = scores_of(counted(study, parser, people), study.classes)["bins"]
        rows.append({"name": name, "steps": steps, "seconds": seconds, "scores": {b: scores[b]["f1"] for b in BINS}})
        print(rows[-1], flush=True)

    add("teacher", first, config.teacher.steps, None)
    beside = {"start": first, "replay": replay}
    add("student", *_with_steps(trained(out / "default", fine, data, **beside), fine))
    add("student, its rate stays", *_with_steps(trained(out / "constant", fine, data, constant, **beside), fine))
    strong, seconds = trained(out / "wide_teacher", wide, replay)
    add(f"teacher of width {WIDER:g}", strong, wide.steps, seconds)
    student = trained(out / "wide", short, data, start=strong, replay=replay)
    add(f"student of width {WIDER:g}", *_with_steps(student, short))
    found = {**about("student nets"), "taught": taught, "people": names, "seed": 0, "batch": fine.batch, "rows": rows}
    found["full"] = {"width": FULL, "step, ms": 1000 * full, "hours": full * fine.steps / 3600}
    write_json(HERE / "history" / "student_nets.json", found)
    print(table(found))


def _with_steps(found: tuple[Parser, float], config: ParserConfig) -> tuple[Parser, int, float]:
    return found[0], config.steps, found[1]


def table(measured: dict) -> str:
    """Who reached what, in which time."""
    rows = []
    for of in measured["rows"]:
        seconds = "-" if of["seconds"] is None else f"{of['seconds']:.0f}"
        rows.append([of["name"], f"{of['steps']}", seconds, *(percent(of["scores"][b]) for b in BINS)])
    full = measured["full"]
    where = (
        f"Taught by {', '.join(measured['taught'])} and procedural people, scored on {', '.join(measured['people'])},"
        f" F1 in %, seed {measured['seed']}, measured at commit {measured['commit']}. A student's step of width"
        f" {full['width']:g} takes {full['step, ms']:.0f} ms, and as many as the default's {full['hours']:.1f} hours:"
        " none was trained here; what one reaches with a teacher of its own stands under the teacher of full width."
    )
    return "\n\n".join([where, markdown(["", "steps", "seconds", *BINS], rows)])


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4].split(","))
