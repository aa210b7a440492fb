"""What a run reached on the unseen: `python -m bench.strangers RUN`, two minutes.

RUN: a `jsplat run` with `ablation`, done as far as its stage "student", on captures with true labels, some of whose
people are unseen. Its masks, teacher and student are scored on them, on whom nothing is chosen; the student as `jsplat
predict` sees pictures, too. Writes bench/history/strangers.json and prints it.
"""

import json
import sys
from pathlib import Path

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.scoring import by_class, tally_of
from bench.tables import markdown, percent
from jsplat.files.atomic import write_json
from jsplat.metrics.classes import f1_per_class, mean_known
from jsplat.metrics.masks import Tally, scores_of
from jsplat.metrics.statistics import f1_difference
from jsplat.parser import Parser, enlarged, load_parser, predict_labels
from jsplat.pipeline.packing import load_labelled

MASKS = ("plain_sharpened", "refined", "oracle")
PLACES = {"side": ("side", "f1"), "core side": ("side", "f1_core"), "0-15": ("0-15", "f1"), "steep": ("steep", "f1")}


def parsers_of(study: Study) -> dict[str, Parser]:
    """The run's teacher and student, the latter also as `jsplat predict` sees pictures."""
    teacher, student = (load_parser(of / "parser", study.classes) for of in (study.parser, study.run / "student"))
    enlarging = enlarged(student, study.config["enlarge"])
    return {"teacher": teacher, "student": student, "student, enlarged": enlarging}


def counted_all(study: Study, masks: tuple[str, ...], parsers: dict[str, Parser]) -> dict[str, Tally]:
    """What the run's masks and some parsers say of the unseen, beside their truth."""
    found = {name: Tally.empty(len(study.classes)) for name in (*masks, *parsers)}
    for one in study.groups["unseen"]:
        seen, known = one.read(), load_labelled(study.run / "label", one.identity)
        said = {name: known[name] for name in masks}
        said |= {name: predict_labels(parser, seen.images) for name, parser in parsers.items()}
        for name, of in said.items():
            found[name].add(tally_of(seen, of, study.classes))
        print(one.identity, flush=True)
    return found


def main(run: Path) -> None:
    """Scores, writes and prints."""
    study = Study(run, run)
    config, vote = study.config, study.config["vote"]["method"]  # as it came, unsharpened
    found = counted_all(study, (vote, *MASKS), parsers_of(study))
    kept = {name: scores_of(of, study.classes) for name, of in found.items()}
    rows = {name: {"bins": of["bins"], "classes_side": of["classes_side"]} for name, of in kept.items()}
    made = {stage: json.loads((run / stage / "run.json").read_text())["commit"] for stage in ("label", "student")}
    pairs = (("refined", "plain_sharpened"), ("student", "teacher"))
    differences = [[*pair, f1_difference(*([found[name].people["side"]] for name in pair))] for pair in pairs]
    sides = {
        name: {who: mean_known(f1_per_class(counts)[1:]) for who, counts in found[name].people["side"].items()}
        for name in (vote, "refined")
    }
    above = {who: f1 - sides[vote][who] for who, f1 in sides["refined"].items()}
    settings = {name: config["finetune"][name] for name in ("batch", "steps", "learning_rate", "ema_decay")}
    more = {
        "refined above the unsharpened vote, side": above,
        "people": len(study.groups["unseen"]),
        "seed": config["seed"],
        "made at": made,
        "finetune": settings,
    }
    write_json(HERE / "history" / "strangers.json", {**about("strangers"), **more, "side": differences, "scores": rows})
    for name, of in kept.items():
        print(name, *(f"{place} {of['bins'][b][key]:.3f}" for place, (b, key) in PLACES.items()))


def table(measured: dict, before: dict) -> str:
    """The scores, beside those that a report `before` has of the same people."""
    rows = []
    for name, of in measured["scores"].items():
        old = before.get(name, {}).get("unseen", {}).get("bins")
        new = [percent(of["bins"][b][key]) for b, key in PLACES.values()]
        past = [percent(old[b][key]) if old else "-" for b, key in PLACES.values()]
        rows.append([name, *(f"{a} to {b}" for a, b in zip(past, new))])
    old, new = before["refined"]["unseen"]["classes_side"], measured["scores"]["refined"]["classes_side"]
    told = "; ".join(
        f"{a} minus {b} {100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        for a, b, (value, (low, high)) in measured["side"]
    )
    above = measured["refined above the unsharpened vote, side"].values()
    told += (
        f"; by person, refined minus the vote before it is sharpened {100 * min(above):+.1f} to {100 * max(above):+.1f}"
    )
    made, how = measured["made at"], measured["finetune"]
    where = (
        f"{measured['people']} people nobody trained on, F1 in %, from commit {before['commit']} to {made['label']}"
        f" (student: {how['steps']} steps of {how['batch']} pictures, averages that keep"
        f" {how['ema_decay']:g}, {made['student']}), seed {measured['seed']}."
        f" Side, with 95 % intervals: {told}."
    )
    return "\n\n".join(
        [where, markdown(["", *PLACES], rows), f"Refined masks by class, from the side: {by_class(old, new)}."]
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
