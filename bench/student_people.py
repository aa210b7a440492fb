"""Whom a student should see besides the captured: `python -m bench.student_people RUN OUT`, fifty minutes.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels. Its fitted
people are parted in two; students learn from either half, with and without variants and procedural people, and are
scored on the other half, on whom settings may be chosen. All see as many pictures. What is done already in OUT is not
done again. Writes bench/history/student_people.json after every recipe and prints its table.
"""

import dataclasses
import json
import sys
from pathlib import Path

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.student_nets import BINS, of_people, trained
from bench.student_steps import counted
from bench.tables import markdown, percent
from jsplat.captures.index import Listed
from jsplat.config import load
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.metrics.masks import Tally, scores_of
from jsplat.metrics.statistics import f1_difference
from jsplat.parser import Parser, load_parser
from jsplat.parser.fresh import Source
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.stages.label import labels_of
from jsplat.runtime.programs import configure_xla
from jsplat.training_sets.auxiliary import concatenate, read_auxiliary
from jsplat.training_sets.reading import read_training_set
from jsplat.variants import Person, Variants

RECIPES = {  # the share of variants, and whether there are procedural people
    "photographs and renders": (0.0, False),
    "and variants": (0.5, False),
    "and procedural people": (0.0, True),
    "and both": (0.5, True),
}
SMALL = ("neck_l", "hat", "mouth", "l_ear", "r_ear")  # classes that move most, from the side


def variants_of(study: Study, config: RunConfig, people: list[Listed], share: float) -> Source | None:
    """Variants of some people, as a run makes them."""
    if not share:
        return None
    scenes, made = saved_scenes(study.run / "fit"), []
    for one in people:
        known = labels_of(study.run / "label", one.identity, study.classes)
        scene = scene_in(scenes, one.identity)
        made.append(Person.of(one.unlabelled().read(), scene, known["rows_refined"], known["seen"]))
    of = dataclasses.replace(config.variants, fraction=share)
    return Variants(made, study.classes, of, config.views, config.mask.alpha_gate, 0)


def main(run: Path, out: Path) -> None:
    """Trains, scores, writes and prints."""
    configure_xla()
    out.mkdir(parents=True, exist_ok=True)
    study, config = Study(run, out), load(RunConfig, HERE.parent / "configs" / "heads_cpu.toml")
    replay = read_training_set(Path(json.loads((run / "run.json").read_text())["replay"]), config.size)
    pictures, procedural = (read_auxiliary(run / "render" / name) for name in ("student", "procedural"))
    first = load_parser(study.parser / "parser")
    fine = config.finetune.for_side(config.size, first.architecture.input_size)
    fitted = study.groups["fitted"]
    halves = fitted[: len(fitted) // 2], fitted[len(fitted) // 2 :]
    names = [[one.identity for one in half] for half in halves]

    def student(taught: list[Listed], share: float, with_procedural: bool) -> Parser:
        own = of_people(pictures, [one.identity for one in taught])
        data = concatenate([own, procedural]) if with_procedural else own
        place = out / f"{taught[0].identity}_{share:g}{'_procedural' * with_procedural}"
        fresh = variants_of(study, config, taught, share)
        return trained(place, fine, data, start=first, replay=replay, fresh=fresh)[0]

    tallies = {"teacher": counted(study, first, fitted)}
    for name, recipe in RECIPES.items():
        tallies[name] = Tally.empty(len(study.classes))
        for taught, scored in (halves, halves[::-1]):
            tallies[name].add(counted(study, student(taught, *recipe), scored))
        rows = [row(study, *of, tallies) for of in tallies.items()]
        found = {**about("student people"), "halves": names, "seed": 0, "steps": fine.steps, "batch": fine.batch}
        write_json(HERE / "history" / "student_people.json", {**found, "rows": rows})
        print(table({**found, "rows": rows}), flush=True)


def row(study: Study, name: str, of: Tally, tallies: dict[str, Tally]) -> dict:
    """The scores of a recipe, and how far they are above those of the first one."""
    scores, base = scores_of(of, study.classes), tallies[next(iter(RECIPES))]
    gain = {place: f1_difference([of.people[place]], [base.people[place]]) for place in ("side", "0-15")}
    side = {name: scores["classes_side"][name]["f1"] for name in SMALL}
    return {"name": name, "scores": {b: scores["bins"][b]["f1"] for b in BINS}, "classes, side": side, "gain": gain}


def table(found: dict) -> str:
    """Who was seen, and what students reached."""
    rows = []
    for of in found["rows"]:
        gains = (
            f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" for value, (low, high) in of["gain"].values()
        )
        shown = [*(of["scores"][b] for b in BINS), *of["classes, side"].values()]
        first = of["name"] == next(iter(RECIPES))
        rows.append([of["name"], *map(percent, shown), *("-" if first else gain for gain in gains)])
    each = [", ".join(half) for half in found["halves"]]
    where = (
        f"Students of {each[0]} scored on {each[1]}, and the other way round; {found['steps']} steps of"
        f" {found['batch']} pictures, F1 in %, seed {found['seed']}, measured at commit {found['commit']}. The last"
        " columns have the difference to photographs and renders alone, with its 95 % interval over these people."
    )
    return "\n\n".join([where, markdown(["", *BINS, *SMALL, "side, difference", "0-15, difference"], rows)])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
