"""Masks from elsewhere for the pictures of captures: FOLDER/IDENTITY/NAME.png, or FOLDER/NAME.png for one capture.

NAME is the picture's, relative as its capture has it: images/000.jpg is images/000.png or 000.png (or, as some programs
write, 000.jpg.png); or, where the capture was imported, that of the original photograph, in whose pixels the mask is.
What a mask means its own text says, labels.json or labelset.json beside or above it, or a table.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import Capture, frames_of, read_json, resize_labels
from jsplat.captures.index import Listed
from jsplat.captures.own_pixels import OwnPixels, as_imported, own_pixels
from jsplat.errors import InputError, Unusable
from jsplat.exchange import indexed
from jsplat.files.foreign import log_once, some_of, with_slashes, without_litter
from jsplat.labelsets.labelset import IGNORE
from jsplat.labelsets.vocabulary import Vocabulary, table_names
from jsplat.training_sets.plain import open_table, read_by_table, sidecar_file, sidecar_meaning, table_in


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A mask of one view: in the pixels of its original photograph `own`, or, if None, of the capture's picture."""

    path: Path
    own: OwnPixels | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder of masks from elsewhere.

    Attributes:
        name: how people call it.
        vocabulary: what its labels may mean.
    """

    name: str
    path: Path
    vocabulary: Vocabulary

    def masks_of(self, one: Listed, alone: bool) -> list[MaskFile | None]:
        """The mask of each picture of a capture; None where there is none. `alone`: it is the only capture."""
        where = f"{one.path.name}/transforms.json"
        frames = frames_of(read_json(one.path / "transforms.json"), where)
        roots = [self.path / one.identity, *([self.path] if alone else [])]
        return [self._mask_of(roots, str(f.get("file_path", "")), own) for f, own in zip(frames, own_pixels(one.path))]

    def _mask_of(self, roots: Sequence[Path], name: str, own: OwnPixels) -> MaskFile | None:
        if own.imported and (path := _mask(roots, own.name, whole=True)) is not None:
            return MaskFile(path, own)
        path = _mask(roots, name)
        return None if path is None else MaskFile(path)

    def read(self, masks: Sequence[MaskFile | None], capture: Capture) -> UInt8[np.ndarray, "v h w"]:
        """Labels by number, at the size of the capture's pictures; IGNORE where nothing is said.

        Raises:
            Unusable: a mask that cannot be read, or is of another shape than the pictures.
        """
        height, width = capture.images.shape[1:3]
        labels = np.full(capture.images.shape[:3], IGNORE, np.uint8)
        for view, file in enumerate(masks):
            if file is None:
                continue
            where = f"{self.name}/{file.path.relative_to(self.path).as_posix()}"
            mask, (w, h) = self._one(file.path, where), (width, height) if file.own is None else file.own.size
            if abs(mask.shape[0] * w - mask.shape[1] * h) > max(*mask.shape, h, w):
                got = f"{mask.shape[1]}x{mask.shape[0]}"
                wanted, hint = f"the shape of its picture, {w}x{h} or a multiple", "make it anew, uncropped"
                raise Unusable(where, wanted=wanted, got=got, hint=hint)
            seen_by = capture.cameras[view]
            labels[view] = resize_labels(mask, (w, h)) if file.own is None else as_imported(mask, file.own, seen_by)
        return labels if capture.valid is None else np.where(capture.valid, labels, np.uint8(IGNORE))

    def _one(self, path: Path, where: str) -> UInt8[np.ndarray, "h w"]:
        try:
            return read_by_table(path.read_bytes(), where, self.vocabulary)
        except OSError as error:
            raise Unusable(where, wanted="a readable file", got=error) from error
        except InputError as error:
            raise Unusable(**error.parts) from error


def _mask(roots: Sequence[Path], name: str, whole: bool = False) -> Path | None:
    """The first file that bears a picture's name, with or without the folders before it; `whole`: it has no ending."""
    parts = PurePosixPath(with_slashes(name)).parts
    for root in roots:
        for i in range(len(parts)):
            tail = PurePosixPath(*parts[i:])
            for found in (*([] if whole else [root / tail.with_suffix(".png")]), root / f"{tail}.png"):
                if found.is_file():
                    return found
    return None


def folder_in(given: str) -> Path:
    """The folder of FOLDER or FOLDER=TABLE."""
    return Path(given if Path(given).is_dir() else given.rpartition("=")[0] or given)


def open_source(given: str) -> Source:
    """A source from the command line: FOLDER, or FOLDER=TABLE, where TABLE is a known table's name or a JSON file.

    Raises:
        InputError: no such folder or table, or nothing says what its masks mean.
    """
    path = folder_in(given)
    table = "" if str(path) == str(Path(given)) else given.rpartition("=")[2]
    if not path.is_dir():
        raise InputError(f"--labels {given}", wanted="a folder of masks, or FOLDER=TABLE", got="no such folder")
    if table:
        try:
            return Source(path.name, path, open_table(table))
        except InputError as error:
            raise error.at(f"--labels {given}") if error.what == "table" else error from error
    masks = without_litter(path.rglob("*.png"), path)
    if not masks:
        hint = "convert other formats to PNG, under the pictures' names"
        raise InputError(f"--labels {given}", wanted="PNG masks (IDENTITY/NAME.png)", got="none", hint=hint)
    sidecar = sidecar_file(masks[0].parent, path)
    if sidecar is not None and (vocabulary := table_in(sidecar)) is not None:
        return Source(path.name, path, vocabulary)
    where = f"{path.name}/{masks[0].relative_to(path).as_posix()}"
    labelset = indexed.named_in(masks[0].read_bytes(), where) or (
        None if sidecar is None else sidecar_meaning(sidecar).labelset
    )
    if labelset is None:
        hint = f"`--labels {given}=TABLE`, where TABLE is a JSON file or one of {table_names()}"
        raise InputError(
            where, wanted=f"names of its classes in its text or in {indexed.SIDECAR}", got="none", hint=hint
        )
    return Source(path.name, path, Vocabulary(labelset))


def log_missing_masks(source: Source, masks: dict[str, list[MaskFile | None]]) -> None:
    """Names whom a source says nothing of, and counts the pictures that it lacks of the others.

    Raises:
        InputError: it has none for anybody.
    """
    absent = [name for name, of in masks.items() if not any(of)]
    if len(absent) == len(masks):
        wanted = f"masks of some of {some_of(sorted(masks))}: IDENTITY/NAME.png under the pictures' names"
        hint = "a folder for each person, called as the capture, with a mask called as each picture"
        raise InputError(str(source.path), wanted=wanted, got="none", hint=hint)
    if absent:
        log_once("labels lack people", str(source.path), f"has nothing of {len(absent)} people: {some_of(absent)}")
    fewer = {name: of.count(None) for name, of in masks.items() if any(of) and None in of}
    if fewer:
        counts = some_of([f"{count} of {len(masks[name])} of {name}" for name, count in fewer.items()])
        log_once("labels lack pictures", str(source.path), f"has no masks of {sum(fewer.values())} pictures: {counts}")
