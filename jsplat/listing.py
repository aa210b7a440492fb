"""Captures by what their headers say, read only when their turn comes."""

import dataclasses
from pathlib import Path

from jsplat.capture import (
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
from jsplat.errors import InputError
from jsplat.labelset import LabelSet


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
        """The capture itself; InputError as of `read_capture`."""
        capture = read_capture(self.path, self.size)
        return capture if self.labelset is not None else capture.with_labels(None, None)


def list_captures(path: Path, size: int | None, *, labels: bool = True) -> list[Listed]:
    """The captures in a folder, sorted by its folders' names.

    Args:
        size: at which they will be read.
        labels: whether their labels are to be used.

    Raises:
        InputError: a header that says nothing sensible, or two captures of one identity.
    """
    found = []
    for folder in capture_folders(path):
        data, where = read_json(folder / "transforms.json"), f"{folder.name}/transforms.json"
        frames = frames_of(data, where)
        labelset = labelset_of(data, where) if labels and "label_path" in frames[0] else None
        width, height = resized(lens_of(data, where)[1], size)
        name = identity_of(data, folder, where)
        found.append(Listed(folder, name, (len(frames), height, width), labelset, size))
    names = [one.identity for one in found]
    if len(set(names)) != len(names):
        raise InputError(str(path), wanted="captures of different identities", got=names)
    return found
