"""Long loops that a kill cannot undo: checkpoints through orbax at an interval of time, and a clean end on request."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jsplat.errors import InputError, Stopped
from jsplat.folder import new_folder, write_json

T = TypeVar("T")

STOP = threading.Event()  # set when the process was asked to end (SIGTERM): loops save and raise `Stopped`


def save_arrays(path: Path, arrays: Mapping[str, jax.Array | np.ndarray]) -> None:
    """Writes named arrays into a new folder and waits until they are there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), dict(arrays))


def load_arrays(path: Path, like: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads what `save_arrays` wrote; names, shapes and types must be those of `like`.

    Raises:
        InputError: something else lies there.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path.absolute()).item_metadata
            found = {name: tuple(value.shape) for name, value in (stored or {}).items()}
            wanted = {name: value.shape for name, value in like.items()}
            if found != wanted:
                name = next(n for n in sorted(found.keys() | wanted.keys()) if found.get(n) != wanted.get(n))
                raise InputError(f"{path}: {name}", wanted=f"shape {wanted.get(name)}", got=found.get(name))
            restored = checkpointer.restore(path.absolute(), like)
            # Orbax pins its arrays to a device, for which every jitted function would be compiled a second time.
            return {name: jnp.array(np.array(value)) for name, value in restored.items()}
    except InputError:
        raise
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(str(path), wanted="arrays written by orbax", got=error) from error


class Unfinished:
    """The checkpoints of one loop, `folder/<step>`; at most one is kept.

    Args:
        folder: belongs to this loop; None keeps nothing.
        fingerprint: tells loops apart: data, settings, seed.
        every: seconds between checkpoints.
    """

    def __init__(self, folder: Path | None, fingerprint: str, every: float, *, shared: bool = False):
        self.folder, self.fingerprint, self.every = folder, fingerprint, every
        self.saved = time.monotonic()

    def load(self, like: T) -> tuple[int, T, dict] | None:
        """The steps done, the state (shaped as `like`) and the curves; None when there is nothing to go on from.

        A checkpoint that cannot be read is named on stderr and left out: the loop then starts anew.

        Raises:
            InputError: the checkpoint of another loop lies there.
        """
        leaves, structure = jax.tree.flatten(like)
        shapes = {f"{i:05d}": jax.ShapeDtypeStruct(x.shape, x.dtype) for i, x in enumerate(leaves)}
        for path in reversed(self._paths()):
            try:
                about = json.loads((path / "run.json").read_text())
                arrays = load_arrays(path / "state", shapes) if about["fingerprint"] == self.fingerprint else {}
                known = about["fingerprint"], about["step"], about["curves"]
            except (InputError, OSError, ValueError, KeyError, TypeError) as error:
                print(f"{path}: cannot be read ({error}); it is left out", file=sys.stderr, flush=True)
                continue
            if known[0] != self.fingerprint:
                wanted = "a checkpoint of this run (data, settings, seed)"
                raise InputError(f"{self.folder}", wanted=wanted, got="one of another")
            return known[1], jax.tree.unflatten(structure, [arrays[n] for n in sorted(arrays)]), known[2]
        return None

    def keep(self, step: int, state: object, curves: dict, *, last: bool = False) -> None:
        """Saves when it is time to, at the `last` step and on a request to stop; then removes the one before.

        Args:
            state: any tree of arrays.
            curves: JSON-ready.

        Raises:
            Stopped: after saving, when the process was asked to end and this was not the last step.
        """
        stop = STOP.is_set() and not last
        if self.folder is not None and (last or stop or time.monotonic() - self.saved > self.every):
            older = self._paths()
            with new_folder(self.folder / f"{step:08d}") as path:
                save_arrays(path / "state", {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(state))})
                write_json(path / "run.json", {"fingerprint": self.fingerprint, "step": step, "curves": curves})
            for path in older:
                if path.name != f"{step:08d}":
                    shutil.rmtree(path)
            self.saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped at step {step}")

    def _paths(self) -> list[Path]:
        return [] if self.folder is None else sorted(path.parent for path in self.folder.glob("[0-9]*/run.json"))
