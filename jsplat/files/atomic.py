"""Writing results so that a kill loses nothing: a temporary name first, then a rename. What lies there is refused."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jsplat.errors import InputError

ADVICE = "move it away, or name another"  # of what lies where something new is to be


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; an older one is replaced."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Where to write a file that gets its name when the block ends without an error; an older one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    yield temporary
    temporary.replace(path)


def write_json(path: Path, data: object) -> None:
    """Writes JSON whole or not at all; NaN is refused."""
    write_bytes(path, as_json(data))


def as_json(data: object) -> bytes:
    """JSON for people to read; NaN is refused."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def check_free(path: Path) -> Path:
    """Where a new file or folder will lie, links followed.

    Raises:
        InputError: something lies there that is neither an empty folder nor an empty file.
    """
    try:
        place = path.resolve()
        full = any(place.iterdir()) if place.is_dir() else place.exists() and place.lstat().st_size > 0
    except (OSError, RuntimeError) as error:  # a loop of links, a folder nobody may read
        raise InputError(str(path), wanted="a place to write to", got=error) from error
    if full:
        kind = "a folder with files in it" if place.is_dir() else "a file"
        raise InputError(str(path), wanted="a new name", got=kind, hint=ADVICE)
    return place


def _temporary(place: Path, make: str) -> Path:
    """A file ("touch") or folder ("mkdir") beside `place` that nobody had before."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        # OpenCV picks the container of a film by the ending.
        path = place.with_name(f".{place.stem}.{os.getpid()}-{number}.tmp{place.suffix if make == 'touch' else ''}")
        with contextlib.suppress(FileExistsError):
            getattr(path, make)(exist_ok=False)
            return path
    raise AssertionError


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name only when the block ends without an error. InputError as of `check_free`."""
    place = check_free(path)
    temporary = _temporary(place, "mkdir")
    try:
        yield temporary
        temporary.replace(check_free(path))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty file to write; it gets its name only when the block ends without an error, and only if that is free.

    InputError as of `check_free`.
    """
    place = check_free(path)
    temporary = _temporary(place, "touch")
    try:
        yield temporary
        temporary.replace(check_free(path))
    finally:
        temporary.unlink(missing_ok=True)


def link_files(old: Path, new: Path) -> None:
    """Gives a file, or all files below a folder, a second name, at once; copies where names cannot be shared.

    What is there under the new name already stays. Both names are of one file: it may be replaced, not written into.
    """
    if old.is_dir():
        new.mkdir(parents=True, exist_ok=True)
        for one in sorted(old.iterdir()):
            link_files(one, new / one.name)
        return
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileExistsError:
        pass
    except OSError:  # another file system, or one without links
        temporary = new.with_name(f".{new.name}.{os.getpid()}.tmp")
        shutil.copyfile(old, temporary)
        temporary.replace(new)
