"""Whose a folder is: what a command wrote there it may replace, and nothing else.

    run.json         names the command whose folder this is
    .written.json    every file that it wrote: size, time and digest, so that a file which somebody added or touched up
                     is told from ours

A folder is replaced so that the old one or the new one bears its name at every moment.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.atomic import ADVICE, write_bytes
from jsplat.files.foreign import is_litter
from jsplat.files.lock import NAME as LOCK

ABOUT, WRITTEN = "run.json", ".written.json"
DIGESTS = ".digests.json"  # what a command remembers of the files that it read; lost, they are read again
UNSEALED = (WRITTEN, DIGESTS)
RECORDS = (ABOUT, *UNSEALED)  # say who, when and how, not what
MADE_AGAIN = "move that folder away, and the command that wrote it makes it again"  # of what is damaged
_SHOWN = 3  # foreign files named in an error; the rest are counted


def made_by(folder: Path) -> str | None:
    """The command that a folder's run.json names; None where there is none, or one of an older version."""
    try:
        return command_in((folder / ABOUT).read_bytes())
    except OSError:
        return None


def command_in(about: bytes) -> str | None:
    """The command that the contents of a run.json name."""
    try:
        command = json.loads(about)["command"]
    except (ValueError, KeyError, TypeError):
        return None
    return command if isinstance(command, str) else None


def check_ours(folder: Path, command: str) -> None:
    """InputError unless a folder is not there, empty, or made by this command."""
    try:
        # A lock says that somebody works here, not whose it is.
        names = [x.name for x in folder.iterdir()] if folder.is_dir() else []
        empty = not folder.exists() or (folder.is_dir() and all(name.startswith(LOCK) for name in names))
    except OSError as error:
        raise InputError(str(folder), wanted="a folder to write to", got=error) from error
    if empty or made_by(folder) == command:
        return
    wanted = f"a new name, or a folder that `jsplat {command}` wrote"
    if not folder.is_dir():
        got = "a file"
    elif (other := made_by(folder)) is not None:
        got = f"one that `jsplat {other}` wrote"
    elif (folder / ABOUT).is_file():
        got = "a run.json that names no command (an older version's, or another program's)"
    else:
        got = "a folder with other files in it"
    raise InputError(str(folder), wanted=wanted, got=got, hint=ADVICE)


def _files(folder: Path, below: str = "") -> Iterator[tuple[str, os.DirEntry]]:
    """All that is no folder, by its name relative to the first one; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), f"{below}{entry.name}/")
            else:
                yield below + entry.name, entry


def _digest(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _mark(path: str | Path) -> list:
    about = os.lstat(path)
    return [about.st_size, about.st_mtime_ns, _digest(path)]


def _same(path: str | Path, marks: list[list]) -> bool:
    """Whether a file is one of those that we wrote; what was only copied since is read."""
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    about = os.lstat(path)
    alike = [mark for mark in marks if mark[0] == about.st_size]
    return any(m[1] == about.st_mtime_ns for m in alike) or (bool(alike) and _digest(path) in [m[2] for m in alike])


def _written(folder: Path) -> dict[str, list[list]]:
    try:
        return json.loads((folder / WRITTEN).read_text())
    except (OSError, ValueError):
        return {}


def _remember(folder: Path, marks: dict[str, list[list]]) -> None:
    write_bytes(folder / WRITTEN, json.dumps(marks, separators=(",", ":")).encode())


def seal(folder: Path, older: Path | None = None) -> None:
    """Remembers everything in a folder as written by us; files taken over from an `older` one of ours are not read."""
    known = {} if older is None else _written(older)

    def marks(name: str, path: str) -> list[list]:
        about = os.lstat(path)
        same = [mark for mark in known.get(name, []) if mark[:2] == [about.st_size, about.st_mtime_ns]]
        return same or [_mark(path)]

    _remember(folder, {name: marks(name, entry.path) for name, entry in _files(folder) if name not in UNSEALED})


def check_untouched(folder: Path, names: Iterable[str] | None = None) -> None:
    """InputError naming what somebody added to a folder of ours, or changed there.

    Args:
        names: files of ours directly in it, that are to be written anew; None: everything in it is to go.
    """
    if not folder.is_dir():
        return
    known = _written(folder)
    if names is None:
        found = ((name, entry.path) for name, entry in _files(folder) if name not in UNSEALED)
    else:
        found = ((name, folder / name) for name in names if os.path.lexists(folder / name))
    foreign = sorted(name for name, path in found if not _same(path, known.get(name, [])))
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        got = f"{', '.join(foreign[:_SHOWN])}{more}, added or changed since"
        raise InputError(str(folder), wanted="only what jsplat wrote there", got=got, hint=f"{ADVICE} folder")


def write_kept(path: Path, data: bytes) -> None:
    """Writes a file into a folder that is not replaced as a whole; InputError where somebody else's lies there."""
    check_untouched(path.parent, [path.name])
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    known = _written(path.parent)
    # Both are ours, whichever a kill leaves.
    known[path.name] = [*([_mark(path)] if path.is_file() else []), _mark(temporary)]
    _remember(path.parent, known)
    temporary.replace(path)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; False where the system or its file system cannot (Linux only, not on NFS)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    if (code := ctypes.get_errno()) in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _aside(path: Path) -> tuple[Path, Path]:
    """Where an older folder lies until the new one has its name, and then until it is removed."""
    return path.with_name(f".{path.name}.jsplat-old"), path.with_name(f".{path.name}.jsplat-gone")


def put(work: Path, path: Path) -> None:
    """Gives a folder of ours its name; the older one of that name, which must be ours, goes."""
    old, gone = _aside(path)
    if not path.exists() or not any(path.iterdir()):
        work.replace(path)
        return
    if _exchange(work, path):
        work.replace(gone)
    else:
        path.replace(old)
        work.replace(path)
        old.replace(gone)
    remove(gone)


def restore(path: Path) -> None:
    """Ends what a kill within `put` left: an older folder gets its name back where that is free, and goes where not."""
    old, gone = _aside(path)
    for aside in (old, gone):
        if aside.is_dir() and any(aside.iterdir()) and made_by(aside) is None:
            raise InputError(
                str(aside), wanted="a folder that jsplat put aside", got="other files", hint=f"{ADVICE} OUT"
            )
    if gone.is_dir():
        remove(gone)
    if old.is_dir() and path.exists():
        old.replace(gone)
        remove(gone)
    elif old.is_dir():
        old.replace(path)


def remove(folder: Path) -> None:
    """Removes a folder of ours; what a kill leaves of it is still known as ours."""
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != ABOUT:
            os.unlink(entry.path)
    (folder / ABOUT).unlink(missing_ok=True)
    folder.rmdir()
