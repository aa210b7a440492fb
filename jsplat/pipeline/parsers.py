"""Parsers in folders: opened, and trained into one."""

import dataclasses
from pathlib import Path

from jsplat.config import to_json
from jsplat.parser import Parser, ParserConfig, load_parser
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import digests_in
from jsplat.pipeline.fingerprints import of_set
from jsplat.pipeline.out import claim_whole
from jsplat.pipeline.stages.train import train_student
from jsplat.pipeline.work_folder import fingerprint, finished, stage
from jsplat.runtime.devices import broadcast_from_first
from jsplat.training_sets.reading import longer_side, read_training_set


def parser_folder(path: Path) -> Path:
    """Where the parser of a `train-parser` folder lies, or a bare checkpoint folder itself."""
    return path / "parser" if (path / "parser").is_dir() else path


def open_parser(path: Path) -> Parser:
    """The parser of a `train-parser` folder, or of a bare checkpoint folder."""
    return load_parser(parser_folder(path))


def train_teacher(data_path: Path, out: Path, config: RunConfig, settings: ParserConfig, **options) -> Parser:
    """Trains a parser into a folder (or fine-tunes one); skipped when it is already there.

    Args:
        options: `start` (folder of a parser), `replay` and `validation` (folders), as in `train_parser`.
    """
    paths = {name: path for name, path in options.items() if path is not None}
    claim_whole(out, "train-parser", data_path, *paths.values())
    read = {"data": data_path, **paths, **({"start": parser_folder(paths["start"])} if "start" in paths else {})}
    start = open_parser(paths["start"]) if "start" in paths else None
    network = start.architecture if start is not None else config.teacher.architecture
    pixels = config.size or longer_side(data_path, config.dataset)
    config, settings = dataclasses.replace(config, size=pixels), settings.for_side(pixels, network.input_size)
    with digests_in(out) as digests:
        held = broadcast_from_first(lambda: {name: of_set(digests.path(path), config) for name, path in read.items()})
        wanted = fingerprint(settings, config.seed, held)
        if finished(out, wanted) is None:
            sets = {n: read_training_set(p, config.size, config.dataset) for n, p in paths.items() if n != "start"}
            data = read_training_set(data_path, config.size, config.dataset)
            about = to_json(settings) | {"data": str(data_path.resolve()), "size": pixels}
            with stage(out, wanted, about, config.seed, command="train-parser") as folder:
                train_student(folder, data, settings, config.seed, start=start, **sets)
    return load_parser(out / "parser")
