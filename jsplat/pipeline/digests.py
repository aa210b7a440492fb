"""What files hold, as short digests: equal for copies, whenever and wherever they were made."""

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.atomic import write_json
from jsplat.files.ownership import ABOUT, DIGESTS
from jsplat.runtime.devices import is_first_host

SETTLED = 2_000_000_000  # nanoseconds: the coarsest clock of a file system; a younger file may change unseen
ABSENT = "absent"


class Digests:
    """Digests of groups of files, with a memory: a group of whose files none changed size or times is not read again.

    A group with a file that was written just before it was read is not remembered: the file could change again within
    one tick of its file system's clock, and look the same.

    Args:
        kept: the file of the memory; damage to it costs reading the files again, and nothing else.
    """

    def __init__(self, kept: Path | None = None):
        self.kept = kept
        self._known = _remembered(kept)  # group -> stamp, digest
        self._asked: set[str] = set()
        self._changed = False

    def of(self, where: Path, kind: str, files: Mapping[str, Path]) -> str:
        """The digest of named files; that one is not there, or cannot be read, is a part of it.

        Args:
            where: the file or folder that they belong to; `kind`: which of its files they are.
            files: by the names under which they count.
        """
        group, now = f"{where.absolute()}|{kind}", time.time_ns()
        self._asked.add(group)
        seen = {name: _look(path) for name, path in files.items()}
        stamp = _hash(json.dumps(seen))
        known = self._known.get(group)
        if known is not None and known[0] == stamp:
            return known[1]
        read = {name: _read(path) if seen[name] else ABSENT for name, path in files.items()}
        digest = _hash(json.dumps(read))
        young = any(abs(now - moment) < SETTLED for at in seen.values() if at for moment in at[1:])
        if not young and None not in read.values():
            # Looked at before it was read: what was written in between has another time than the one remembered.
            self._known[group], self._changed = [stamp, digest], True
        return digest

    def path(self, path: Path) -> str:
        """The digest of a file, or of all files below a folder but those that say when and how it was made.

        Raises:
            InputError: naming what is not there.
        """
        if not path.exists():
            raise InputError(str(path), wanted="a folder or file to read", got="nothing there")
        return self.of(path, "all", dict(_below(path)) if path.is_dir() else {"": path})

    def save(self) -> None:
        """Keeps what is known now. Groups that nobody asked for are forgotten if their files are no longer there."""
        if self.kept is None or not self._known or not is_first_host():
            return
        if not self._changed and self.kept.exists():  # not there: the folder was exchanged for a new one
            return
        gone = {g for g in self._known.keys() - self._asked if not os.path.exists(g.rpartition("|")[0])}
        there = {group: at for group, at in self._known.items() if group not in gone}
        write_json(self.kept, there)
        self._known, self._changed = there, False


@contextlib.contextmanager
def digests_in(out: Path) -> Iterator[Digests]:
    """Digests for a command that writes the folder `out`; they are kept in it once it is there."""
    digests = Digests(out / DIGESTS)
    try:
        yield digests
    finally:
        if (out / ABOUT).is_file():
            digests.save()


def _remembered(kept: Path | None) -> dict[str, list[str]]:
    try:
        found = {} if kept is None else json.loads(kept.read_text())
        return {group: [str(stamp), str(digest)] for group, (stamp, digest) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _look(path: Path) -> list[int] | None:
    """Size and times (ns) of a file; None where no file is."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns] if stat.S_ISREG(about.st_mode) else None


def _read(path: Path) -> str | None:
    """The digest of one file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _below(folder: Path, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Files below a folder by their relative names, in order; links are followed, but not in circles."""
    here = os.path.realpath(folder)
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        # Hidden files are the file manager's or an unfinished write; run.json says when, not what.
        if entry.name.startswith(".") or entry.name == ABOUT:
            continue
        name, path = f"{prefix}{entry.name}", Path(entry.path)
        if not entry.is_dir():
            yield name, path
        elif here not in above:
            yield from _below(path, f"{name}/", (*above, here))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
