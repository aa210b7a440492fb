"""Masks and scenes for other people's programs, and back; public sets looked at and scored."""

import contextlib
import dataclasses
import json
import secrets
from pathlib import Path

import numpy as np

from jsplat.captures.capture import write_capture
from jsplat.errors import InputError
from jsplat.exchange import (
    SplatLabels,
    export_masks,
    fill_folder,
    import_masks,
    masks_to_files,
    write_label_ply,
    write_ply,
)
from jsplat.files.foreign import log_skipped, some_of
from jsplat.files.ownership import ABOUT
from jsplat.fitting.scenes_on_disk import load_scenes
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.commands import labelset_in
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import Digests
from jsplat.pipeline.fingerprints import edits_of
from jsplat.pipeline.out import claim_file, claim_whole
from jsplat.pipeline.stages.identities import read_captures
from jsplat.pipeline.stages.label import labels_of
from jsplat.pipeline.work_folder import stage
from jsplat.training_sets.auxiliary import read_auxiliary
from jsplat.training_sets.reading import Sides, longer_side, read_training_set, side_convention

MASKS = "masks"  # the stage of a run


def _masks(path: Path, size: int) -> tuple[dict[str, np.ndarray], LabelSet]:
    """Masks by name of a run (in the pixels of its pictures), a folder of `label`, an auxiliary set, or captures."""
    if (path / MASKS / ABOUT).is_file():
        return own_masks(path)
    if (path / "samples.jsonl").is_file():
        data = read_auxiliary(path)
        return {f"{i:05d}": mask for i, mask in enumerate(data.labels)}, data.labelset
    if (path / "labelset.json").is_file():
        labelset = labelset_in(path)
        arrays = {f.stem: labels_of(path, f.stem, labelset) for f in sorted(path.glob("*.npz"))}
        if not arrays:
            raise InputError(str(path), wanted="refined masks from `label`", got="none")
        masks = {name: known["refined"] for name, known in arrays.items()}
        return {f"{name}/{i:03d}": m for name, of in masks.items() for i, m in enumerate(of)}, labelset
    captures = read_captures(path, size)
    if any(c.labels is None or c.labelset != captures[0].labelset for c in captures) or captures[0].labelset is None:
        hint = "masks of captures without labels come from a run, or from `label`"
        raise InputError(str(path), wanted="captures with labels of one label set", got="some without", hint=hint)
    known = {c.identity: c.labels for c in captures if c.labels is not None}
    return {f"{name}/{i:03d}": m for name, of in known.items() for i, m in enumerate(of)}, captures[0].labelset


def own_masks(run: Path) -> tuple[dict[str, np.ndarray], LabelSet]:
    """The masks of a run's original pictures.

    Raises:
        InputError: somebody corrected masks since, and these do not show it yet.
    """
    labelset, about = labelset_in(run / "label"), json.loads((run / MASKS / ABOUT).read_text())
    then = about["config"]["edits"]
    stale = [name for name in then if edits_of(run, name, Digests()) != then[name]]
    if stale:
        wanted, hint = "masks with all that was drawn", "the same `jsplat run` again makes them"
        raise InputError(str(run / MASKS), wanted=wanted, got=f"older ones of {some_of(stale)}", hint=hint)
    return import_masks(run / MASKS, labelset), labelset


def write_masks(path: Path, out: Path, form: str, config: RunConfig) -> None:
    """Masks of a folder in the format of an annotation tool."""
    if out.suffix == ".zip":
        claim_file(out, path)
        export_masks(*_masks(path, config.size), form, out)
        return
    claim_whole(out, "export-masks", path)
    with _made_anew(out, "export-masks", {"format": form}, config.seed) as folder:
        fill_folder(folder, masks_to_files(*_masks(path, config.size), form))


def _made_anew(out: Path, command: str, about: dict, seed: int) -> contextlib.AbstractContextManager[Path]:
    """A stage that is never skipped, and begins with nothing."""
    return stage(out, secrets.token_hex(8), about, seed, command=command)


def read_masks(masks: Path, captures: Path, labels: Path | None, out: Path, config: RunConfig) -> None:
    """Captures that carry the masks somebody drew: IDENTITY/VIEW for every view, at the size they are read with.

    Masks of no view of these captures are passed over, and their number is said.

    Args:
        labels: a folder that says what classes there are (of `parse` or `label`); the captures' own if None.
    """
    claim_whole(out, "import-masks", masks, captures, labels)
    read = read_captures(captures, config.size)
    labelset = read[0].labelset if labels is None else labelset_in(labels)
    if labelset is None:
        hint = "`--labels RUN/label` takes those of a run"
        wanted = "a folder that says what classes there are, as these captures have no labels"
        raise InputError("import-masks: --labels", wanted=wanted, got="none", hint=hint)
    drawn = import_masks(masks, labelset)
    wanted = {f"{capture.identity}/{i:03d}" for capture in read for i in range(len(capture.images))}
    if drawn.keys() - wanted:
        log_skipped(masks.name, {"masks of no view": len(drawn.keys() - wanted)})
    with _made_anew(out, "import-masks", {"masks": str(masks)}, config.seed) as folder:
        for capture in read:
            names = [f"{capture.identity}/{i:03d}" for i in range(len(capture.images))]
            missing = [n for n in names if n not in drawn or drawn[n].shape != capture.images.shape[1:3]]
            if missing:
                (h, w), there = capture.images.shape[1:3], drawn.get(missing[0])
                got = "none" if there is None else f"{there.shape[1]}x{there.shape[0]}"
                hint = "every view needs one, and `jsplat edit RUN --from MASKS` takes a few"
                if there is not None:
                    hint = f"`--set size={max(there.shape)}` reads captures so"
                wanted = f"a mask of {w}x{h} pixels"
                raise InputError(f"{masks.name}: {missing[0]}", wanted=wanted, got=got, hint=hint)
            new = capture.with_labels(np.stack([drawn[n] for n in names]), labelset)
            write_capture(folder / capture.identity, new)


def write_splats(fitted: Path, labelled: Path | None, out: Path, config: RunConfig) -> None:
    """Every fitted scene as IDENTITY.ply; with LABELLED its splats say what they are, and IDENTITY_labels.ply shows it.

    The second file has the colours of the classes where the first has the photographs'.
    """
    claim_whole(out, "export-splats", fitted, labelled)
    with _made_anew(out, "export-splats", {"fitted": str(fitted)}, config.seed) as folder:
        for name, scene in load_scenes(fitted).items():
            labels = None
            if labelled is not None:
                labelset = labelset_in(labelled)
                labels = SplatLabels.likeliest(labels_of(labelled, name, labelset)["rows_refined"], labelset)
                write_label_ply(folder / f"{name}_labels.ply", scene, labels)
            write_ply(folder / f"{name}.ply", scene, labels)


def sides(data: Path, config: RunConfig) -> Sides:
    """Which side the labels of a set really call left; nothing is refused."""
    size = config.size or longer_side(data, config.dataset)
    read = read_training_set(data, size, dataclasses.replace(config.dataset, side_checks=0))
    return side_convention(list(read.labels), read.labelset)
