"""The stage `parse`: captures to first labels."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.errors import Unusable
from jsplat.files.atomic import write_json
from jsplat.parser import Parser, predict
from jsplat.pipeline.stages.shares import each_identity
from jsplat.pipeline.work_folder import (
    load_arrays,
)
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.view_blocks import Devices


def parse_captures(listed: list[Listed], parser: Parser, folder: Path, flip: bool) -> None:
    """First labels of every view, kept as float16."""

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        seen = predict(parser, one.unlabelled().read().images, flip=flip, devices=devices)
        return {"probabilities": seen.astype(np.float16)}

    each_identity("parse", listed, folder, make)
    if is_first_host():
        write_json(folder / "labelset.json", parser.labelset.to_json())


def first_labels(folder: Path, capture: Capture) -> Float[np.ndarray, "v h w k"]:
    """The probabilities that `parse` wrote for a capture."""
    path = folder / f"{capture.identity}.npz"
    if not path.is_file():
        raise Unusable(str(path), wanted=f"first labels of {capture.identity}", got="no such file")
    seen = load_arrays(path)["probabilities"]
    if seen.shape[:3] != capture.images.shape[:3]:
        raise Unusable(str(path), wanted=f"{capture.images.shape[:3]} pictures", got=seen.shape[:3])
    return seen
