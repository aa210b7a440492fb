"""The stage `parse`: captures to first labels."""

from pathlib import Path

import numpy as np

from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.labels.opinions import Voter
from jsplat.parser import opinions
from jsplat.pipeline.elsewhere import VOTERS, Voters
from jsplat.pipeline.first_labels import voter_arrays
from jsplat.pipeline.stages.identities import each_identity
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.view_blocks import Devices


def parse_captures(listed: list[Listed], voters: Voters, folder: Path, flip: bool) -> None:
    """First labels of every view: the parser's logits at their own stride, and the label maps of the other voters."""

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        capture, parser = one.unlabelled().read(), voters.parser
        if parser is None:
            return voter_arrays([voters.first_of(capture)]) | voters.others_of(capture)
        first_opinions = opinions(parser, capture.images, flip=flip, devices=devices)
        return voter_arrays([Voter("parser", parser.labelset, first_opinions)]) | voters.others_of(capture)

    each_identity("parse", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", voters.classes.to_json())
        write_json(folder / VOTERS, voters.to_json())
