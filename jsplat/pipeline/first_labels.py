"""First labels on disk: what each voter said of one head, in the folder of `parse`, one file a head.

IDENTITY.npz holds "about", JSON: {"format": FORMAT, "voters": [{"name", "labelset", "kind", ...}]}, and for voter V
 - of kind "logits": "size" [h, w] and "looks" [{"rows", "columns"}] in its entry (see
 `jsplat.labels.opinions.NetworkPass`),
   and the arrays "V_L_levels" (v i j k) and "V_L_steps" (v) of its look L;
 - of kind "maps": the array "V_labels" (v h w).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jsplat.captures.capture import Capture
from jsplat.errors import InputError, Unusable
from jsplat.labels.opinions import Logits, Maps, NetworkPass, Voter
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.work_folder import load_arrays

FORMAT = "jsplat first labels 2"


def voter_arrays(voters: Sequence[Voter]) -> dict[str, np.ndarray]:
    """What `read_voters` reads, as named arrays."""
    arrays, entries = {}, []
    for i, voter in enumerate(voters):
        opinions, entry = voter.opinions, {"name": voter.name, "labelset": voter.labelset.to_json()}
        if isinstance(opinions, Logits):
            looks = [{"rows": look.rows, "columns": look.columns} for look in opinions.looks]
            entries.append({**entry, "kind": "logits", "size": opinions.size, "looks": looks})
            for j, look in enumerate(opinions.looks):
                arrays[f"{i}_{j}_levels"], arrays[f"{i}_{j}_steps"] = np.asarray(look.levels), np.asarray(look.steps)
        else:
            entries.append({**entry, "kind": "maps"})
            arrays[f"{i}_labels"] = np.asarray(opinions.labels)
    return {"about": np.asarray(json.dumps({"format": FORMAT, "voters": entries})), **arrays}


_MADE = "`jsplat parse` into a new folder makes them of these captures"


def read_voters(folder: Path, capture: Capture) -> list[Voter]:
    """Whoever gave first labels to a capture, as `parse` wrote them.

    Raises:
        Unusable: there are none, or they are of pictures of another size or number.
        InputError: an older jsplat's, or no first labels.
    """
    path = folder / f"{capture.identity}.npz"
    if not path.is_file():
        raise Unusable(str(path), wanted=f"first labels of {capture.identity}", got="no such file", hint=_MADE)
    arrays = load_arrays(path)
    if "about" not in arrays:
        got = f"an older version's, or other arrays: {', '.join(sorted(arrays))}"
        raise InputError(str(path), wanted="first labels of this version of jsplat", got=got, hint=_MADE)
    try:
        about = json.loads(str(arrays["about"]))
        if about["format"] != FORMAT:
            raise InputError(str(path), wanted=f"the format {FORMAT!r}", got=repr(about["format"]), hint=_MADE)
        voters = [_voter(arrays, i, entry) for i, entry in enumerate(about["voters"])]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(path), wanted=f"the format {FORMAT!r}", got=repr(error)) from error
    for voter in voters:
        if voter.shape != capture.images.shape[:3]:
            wanted = f"{capture.images.shape[:3]} pictures, as the capture is read"
            hint = "the same `--set size=` as when they were made reads it so"
            raise Unusable(f"{path}: {voter.name}", wanted=wanted, got=voter.shape, hint=hint)
    return voters


def _voter(arrays: dict[str, np.ndarray], i: int, entry: dict) -> Voter:
    name, labelset = str(entry["name"]), LabelSet.from_json(entry["labelset"])
    if entry["kind"] == "maps":
        return Voter(name, labelset, Maps(arrays[f"{i}_labels"], len(labelset)))
    looks = [
        NetworkPass(
            arrays[f"{i}_{j}_levels"],
            arrays[f"{i}_{j}_steps"],
            _pair(look["rows"], float),
            _pair(look["columns"], float),
        )
        for j, look in enumerate(entry["looks"])
    ]
    if entry["kind"] != "logits" or any(look.levels.shape[-1] != len(labelset) for look in looks):
        raise ValueError(f"kind {entry['kind']!r} with {[look.levels.shape for look in looks]}")
    return Voter(name, labelset, Logits(tuple(looks), _pair(entry["size"], int)))


def _pair(of: Sequence, kind: type) -> tuple:
    first, second = of
    return kind(first), kind(second)


def first_labels(folder: Path, capture: Capture) -> Voter:
    """The first voter of a capture: the parser that a run improves; errors as of `read_voters`."""
    return read_voters(folder, capture)[0]
