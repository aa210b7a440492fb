"""Label maps to and from annotation tools, without loss; fitted scenes as point clouds that splat viewers open."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from jsplat.captures.pictures import check_size
from jsplat.errors import InputError
from jsplat.exchange import coco, cvat, indexed, labelme, panoptic
from jsplat.exchange.kinds import format_of
from jsplat.exchange.ply import SplatLabels, read_ply, write_label_ply, write_ply
from jsplat.exchange.shapes import BACKGROUND_NAME, IGNORE_NAME
from jsplat.exchange.store import check_name, fill_folder, read_files, write_files
from jsplat.files.atomic import check_free
from jsplat.files.foreign import kinds_of, log_skipped
from jsplat.labelsets.labelset import LabelSet

__all__ = ["FORMATS", "SplatLabels", "export_masks", "fill_folder", "import_masks", "masks_to_files", "read_ply"]
__all__ += ["write_label_ply", "write_ply"]

_MODULES = {"indexed": indexed, "cvat": cvat, "labelme": labelme, "coco": coco}
_READERS = {name: module.read for name, module in _MODULES.items()} | {"panoptic": panoptic.read}
FORMATS = tuple(_MODULES)


def export_masks(masks: Mapping[str, UInt8[np.ndarray, "_ _"]], labelset: LabelSet, format: str, out: Path) -> None:
    """Writes label maps in the format of an annotation tool, whole or not at all; arguments as `masks_to_files`.

    Args:
        out: a new folder, or a new archive where the name ends in .zip.

    Raises:
        InputError: something lies at `out`; or as `masks_to_files`.
    """
    check_free(out)
    write_files(out, masks_to_files(masks, labelset, format))


def masks_to_files(masks: Mapping[str, UInt8[np.ndarray, "_ _"]], labelset: LabelSet, format: str) -> dict[str, bytes]:
    """Label maps in the format of an annotation tool, as the files of a folder.

    Args:
        masks: by name: plain relative paths without ending ("head01/000"); sizes may differ.
        labelset: what the ids mean; classes are written by name.
        format: "indexed" (PNG with palette and names), "cvat" (Segmentation mask 1.1), "labelme" or "coco".

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
    return _MODULES[format].write(masks, labelset)


def import_masks(path: Path, labelset: LabelSet) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Reads label maps in any of `FORMATS` or COCO's panoptic one, told apart by what lies there.

    Where JSON holds the masks, pictures beside it are none. Files that are neither masks nor their pictures are passed
    over, and how many of what kind is said once (`jsplat.files.foreign.log_skipped`).

    Args:
        path: a folder, a zip archive, or one file.
        labelset: what the ids shall mean; classes are matched by name, so another order is no harm.

    Returns:
        label maps by name, ids of `labelset` or IGNORE.

    Raises:
        InputError: naming file and field: damage, hostile names or sizes, a class the label set does not know, colours
            that stand for no class or for two, shapes without an area.
    """
    form, bundle = format_of(read_files(path), path.name)
    masks, used = _READERS[form](bundle, labelset)
    if not masks:
        raise InputError(path.name, wanted="at least one mask", got="none")
    log_skipped(path.name, kinds_of(PurePosixPath(name) for name in bundle.names if name not in used))
    return masks
