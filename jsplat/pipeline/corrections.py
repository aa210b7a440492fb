"""Masks that somebody corrected in an annotation tool, taken as edits of a run: what changed, and nothing else."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from jsplat.captures.capture import read_capture
from jsplat.captures.own_pixels import OwnPixels, own_pixels
from jsplat.edit import UNTOUCHED, EditConfig, edits_on_disk
from jsplat.errors import InputError
from jsplat.exchange import import_masks
from jsplat.files.foreign import log_skipped, some_of
from jsplat.files.lock import NAME, ONE_RUN, held
from jsplat.labelsets.labelset import IGNORE
from jsplat.pipeline.editing import open_run
from jsplat.pipeline.transfer import own_masks
from jsplat.raster.camera import Camera
from jsplat.runtime.progress import Progress

_FINEST = 8  # places a side at which a pixel of the label grid is looked up

_FOLDERS = "keep the folders of the export"  # where names do not say whose mask it is


@dataclasses.dataclass(frozen=True)
class Taken:
    """What became of corrected masks: names of the pictures.

    Attributes:
        edited: pixels of the label grid that are edits now.
        small: changed, but by less than half a pixel of the label grid anywhere.
        same: as they were exported.
    """

    edited: dict[str, int]
    small: list[str]
    same: list[str]


def take_corrections(
    run_path: Path, masks: Path, captures: Path | None, config: EditConfig, exported: Path | None = None
) -> Taken:
    """Keeps as edits, as if they were drawn in the editor, what is otherwise in masks than they were exported.

    Args:
        masks: in any of the formats, by the names that `export-masks RUN` gave them, or the ends of these names; not
            all need be there.
        captures: the run's captures; beside it if None.
        exported: what was exported; what the run would export now if None.

    Raises:
        InputError: masks of other names or sizes, or a run that another process works on.
    """
    run = open_run(run_path, captures, config)
    labelset = run.settings.labelset
    with held(run_path / NAME, ONE_RUN):
        before = own_masks(run_path)[0] if exported is None else import_masks(exported, labelset)
        drawn = _by_our_names(import_masks(masks, labelset), before, masks.name)
        progress, taken = Progress("masks compared", len(drawn)), Taken({}, [], [])
        for identity in sorted({name.partition("/")[0] for name in drawn}):
            if identity not in run.captures:
                raise InputError(
                    f"{masks.name}: {identity}",
                    wanted=f"one of {some_of(sorted(run.captures))}, who are in {run_path}",
                    got="nobody of that name",
                    hint=_FOLDERS,
                )
            own = own_pixels(run.captures[identity])
            capture, layers = (
                read_capture(run.captures[identity], run.size),
                edits_on_disk.layers_of(run_path, identity, labelset),
            )
            for view, picture in enumerate(own):
                name = f"{identity}/{picture.name}"
                if name not in drawn:
                    continue
                old, new, camera = before[name], drawn[name], capture.cameras[view]
                if new.shape != old.shape:
                    wanted, got = (f"{x.shape[1]}x{x.shape[0]} pixels" for x in (old, new))
                    hint = "`--exported` names what was exported, if the run has other masks since"
                    what = f"{masks.name}: {name}"
                    raise InputError(what, wanted=f"{wanted}, as it was exported", got=got, hint=hint)
                changed = changes(old, new, max(config.outline_tolerance, math.floor(_ratio(picture, camera) / 2)))
                layer = to_label_grid(picture, camera, changed, new)
                touched = layer != UNTOUCHED
                if touched.any():
                    layer = np.where(touched, layer, layers.get(view, np.uint8(UNTOUCHED)))
                    edits_on_disk.write_layer(run_path, identity, view, layer, capture.images[view], labelset)
                    taken.edited[name] = int(touched.sum())
                else:
                    (taken.small if changed.any() else taken.same).append(name)
                progress.advance()
    return taken


def _by_our_names(drawn: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Masks by the names under which they were exported: tools may lose the folders above."""
    found, strange = {}, []
    for name, mask in drawn.items():
        fits = [n for n in ours if n == name] or [n for n in ours if n.endswith(f"/{name}") or name.endswith(f"/{n}")]
        if len(fits) > 1 or any(n in found for n in fits):
            wanted, hint = "names that fit one picture each", _FOLDERS
            raise InputError(f"{where}: {name}", wanted=wanted, got=some_of(fits), hint=hint)
        found |= dict.fromkeys(fits, mask)
        strange += [] if fits else [name]
    if not found:
        wanted = f"masks by the names of the export, as {next(iter(ours))}"
        hint = "`jsplat export-masks` writes them so"
        raise InputError(where, wanted=wanted, got=some_of(strange), hint=hint)
    if strange:
        log_skipped(where, {"masks of no picture": len(strange)})
    return found


def changes(before: UInt8[np.ndarray, "h w"], after: UInt8[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Which pixels somebody changed; what became `ignore` says nothing.

    Programs that keep masks as polygons move outlines by a pixel and leave gaps between neighbours. So nothing changed
    in gaps of background of up to twice `reach`, and where an outline moved by at most `reach`: the new class was that
    near before, and the old one is still, or a part so thin lost both sides. That holds unless it touches what did
    change. 0 compares exactly.
    """
    other = (before != after) & (after != IGNORE)
    if not reach or not other.any():
        return other
    near = _disk(reach)

    def grown(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
        return cv2.dilate(mask.astype(np.uint8), by) > 0

    def thin(mask: np.ndarray) -> np.ndarray:
        return mask & ~(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, near) > 0)

    other &= ~thin(after == 0)
    moved = np.zeros_like(other)
    classes = np.unique(before[other])
    lost = other & np.any([thin(before == old) for old in classes], 0)
    there = {old: grown(after == old, near) | lost for old in classes}
    for new in np.unique(after[other]):
        was_near = other & (after == new) & grown((before == new) | lost, near)
        for old, still in there.items():
            moved |= was_near & (before == old) & still
    return other & grown(other & ~moved, _disk(2 * reach + 1))


def _disk(radius: int) -> UInt8[np.ndarray, "s s"]:
    """Pixels around one, to half a pixel beyond the radius: corners count as neighbours."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (np.hypot(x, y) <= radius + 0.5).astype(np.uint8)


def _ratio(own: OwnPixels, camera: Camera) -> float:
    """How many pixels of a picture lie along one of the label grid."""
    return float(np.mean(own.lens.focal) / np.mean(np.asarray(camera.intrinsics)[[0, 1], [0, 1]]))


def to_label_grid(
    own: OwnPixels, camera: Camera, changed: Bool[np.ndarray, "h w"], masks: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h2 w2"]:
    """A layer of edits on the label grid: the class of most of what changed in a pixel, where half of it changed."""
    layer = np.full((camera.height, camera.width), UNTOUCHED, np.uint8)
    if not changed.any():
        return layer
    places, k = int(np.clip(math.ceil(_ratio(own, camera)), 1, _FINEST)), np.asarray(camera.intrinsics, np.float64)
    along = (np.arange(places) + 0.5) / places
    classes = np.unique(masks[changed])
    for row in range(camera.height):
        y, column, x = np.meshgrid(row + along, np.arange(camera.width), along, indexing="ij")
        rays = (np.stack([column + x, y], -1).reshape(-1, 2) - k[:2, 2]) / k[[0, 1], [0, 1]]
        at, inside = own.pixels(rays)
        u, v = np.where(inside[:, None], at, 0).astype(int).T
        drawn = np.where(inside & changed[v, u], masks[v, u], UNTOUCHED).reshape(places, camera.width, places)
        votes = np.stack([(drawn == i).sum((0, 2)) for i in classes])
        layer[row] = np.where(2 * votes.sum(0) >= places**2, classes[votes.argmax(0)], UNTOUCHED)
    return layer
