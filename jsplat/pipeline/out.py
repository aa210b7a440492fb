"""OUT: the one place that decides, before any work, whether a command may write where it was told to."""

import os
from collections.abc import Iterable
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.atomic import as_json, check_free
from jsplat.files.ownership import ABOUT, check_ours, check_untouched, restore, write_kept
from jsplat.pipeline.status import STAGES
from jsplat.pipeline.students import further_seeds
from jsplat.report.page import FILES
from jsplat.runtime.devices import is_first_host, wait_for_hosts
from jsplat.runtime.provenance import provenance

_ANOTHER = "name another OUT"


def claim(out: Path, command: str, *inputs: Path | None) -> None:
    """A folder OUT that a command will fill, or whose files it will add to.

    Only what the same command wrote, as its run.json says, may be replaced. Links are followed and stay: what counts is
    where they lead.

    Args:
        command: as it stands in run.json.
        inputs: what the command reads; None is passed over.

    Raises:
        InputError: other files lie there; OUT is, holds or lies in an input; nothing can be written there.
    """
    place = _apart(out, inputs)
    _check_writable(place)
    restore(place)
    check_ours(place, command)


def claim_whole(out: Path, command: str, *inputs: Path | None) -> None:
    """`claim` of a folder that is exchanged for a new one: no mount point, and not where the user stands."""
    claim(out, command, *inputs)
    place = out.resolve()
    if os.path.ismount(place) or Path.cwd().is_relative_to(place):
        got = "a mount point" if os.path.ismount(place) else "the folder in which the command runs, or one above it"
        wanted = "a folder that can be exchanged for a new one"
        raise InputError(str(out), wanted=wanted, got=got, hint="name one inside it")
    _check_writable(place.parent)


def claim_file(out: Path, *inputs: Path | None) -> None:
    """A file OUT: what lies there already may be somebody's, and is never replaced; otherwise as `claim`."""
    _check_writable(_apart(out, inputs).parent)
    check_free(out)


def claim_run(out: Path, *inputs: Path | None) -> None:
    """`claim` of a run, all its stages and its report."""
    if is_first_host():
        claim(out, "run", *inputs)
        check_untouched(out, (ABOUT, *FILES))
        for name in (*STAGES, *further_seeds(path.name for path in out.glob("*"))):
            claim_whole(out / name, f"run {name}")
            check_untouched(out / name)
    wait_for_hosts(f"{out} may be written to")


def begin(out: Path, command: str, about: dict, seed: int) -> None:
    """Says in a folder whose files are added to, before anything else lies there, whose it is."""
    if is_first_host():
        write_kept(out / ABOUT, as_json({"command": command, **about, **provenance(seed)}))
    wait_for_hosts(f"{out} says whose it is")


def _apart(out: Path, inputs: Iterable[Path | None]) -> Path:
    """Where OUT lies, links followed; InputError unless that is apart from the inputs."""
    try:
        place = out.resolve()
        read = {path: path.resolve() for path in inputs if path is not None and path.exists()}
    except (OSError, RuntimeError) as error:  # a loop of links
        raise InputError(str(out), wanted="a place to write to", got=error) from error
    for path, source in read.items():
        relations = {
            "is": _same(place, source),
            "holds": any(_same(place, above) for above in source.parents),
            "lies in": any(_same(source, above) for above in place.parents),
        }
        if any(relations.values()):
            relation = next(word for word, found in relations.items() if found)
            wanted = "a place apart from what the command reads"
            raise InputError(f"OUT: {out}", wanted=wanted, got=f"one that {relation} {path}", hint=_ANOTHER)
    return place


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one place, also where the file system ignores case."""
    return one == other or (one.exists() and other.exists() and os.path.samefile(one, other))


def _check_writable(folder: Path) -> None:
    """InputError unless a folder can be written to, or made."""
    there = next(above for above in (folder, *folder.parents) if above.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        got = "one that may not be written to" if there.is_dir() else "a file"
        raise InputError(str(there), wanted="a folder to write to", got=got, hint=_ANOTHER)
