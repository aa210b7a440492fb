"""What a stage need not make again: results of identities that an older folder of it made from the same."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jsplat.files.atomic import link_files, write_json
from jsplat.fitting.scenes_on_disk import take_scenes

FINGERPRINTS = "identities.json"  # in the folder of a stage, before anything else: identity -> fingerprint


def fingerprints_in(folder: Path) -> dict[str, str]:
    """What each identity's results in the folder of a stage are made from; empty where it does not say."""
    try:
        return {name: str(of) for name, of in json.loads((folder / FINGERPRINTS).read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def take_over(work: Path, each: Mapping[str, str], older: Sequence[Path]) -> int:
    """Begins the folder of a stage with what others hold of the same identities under the same fingerprints.

    Links are made, so that nothing is lost when it is killed; the next call goes on from there. An identity that failed
    is taken over as such: it would fail again.

    Args:
        each: the fingerprint of each identity.
        older: finished folders of this stage, and unfinished ones.

    Returns:
        how many identities are taken over.
    """
    write_json(work / FINGERPRINTS, each)
    taken: set[str] = set()
    for folder in older:
        theirs = fingerprints_in(folder)
        taken |= _take(folder, work, {name for name in each if theirs.get(name) == each[name]} - taken)
    return len(taken)


def _take(folder: Path, work: Path, names: Collection[str]) -> set[str]:
    taken = take_scenes(folder, work, names) if names else set()
    for name in names:
        for result in (f"{name}.npz", f"failed/{name}.json"):
            if (folder / result).is_file():
                link_files(folder / result, work / result)
                taken.add(name)
        # A folder of files that are written once and never again, whole or not: what it lacks is made.
        if not (folder / f"{name}.npz").exists() and (folder / name).is_dir() and not (work / name).exists():
            link_files(folder / name, work / name)
            taken.add(name)
    return taken
