"""Files that other programs wrote: what systems leave beside them, text in their encodings, names with backslashes; and
one way to say which files a reader passes over."""

import collections
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from jsplat.errors import InputError, remedy
from jsplat.runtime.progress import log

# What macOS, Windows and network drives leave in folders and archives; in small letters.
_LITTER = {".ds_store", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"}
_LITTER |= {".spotlight-v100", ".trashes", ".fseventsd", "$recycle.bin"}
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SHOWN = 8  # names in a line; the rest are counted
_logged: set[str] = set()


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name was left by a system, and never holds anybody's data: `._NAME`,
    `.DS_Store`, `Thumbs.db`, `__MACOSX` and their like."""
    return name.startswith("._") or name.lower() in _LITTER


def without_litter(paths: Iterable[Path], root: Path | None = None) -> list[Path]:
    """The paths that systems did not leave (see `is_litter`), sorted; folders between `root` and a path count too."""

    def names(path: Path) -> tuple[str, ...]:
        return (path.name,) if root is None else path.relative_to(root).parts

    return sorted(p for p in paths if not any(map(is_litter, names(p))))


def text_of(data: bytes, where: str) -> str:
    """Text in UTF-8, or in what its byte order mark says, which is not part of it.

    Raises:
        InputError: (`where`: the file) anything else.
    """
    form = next((form for mark, form in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(form)
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8 in a text editor"
        raise InputError(where, wanted="text in UTF-8", got=error, hint=hint) from error


def read_text(path: Path, where: str | None = None) -> str:
    """The text in a file (see `text_of`); InputError (`where`: the file, by default its path) if there is none."""
    where = str(path) if where is None else where
    try:
        return text_of(path.read_bytes(), where)
    except OSError as error:
        raise InputError(where, wanted="a readable file", got=error.strerror, hint=remedy(error)) from error


def with_slashes(name: str) -> str:
    """A relative path as written on Windows, with the slashes that all systems read."""
    return name.replace("\\", "/")


def kind_of(path: PurePath) -> str:
    """What a passed-over file is called among others: by its ending, or by its name where that says more."""
    if path.name.startswith("._"):
        return "._ files"
    if is_litter(path.name):
        return path.name
    if re.search(r"mask|matte", path.stem, re.IGNORECASE):
        return re.sub(r"\d+", "*", path.name)
    return path.suffix.lower() or "without an ending"


def kinds_of(paths: Iterable[PurePath]) -> dict[str, int]:
    """How many of each kind (see `kind_of`), the most frequent first."""
    return dict(collections.Counter(map(kind_of, sorted(paths))).most_common())


def log_once(event: str, where: str, line: str, **fields: object) -> None:
    """Says what a reader makes of a folder on stderr and in the log, each thing once in a process.

    Args:
        event: its name in the log.
        where: the folder.
        fields: for the log.
    """
    if (line := f"{where}: {line}") not in _logged:
        _logged.add(line)
        log(event, where=where, **fields)
        print(line, file=sys.stderr, flush=True)


def some_of(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])


def log_skipped(where: str, kinds: Mapping[str, int]) -> None:
    """Says how many files of what kind a reader passes over in a folder (see `log_once`, `kinds_of`), if any."""
    if kinds:
        line = f"passed over {some_of([f'{count} {kind}' for kind, count in kinds.items()])}"
        log_once("passed over", where, line, files=dict(kinds))


def skipped_files(folder: Path, used: Iterable[Path]) -> dict[str, int]:
    """How many files of what kind are not used, the most frequent first.

    Looked at are the folders that hold something used, those above them up to `folder`, and the files directly in
    their other subfolders, which are named; hidden folders count as one.
    """
    used = set(used)
    busy = {path.parent for path in used} | {folder}
    near = {above for place in busy for above in (place, *place.parents) if above.is_relative_to(folder)}
    kinds: collections.Counter[str] = collections.Counter()
    for directory in sorted(near):
        for path in _entries(directory):
            if not path.is_dir():
                place = "" if directory in busy else f" in {directory.relative_to(folder).as_posix()}"
                kinds[kind_of(path) + place] += path not in used
            elif path.name.startswith(".") or is_litter(path.name):
                kinds[f"folder {path.name}"] += 1
            elif path not in near:
                place = path.relative_to(folder).as_posix()
                kinds.update(f"{kind_of(below)} in {place}" for below in _entries(path) if not below.is_dir())
    return {kind: count for kind, count in kinds.most_common() if count}


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(map(directory.joinpath, os.listdir(directory)))
    except OSError:  # not ours to read; what lies there is not used either
        return []


def check_missing(missing: Sequence[tuple[str, str]], there: int, fraction: float, setting: str) -> None:
    """InputError if more of the listed pictures are missing than may be.

    Args:
        missing: (file and field that lists it, file name) of each.
        there: how many are not.
        fraction: of all, that may be missing.
        setting: its name on the command line.
    """
    gone = len(missing)
    if gone > fraction * (gone + there) + 1e-9:
        got = f"no file {missing[0][1]} ({gone} of {gone + there} listed pictures are missing)"
        hint = f"`--set {setting}={math.ceil(100 * gone / (gone + there)) / 100:g}` goes on without them"
        if not there:
            hint = "put them where that names them, or correct the names"
        raise InputError(missing[0][0], wanted="an image", got=got, hint=hint)


def log_missing(where: str, missing: Sequence[tuple[str, str]], there: int) -> None:
    """Says how many listed pictures are missing (see `check_missing`), and their names, if any."""
    if missing:
        names = [name for _, name in missing]
        line = f"missing and left out: {len(names)} of {len(names) + there} listed pictures: {some_of(names)}"
        log_once("missing", where, line, names=names)
