"""How much of a student's batch variants should be: `python -m bench.variant_share RUN OUT`, forty minutes.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels. Its fitted
people are parted in two; by each share, students learn from either half, and from procedural people, and are scored on
the other half, on whom settings may be chosen. What is done already in OUT is not done again. Writes
bench/history/variant_share.json and prints its table.
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

SHARES = (0.0, 0.25, 0.5)
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
    tallies: dict[str, Tally] = {}

    def student(taught: list[Listed], share: float) -> Parser:
        data = concatenate([of_people(pictures, [one.identity for one in taught]), procedural])
        fresh = variants_of(study, config, taught, share)
        place = out / f"{taught[0].identity}_{share:g}"
        return trained(place, fine, data, start=first, replay=replay, fresh=fresh)[0]

    tallies["teacher"] = counted(study, first, fitted)
    for share in SHARES:
        name = f"student, {share:g}"
        tallies[name] = Tally.empty(len(study.classes))
        for taught, scored in (halves, halves[::-1]):
            tallies[name].add(counted(study, student(taught, share), scored))
        print(name, scores_of(tallies[name], study.classes)["bins"]["side"]["f1"], flush=True)
    rows, base = [], tallies["student, 0"].people["side"]
    for name, of in tallies.items():
        scores = scores_of(of, study.classes)
        row = {"name": name, "scores": {b: scores["bins"][b]["f1"] for b in BINS}}
        row["classes, side"] = {c: scores["classes_side"][c]["f1"] for c in SMALL}
        rows.append({**row, "minus none, side": f1_difference([of.people["side"]], [base])})
    names = [[one.identity for one in half] for half in halves]
    found = {
        **about("variant share"),
        "halves": names,
        "seed": 0,
        "steps": fine.steps,
        "batch": fine.batch,
        "rows": rows,
    }
    write_json(HERE / "history" / "variant_share.json", found)
    print(table(found))


def table(found: dict) -> str:
    """Shares of variants, and what students reached with them."""
    rows = []
    for of in found["rows"]:
        value, (low, high) = of["minus none, side"]
        difference = f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        shown = [*(of["scores"][b] for b in BINS), *of["classes, side"].values()]
        rows.append([of["name"], *map(percent, shown), "-" if of["name"] == "student, 0" else difference])
    each = [", ".join(half) for half in found["halves"]]
    where = (
        f"Students of {each[0]} scored on {each[1]}, and the other way round; {found['steps']} steps of"
        f" {found['batch']} pictures, F1 in %, seed {found['seed']}, measured at commit {found['commit']}; the last"
        " column, side minus the side without variants, has its 95 % interval over these people."
    )
    return "\n\n".join([where, markdown(["", *BINS, *SMALL, "difference"], rows)])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
