"""What students learn from, and their training."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import ParserConfig, save_parser, train_parser
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.work_folder import (
    checkpoint_folder,
    cleared,
    load_arrays,
)
from jsplat.runtime.devices import is_first_host
from jsplat.synthetic import render_captures
from jsplat.training_sets.auxiliary import AuxiliarySet, concatenate, from_captures, squared, write_parts


def write_set(
    path: Path,
    listed: list[Listed],
    rendered: Path,
    mask_of: Callable[[Capture], np.ndarray],
    novel_of: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    labelset: LabelSet,
) -> None:
    """A student's training set: photographs with their masks, and the novel views with theirs.

    One identity is in memory at a time.

    Args:
        rendered: what `render_novel_views` wrote, of which `novel_of` is given a person's arrays.
    """

    alike = len({one.shape[1:] for one in listed}) == 1

    def parts() -> Iterator[AuxiliarySet]:
        for one in listed:
            capture, novel = one.read(), load_arrays(rendered / f"{one.identity}.npz")
            photos, count = from_captures([capture.with_labels(mask_of(capture), labelset)]), len(novel["images"])
            renders = AuxiliarySet(
                images=novel["images"],
                labels=novel_of(novel),
                weights=np.ones(count, np.float32),
                identity=(capture.identity,) * count,
                yaw=novel["yaw"].astype(np.float32),
                pitch=novel["pitch"].astype(np.float32),
                source=("render",) * count,
                labelset=labelset,
            )
            part = concatenate([photos, renders])
            yield part if alike else squared(part)

    write_parts(cleared(path), parts(), sum(one.shape[0] for one in listed))


def train_student(folder: Path, data: AuxiliarySet, settings: ParserConfig, seed: int, **options) -> None:
    """Trains a parser into the folder of a stage, on all hosts together."""
    parser, history = train_parser(data, settings, seed, resume=checkpoint_folder(folder), **options)
    if is_first_host():
        save_parser(cleared(folder / "parser"), parser)
        write_json(folder / "history.json", dataclasses.asdict(history))


def write_procedural(path: Path, people: range, views: int, config: RunConfig) -> None:
    """A training set of procedural people with exact labels, photographed from all around as captures are."""

    def parts() -> Iterator[AuxiliarySet]:
        heads = dataclasses.replace(config.heads, size=config.size)
        for number in people:
            yield from_captures(render_captures([number], views, heads, config.seed))

    write_parts(cleared(path), parts(), len(people) * views)
