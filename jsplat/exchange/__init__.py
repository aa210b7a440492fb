"""Label maps to and from annotation tools, without loss; fitted scenes as point clouds that splat viewers open."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.exchange import coco, cvat, indexed, labelme
from jsplat.exchange.ply import read_ply, write_label_ply, write_ply
from jsplat.exchange.shapes import BACKGROUND_NAME, IGNORE_NAME, parse
from jsplat.exchange.store import check_name, read_files, write_files
from jsplat.labelset import LabelSet
from jsplat.png import check_size

__all__ = ["FORMATS", "export_masks", "import_masks", "read_ply", "write_label_ply", "write_ply"]

_MODULES = {"indexed": indexed, "cvat": cvat, "labelme": labelme, "coco": coco}
FORMATS = tuple(_MODULES)


def export_masks(masks: Mapping[str, UInt8[np.ndarray, "_ _"]], labelset: LabelSet, format: str, out: Path) -> None:
    """Writes label maps in the format of an annotation tool, whole or not at all.

    Args:
        masks: by name: plain relative paths without ending ("head01/000"); sizes may differ.
        labelset: what the ids mean; classes are written by name.
        format: "indexed" (PNG with palette and names), "cvat" (Segmentation mask 1.1), "labelme" or "coco".
        out: a new folder (an old one of that name is replaced), or an archive where the name ends in .zip.

    Raises:
        InputError: an unknown format, a name or class name that cannot be written, an id that is no class.
    """
    if format not in _MODULES:
        raise InputError("export_masks: format", wanted=f"one of {', '.join(FORMATS)}", got=repr(format))
    if not masks:
        raise InputError("export_masks: masks", wanted="at least one", got="none")
    if len({name.casefold() for name in masks}) < len(masks):
        raise InputError("export_masks: masks", wanted="names that differ in more than case", got=sorted(masks)[:5])
    reserved = {IGNORE_NAME, BACKGROUND_NAME} & set(labelset.names)
    if reserved:
        raise InputError("export_masks: class names", wanted="other than labelme's own", got=sorted(reserved))
    for name, mask in masks.items():
        check_name(name, "export_masks: name")
        check_size(mask.shape[1], mask.shape[0], f"export_masks: {name}")
        labelset.check(mask, f"export_masks: {name}")
    write_files(out, _MODULES[format].write(masks, labelset))


def _format_of(files: Mapping[str, bytes], where: str) -> str:
    names = {n.rsplit("/", 1)[-1] for n in files}
    if "labelmap.txt" in names:
        return "cvat"
    if any(n.endswith(".png") for n in names):
        return "indexed"
    first = next((n for n in sorted(files) if n.endswith(".json")), None)
    if first is not None:
        data = parse(files[first], first)
        if "annotations" in data and "categories" in data:
            return "coco"
        if "shapes" in data:
            return "labelme"
    wanted = "indexed PNGs, CVAT's labelmap.txt, labelme's shapes or COCO's annotations"
    raise InputError(where, wanted=wanted, got=sorted(names)[:5] or "nothing")


def import_masks(path: Path, labelset: LabelSet) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Reads label maps in any of `FORMATS`, told apart by what lies there.

    Args:
        path: a folder, a zip archive, or one file.
        labelset: what the ids shall mean; classes are matched by name, so another order is no harm.

    Returns:
        label maps by name, ids of `labelset` or IGNORE.

    Raises:
        InputError: naming file and field: damage, hostile names or sizes, a class the label set does not know.
    """
    files = read_files(path)
    masks = _MODULES[_format_of(files, path.name)].read(files, labelset)
    if not masks:
        raise InputError(path.name, wanted="at least one mask", got="none")
    return masks
