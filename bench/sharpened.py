"""How votes are sharpened best: `python -m bench.sharpened HEADS PARSED FITTED SIZE`, a minute a head.

HEADS: captures with truth, of people on whom settings may be chosen; PARSED and FITTED: what `jsplat parse` and `jsplat
fit` made of them at SIZE pixels. The vote of the label stage as it comes, and sharpened by each of FORMS. Writes
bench/history/sharpened.json: F1 over all people by pose and, from the side, by class, and by how much side F1 of each
person rose above the vote's; prints it.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from bench.history import HERE
from bench.machine import about
from bench.scoring import tally_of
from bench.tables import markdown, percent
from jsplat.captures.index import list_captures
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels import SharpenConfig
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.masks import Tally, scores_of
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.stages.label import label_capture
from jsplat.raster.capacity import SharedCapacity

FORMS = [
    SharpenConfig(rounds=0),
    SharpenConfig(rounds=2, acceleration=1.0, pseudo_counts=20.0, small_part=0.0),
    SharpenConfig(small_part=0.0),
    SharpenConfig(small_part=0.001),
    SharpenConfig(),
    SharpenConfig(small_part=0.005),
    SharpenConfig(small_part=0.01),
    SharpenConfig(rounds=5),
]
PARTS = (
    *("mouth", "u_lip", "l_lip", "neck_l", "neck", "l_ear", "r_ear", "ear_r", "l_brow", "r_brow", "r_eye", "skin"),
    "hat",
)
SHOWN = ("rounds", "acceleration", "pseudo_counts", "small_part")


def main(heads: Path, parsed: Path, fitted: Path, size: int) -> None:
    """Votes, sharpens, scores, writes and prints."""
    classes = LabelSet.from_json(json.loads((parsed / "labelset.json").read_text()))
    scenes, shared, k = saved_scenes(fitted), SharedCapacity(), len(classes)
    found = [Tally.empty(k) for _ in FORMS]
    sides: list[dict[str, float]] = [{} for _ in FORMS]
    for one in list_captures(heads, size):
        capture = one.read()
        blind, first = dataclasses.replace(capture, labels=None), first_labels(parsed, capture)
        for form, into, side in zip(FORMS, found, sides):
            config = dataclasses.replace(RunConfig(), ablation=False, sharpen=form)
            made = label_capture(blind, scene_in(scenes, one.identity), first.opinions, classes, config, shared)
            masks = np.asarray(made["refined"])
            own = tally_of(capture, masks, classes)
            side[one.identity] = scores_of(own, classes)["bins"]["side"]["f1"]
            into.add(own)
        print(one.identity, *(f"{100 * side[one.identity]:.1f}" for side in sides), flush=True)
    rows = []
    for form, of, side in zip(FORMS, found, sides):
        scores = scores_of(of, classes)
        row = {name: getattr(form, name) for name in SHOWN}
        row |= {name: scores["bins"][name]["f1"] for name in ("0-15", "side")}
        row["above the vote"] = {who: f1 - sides[0][who] for who, f1 in side.items()}
        row["classes_side"] = {name: of["f1"] for name, of in scores["classes_side"].items()}
        rows.append(row)
    people = list(sides[0])
    write_json(
        HERE / "history" / "sharpened.json", {**about("sharpened"), "people": people, "size": size, "forms": rows}
    )
    for row in rows:
        print(row)


def table(measured: dict) -> str:
    """The forms; of each person, what sharpening gave."""
    rows = []
    for of in measured["forms"]:
        how = " / ".join(f"{of[name]:g}" for name in SHOWN) if of["rounds"] else "not sharpened"
        above = of["above the vote"].values()
        gains = f"{100 * min(above):+.1f} to {100 * max(above):+.1f}" if of["rounds"] else "-"
        scores = [of["0-15"], of["side"], *(of["classes_side"][part] for part in PARTS)]
        rows.append([how, *map(percent, scores[:2]), gains, *map(percent, scores[2:])])
    where = (
        f"{len(measured['people'])} people, F1 in %, by class from the side, measured at commit {measured['commit']}."
    )
    heads = ["rounds / acceleration / pseudo counts / small part", "0-15", "side", "above the vote, by person", *PARTS]
    return "\n\n".join([where, markdown(heads, rows)])


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))
