"""Training steps, whole fits and label lifts made ready."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.metric import Metric
from bench.peers import gsplat, missing, two_models
from bench.raster import planned_mb
from bench.scenes import SIZE, VIEWS, captures, fitted
from bench.timing import CannotRunError, Job
from bench.workloads import Fit, Lift, Step
from jsplat.fitting import FitConfig, fit
from jsplat.fitting.loss import label_loss, photo_loss
from jsplat.labels.lift import lift
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import capacity_for
from jsplat.raster.rasterizer import render_scene
from jsplat.raster.scene import SH_C0

RATE = 1e-3
CLASSES = len(CELEBAMASK_HQ)
SAME_PSNR_GOAL = 4.0
SAME_LOSS = 1e-4  # relative: the same sums in another order
SAME_LOSS_GSPLAT = 1e-3  # it stops one Gaussian earlier, at the same transmittance


def _cameras(identities: int, edge: int) -> Camera:
    return captures(1, VIEWS, SIZE)[0].cameras.resized(edge, edge)[np.arange(identities) * 5 % VIEWS]


def _targets(identities: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels to train on; noise, for the time does not depend on them."""
    random = np.random.default_rng(2)
    shape = (identities, edge, edge)
    return random.uniform(0, 1, (*shape, 3)).astype(np.float32), random.integers(0, CLASSES, shape).astype(np.uint8)


def prepare_step(work: Step) -> Job:
    """A job of one training step; a peer's first loss must be ours."""
    about = {"kind": "step", "implementation": work.implementation, "mode": work.mode, "channels": 3 + CLASSES}
    about |= {"identities": work.identities, "gaussians": work.count, "edge": work.edge}
    if work.implementation == "jsplat":
        step, loss, more = _our_step(work)
        return Job(step, {"loss": loss}, about, **more)
    if work.implementation == "gsplat":
        gsplat.need()
    elif reason := missing("torch"):
        raise CannotRunError(reason)
    scene, cameras = fitted(work.identities, work.count), _cameras(work.identities, work.edge)
    features = np.concatenate([scene.attributes.sh[..., 0, :] * SH_C0 + 0.5, scene.attributes.label_logits], -1)
    geometry = scene.gaussians
    arrays = {"means": geometry.means, "quats": geometry.quats, "log_scales": geometry.log_scales}
    arrays |= {"logit_opacities": geometry.logit_opacities, "features": features}
    arrays = {name: np.array(value) for name, value in arrays.items()}
    targets = _targets(work.identities, work.edge)
    if work.implementation == "gsplat":
        step, worst = gsplat.train_step(arrays, cameras, *targets, RATE), SAME_LOSS_GSPLAT
    else:
        step, worst = two_models.dual_step(arrays, cameras, *targets, RATE, work.mode), SAME_LOSS
    loss, ours = step(), _first_loss(work.identities, work.count, work.edge)
    if abs(loss - ours) > worst * abs(ours):
        raise ValueError(f"a loss of {loss} where ours is {ours}")
    return Job(step, {"loss": loss}, about)


@functools.lru_cache(maxsize=8)
def _first_loss(identities: int, count: int, edge: int) -> float:
    return _our_step(Step("", identities=identities, count=count, edge=edge))[1]


def _our_step(work: Step):
    """As the fit's own step: everything of all identities in one compiled program."""
    scene, cameras = fitted(work.identities, work.count), _cameras(work.identities, work.edge)
    photo, labels = map(jnp.asarray, _targets(work.identities, work.edge))
    adam = optax.adam(RATE, eps=1e-15)
    each = [capacity_for(jax.tree.map(lambda x, i=i: x[i], scene.gaussians), cameras[i : i + 1])
            for i in range(work.identities)]  # fmt: skip
    capacity = max(each)

    def advance(scene, moments):
        def total(scene):
            _, rgb, classes = render_scene(scene, cameras, capacity=capacity)
            return (photo_loss(rgb, photo, 0.2) + 0.1 * label_loss(classes, labels)).sum()

        loss, gradients = jax.value_and_grad(total)(scene)
        updates, moments = adam.update(gradients, moments, scene)
        return optax.apply_updates(scene, updates), moments, loss

    moments = adam.init(scene)
    begin = time.perf_counter()
    compiled = jax.jit(advance).lower(scene, moments).compile()
    more = {"compile_seconds": time.perf_counter() - begin, "program_mb": planned_mb(compiled)}
    state = [scene, moments]

    def step():
        *state[:], loss = compiled(*state)
        return float(loss)

    return step, step(), more


def prepare_lift(work: Lift) -> Job:
    """A job that lifts all views of one head."""
    about = {"kind": "lift", "implementation": work.implementation, "mode": work.mode, "channels": CLASSES}
    about |= {"gaussians": work.count, "edge": work.edge, "views": work.views}
    scene = jax.tree.map(lambda x: x[0], fitted(1, work.count))
    cameras = captures(1, VIEWS, SIZE)[0].cameras.resized(work.edge, work.edge)[np.arange(work.views) % VIEWS]
    labels = _targets(work.views, work.edge)[1]
    pictures = jax.nn.one_hot(labels, CLASSES)
    capacity = capacity_for(scene.gaussians, cameras)

    def ours():
        return jax.block_until_ready(lift(scene.gaussians, cameras, pictures, capacity=capacity))

    if work.implementation == "jsplat":
        begin = time.perf_counter()
        ours()
        return Job(ours, work=about, compile_seconds=time.perf_counter() - begin)
    if reason := missing("torch"):
        raise CannotRunError(reason)
    theirs = two_models.lift(scene.gaussians, cameras, np.array(pictures), work.mode)
    evidence, wanted = theirs(), np.asarray(ours()[0])
    error = float(np.linalg.norm(evidence - wanted) / np.linalg.norm(wanted))
    if error > 5e-3:
        raise ValueError(f"evidence off by {error}")
    return Job(theirs, {"relative_error": error}, about)


def fit_config(work: Fit) -> FitConfig:
    """The settings of a whole fit; labels are trained in the same pass, as the peer trains them in its second model."""
    return FitConfig(gaussians=work.count, steps=work.steps, voxels=64, hold_out=5, label_weight=0.1)


def prepare_fit(work: Fit) -> Job:
    """A job that fits all identities; its accuracy is filled in by the call."""
    about = {"kind": "fit", "implementation": work.implementation, "mode": work.mode, "steps": work.steps}
    about |= {"identities": work.identities, "gaussians": work.count, "edge": work.size, "views": work.views}
    people, config, found = list(captures(work.identities, work.views, work.size)), fit_config(work), {}
    if work.implementation == "jsplat":

        def call():
            found["psnr"] = float(fit(people, config).psnr.mean())

        begin = time.perf_counter()
        call()
        return Job(call, found, about, compile_seconds=time.perf_counter() - begin, warm=False)
    if reason := missing("torch"):
        raise CannotRunError(reason)

    def loop():
        found["psnr"] = two_models.fit_loop(people, config, work.mode)

    return Job(loop, found, about, warm=False)


def to_the_same_psnr(found: list[Metric]) -> list[Metric]:
    """For each of our fits: the time of the shortest fit of two models that reaches its PSNR, over its own.

    Where none reaches it, the longest one stands for "more than that", and the note says so.
    """
    fits = sorted((m for m in found if m.work.get("kind") == "fit" and m.value), key=lambda m: m.work["steps"])
    theirs = [m for m in fits if m.work["implementation"] == "two_models"]
    return [_same_psnr(mine, theirs) for mine in fits if mine.work["implementation"] == "jsplat" and theirs]


def _same_psnr(mine: Metric, theirs: list[Metric]) -> Metric:
    wanted = mine.accuracy["psnr"]
    there = next((m for m in theirs if m.accuracy["psnr"] >= wanted), None)
    other = there or theirs[-1]
    reached = "" if there else ", which is not reached: more than this"
    note = f"{other.accuracy['psnr']:.2f} dB in {other.work['steps']} steps against {wanted:.2f} dB{reached}"
    accuracy = {"psnr": wanted, "peer_psnr": other.accuracy["psnr"]}
    return Metric(
        f"{mine.name}: two models over jsplat, same PSNR", other.value / mine.value, "x", "higher", 0.0, mine.rounds,
        other.fastest / mine.fastest, SAME_PSNR_GOAL, accuracy, note=note,
    )  # fmt: skip
