"""The stages one by one, as the command line offers them."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from jsplat.capture import write_png
from jsplat.config import to_json
from jsplat.datasets import read_training_set
from jsplat.errors import InputError
from jsplat.folder import write_json
from jsplat.labelset import LabelSet
from jsplat.labeltables import label_set
from jsplat.listing import list_captures
from jsplat.parser import weights
from jsplat.pipeline import stages
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.out import claim_file, claim_whole
from jsplat.pipeline.run import open_parser
from jsplat.pipeline.scoring import bin_lines, set_scores
from jsplat.pipeline.stage import cleared, fingerprint, finished, load_arrays, stage
from jsplat.readers import read_import, read_source, used_files, write_import


def labelset_in(parsed: Path) -> LabelSet:
    """What the labels in a folder of `parse` or `label` mean."""
    try:
        return LabelSet.from_json(json.loads((parsed / "labelset.json").read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(str(parsed), wanted="labels from `parse` or `label` (labelset.json)", got=error) from error


def bring_in(source: Path, out: Path, config: RunConfig) -> None:
    """A capture in another layout, as one of ours."""
    claim_whole(out, "import", source)
    wanted = fingerprint(source, config.capture)
    if finished(out, wanted) is None:
        claim_whole(out, "import", *used_files(source.resolve(), read_source(source, config.capture)))
        with stage(out, wanted, config.capture, config.seed, command="import") as folder:
            write_import(folder, *read_import(source, config.capture))


def parse(parser: Path, captures: Path, out: Path, config: RunConfig) -> None:
    """First labels of all views."""
    claim_whole(out, "parse", parser, captures)
    wanted = fingerprint(parser, captures, config.size, config.flip)
    if finished(out, wanted) is None:
        with stage(out, wanted, {"flip": config.flip, "size": config.size}, config.seed, command="parse") as folder:
            stages.parse(list_captures(captures, config.size), open_parser(parser), folder, config.flip)


def fit(captures: Path, labels: Path | None, out: Path, config: RunConfig) -> None:
    """Scenes of all captures."""
    claim_whole(out, "fit", captures, labels)
    wanted = fingerprint(captures, *([] if labels is None else [labels]), config.size, config.fit, config.seed)
    if finished(out, wanted) is None:
        labelset = None if labels is None else labelset_in(labels)
        with stage(out, wanted, config.fit, config.seed, command="fit") as folder:
            listed = stages.sound(list_captures(captures, config.size), *([labels] if labels else []))
            stages.fit_captures(listed, labels, labelset, config, folder)


def label(captures: Path, fitted: Path, labels: Path, out: Path, config: RunConfig) -> None:
    """Refined masks of all views: arrays, and PNGs to look at."""
    claim_whole(out, "label", captures, fitted, labels)
    labelset = labelset_in(labels)
    about = {"vote": to_json(config.vote), "sharpen": to_json(config.sharpen), "mask": to_json(config.mask)}
    wanted = fingerprint(captures, fitted, labels, config.size, about, config.ablation)
    if finished(out, wanted) is not None:
        return
    with stage(out, wanted, about, config.seed, command="label") as folder:
        listed = stages.sound(list_captures(captures, config.size), labels, fitted)
        stages.label_captures(listed, fitted, labels, labelset, config, folder)
        for one in stages.sound(listed, folder):
            for i, mask in enumerate(load_arrays(folder / f"{one.identity}.npz")["refined"]):
                write_png(folder / one.identity / "labels" / f"{i:03d}.png", mask)
                write_png(folder / one.identity / "colors" / f"{i:03d}.png", labelset.colorize(mask))


def render(captures: Path, fitted: Path, labelled: Path, out: Path, config: RunConfig) -> None:
    """An auxiliary set of refined photographs and labelled renders."""
    claim_whole(out, "render", captures, fitted, labelled)
    labelset = labelset_in(labelled)
    stages.check_edits(labelled, labelset)
    edits = [path for path in (labelled.parent / "edits",) if path.is_dir()]
    wanted = fingerprint(captures, fitted, labelled, *edits, config.size, config.views, config.mask, config.seed)
    if finished(out, wanted) is not None:
        return
    with stage(out, wanted, config.views, config.seed, command="render") as folder:
        listed = stages.sound(list_captures(captures, config.size), fitted, labelled)

        def known(name: str) -> dict[str, np.ndarray]:
            return stages.labels_of(labelled, name, labelset)

        stages.render_captures(listed, fitted, known, labelset, config, folder)
        left = stages.sound(listed, folder)
        stages.write_set(folder / "set", left, folder, lambda c: known(c.identity)["refined"], "student", labelset)


def convert(path: Path, out: Path, labels: str | None, size: int | None, inside: str | None) -> str:
    """Somebody's weights as a parser; returns what to tell people."""
    claim_whole(out, "convert", path)
    about = {"weights": str(path), "labels": labels, "size": size, "inside": inside}
    with stage(out, fingerprint(path, about), about, 0, command="convert") as folder:
        labelset = None if labels is None else label_set(labels)
        return weights.convert(path, cleared(folder / "parser"), labelset, input_size=size, inside=inside).summary()


def export(parser: Path, out: Path, names: Literal["zllrunning", "yakhyo"]) -> None:
    """A parser as ONNX or safetensors."""
    claim_file(out, parser)
    weights.export(open_parser(parser), out, names)


def evaluate(parser: Path, captures: Path, out: Path, config: RunConfig) -> None:
    """Scores of a parser by head pose, as scores.json."""
    claim_whole(out, "evaluate", parser, captures)
    wanted = fingerprint(parser, captures, config.size, config.dataset)
    if finished(out, wanted) is None:
        known, data = open_parser(parser), read_training_set(captures, config.size, config.dataset)
        with stage(out, wanted, {"size": config.size}, config.seed, command="evaluate") as folder:
            write_json(folder / "scores.json", set_scores(known, data))
    for line in bin_lines(json.loads((out / "scores.json").read_text())["bins"]):
        print(line)
