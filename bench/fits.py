"""Training steps, whole fits and label lifts made ready."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.metric import Metric
from bench.peers import gsplat, need, torch_raster, two_models
from bench.raster import relative_error
from bench.scenes import captures, dome, fitted, one_of
from bench.timing import Job, compiled, seconds_of
from bench.workloads import Fit, Lift, Step
from jsplat.fitting import FitConfig, fit
from jsplat.fitting.loss import label_loss
from jsplat.labels.lift import lift
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.raster.capacity import capacity_for
from jsplat.raster.rasterizer import render_scene
from jsplat.raster.scene import SH_C0
from jsplat.raster.similarity import photo_loss

RATE = 1e-3
CLASSES = len(CELEBAMASK_HQ)
SAME_PSNR_GOAL = 4.0
SAME_LOSS = 1e-4  # relative: the same sums in another order
SAME_LOSS_GSPLAT = 1e-3  # it stops one Gaussian earlier, at the same transmittance


def _targets(identities: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels to train on; noise, for the time does not depend on them."""
    random = np.random.default_rng(2)
    shape = (identities, edge, edge)
    return random.uniform(0, 1, (*shape, 3)).astype(np.float32), random.integers(0, CLASSES, shape).astype(np.uint8)


def prepare_step(work: Step) -> Job:
    """A job of one training step; a peer's first loss must be ours."""
    if work.is_ours:
        step, loss, more = _our_step(work)
        return Job(step, {"loss": loss}, **more)
    if work.implementation == "gsplat":
        need("gsplat", cuda=True)
        drawing, device, worst = gsplat.render, "cuda", SAME_LOSS_GSPLAT
    else:
        need("torch")
        drawing = functools.partial(two_models.render, torch_raster.blend_as(work.mode))
        device, worst = "cpu", SAME_LOSS
    scene, cameras = fitted(work.identities, work.count), dome(work.identities, work.edge)
    features = np.concatenate([scene.attributes.sh[..., 0, :] * SH_C0 + 0.5, scene.attributes.label_logits], -1)
    arrays = {name: np.array(getattr(scene.gaussians, name)) for name in two_models.NAMES} | {"features": features}
    targets = _targets(work.identities, work.edge)
    step = two_models.dual_step(arrays, cameras, *targets, RATE, drawing, device)
    loss, ours = step(), _first_loss(work.ours())
    if abs(loss - ours) > worst * abs(ours):
        raise ValueError(f"a loss of {loss} where ours is {ours}")
    return Job(step, {"loss": loss})


@functools.lru_cache(maxsize=8)
def _first_loss(work: Step) -> float:
    return _our_step(work)[1]


def _our_step(work: Step):
    """As the fit's own step: everything of all identities in one compiled program."""
    scene, cameras = fitted(work.identities, work.count), dome(work.identities, work.edge)
    photo, labels = map(jnp.asarray, _targets(work.identities, work.edge))
    adam = optax.adam(RATE, eps=1e-15)
    capacity = max(capacity_for(one_of(scene, k).gaussians, cameras[k : k + 1]) for k in range(work.identities))

    def advance(scene, moments):
        def total(scene):
            _, rgb, classes = render_scene(scene, cameras, capacity=capacity)
            return (photo_loss(rgb, photo, 0.2) + 0.1 * label_loss(classes, labels)).sum()

        loss, gradients = jax.value_and_grad(total)(scene)
        updates, moments = adam.update(gradients, moments, scene)
        return optax.apply_updates(scene, updates), moments, loss

    state = [scene, adam.init(scene)]
    program, more = compiled(advance, *state)

    def step():
        *state[:], loss = program(*state)
        return float(loss)

    return step, step(), more


def prepare_lift(work: Lift) -> Job:
    """A job that lifts all views of one head."""
    scene = one_of(fitted(1, work.count), 0)
    cameras = dome(work.views, work.edge, 1)
    pictures = jax.nn.one_hot(_targets(work.views, work.edge)[1], CLASSES)
    capacity = capacity_for(scene.gaussians, cameras)

    def ours():
        return jax.block_until_ready(lift(scene.gaussians, cameras, pictures, capacity=capacity))

    if work.is_ours:
        return Job(ours, compile_seconds=seconds_of(ours))
    need("torch")
    theirs = two_models.lift(scene.gaussians, cameras, np.array(pictures), work.mode)
    error = relative_error(theirs(), np.asarray(ours()[0]))
    if error > 5e-3:
        raise ValueError(f"evidence off by {error}")
    return Job(theirs, {"relative_error": error})


def prepare_fit(work: Fit) -> Job:
    """A job that fits all identities; its accuracy is filled in by the call.

    Ours trains labels in the same pass, as the peer trains them in its second model.
    """
    config = FitConfig(gaussians=work.count, steps=work.steps, voxels=64, hold_out=5, label_weight=0.1)
    people, found, ours = list(captures(work.identities, work.views, work.size)), {}, work.is_ours
    if not ours:
        need("torch")

    def call():
        found["psnr"] = float(
            fit(people, config).psnr.mean() if ours else two_models.fit_loop(people, config, work.mode)
        )

    return Job(call, found, compile_seconds=seconds_of(call) if ours else None, warm=False)


def to_the_same_psnr(found: list[Metric]) -> list[Metric]:
    """For each of our fits: the time of the shortest fit of two models that reaches its PSNR, over its own.

    Where none reaches it, the longest one stands for "more than that", and the note says so.
    """
    fits = sorted((m for m in found if m.work.get("kind") == "fit" and m.value), key=lambda m: m.work["steps"])
    theirs = [m for m in fits if m.work["implementation"] == "two_models"]
    return [_same_psnr(mine, theirs) for mine in fits if mine.work["implementation"] == "jsplat" and theirs]


def _same_psnr(mine: Metric, theirs: list[Metric]) -> Metric:
    wanted = mine.accuracy["psnr"]
    other = next((m for m in theirs if m.accuracy["psnr"] >= wanted), theirs[-1])
    psnr = other.accuracy["psnr"]
    reached = "" if psnr >= wanted else ", which is not reached: more than this"
    return Metric(
        f"{mine.name}: two models over jsplat, same PSNR", other.value / mine.value, "x", "higher", 0.0, mine.rounds,
        other.fastest / mine.fastest, SAME_PSNR_GOAL, {"psnr": wanted, "peer_psnr": psnr},
        note=f"{psnr:.2f} dB in {other.work['steps']} steps against {wanted:.2f} dB{reached}",
    )  # fmt: skip
