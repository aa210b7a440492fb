"""Fits of any number of identities, in batches."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from jsplat.captures.capture import Capture
from jsplat.errors import InputError, Unusable, of_a_person
from jsplat.fitting.batches import PendingIdentity, batches, max_per_device, read_ahead, shapes
from jsplat.fitting.config import FitConfig
from jsplat.fitting.loop import FitLoop, PreparedIdentity, Task, compiled_settings
from jsplat.fitting.photos import bucket, fitted_views, number_of, padded_size, photos_of
from jsplat.fitting.result import FailedIdentity, FitResult, mean_curve
from jsplat.fitting.start import starting_scene
from jsplat.fitting.step import bytes_per_identity, compile_steps, first_capacity, shapes_of
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Scene
from jsplat.runtime.cost import Cost, Stopwatch
from jsplat.runtime.devices import cores, identity_mesh
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.progress import Progress

RETRY = 7919  # added to the seed of the second attempt


def fit(
    captures: list[Capture], config: FitConfig, seed: int = 0, start: Scene | None = None, resume: Path | None = None
) -> FitResult:
    """Fits all captures.

    An identity that diverges is frozen, named on stderr and fitted once more with another seed; its neighbours do not
    notice.

    Args:
        captures: labels are used for the silhouettes (when the background is unknown) and, with `label_weight` > 0, as
            targets.
        config: steps, Gaussians, rates; what it leaves open the longest side of all pictures decides.
        seed: of the starting points, the order of views and the relocation.
        start: scenes to start from, leading axis: identities; carved from the silhouettes if None.
        resume: a folder for checkpoints; a fit found there is carried on.

    Returns:
        scenes in the captures' order. The same seed on the same machine gives the same bits, whether or
        not the fit was killed between, and on any number of its devices (GPUs: those for which there is a kernel).

    Raises:
        InputError: a capture cannot be started from, or their labels mean different things.
    """
    if not captures:
        raise InputError("fit: captures", wanted="at least one", got=0)
    labelsets = {c.labelset for c in captures if c.labelset is not None}
    if len(labelsets) > 1:
        got = " and ".join(f"({', '.join(s.names)})" for s in labelsets)
        raise InputError("fit: captures", wanted="one label set", got=got)
    names = [c.identity for c in captures]
    if len(set(names)) != len(names):
        raise InputError("fit: captures", wanted="captures of different identities", got=names)
    waiting = [PendingIdentity(c.identity, c.images.shape[:3], lambda c=c: c) for c in captures]
    starts = None if start is None else {n: jax.tree.map(lambda x, i=i: x[i], start) for i, n in enumerate(names)}
    results = []
    for result in fit_batches(waiting, next(iter(labelsets), None), config, seed, resume, starts):
        if isinstance(result, FailedIdentity):
            raise result.error
        results.append(result)
    found = [name for r in results for name in r.identities]
    order = np.asarray([found.index(name) for name in names])
    scene = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)[order]), *[r.scene for r in results])
    psnr, ssim = (np.concatenate([getattr(r, k) for r in results])[order] for k in ("psnr", "ssim"))
    failed = tuple(n for n in names if any(n in r.failed for r in results))
    capacity = max(r.capacity for r in results)
    return FitResult(
        tuple(names),
        scene,
        psnr,
        ssim,
        mean_curve((r.losses, len(r.identities) - len(r.failed)) for r in results),
        capacity,
        failed,
    )


def fit_batches(
    waiting: Sequence[PendingIdentity],
    labelset: LabelSet | None,
    config: FitConfig,
    seed: int = 0,
    resume: Path | None = None,
    starts: dict[str, Scene] | None = None,
) -> Iterator[FitResult | FailedIdentity]:
    """Fits captures that need not be in memory together; see `fit`.

    The pictures of the next batch are read while one is fitted. What an identity gets does not depend on its batch.

    Args:
        waiting: captures of different names.
        labelset: what the captures' labels mean, if they have any.
        resume: a folder for checkpoints, one in it for each batch; who keeps the results may remove it after each.
        starts: scenes to start from, by identity.

    Yields:
        a result for each batch, scenes on the host; identities that could not be fitted come before it.
    """
    if waiting:
        config = config.for_side(max(max(one.shape[1:]) for one in waiting))
    plans = _plans(waiting, len(labelset or "?"), config)
    progress = Progress("fit", config.steps * sum(len(queue) for _, _, queue in plans))
    task = Task(config, seed, labelset, resume, starts or {}, progress, SharedCapacity())
    for mesh, rows, queue in plans:
        capacity = 0  # what one batch was found to need the next one starts with, and needs no other program
        for read in read_ahead(queue):
            for result in _fit_batch(read, task, mesh, rows, capacity):
                if isinstance(result, FitResult):
                    capacity = max(capacity, result.capacity)
                yield result


def _plans(
    waiting: Sequence[PendingIdentity], classes: int, config: FitConfig
) -> list[tuple[Mesh, int, list[list[PendingIdentity]]]]:
    """For captures that share compiled programs: their devices, the programs' rows, and the batches."""
    plans = []
    for alike in shapes(waiting):
        mesh = identity_mesh(len(alike))
        measure = functools.partial(bytes_per_identity, alike[0].shape, classes, compiled_settings(config))
        pictures = 5 * bucket(alike[0].shape[0]) * math.prod(padded_size(*alike[0].shape[1:]))  # colours, label, valid
        per_device = max_per_device(config, list(mesh.devices), len(alike), measure, pictures)
        queue = batches(alike, mesh.size, per_device)
        # Asked for, a number is kept to the last batch; else the batches are of one size, with little to fill up.
        each = config.identities_per_device or math.ceil(max(map(len, queue)) / mesh.size)
        plans.append((mesh, each * mesh.size, queue))
    return plans


@in_32_bits
def compile_fit(pictures: Sequence[tuple[int, int, int]], classes: int, config: FitConfig) -> None:
    """Compiles the steps of `fit_batches` for captures that are yet to come, so that they start at once.

    Args:
        pictures: of each capture, views, height and width.
        classes: of their labels.
        config: of the fit.
    """
    waiting = [PendingIdentity(str(i), shape, _none) for i, shape in enumerate(pictures)]
    config = config.for_side(max(max(shape[1:]) for shape in pictures))
    for mesh, rows, queue in _plans(waiting, classes, config):
        capacity = first_capacity(config.hits_per_gaussian, config.gaussians, classes, config)
        arrays = shapes_of(rows // mesh.size, queue[0][0].shape, classes, config)
        compiled = functools.partial(compile_steps, *arrays, config=compiled_settings(config), capacity=capacity)
        # Each device has its own program.
        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
            list(pool.map(compiled, map(SingleDeviceSharding, mesh.devices.flat)))


def _none() -> Capture:
    raise AssertionError("there is no capture yet")


@dataclasses.dataclass(frozen=True)
class Tried:
    """The first steps of a fit of one capture, on one device.

    Attributes:
        start: cost of the starting scene, with what compiling takes.
        step: cost of one step, without.
        memory: bytes of the device.
        scene: what it is after them.
    """

    start: Cost
    step: Cost
    memory: int
    scene: Scene


def try_fit(capture: Capture, config: FitConfig, seed: int = 0) -> Tried:
    """Begins a fit of a capture alone on this device, to see what it takes.

    The programs are those of a fit of one identity at a time with these settings, and are in the cache afterwards.
    """
    config = config.for_side(max(capture.images.shape[1:3]))
    task = Task(config, seed, capture.labelset, None, {}, Progress("fit", config.steps), SharedCapacity())
    watch = Stopwatch()
    ready = _prepared(capture, task, seed)
    start = watch.cost()
    call, memory, scene = FitLoop([ready], task, identity_mesh(1), 1, 0, None).try_out()
    return Tried(start, call * (1 / config.steps_per_call), memory, jax.tree.map(lambda x: jnp.asarray(x[0]), scene))


def _fit_batch(
    read: list[tuple[PendingIdentity, Capture | InputError]], task: Task, mesh: Mesh, rows: int, capacity: int
) -> Iterator[FitResult | FailedIdentity]:
    ready: dict[str, PreparedIdentity] = {}
    for one, found in read:
        try:
            with of_a_person():
                ready[one.identity] = _prepared(found, task, task.seed)
        except Unusable as error:
            yield FailedIdentity(one.identity, error)
    if not ready:
        return
    folder = task.resume and task.resume / hashlib.sha256(repr(list(ready)).encode()).hexdigest()[:12]
    result = FitLoop(list(ready.values()), task, mesh, rows, capacity, folder).run()
    if result.failed:
        places = np.asarray([result.identities.index(name) for name in result.failed])
        task = dataclasses.replace(task, starts={}, progress=Progress("fit again", task.config.steps))
        carved = [_prepared(ready[name].capture, task, task.seed + RETRY) for name in result.failed]
        again = FitLoop(carved, task, mesh, rows, result.capacity, folder and folder / "retry").run()
        for old, new in zip(_leaves(result), _leaves(again)):
            old[places] = new
        capacity = max(result.capacity, again.capacity)
        result = dataclasses.replace(result, capacity=capacity, failed=again.failed)
    yield result


def _leaves(result: FitResult) -> list[np.ndarray]:
    return jax.tree.leaves((result.scene, result.psnr, result.ssim))


@in_32_bits
def _prepared(found: Capture | InputError, task: Task, seed: int) -> PreparedIdentity:
    if isinstance(found, InputError):
        raise found
    if found.labelset not in (None, task.labelset):
        wanted = "none" if task.labelset is None else ", ".join(task.labelset.names)
        got = "none" if found.labelset is None else ", ".join(found.labelset.names)
        raise InputError(f"capture {found.identity}: label set", wanted=wanted, got=got)
    photos = photos_of(found, task.config, seed)
    if found.identity in task.starts:
        return PreparedIdentity(found, photos, task.starts[found.identity])
    return PreparedIdentity(found, photos, _carved(found, task.config, seed, len(task.labelset or "?")))


def _carved(capture: Capture, config: FitConfig, seed: int, classes: int) -> Scene:
    """The starting scene from the silhouettes; what is held out takes no part in carving either."""
    key = jax.random.fold_in(jax.random.key(seed), number_of(capture.identity) ^ seed)
    return starting_scene(capture.only(fitted_views(capture, config)), config, key, classes)
