"""Scenes on disk, through orbax, with the names of the identities and what their labels mean."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jsplat.errors import InputError, Unusable
from jsplat.folder import new_folder, write_json
from jsplat.labelset import LabelSet
from jsplat.scene import Attributes, Gaussians, Scene
from jsplat.unfinished import load_arrays, save_arrays

GAUSSIAN_FIELDS = ("means", "quats", "log_scales", "logit_opacities")
ATTRIBUTE_FIELDS = ("sh", "label_logits")
WANTED = "fitted scenes (scenes-*: scenes.json, arrays)"


def save_scenes(path: Path, scene: Scene, identities: Sequence[str], labelset: LabelSet | None) -> None:
    """Adds a batch of scenes (leading axis: identities) to a folder, as a shard of its own, whole or not at all."""
    arrays = {name: np.asarray(getattr(scene.gaussians, name)) for name in GAUSSIAN_FIELDS}
    arrays |= {name: np.asarray(getattr(scene.attributes, name)) for name in ATTRIBUTE_FIELDS}
    name = hashlib.sha256(repr(list(identities)).encode()).hexdigest()[:12]
    labels = None if labelset is None else labelset.to_json()
    with new_folder(path / f"scenes-{name}") as folder:
        save_arrays(folder / "arrays", arrays)
        write_json(folder / "scenes.json", {"identities": list(identities), "labelset": labels})


def saved_scenes(path: Path) -> dict[str, Path]:
    """Where the scene of each identity lies.

    Raises:
        InputError: naming the shard that does not say.
    """
    found = {}
    for shard in sorted(path.glob("scenes-*")):
        try:
            found |= dict.fromkeys(json.loads((shard / "scenes.json").read_text())["identities"], shard)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(str(shard), wanted=WANTED, got=error) from error
    return found


def load_scenes(path: Path, identities: Sequence[str] | None = None) -> dict[str, Scene]:
    """Reads what `save_scenes` wrote.

    Args:
        identities: whose scenes; None = all.

    Raises:
        InputError: naming the folder that holds no such scenes.
    """
    known = saved_scenes(path)
    absent = [name for name in identities or () if name not in known]
    if absent or not known:
        raise InputError(str(path), wanted=WANTED, got=f"none of {absent or 'any identity'}")
    wanted = list(known) if identities is None else list(identities)
    scenes = {}
    for shard in dict.fromkeys(known[name] for name in wanted):
        scenes |= _load(shard)
    return {name: scenes[name] for name in wanted}


def scene_in(shards: Mapping[str, Path], identity: str) -> Scene:
    """One scene, by what `saved_scenes` found; Unusable where it is not among them."""
    if identity not in shards:
        raise Unusable(f"the scene of {identity}", wanted=f"one of {sorted(shards)}", got="none")
    return _load(shards[identity])[identity]


def _load(shard: Path) -> dict[str, Scene]:
    try:
        identities = list(json.loads((shard / "scenes.json").read_text())["identities"])
        arrays = load_arrays(shard / "arrays")
        loaded = {name: arrays[name] for name in (*GAUSSIAN_FIELDS, *ATTRIBUTE_FIELDS)}
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(shard), wanted=WANTED, got=error) from error
    gaussians = Gaussians(*[loaded[name] for name in GAUSSIAN_FIELDS])
    batch = Scene(gaussians, Attributes(*[loaded[name] for name in ATTRIBUTE_FIELDS]))
    return {name: jax.tree.map(lambda x, i=i: x[i], batch) for i, name in enumerate(identities)}
