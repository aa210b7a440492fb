"""Scenes on disk, through orbax, with the names of the identities and what their labels mean."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jsplat.errors import InputError
from jsplat.folder import write_json
from jsplat.labelset import LabelSet
from jsplat.scene import Attributes, Gaussians, Scene
from jsplat.unfinished import save_arrays

GAUSSIAN_FIELDS = ("means", "quats", "log_scales", "logit_opacities")
ATTRIBUTE_FIELDS = ("sh", "label_logits")


def save_scenes(path: Path, scene: Scene, identities: list[str], labelset: LabelSet | None) -> None:
    """Writes a batch of scenes (leading axis: identities) into an existing folder."""
    arrays = {name: np.asarray(getattr(scene.gaussians, name)) for name in GAUSSIAN_FIELDS}
    arrays |= {name: np.asarray(getattr(scene.attributes, name)) for name in ATTRIBUTE_FIELDS}
    save_arrays(path / "arrays", arrays)
    labels = None if labelset is None else labelset.to_json()
    write_json(path / "scenes.json", {"identities": identities, "labelset": labels})


def load_scenes(path: Path) -> tuple[Scene, list[str]]:
    """Reads what `save_scenes` wrote.

    Raises:
        InputError: naming the folder that holds no scenes.
    """
    try:
        identities = list(json.loads((path / "scenes.json").read_text())["identities"])
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore((path / "arrays").absolute())
        loaded = {name: jax.numpy.asarray(arrays[name]) for name in (*GAUSSIAN_FIELDS, *ATTRIBUTE_FIELDS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), wanted="fitted scenes (scenes.json, arrays)", got=error) from error
    gaussians = Gaussians(*[loaded[name] for name in GAUSSIAN_FIELDS])
    return Scene(gaussians, Attributes(*[loaded[name] for name in ATTRIBUTE_FIELDS])), identities
