"""Scenes on disk, through orbax, with the names of the identities and what their labels mean."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jsplat.errors import InputError, Unusable
from jsplat.files.arrays import read_arrays, write_arrays
from jsplat.files.atomic import link_files, new_folder, write_json
from jsplat.files.foreign import some_of
from jsplat.files.ownership import MADE_AGAIN
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.scene import Attributes, Gaussians, Scene

GAUSSIAN_FIELDS = ("means", "quats", "log_scales", "logit_opacities")
ATTRIBUTE_FIELDS = ("sh", "label_logits")
WANTED = "fitted scenes (scenes-*: scenes.json, arrays)"
_HINT = "`jsplat fit` makes them, and a run keeps them in RUN/fit"


def save_scenes(
    path: Path, scene: Scene, identities: Sequence[str], labelset: LabelSet | None, found: dict | None = None
) -> None:
    """Adds a batch of scenes (leading axis: identities) to a folder, as a shard of its own, whole or not at all.

    Args:
        found: what else is known of the batch, JSON-ready; see `shards`.
    """
    arrays = {name: np.asarray(getattr(scene.gaussians, name)) for name in GAUSSIAN_FIELDS}
    arrays |= {name: np.asarray(getattr(scene.attributes, name)) for name in ATTRIBUTE_FIELDS}
    name = hashlib.sha256(repr(list(identities)).encode()).hexdigest()[:12]
    labels = None if labelset is None else labelset.to_json()
    with new_folder(path / f"scenes-{name}") as folder:
        write_arrays(folder / "arrays", arrays)
        write_json(folder / "scenes.json", {"identities": list(identities), "labelset": labels, "found": found})


def shards(path: Path) -> dict[Path, dict]:
    """What each shard says of itself: "identities" (by row; None where the scene does not count), "labelset", "found".

    Raises:
        InputError: naming the shard that does not say.
    """
    return {shard: _about(shard) for shard in sorted(path.glob("scenes-*"))}


def saved_scenes(path: Path) -> dict[str, Path]:
    """Where the scene of each identity lies; InputError as of `shards`."""
    return {name: shard for shard, about in shards(path).items() for name in about["identities"] if name is not None}


def take_scenes(old: Path, new: Path, wanted: Collection[str]) -> set[str]:
    """Takes scenes over into another folder, by links; returns whose were there.

    A shard that holds scenes of others too comes whole, and theirs do not count.
    """
    taken = set()
    for shard in sorted(old.glob("scenes-*")):
        try:
            about = _about(shard)
        except InputError:  # damaged: its scenes are made again
            continue
        rows = [name if name in wanted else None for name in about["identities"]]
        if any(name is not None for name in rows):
            taken |= {name for name in rows if name is not None}
            if not (new / shard.name).is_dir():
                with new_folder(new / shard.name) as folder:
                    link_files(shard / "arrays", folder / "arrays")
                    write_json(folder / "scenes.json", about | {"identities": rows})
    return taken


def _about(shard: Path) -> dict:
    try:
        about = json.loads((shard / "scenes.json").read_text())
        return about | {"identities": [name if name is None else str(name) for name in about["identities"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(shard), wanted=WANTED, got=error, hint=MADE_AGAIN) from error


def check_scenes(path: Path) -> None:
    """InputError where a folder holds nobody's scene."""
    if not saved_scenes(path):
        raise InputError(str(path), wanted=WANTED, got="none", hint=_HINT)


def load_scenes(path: Path, identities: Sequence[str] | None = None) -> dict[str, Scene]:
    """Reads what `save_scenes` wrote.

    Args:
        identities: whose scenes; None = all.

    Raises:
        InputError: naming the folder that holds no such scenes.
    """
    known = saved_scenes(path)
    absent = [name for name in identities or () if name not in known]
    check_scenes(path)
    if absent:
        raise InputError(str(path), wanted=WANTED, got=f"none of {some_of(absent)}", hint=_HINT)
    wanted = list(known) if identities is None else list(identities)
    scenes = {}
    for shard in dict.fromkeys(known[name] for name in wanted):
        scenes |= _load(shard)
    return {name: scenes[name] for name in wanted}


def scene_in(shards: Mapping[str, Path], identity: str) -> Scene:
    """One scene, by what `saved_scenes` found; Unusable where it is not among them."""
    if identity not in shards:
        raise Unusable(f"the scene of {identity}", wanted=f"one of {some_of(sorted(shards))}", got="none")
    return _load(shards[identity])[identity]


def _load(shard: Path) -> dict[str, Scene]:
    identities = _about(shard)["identities"]
    try:
        arrays = read_arrays(shard / "arrays")
        loaded = {name: arrays[name] for name in (*GAUSSIAN_FIELDS, *ATTRIBUTE_FIELDS)}
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(shard), wanted=WANTED, got=error) from error
    gaussians = Gaussians(*[loaded[name] for name in GAUSSIAN_FIELDS])
    batch = Scene(gaussians, Attributes(*[loaded[name] for name in ATTRIBUTE_FIELDS]))
    rows = {name: i for i, name in enumerate(identities) if name is not None}
    return {name: jax.tree.map(lambda x, i=i: x[i], batch) for name, i in rows.items()}
