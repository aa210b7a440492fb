"""How large a parser sees first pictures best: `python -m bench.enlarged HEADS FITTED PARSER SIZE`.

HEADS: captures with truth, of people on whom settings may be chosen; FITTED: what `jsplat fit` made of them at SIZE
pixels. The parser looks at each picture in several sizes (`jsplat.parser.enlarged`), mirrored too, and its opinions go
through the label stage. Half a minute of two cores a head. Writes bench/history/enlarged.json: F1 of the parser and of
the refined masks over all people, by pose, and of the small parts from the side; prints it.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from bench.history import HERE
from bench.machine import about
from bench.scoring import tally_of
from jsplat.captures.index import list_captures
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels.opinions import most_probable
from jsplat.metrics.masks import Tally, scores_of
from jsplat.parser import Parser, enlarged, opinions
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.parsers import open_parser
from jsplat.pipeline.stages.label import label_capture
from jsplat.raster.capacity import SharedCapacity

FACTORS = (0.8, 1.0, 1.1, 1.2, 1.3, 1.4)
BINS = ("0-15", "side")
PARTS = ("u_lip", "l_lip", "mouth")


def row(parser: Parser, counted: Tally, masks: Tally) -> dict:
    """What one size gave."""
    found: dict = {"input_size": parser.architecture.input_size}
    for name, of in (("parser", counted), ("refined", masks)):
        scores = scores_of(of, parser.labelset)
        found[name] = {b: scores["bins"][b]["f1"] for b in BINS}
        found[name] |= {part: scores["classes_side"][part]["f1"] for part in PARTS}
    return found


def main(heads: Path, fitted: Path, path: Path, size: int) -> None:
    """Looks, votes, scores, writes and prints."""
    parser, shared = open_parser(path), SharedCapacity()
    config, scenes = dataclasses.replace(RunConfig(), ablation=False), saved_scenes(fitted)
    parsers = {factor: enlarged(parser, factor) for factor in FACTORS}
    k = len(parser.labelset)
    found = {factor: (Tally.empty(k), Tally.empty(k)) for factor in FACTORS}
    people = list_captures(heads, size)
    for one in people:
        capture = one.read()
        blind = dataclasses.replace(capture, labels=None)
        for factor, larger in parsers.items():
            seen = opinions(larger, capture.images, flip=True)
            made = label_capture(blind, scene_in(scenes, one.identity), seen, parser.labelset, config, shared)
            for masks, into in zip((most_probable(seen), np.asarray(made["refined"])), found[factor]):
                into.add(tally_of(capture, masks, parser.labelset))
        print(one.identity, flush=True)
    rows = {f"{factor:g}": row(parsers[factor], *of) for factor, of in found.items()}
    names = [one.identity for one in people]
    write_json(
        HERE / "history" / "enlarged.json", {**about("enlarged"), "people": names, "size": size, "factors": rows}
    )
    for factor, of in rows.items():
        print(factor, of)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))
