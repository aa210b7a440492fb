"""Captures by what their headers say, read only when their turn comes."""

import dataclasses
import sys
import unicodedata
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
from jsplat.labelsets.labelset import LabelSet


@dataclasses.dataclass(frozen=True)
class Listed:
    """A capture on disk.

    Attributes:
        shape: views, height and width of its pictures when read.
        labelset: what its labels mean; None where it has none, or they are not to be used.
        size: of the longer side when read, in pixels; None is the files' own.
    """

    path: Path
    identity: str
    shape: tuple[int, int, int]
    labelset: LabelSet | None
    size: int | None

    def read(self) -> Capture:
        """The capture itself; Unusable for what `read_capture` refuses."""
        with of_a_person():
            return read_capture(self.path, self.size, labels=self.labelset is not None)

    def unlabelled(self) -> "Listed":
        """The same without its labels, which are then not even looked at."""
        return dataclasses.replace(self, labelset=None)


def list_captures(
    path: Path, size: int | None, *, labels: bool = True, refused: dict[str, str] | None = None
) -> list[Listed]:
    """The captures in a folder, sorted by its folders' names.

    Args:
        size: at which they will be read.
        labels: whether their labels are to be used.
        refused: gets, by folder, why a capture cannot be used, which stops nobody else; None: it is an error.

    Raises:
        InputError: nobody is left, or, without `refused`: a header that says nothing sensible, a name that files cannot
            have, or two captures of one name (systems differ in whether case and accents' spelling tell names apart).
    """
    found: dict[str, Listed] = {}
    last = None
    for folder in capture_folders(path):
        try:
            one = _listed(folder, size, labels)
            same = found.setdefault(unicodedata.normalize("NFC", one.identity).casefold(), one)
            if same is not one:
                got = f"{one.identity!r}, as {same.path.name} has {same.identity!r}"
                raise InputError(f"{folder.name}: identity", wanted="a name that no other capture has", got=got)
        except InputError as error:
            if refused is None:
                raise
            last, refused[folder.name] = error, str(error)
            print(f"{folder.name} is left out: {error}", file=sys.stderr, flush=True)
    if last is not None and not found:
        raise last
    return list(found.values())


def _listed(folder: Path, size: int | None, labels: bool) -> Listed:
    data, where = read_json(folder / "transforms.json"), f"{folder.name}/transforms.json"
    frames = frames_of(data, where)
    labelset = labelset_of(data, where) if labels and "label_path" in frames[0] else None
    width, height = resized(lens_of(data, where)[1], size)
    return Listed(folder, identity_of(data, folder, where), (len(frames), height, width), labelset, size)
