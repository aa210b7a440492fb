"""The fit's loop: all identities at once, many steps per compiled call, sharded over devices by identity."""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jsplat.camera import Camera
from jsplat.capture import Capture
from jsplat.errors import InputError
from jsplat.fit.config import FitConfig
from jsplat.fit.loss import label_loss, photo_loss, ssim
from jsplat.fit.mcmc import exploration, relocate
from jsplat.fit.photos import Photos, fitted_views, held_out, stack_photos
from jsplat.fit.start import starting_scene
from jsplat.progress import Progress
from jsplat.pytree import pytree, replace
from jsplat.raster import capacity_for, over_views, rasterize, render_scene, sh_colors
from jsplat.scene import Scene
from jsplat.unfinished import Unfinished

AXIS = "identity"
RETRY = 7919  # added to the seed of the second attempt


@pytree
class FitState:
    """What a step changes; leading axis: identities.

    Attributes:
        step: steps done; an identity stands still from the first view that exceeds the capacity.
        needed: the most tile hits any view needed so far.
        failed: a step would have left something that is not finite; the identity stands still before it.
    """

    scene: Scene
    moments: optax.OptState
    step: Int[Array, " b"]
    needed: Int[Array, " b"]
    loss: Float[Array, " b"]
    failed: Bool[Array, " b"]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Fitted scenes (leading axis: identities, in the captures' order) and how well they show the held-out views.

    Attributes:
        psnr, ssim: per identity, over the held-out views (all views when none is held out).
        losses: mean loss after each call, with its step.
        capacity: tile hits per view that were enough.
        failed: identities that diverged twice; their scene is the last sound one.
    """

    scene: Scene
    psnr: Float[np.ndarray, " b"]
    ssim: Float[np.ndarray, " b"]
    losses: list[tuple[int, float]]
    capacity: int
    failed: tuple[str, ...] = ()


def _optimizer(config: FitConfig) -> optax.GradientTransformation:
    """Adam with a rate for each attribute; one decay and one count for all, so that a step is few GPU kernels."""
    rates = {
        "means": config.lr_means,
        "quats": config.lr_quats,
        "log_scales": config.lr_scales,
        "logit_opacities": config.lr_opacities,
        "sh": config.lr_sh,
        "label_logits": config.lr_labels,
    }

    def at_rates(updates, _):
        return jax.tree_util.tree_map_with_path(lambda path, x: -rates[path[-1].name] * x, updates)

    decay = optax.exponential_decay(1.0, config.steps, config.lr_final)
    return optax.chain(optax.scale_by_adam(eps=1e-15), optax.scale_by_schedule(decay), optax.stateless(at_rates))


def _update(config: FitConfig) -> Callable[[Scene, optax.OptState], tuple[Scene, optax.OptState]]:
    """Adam's step on one identity; optax's own type forgets that a scene comes back."""
    return _optimizer(config).update  # type: ignore[return-value]


def _predict(scene: Scene, camera: Camera, background, config: FitConfig, capacity: int):
    if config.label_weight > 0:
        return render_scene(scene, camera, background=background, capacity=capacity, labels_shape=config.labels_shape)
    rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
    render = rasterize(scene.gaussians, rgb, camera, background=background, capacity=capacity)
    return render, render.channels, None


def _losses(scene: Scene, photo, valid, labels, camera, background, config: FitConfig, capacity: int):
    """Loss per identity and the render; all inputs with the identities in front."""
    render, rgb, classes = _predict(scene, camera, background, config, capacity)
    # Where the photograph says nothing the render is right, and learns nothing.
    photo = jnp.where(valid[..., None], photo, jax.lax.stop_gradient(rgb))
    loss = photo_loss(rgb, photo, config.ssim_weight)
    if classes is not None:
        loss += config.label_weight * label_loss(classes, labels)
    gaussians = scene.gaussians
    loss += config.opacity_weight * jax.nn.sigmoid(gaussians.logit_opacities).mean(-1)
    return loss, render


def _one_step(state: FitState, photos: Photos, until: Array, config: FitConfig, capacity: int) -> FitState:
    keys = jax.vmap(lambda seed, step: jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 2))(
        photos.seed, state.step
    )
    drawn = jax.vmap(lambda key, count: jax.random.randint(key, (), 0, count))(keys[:, 0], photos.train_count)
    rows = jnp.arange(photos.seed.shape[0])
    view = photos.train[rows, drawn]
    photo = photos.images[rows, view].astype(jnp.float32) / 255
    camera, background = photos.cameras[rows, view], photos.background[rows, view]

    def total(scene: Scene):
        labels, valid = photos.labels[rows, view], photos.valid[rows, view]
        loss, render = _losses(scene, photo, valid, labels, camera, background, config, capacity)
        scales = jnp.exp(scene.gaussians.log_scales).mean((-2, -1)) / photos.radius
        return (loss + config.scale_weight * scales).sum(), (loss, render.needed)

    (_, (loss, needed)), grads = jax.value_and_grad(total, has_aux=True)(state.scene)
    updates, moments = jax.vmap(_update(config))(grads, state.moments)
    rate = optax.exponential_decay(config.lr_means, config.steps, config.lr_final)(state.step)
    moved = updates.gaussians.means * photos.radius[:, None, None]
    wander = jnp.where(state.step < config.relocate_until * config.steps, config.noise * rate, 0.0)
    moved += wander[:, None, None] * jax.vmap(exploration)(state.scene.gaussians, keys[:, 1])
    updates = replace(updates, gaussians=replace(updates.gaussians, means=moved))
    scene = jax.tree.map(jnp.add, state.scene, updates)
    stepped = FitState(scene, moments, state.step + 1, jnp.maximum(state.needed, needed), loss, state.failed)
    active = (needed <= capacity) & (state.step < until) & ~state.failed
    sound = _finite((scene, loss))
    frozen = replace(state, needed=stepped.needed, failed=state.failed | (active & ~sound))
    return _select(active & sound, stepped, frozen)


def _finite(tree) -> Bool[Array, " b"]:
    """Which identities have no NaN and no infinity."""
    found = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, found)


def _select(chosen, yes, no):
    """Per identity, one tree or the other."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


def _relocate(state: FitState, photos: Photos, config: FitConfig) -> FitState:
    keys = jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 7))(
        photos.seed, state.step
    )
    scene, changed = jax.vmap(relocate, in_axes=(0, 0, None))(state.scene, keys, config.dead_opacity)

    def forget(moment):
        if moment.ndim < 2:
            return moment
        return jnp.where(changed.reshape(*changed.shape, *[1] * (moment.ndim - 2)), 0.0, moment)

    return replace(state, scene=scene, moments=jax.tree.map(forget, state.moments))


def _sharded(mesh: Mesh, function, static_args: int):
    specs = (P(AXIS), P(AXIS), *[P()] * static_args)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


@functools.partial(jax.jit, static_argnames=("mesh", "config", "capacity"), donate_argnums=0)
def _advance(
    state: FitState, photos: Photos, until: Array, *, mesh: Mesh, config: FitConfig, capacity: int
) -> FitState:
    """At most `steps_per_call` steps towards `until`; no device talks to another."""

    def local(state, photos, until):
        def body(state, _):
            return _one_step(state, photos, until, config, capacity), None

        return jax.lax.scan(body, state, length=config.steps_per_call)[0]

    return _sharded(mesh, local, 1)(state, photos, until)


@functools.partial(jax.jit, static_argnames=("mesh", "config"), donate_argnums=0)
def _relocate_all(state: FitState, photos: Photos, *, mesh: Mesh, config: FitConfig) -> FitState:
    return _sharded(mesh, lambda s, p: _relocate(s, p, config), 0)(state, photos)


def _mesh(identities: int) -> Mesh:
    """The most devices that divide the identities evenly."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if identities % n == 0)
    return Mesh(np.asarray(devices[:count]), (AXIS,))


def _carved(captures: list[Capture], photos: Photos, config: FitConfig, seed: int, classes: int) -> Scene:
    """Starting scenes from the silhouettes, stacked."""
    keys = [jax.random.fold_in(jax.random.key(seed), int(own)) for own in photos.seed]
    shown = [c.only(fitted_views(c, config)) for c in captures]  # what is held out takes no part in carving either
    scenes = [starting_scene(c, config, key, classes) for c, key in zip(shown, keys)]
    return jax.tree.map(lambda *x: jnp.stack(x), *scenes)


def fit(
    captures: list[Capture], config: FitConfig, seed: int = 0, start: Scene | None = None, resume: Path | None = None
) -> FitResult:
    """Fits all captures at once.

    An identity that diverges is frozen, named on stderr and fitted once more with another seed; its neighbours in the
    batch do not notice.

    Args:
        captures: images of one size; labels are used for the silhouettes (when the background is unknown) and, with
            `label_weight` > 0, as targets.
        start: scenes to start from, leading axis: identities; carved from the silhouettes if None.
        resume: a folder for checkpoints; a fit found there is carried on.

    Returns:
        scenes on the device, in the captures' order. The same seed on the same machine gives the same bits, whether or
        not the fit was killed between.
    """
    if not captures:
        raise InputError("fit: captures", wanted="at least one", got=0)
    labelsets = {c.labelset for c in captures if c.labelset is not None}
    if len(labelsets) > 1:
        raise InputError("fit: captures", wanted="one label set", got=[s.names for s in labelsets])
    result = _fit(captures, config, seed, start, resume)
    if not result.failed:
        return result
    rows = [i for i, c in enumerate(captures) if c.identity in result.failed]
    again = _fit([captures[i] for i in rows], config, seed + RETRY, None, resume and resume / "retry")
    scene = jax.tree.map(lambda x, y: x.at[np.asarray(rows)].set(y), result.scene, again.scene)
    psnr, similarity = result.psnr.copy(), result.ssim.copy()
    psnr[rows], similarity[rows] = again.psnr, again.ssim
    return FitResult(scene, psnr, similarity, result.losses, max(result.capacity, again.capacity), again.failed)


def _fit(captures: list[Capture], config: FitConfig, seed: int, start: Scene | None, resume: Path | None) -> FitResult:
    """One attempt."""
    labelset = next((c.labelset for c in captures if c.labelset is not None), None)
    photos = stack_photos(captures, config)
    photos = replace(photos, seed=photos.seed ^ seed)
    scene = _carved(captures, photos, config, seed, len(labelset or "?")) if start is None else start
    mesh, identities = _mesh(len(captures)), len(captures)
    count = jnp.zeros(identities, jnp.int32)
    moments = jax.vmap(_optimizer(config).init)(scene)  # type: ignore[arg-type]
    state = FitState(scene, moments, count, count, jnp.zeros(identities), jnp.zeros(identities, bool))
    capacity = int(config.hits_per_gaussian * scene.gaussians.means.shape[1])
    losses, done = [], 0
    program = dataclasses.replace(config, save_every=0.0, hits_per_gaussian=0.0)  # what the compiled steps depend on
    checkpoints = Unfinished(resume, _fingerprint(photos, scene, program), config.save_every)
    if (found := checkpoints.load(state)) is not None:
        done, state, curves = found
        losses, capacity = [(s, value) for s, value in curves["losses"]], curves["capacity"]
    # The loop donates its state, so every buffer must be its own: used once, and not the caller's `start`.
    state = jax.device_put(state, NamedSharding(mesh, P(AXIS)), may_alias=False)
    photos = jax.device_put(photos, NamedSharding(mesh, P(AXIS)))
    progress, known = Progress("fit", config.steps - done), np.asarray(state.failed)
    while done < config.steps:
        until = min(done + config.steps_per_call, config.steps)
        state = _advance(state, photos, jnp.int32(until), mesh=mesh, config=program, capacity=capacity)
        failed, steps = jax.device_get((state.failed, state.step))
        for i in np.flatnonzero(failed & ~known):
            print(f"fit: {captures[i].identity} diverged at step {steps[i]} and is frozen", file=sys.stderr, flush=True)
        known = failed
        if (steps[~failed] < until).any():
            capacity = int(1.25 * int(state.needed.max())) + 64
            print(
                f"fit: a view needed {int(state.needed.max())} tile hits; going on with capacity {capacity}", flush=True
            )
            continue
        if (
            config.relocate_every
            and until % config.relocate_every == 0
            and until < config.relocate_until * config.steps
        ):
            state = _relocate_all(state, photos, mesh=mesh, config=program)
        if failed.all():
            break
        losses.append((until, float(np.asarray(state.loss)[~failed].mean())))
        progress.advance(until - done, loss=losses[-1][1])
        done = until
        checkpoints.keep(done, state, {"losses": losses, "capacity": capacity}, last=done == config.steps)
    psnr, similarity = _score(state.scene, photos, captures, config)
    names = tuple(c.identity for c, bad in zip(captures, known) if bad)
    return FitResult(state.scene, psnr, similarity, losses, capacity, names)


def _fingerprint(photos: Photos, scene: Scene, config: FitConfig) -> str:
    digest = hashlib.sha256(repr(config).encode())
    for array in jax.tree.leaves((photos, scene)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _score(scene: Scene, photos: Photos, captures: list[Capture], config: FitConfig):
    """PSNR and SSIM per identity on the held-out views."""
    psnrs, ssims = [], []
    for i, capture in enumerate(captures):
        views = held_out(len(capture.images), config.hold_out)
        views = views if len(views) else np.arange(len(capture.images))
        own = jax.tree.map(lambda x, i=i: jax.device_get(x[i]), scene)
        cameras, behind, shots, valid = jax.device_get(
            (photos.cameras[i, views], photos.background[i, views], photos.images[i, views], photos.valid[i, views])
        )
        capacity = capacity_for(own.gaussians, cameras)
        psnr, score = _score_views(own, cameras, behind, shots, valid, capacity=capacity)
        psnrs.append(float(psnr))
        ssims.append(float(score))
    return np.asarray(psnrs), np.asarray(ssims)


@functools.partial(jax.jit, static_argnames="capacity")
def _score_views(scene: Scene, cameras: Camera, background, images, valid, *, capacity: int):
    def view(item):
        camera, behind, photo, valid = item
        rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
        shown = rasterize(scene.gaussians, rgb, camera, background=behind, capacity=capacity).channels
        photo = jnp.where(valid[..., None], photo.astype(jnp.float32) / 255, shown)
        error = jnp.mean((jnp.clip(shown, 0, 1) - photo) ** 2, where=valid[..., None])
        return -10 * jnp.log10(error), ssim(shown, photo)

    psnr, score = over_views(view, (cameras, background, images, valid))
    return psnr.mean(), score.mean()
