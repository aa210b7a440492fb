"""Captures by what their headers say, read only when their turn comes."""

import dataclasses
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from jsplat.captures.capture import (
    Capture,
    capture_folders,
    frames_of,
    identity_of,
    labelset_of,
    lens_of,
    read_capture,
    read_json,
    resized,
)
from jsplat.errors import InputError, of_a_person
from jsplat.files.foreign import log_once
from jsplat.labelsets.labelset import LabelSet

MOST = 512  # pixels of the longer side, where nobody asks for more


@dataclasses.dataclass(frozen=True)
class Listed:
    """A capture on disk.

    Attributes:
        shape: views, height and width of its pictures when read.
        labelset: what its labels mean; None where it has none, or they are not to be used.
        size: of the longer side when read, in pixels; None is the files' own.
        own: width and height of the files.
    """

    path: Path
    identity: str
    shape: tuple[int, int, int]
    labelset: LabelSet | None
    size: int | None
    own: tuple[int, int]

    def read(self) -> Capture:
        """The capture itself; Unusable for what `read_capture` refuses."""
        with of_a_person():
            return read_capture(self.path, self.size, labels=self.labelset is not None)

    def unlabelled(self) -> "Listed":
        """The same without its labels, which are then not even looked at."""
        return dataclasses.replace(self, labelset=None)


def list_captures(
    path: Path | Sequence[Path], size: int | None, *, labels: bool = True, refused: dict[str, str] | None = None
) -> list[Listed]:
    """The captures in a folder, sorted by its folders' names, or those whose folders are given.

    Args:
        size: of the longer side at which they will be read; None: each as its files are; 0: for all as the largest of
            them, at most `MOST`.
        labels: whether their labels are to be used.
        refused: gets, by folder, why a capture cannot be used, which stops nobody else; None: it is an error.

    Raises:
        InputError: nobody is left, or, without `refused`: a header that says nothing sensible, a name that files cannot
            have, or two captures of one name (systems differ in whether case and accents' spelling tell names apart).
    """
    found: dict[str, Listed] = {}
    last = None
    for folder in capture_folders(path) if isinstance(path, Path) else path:
        try:
            one = _listed(folder, size, labels)
            same = found.setdefault(unicodedata.normalize("NFC", one.identity).casefold(), one)
            if same is not one:
                got = f"{one.identity!r}, as {same.path.name} has {same.identity!r}"
                what, hint = f"{folder.name}: identity", "change `identity` in one transforms.json"
                raise InputError(what, wanted="a name that no other capture has", got=got, hint=hint)
        except InputError as error:
            if refused is None:
                raise
            last, refused[folder.name] = error, str(error)
            print(f"{folder.name} is left out: {error}", file=sys.stderr, flush=True)
    if last is not None and not found:
        raise last
    listed = list(found.values())
    if size == 0:
        longest = min(max(max(one.shape[1:]) for one in listed), MOST)
        listed = [dataclasses.replace(one, shape=_shape(one.shape, longest), size=longest) for one in listed]
    return listed


def log_resized(listed: Sequence[Listed]) -> None:
    """Says on stderr how many pictures are not used in the size of their files, once in a process."""
    kinds: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
    for one in listed:
        kind = (one.own, (one.shape[2], one.shape[1]))
        kinds[kind] = kinds.get(kind, 0) + one.shape[0]
    for (own, used), pictures in kinds.items():
        if own != used:
            line = f"{pictures} pictures of {own[0]}x{own[1]} are used at {used[0]}x{used[1]}"
            advice = f" (--set size={max(own)} for all of it)" if max(own) > max(used) else ""
            log_once("resized", "captures", line + advice, pictures=pictures, own=own, used=used)


def _shape(own: tuple[int, int, int], size: int | None) -> tuple[int, int, int]:
    width, height = resized((own[2], own[1]), size)
    return own[0], height, width


def _listed(folder: Path, size: int | None, labels: bool) -> Listed:
    data, where = read_json(folder / "transforms.json"), f"{folder.name}/transforms.json"
    frames = frames_of(data, where)
    labelset = labelset_of(data, where) if labels and "label_path" in frames[0] else None
    width, height = lens_of(data, where)[1]
    shape = _shape((len(frames), height, width), size or None)
    return Listed(folder, identity_of(data, folder, where), shape, labelset, size, (width, height))
