"""Indexed PNG with names: one PNG per mask, whose palette and text say what the ids mean, as labels.json does."""

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from jsplat import png
from jsplat.errors import InputError
from jsplat.exchange.shapes import Budget, parse
from jsplat.labelset import IGNORE, LabelSet

_KEY, _SIDECAR = "label-set", "labels.json"


def write(masks: Mapping[str, UInt8[np.ndarray, "h w"]], labelset: LabelSet) -> dict[str, bytes]:
    """Files of the format."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(labelset)] = labelset.colors
    meaning = json.dumps(labelset.to_json())
    files = {f"{name}.png": png.encode(mask, palette, {_KEY: meaning}) for name, mask in masks.items()}
    return files | {_SIDECAR: meaning.encode()}


def read(files: Mapping[str, bytes], labelset: LabelSet) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """Masks of the files, their classes matched by name."""
    sidecar = next((n for n in files if n.rsplit("/", 1)[-1] == _SIDECAR), None)
    common = None if sidecar is None else _meaning(files[sidecar], sidecar)
    masks, budget = {}, Budget()
    for name in sorted(n for n in files if n.endswith(".png")):
        indices = png.decode(files[name], name)
        own = _meaning(indices.text[_KEY].encode(), name) if _KEY in indices.text else common
        if own is None:
            raise InputError(name, wanted=f"class names in its text or in {_SIDECAR}", got="none")
        own.check(indices.ids, name)
        used = [own.names[i] for i in np.unique(indices.ids) if i != IGNORE]
        strange = [n for n in used if n not in labelset.names]
        if strange:
            raise InputError(name, wanted=f"classes among {', '.join(labelset.names)}", got=", ".join(strange))
        table = np.full(256, IGNORE, np.uint8)
        for n in used:
            table[own.id(n)] = labelset.id(n)
        masks[name.removesuffix(".png")] = table[indices.ids]
        budget.take(indices.ids.size, name)
    return masks


def _meaning(data: bytes, where: str) -> LabelSet:
    try:
        return LabelSet.from_json(parse(data, where))
    except InputError as error:
        raise InputError(f"{where}: {error.what}", wanted=error.wanted, got=error.got) from error
