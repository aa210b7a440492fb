"""The stages one by one, as the command line offers them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jsplat.captures.index import Listed, list_captures, log_resized
from jsplat.captures.pictures import write_png
from jsplat.errors import InputError
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import check_scenes
from jsplat.labelsets.labelset import LabelSet
from jsplat.labelsets.tables import label_set
from jsplat.parser import enlarged, weights
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import Digests, digests_in
from jsplat.pipeline.elsewhere import gather
from jsplat.pipeline.fingerprints import (
    arrays_of,
    contents,
    edits_of,
    of_all_identities,
    of_fit,
    of_label,
    of_parse,
    of_render,
    of_set,
    scenes_of,
)
from jsplat.pipeline.hub import local_file
from jsplat.pipeline.out import claim_file, claim_whole
from jsplat.pipeline.parsers import open_parser, parser_folder
from jsplat.pipeline.scoring import bin_lines, listed_scores, set_scores
from jsplat.pipeline.stages.fit import fit_captures
from jsplat.pipeline.stages.identities import succeeded
from jsplat.pipeline.stages.label import check_edits, label_captures, label_settings, labels_of
from jsplat.pipeline.stages.parse import parse_captures
from jsplat.pipeline.stages.render import render_novel_views
from jsplat.pipeline.stages.train import write_set
from jsplat.pipeline.work_folder import cleared, failures, fingerprint, finished, load_arrays, stage
from jsplat.runtime.devices import broadcast_from_first
from jsplat.training_sets.elsewhere import folder_in
from jsplat.training_sets.reading import is_listed, list_dataset, longer_side, read_training_set


def labelset_in(parsed: Path) -> LabelSet:
    """What the labels in a folder of `parse` or `label` mean."""
    try:
        return LabelSet.from_json(json.loads((parsed / "labelset.json").read_text()))
    except (OSError, json.JSONDecodeError) as error:
        wanted, hint = "labels from `parse` or `label` (labelset.json)", "a run keeps them in RUN/parse and RUN/label"
        raise InputError(str(parsed), wanted=wanted, got=error, hint=hint) from error


def _listed(captures: Path, config: RunConfig, bad: dict[str, str]) -> tuple[list[Listed], RunConfig]:
    """The captures, and the settings with what they leave open decided; `bad` gets who cannot be used."""
    listed = list_captures(captures, config.size, refused=bad)
    log_resized(listed)
    return listed, config.for_side(max(max(one.shape[1:]) for one in listed))


def _left_out(listed: list[Listed], refused_names: dict[str, str], *folders: Path) -> dict[str, str]:
    """Whom of the captures a stage or those before it left out, and why."""
    known = {one.identity for one in listed}
    return refused_names | {n: why for folder in folders for n, why in failures(folder).items() if n in known}


def parse(
    parser: Path | None, captures: Path, out: Path, config: RunConfig, labels: Sequence[str] = ()
) -> dict[str, str]:
    """First labels of all views, from all voters (see `gather`); returns who was left out, and why."""
    claim_whole(out, "parse", parser, captures, *map(folder_in, labels))
    bad: dict[str, str] = {}
    listed, config = _listed(captures, config, bad)
    voters = gather(None if parser is None else enlarged(open_parser(parser), config.enlarge), labels, listed)
    with digests_in(out) as digests:
        weak = "" if parser is None else digests.path(parser_folder(parser))
        voices = broadcast_from_first(lambda: voters.fingerprints(weak, listed, digests))
        each = {name: of_parse(held, voices[name], config) for name, held in contents(listed, digests).items()}
        wanted, about = of_all_identities(each), config.looks | {"size": config.size}
        if finished(out, wanted) is None:
            with stage(out, wanted, about, config.seed, command="parse", each=each) as folder:
                parse_captures(listed, voters, folder, config.flip)
    return _left_out(listed, bad, out)


def fit(captures: Path, labels: Path | None, out: Path, config: RunConfig) -> dict[str, str]:
    """Scenes of all captures; returns who was left out, and why."""
    claim_whole(out, "fit", captures, labels)
    bad: dict[str, str] = {}
    (listed, config), before = _listed(captures, config, bad), [] if labels is None else [labels]
    labelset, there = None if labels is None else labelset_in(labels), succeeded(listed, *before)
    with digests_in(out) as digests:
        first = {} if labels is None else arrays_of(labels, there, digests)
        held = contents(there, digests)
        each = {one.identity: of_fit(held[one.identity], first.get(one.identity), config) for one in there}
        wanted = of_all_identities(each)
        if finished(out, wanted) is None:
            with stage(out, wanted, config.fit, config.seed, command="fit", each=each) as folder:
                fit_captures(there, labels, labelset, config, folder)
    return _left_out(listed, bad, *before, out)


def label(captures: Path, fitted: Path, labels: Path, out: Path, config: RunConfig) -> dict[str, str]:
    """Refined masks of all views: arrays, and PNGs to look at; returns who was left out, and why."""
    claim_whole(out, "label", captures, fitted, labels)
    labelset, bad = labelset_in(labels), dict[str, str]()
    listed, config = _listed(captures, config, bad)
    check_scenes(fitted)
    there = succeeded(listed, labels, fitted)
    with digests_in(out) as digests:
        first, scenes = arrays_of(labels, there, digests), scenes_of(fitted, there, digests)
        held = contents(there, digests)
        each = {name: of_label(held[name], first[name], scenes[name], config) for name in held}
        wanted = of_all_identities(each)
        if finished(out, wanted) is None:
            about = label_settings(config) | {"captures": str(captures.resolve())}
            with stage(out, wanted, about, config.seed, command="label", each=each) as folder:
                label_captures(there, fitted, labels, labelset, config, folder)
                for one in succeeded(there, folder):
                    for i, mask in enumerate(load_arrays(folder / f"{one.identity}.npz", "refined")["refined"]):
                        write_png(folder / one.identity / "labels" / f"{i:03d}.png", mask)
                        write_png(folder / one.identity / "colors" / f"{i:03d}.png", labelset.colorize(mask))
    return _left_out(listed, bad, labels, fitted, out)


def render(captures: Path, fitted: Path, labelled: Path, out: Path, config: RunConfig) -> dict[str, str]:
    """An auxiliary set of refined photographs and labelled renders; returns who was left out, and why."""
    claim_whole(out, "render", captures, fitted, labelled)
    labelset, bad = labelset_in(labelled), dict[str, str]()
    listed, config = _listed(captures, config, bad)
    check_scenes(fitted)
    check_edits(labelled, labelset)
    there = succeeded(listed, fitted, labelled)
    with digests_in(out) as digests:
        masks, scenes = arrays_of(labelled, there, digests), scenes_of(fitted, there, digests)
        held = contents(there, digests)
        edits = {name: edits_of(labelled.absolute().parent, name, digests) for name in held}
        each = {name: of_render(held[name], scenes[name], masks[name], edits[name], config) for name in held}
        wanted = of_all_identities(each)
        if finished(out, wanted) is not None:
            return _left_out(listed, bad, fitted, labelled, out)
        with stage(out, wanted, config.views, config.seed, command="render", each=each) as folder:

            def known(name: str) -> dict[str, np.ndarray]:
                return labels_of(labelled, name, labelset)

            render_novel_views(there, fitted, known, labelset, config, folder)
            left = succeeded(there, folder)
            write_set(
                folder / "set",
                left,
                folder,
                lambda capture: known(capture.identity)["refined"],
                lambda views: views["labels_student"],
                labelset,
            )
    return _left_out(listed, bad, fitted, labelled, out)


def convert(path: Path, out: Path, labels: str | None, size: int | None, inside: str | None) -> str:
    """Somebody's weights, from disk or the hub (see `local_file`), as a parser; returns what to tell people."""
    given, path = path, local_file(path)
    claim_whole(out, "convert", path)
    about = {"weights": str(given), "labels": labels, "size": size, "inside": inside}
    with stage(out, fingerprint(Digests().path(path), about), about, 0, command="convert") as folder:
        labelset = None if labels is None else label_set(labels)
        return weights.convert(path, cleared(folder / "parser"), labelset, input_size=size, inside=inside).summary()


def export(parser: Path, out: Path, names: Literal["zllrunning", "yakhyo"]) -> None:
    """A parser as ONNX or safetensors."""
    claim_file(out, parser)
    weights.export(open_parser(parser), out, names)


def evaluate(parser: Path, captures: Path, out: Path, config: RunConfig) -> dict[str, str]:
    """Scores of a parser by head pose, as scores.json; returns which pictures could not be read, and why.

    Public sets and plain folders are scored in their masks' own pixels, unless a size is asked for.
    """
    claim_whole(out, "evaluate", parser, captures)
    listed = not config.size and is_listed(captures, config.dataset)
    if not listed:
        config = dataclasses.replace(config, size=config.size or longer_side(captures, config.dataset))
    with digests_in(out) as digests:
        table = Path(config.dataset.table)
        read = digests.path(captures), digests.path(table) if config.dataset.table and table.is_file() else ""
        wanted = fingerprint(digests.path(parser_folder(parser)), of_set("".join(read), config))
        if finished(out, wanted) is None:
            known = open_parser(parser)
            data = None if listed else read_training_set(captures, config.size, config.dataset)
            with stage(out, wanted, {"size": config.size}, config.seed, command="evaluate") as folder:
                if data is not None:
                    scores, failed = set_scores(known, data) | {"people": len(set(data.identity))}, {}
                else:
                    scores, failed = listed_scores(known, list_dataset(captures, config.dataset), config.dataset)
                write_json(folder / "scores.json", scores)
                write_json(folder / "failed.json", failed)
    scores = json.loads((out / "scores.json").read_text())
    whole = f"people: {scores['people']}" if "people" in scores else f"pictures: {scores['bins']['all']['n']}"
    for line in (whole, *bin_lines(scores["bins"])):
        print(line)
    return json.loads((out / "failed.json").read_text())
