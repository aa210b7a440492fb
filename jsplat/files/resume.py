"""Long loops that a kill cannot undo: checkpoints at an interval of time, and a clean end on request."""

import concurrent.futures
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jsplat.errors import InputError, Stopped
from jsplat.files.arrays import read_arrays, write_arrays
from jsplat.files.atomic import ADVICE, new_folder, write_json
from jsplat.runtime.devices import broadcast_bytes, is_first_host
from jsplat.runtime.progress import log
from jsplat.runtime.stop import STOP

T = TypeVar("T")
_writers: dict[Path, concurrent.futures.Future] = {}  # of each folder, also of a loop that ended before its writer
_pool = concurrent.futures.ThreadPoolExecutor(1)


class Checkpoints:
    """The checkpoints of one loop, `folder/<step>`, written while it goes on; at most one is kept.

    Args:
        folder: belongs to this loop; None keeps nothing.
        fingerprint: tells loops apart: data, settings, seed.
        every: seconds between checkpoints.
        shared: all processes run this loop together, step by step, and hold the whole state each. Then they save at the
            same step, which the first writes; it also reads, and tells the others what it read, so that a folder that
            another host sees late or not at all makes no difference. Every method is called by all of them. Otherwise
            the loop is this process's own, and waits for no other.
    """

    def __init__(self, folder: Path | None, fingerprint: str, every: float, *, shared: bool = False):
        self.folder, self.fingerprint, self.every, self.shared = folder, fingerprint, every, shared
        self.saved = time.monotonic()

    def load(self, like: T) -> tuple[int, T, dict] | None:
        """The steps done, the state (shaped as `like`) and the curves; None when there is nothing to go on from.

        A checkpoint that cannot be read is named on stderr and left out: the loop then starts anew.

        Raises:
            InputError: the checkpoint of another loop lies there, or a shared loop is not the same in all processes.
        """
        if not self.shared:
            return self._load(like)
        found, about = None, dict[str, Any](fingerprint=self.fingerprint)
        if is_first_host():
            try:
                found = self._load(like)
                about["found"] = found and [found[0], found[2]]
            except InputError as error:
                about["refused"] = error.parts
        found_by_first = json.loads(broadcast_bytes(json.dumps(about).encode()))
        # Compared by all with all, so that none goes on alone.
        if not _all(found_by_first["fingerprint"] == self.fingerprint):
            wanted = "the same data, settings and seed in every process"
            hint = "start all of them by the same command, of one version of jsplat"
            raise InputError(f"process {jax.process_index()}", wanted=wanted, got="others", hint=hint)
        if "refused" in found_by_first:
            raise InputError(**found_by_first["refused"])
        if found_by_first["found"] is None:
            return None
        step, curves = found_by_first["found"]
        leaves, structure = jax.tree.flatten(found[1] if found else like)
        data = broadcast_bytes(b"".join(np.asarray(x).tobytes() for x in leaves))
        ends = np.cumsum([x.nbytes for x in leaves])
        values = [np.frombuffer(data[end - x.nbytes : end], x.dtype).reshape(x.shape) for x, end in zip(leaves, ends)]
        return step, jax.tree.unflatten(structure, [jnp.array(value) for value in values]), curves

    def keep(self, step: int, state: object, curves: dict, *, last: bool = False) -> None:
        """Saves when it is time to, at the `last` step and on a request to stop; then removes the one before.

        Returns as soon as the state is copied, but at the last step, on a request to stop and in a shared loop.

        Args:
            state: any tree of arrays.
            curves: JSON-ready.

        Raises:
            Stopped: after saving, when the process (of a shared loop: any process) was asked to end and this was not
                the last step.
        """
        stop, due = STOP.is_set() and not last, last or time.monotonic() - self.saved > self.every
        if self.shared:
            stop, due = not _all(not stop), not _all(not due)
        if self.folder is not None and (stop or due):
            held = jax.tree.map(np.array, jax.device_get(state))  # copies: the loop gives its buffers away
            self._wait()
            if is_first_host() or not self.shared:
                curves = json.loads(json.dumps(curves))  # a copy
                _writers[self.folder] = _pool.submit(self._write, self.folder, step, held, curves)
            if last or stop or self.shared:
                self._wait()
            if self.shared:
                _all(True)  # None goes on, or ends, before the checkpoint is there.
            self.saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped at step {step}")

    def _wait(self) -> None:
        """Until the checkpoint in work is there; raises what its writer raised."""
        if self.folder is not None and (writer := _writers.pop(self.folder, None)) is not None:
            writer.result()

    def _load(self, like: T) -> tuple[int, T, dict] | None:
        self._wait()
        leaves, structure = jax.tree.flatten(like)
        shapes = {f"{i:05d}": jax.ShapeDtypeStruct(x.shape, x.dtype) for i, x in enumerate(leaves)}
        for path in reversed(self._own()):
            try:
                about = json.loads((path / "run.json").read_text())
                arrays = read_arrays(path / "state", shapes) if about["fingerprint"] == self.fingerprint else {}
                known = about["fingerprint"], about["step"], about["curves"]
            except (InputError, OSError, ValueError, KeyError, TypeError) as error:
                print(f"{path}: cannot be read ({error}); it is left out", file=sys.stderr, flush=True)
                continue
            if known[0] != self.fingerprint:
                wanted = "a checkpoint of this run (data, settings, seed)"
                raise InputError(f"{self.folder}", wanted=wanted, got="one of another", hint=f"{ADVICE} folder")
            return known[1], jax.tree.unflatten(structure, [arrays[n] for n in sorted(arrays)]), known[2]
        return None

    def _write(self, folder: Path, step: int, state: object, curves: dict) -> None:
        older, begin = self._own(), time.monotonic()
        if (folder / f"{step:08d}") in older:
            shutil.rmtree(folder / f"{step:08d}")  # one that could not be read
        with new_folder(folder / f"{step:08d}") as path:
            write_arrays(path / "state", {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(state))})
            write_json(path / "run.json", {"fingerprint": self.fingerprint, "step": step, "curves": curves})
        for path in older:
            if path.name != f"{step:08d}":
                shutil.rmtree(path)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        log("checkpoint", step=step, bytes=size, seconds=round(time.monotonic() - begin, 3))

    def _own(self) -> list[Path]:
        """The checkpoints, readable or not; whatever else somebody keeps in the folder is none."""
        paths = [] if self.folder is None else sorted(self.folder.glob("[0-9]" * 8))
        return [p for p in paths if p.is_dir() and {x.name for x in p.iterdir()} <= {"run.json", "state"}]


def _all(value: bool) -> bool:
    """Whether it is true in every process; returns when all have come here."""
    return bool(multihost_utils.process_allgather(np.bool_(value)).all())
