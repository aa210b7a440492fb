"""The stage `parse`: captures to first labels."""

from pathlib import Path

import numpy as np

from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.labels.opinions import Voter
from jsplat.parser import Parser, opinions
from jsplat.pipeline.first_labels import voter_arrays
from jsplat.pipeline.stages.shares import each_identity
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.view_blocks import Devices


def parse_captures(listed: list[Listed], parser: Parser, folder: Path, flip: bool) -> None:
    """First labels of every view: the parser's logits at their own stride."""

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        said = opinions(parser, one.unlabelled().read().images, flip=flip, devices=devices)
        return voter_arrays([Voter("parser", parser.labelset, said)])

    each_identity("parse", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", parser.labelset.to_json())
