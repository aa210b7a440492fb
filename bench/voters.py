"""What further voters give: `python -m bench.voters HEADS PARSED FITTED SIZE`, a minute of two cores a head and voter.

HEADS: captures with truth; PARSED and FITTED: what `jsplat parse` and `jsplat fit` made of them at SIZE pixels. Beside
the parser votes, in turn, nobody, a segmenter with true masks of some classes, a fifth of its views exchanged for
others of the same person, and one that says anything. Their tables are names alone: what becomes of the classes without
a label is presumed, as for masks from elsewhere. Writes bench/history/voters_HEADS.json: side F1 of the refined masks
by person and voter, and prints it.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.history import HERE
from bench.run import about
from jsplat.captures.capture import Capture
from jsplat.captures.index import list_captures
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labelsets.labelset import LabelSet
from jsplat.labelsets.vocabulary import Vocabulary, plain_labels
from jsplat.metrics.masks import score
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import Other
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.stages.label import label_capture
from jsplat.raster.capacity import SharedCapacity

EXCHANGED = 0.2
_FACE = ["l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth", "u_lip", "l_lip"]
_SKIN = dict.fromkeys(_FACE, "skin")
VOTERS: dict[str, Mapping[str, str]] = {  # class -> what the voter paints there; of the others, the background
    "hair, skin, neck, cloth": _SKIN | {"neck_l": "neck"} | {n: n for n in ("hair", "skin", "neck", "cloth")},
    "hair": {"hair": "hair"},
    "hair, and skin that covers the neck": _SKIN
    | {"hair": "hair", **dict.fromkeys(("skin", "neck", "neck_l"), "skin")},
}
NOISE = "noise"


def segmenter(name: str, truth: np.ndarray, classes: LabelSet, rng: np.random.Generator) -> Other:
    """The voter of that name on views with this truth "v h w"."""
    painted = VOTERS["hair, skin, neck, cloth" if name == NOISE else name]
    names = ("background", *dict.fromkeys(painted.values()))
    table = np.zeros(256, np.uint8)
    table[: len(classes)] = [names.index(painted.get(n, "background")) for n in classes.names]
    labels, views = table[truth], len(truth)
    for view in rng.choice(views, round(EXCHANGED * views), replace=False):
        labels[view] = table[truth[rng.choice([other for other in range(views) if other != view])]]
    if name == NOISE:
        labels = rng.integers(0, len(names), truth.shape).astype(np.uint8)
    return Other(name, labels, Vocabulary(plain_labels(names)).ids_in(classes, name), frontal=False)


def side_f1(capture: Capture, fitted: Path, parsed: Path, others: list[Other], capacity: SharedCapacity) -> float:
    """Of the masks that the label stage makes, in [0, 1]."""
    first, config = first_labels(parsed, capture), dataclasses.replace(RunConfig(), ablation=False)
    blind, scene = dataclasses.replace(capture, labels=None), scene_in(saved_scenes(fitted), capture.identity)
    made = label_capture(blind, scene, first.opinions, first.labelset, config, capacity, others=others)
    names = (capture.identity,) * len(capture.images)
    told = score(np.asarray(made["refined"]), capture.labels, capture.yaw, capture.pitch, names, first.labelset)
    return told["bins"]["side"]["f1"]


def main(heads: Path, parsed: Path, fitted: Path, size: int) -> None:
    """Votes, scores, writes, and prints a table."""
    classes = LabelSet.from_json(json.loads((parsed / "labelset.json").read_text()))
    capacity, found = SharedCapacity(), {}
    for number, one in enumerate(list_captures(heads, size)):
        capture = one.read()
        assert capture.labels is not None
        own = found[one.identity] = {"parser alone": side_f1(capture, fitted, parsed, [], capacity)}
        for name in (*VOTERS, NOISE):
            other = segmenter(name, capture.labels, classes, np.random.default_rng(number))
            own[name] = side_f1(capture, fitted, parsed, [other], capacity)
        print(one.identity, *(f"{name}: {100 * f1:.1f}" for name, f1 in own.items()), sep="  ", flush=True)
    mean = {name: float(np.mean([of[name] for of in found.values()])) for name in next(iter(found.values()))}
    write_json(
        HERE / "history" / f"voters_{heads.name}.json", {**about("voters"), "size": size, "mean": mean, "people": found}
    )
    print("mean", *(f"{name}: {100 * f1:.1f}" for name, f1 in mean.items()), sep="  ")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))
