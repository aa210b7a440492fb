"""One fit of a batch: every identity on one device, resumed after a kill."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from jsplat.captures.capture import Capture
from jsplat.files.resume import Checkpoints
from jsplat.fitting.config import FitConfig
from jsplat.fitting.held_out import score
from jsplat.fitting.photos import Photos
from jsplat.fitting.result import FitResult, Losses
from jsplat.fitting.step import FitState, advance, bytes_of, first_capacity, first_state, relocate_all
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.capacity import SharedCapacity, rounded_capacity
from jsplat.raster.scene import Scene
from jsplat.runtime.cost import Cost, Stopwatch
from jsplat.runtime.devices import split
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.progress import Progress


@dataclasses.dataclass(frozen=True)
class PreparedIdentity:
    """A capture, its row of a batch, and the scene that its fit starts from (no leading axes)."""

    capture: Capture
    photos: Photos
    scene: Scene


@dataclasses.dataclass(frozen=True)
class Task:
    """What all batches share."""

    config: FitConfig
    seed: int
    labelset: LabelSet | None
    resume: Path | None
    starts: dict[str, Scene]
    progress: Progress
    capacity: SharedCapacity


def compiled_settings(config: FitConfig) -> FitConfig:
    """What the compiled steps depend on."""
    return dataclasses.replace(config, save_every=0.0, hits_per_gaussian=0.0, identities_per_device=0)


class FitLoop:
    """Steps, relocations and checkpoints of one batch until all of its identities are done or have diverged.

    Args:
        ready: identities, at most `rows`; rows beyond them repeat the last one and are thrown away.
        task: what all batches share.
        mesh: devices, each with as many rows as the others.
        rows: of the compiled programs.
        capacity: tile hits a view may need, as far as that is known.
        folder: for checkpoints; one of the same fit that is found there is carried on.
    """

    @in_32_bits
    def __init__(
        self, ready: list[PreparedIdentity], task: Task, mesh: Mesh, rows: int, capacity: int, folder: Path | None
    ):
        self._config, self._compiled = task.config, compiled_settings(task.config)
        self._progress, self._shared_capacity = task.progress, task.capacity
        self._captures = [one.capture for one in ready]
        filled = ready + ready[-1:] * (rows - len(ready))
        self._photos, scene = jax.tree.map(lambda *x: np.stack(x), *[(one.photos, one.scene) for one in filled])
        count, classes = scene.attributes.label_logits.shape[1:]
        self._capacity = max(capacity, first_capacity(task.config.hits_per_gaussian, count, classes, task.config))
        self._losses: Losses = []
        self._done, state = 0, first_state(scene)
        fingerprint = _fingerprint(self._photos, scene, self._compiled, state)
        self._checkpoints = Checkpoints(folder, fingerprint, task.config.save_every)
        if (found := self._checkpoints.load(state)) is not None:
            self._done, state, curves = found
            self._losses, self._capacity = [(s, value) for s, value in curves["losses"]], curves["capacity"]
            self._progress.advance(self._done)
        # The loop donates its state, so every buffer must be its own: used once, and not the caller's `starts`.
        self._state = jax.device_put(state, split(mesh), may_alias=False)
        self._placed = jax.device_put(self._photos, split(mesh))
        self._failed = np.asarray(self._state.failed)

    @in_32_bits
    def run(self) -> FitResult:
        """Goes on to the last step; what came out, scored on the views that were held out."""
        while self._done < self._config.steps:
            until = min(self._done + self._config.steps_per_call, self._config.steps)
            if not self._advance(until):
                self._grow()
                continue
            self._relocate(until)
            if self._failed.all():
                break
            self._save(until)
        return self._result()

    @in_32_bits
    def try_out(self) -> tuple[Cost, int, Scene]:
        """What one compiled call costs, once its programs are there and its capacity suffices: the third one that does.

        The second one may compile anew, for arrays that come from a program and not from the host.

        Returns:
            the cost; bytes that a device needs for it; the scenes so far, on the host.
        """
        taken, call = 0, self._config.steps_per_call
        while True:
            watch = Stopwatch()
            if not self._advance(self._done + call):
                self._grow()
                taken = 0
            elif taken == 2:
                cost = watch.cost()
                needed = bytes_of(self._state, self._placed, config=self._compiled, capacity=self._capacity)
                return cost, needed, jax.device_get(self._state.scene)
            else:
                taken, self._done = taken + 1, self._done + call

    def _advance(self, until: int) -> bool:
        """Whether all that have not diverged came to this step; those that did are named."""
        self._state = advance(self._state, self._placed, until, config=self._compiled, capacity=self._capacity)
        failed, steps = jax.device_get((self._state.failed, self._state.step))
        for i in np.flatnonzero((failed & ~self._failed)[: len(self._captures)]):
            name = self._captures[i].identity
            print(f"fit: {name} diverged at step {steps[i]} and is frozen", file=sys.stderr, flush=True)
        self._failed = failed
        return not (steps[~failed] < until).any()

    def _grow(self) -> None:
        """Room for the view that needed more; the steps that had none were not taken."""
        most = int(self._state.needed.max())
        self._capacity = rounded_capacity(int(1.25 * most))
        print(f"fit: a view needed {most} tile hits; going on with capacity {self._capacity}", flush=True)

    def _relocate(self, until: int) -> None:
        """Moves dead Gaussians where it is time to."""
        every, last = self._config.relocate_every, self._config.relocate_until * self._config.steps
        if every and until % every == 0 and until < last:
            self._state = relocate_all(self._state, self._placed, config=self._compiled)

    def _save(self, until: int) -> None:
        """Records the loss, shows progress, and keeps the state where it is time to."""
        losses = np.asarray(self._state.loss)[: len(self._captures)]
        self._losses.append((until, float(losses[~self._failed[: len(losses)]].mean())))
        self._progress.advance(until - self._done, loss=self._losses[-1][1])
        self._done = until
        curves = {"losses": self._losses, "capacity": self._capacity}
        self._checkpoints.keep(until, self._state, curves, last=until == self._config.steps)

    def _result(self) -> FitResult:
        fitted, count = jax.device_get(self._state.scene), len(self._captures)
        psnr, ssim = score(fitted, self._photos, self._captures, self._config, self._shared_capacity)
        names = tuple(capture.identity for capture in self._captures)
        scene = jax.tree.map(lambda x: np.array(x[:count]), fitted)
        failed = tuple(name for name, bad in zip(names, self._failed) if bad)
        return FitResult(names, scene, psnr, ssim, self._losses, self._capacity, failed)


def _fingerprint(photos: Photos, scene: Scene, config: FitConfig, state: FitState) -> str:
    """Also of how a state is made up, so that one of another version is not taken for one of this."""
    digest = hashlib.sha256(repr((config, jax.tree.structure(state))).encode())
    for array in jax.tree.leaves((photos, scene)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
