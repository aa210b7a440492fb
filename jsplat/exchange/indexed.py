"""Indexed PNG with names: one PNG per mask, whose palette and text say what the ids mean, as labels.json does.

Programs that save a PNG again may sort or prune its palette, or store colours instead: the picture looks the same, the
ids are others. So names and colours decide: a pixel is of the class that has its colour, whatever number it has there.
"""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8

from jsplat.captures import label_png
from jsplat.errors import InputError
from jsplat.exchange.colors import Painted, distinct
from jsplat.exchange.shapes import RENAME, Budget, parse
from jsplat.exchange.store import Bundle, stem
from jsplat.labelsets.labelset import IGNORE, LabelSet

SIDECAR = "labels.json"
NAMES = f"{SIDECAR} beside the masks says it (names, colors, mirror, rare), as `jsplat export-masks` writes it"
_KEY, _IGNORE = "label-set", "ignore"


def write(masks: Mapping[str, UInt8[np.ndarray, "h w"]], labelset: LabelSet) -> dict[str, bytes]:
    """Files of the format; classes that share a colour get colours of their own, or nobody could tell them apart."""
    painted = distinct(labelset)
    meaning = json.dumps(painted.labelset.to_json() | {_IGNORE: painted.ignore})
    files = {f"{name}.png": label_png.encode(mask, painted.table, {_KEY: meaning}) for name, mask in masks.items()}
    return files | {SIDECAR: meaning.encode()}


def read(bundle: Bundle, labelset: LabelSet) -> tuple[dict[str, UInt8[np.ndarray, "h w"]], set[str]]:
    """Masks of the files, their classes matched by name; and the files that belong to them."""
    sidecars = {n: meaning(data, n) for n, data in bundle.files.items() if PurePosixPath(n).name == SIDECAR}
    masks, budget = {}, Budget()
    pictures = {n: data for n, data in bundle.files.items() if n.lower().endswith(".png")}
    for name, data in sorted(pictures.items()):
        ids = read_one(data, name, labelset, _sidecar_of(name, sidecars))
        if stem(name) in masks:
            hint = "keep one of them there"
            raise InputError(name, wanted="a name of its own", got=f"{stem(name)} again", hint=hint)
        masks[stem(name)] = ids
        budget.take(ids.size, name)
    photographs = {n for n in bundle.names if stem(n) in masks}
    return masks, {*sidecars, *pictures, *photographs}


def read_one(data: bytes, where: str, labelset: LabelSet, sidecar: Painted | None) -> UInt8[np.ndarray, "h w"]:
    """One mask in the ids of a label set, its classes matched by name.

    Args:
        where: the file, for messages.
        beside: what the ids mean if the PNG itself does not say.
    """
    stored = label_png.read(data, where)
    own = meaning(stored.text[_KEY].encode(), where) if _KEY in stored.text else sidecar
    if own is None:
        raise InputError(where, wanted=f"class names in its text or in {SIDECAR}", got="none", hint=NAMES)
    ids = _ids(stored, own, where)
    used = [own.labelset.names[i] for i in np.unique(ids) if i != IGNORE]
    strange = [n for n in used if n not in labelset.names]
    if strange:
        wanted, got = f"classes among {', '.join(labelset.names)}", ", ".join(strange)
        raise InputError(where, wanted=wanted, got=got, hint=RENAME)
    table = np.full(256, IGNORE, np.uint8)
    for n in used:
        table[own.labelset.id(n)] = labelset.id(n)
    return table[ids]


def named_in(data: bytes, where: str) -> LabelSet | None:
    """The classes that a PNG names in its text, if it does."""
    text = label_png.read(data, where).text
    return meaning(text[_KEY].encode(), where).labelset if _KEY in text else None


def _sidecar_of(name: str, sidecars: Mapping[str, Painted]) -> Painted | None:
    """What the nearest folder above says, or the only one that says anything."""
    above = [str(folder / SIDECAR) for folder in PurePosixPath(name).parents]
    near = [sidecars[path] for path in above if path in sidecars]
    return near[0] if near else next(iter(sidecars.values())) if len(sidecars) == 1 else None


def _ids(stored: label_png.Indices | label_png.Colors, own: Painted, where: str) -> UInt8[np.ndarray, "h w"]:
    """Class ids of a mask, by the colours that people see, where it has colours."""
    if isinstance(stored, label_png.Colors):
        rgb = stored.rgb.astype(np.int32)
        packed, at = np.unique(rgb @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
        colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1)
        return own.ids_of(colors, where)[at].reshape(rgb.shape[:2])
    if stored.palette is None:
        return _grey(stored.ids, own, where)
    if np.array_equal(stored.palette, own.table):  # as it was written, where older files have white for two meanings
        own.labelset.check(stored.ids, where)
        return stored.ids
    used, table = np.unique(stored.ids), np.zeros(256, np.uint8)
    table[used] = own.ids_of(stored.palette[used].astype(int), where)
    return table[stored.ids]


def _grey(ids: UInt8[np.ndarray, "h w"], own: Painted, where: str) -> UInt8[np.ndarray, "h w"]:
    """Grey levels are ids, unless a program made them of a palette that holds nothing but greys."""
    used, table = np.unique(ids), np.arange(256, dtype=np.uint8)
    try:
        seen = own.ids_of(np.repeat(used[:, None].astype(int), 3, 1), where)
    except InputError:
        seen = used
    known = np.all((used < len(own.labelset)) | (used == IGNORE))
    if known and not np.array_equal(seen, used):
        wanted = "an indexed PNG; this grey one may hold ids, or colours of other classes"
        hint = "save it with its palette, as it was exported"
        raise InputError(where, wanted=wanted, got=f"grey levels {used.tolist()}", hint=hint)
    table[used] = used if known else seen
    own.labelset.check(table[ids], where)
    return table[ids]


def meaning(data: bytes, where: str) -> Painted:
    """What labels.json, or the text of a PNG, says of classes, colours and ignored pixels."""
    try:
        table = parse(data, where)
        ignore = table.get(_IGNORE, [255, 255, 255])  # older files say nothing and paint it white
        if not isinstance(ignore, list) or len(ignore) != 3 or not all(type(c) is int and 0 <= c < 256 for c in ignore):
            raise InputError(_IGNORE, wanted="a colour [r, g, b]", got=repr(ignore)[:100])
        return Painted(LabelSet.from_json(table), (ignore[0], ignore[1], ignore[2]))
    except InputError as error:
        raise error.at(f"{where}: {error.what}") from error
