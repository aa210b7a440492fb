"""The fit's loop: all identities at once, many steps per compiled call, sharded over devices by identity."""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt8

from jsplat.camera import Camera
from jsplat.capture import Capture
from jsplat.errors import InputError
from jsplat.fit.config import FitConfig
from jsplat.fit.loss import label_loss, photo_loss, ssim
from jsplat.fit.mcmc import exploration, relocate
from jsplat.fit.start import scene_sphere, starting_scene
from jsplat.labelset import IGNORE
from jsplat.progress import Progress
from jsplat.pytree import pytree, replace
from jsplat.raster import capacity_for, over_views, rasterize, render_scene, sh_colors
from jsplat.scene import Scene

AXIS = "identity"


@pytree
class Photos:
    """The pictures of all identities, resident on the device; identities with fewer views are padded.

    Attributes:
        images, labels: sRGB and class ids (IGNORE where there are none).
        cameras: of each view.
        background: colour in [0, 1] behind each view.
        train: the views to fit, padded by repetition; train_count says how many there are.
        radius: of the scene, world units.
        seed: a number of each identity's own, so that its result does not depend on its neighbours.
    """

    images: UInt8[Array, "b v h w 3"]
    labels: UInt8[Array, "b v h w"]
    cameras: Camera
    background: Float[Array, "b v 3"]
    train: Int[Array, "b t"]
    train_count: Int[Array, " b"]
    radius: Float[Array, " b"]
    seed: Int[Array, " b"]


@pytree
class FitState:
    """What a step changes; leading axis: identities.

    Attributes:
        step: steps done; an identity stands still from the first view that exceeds the capacity.
        needed: the most tile hits any view needed so far.
    """

    scene: Scene
    moments: optax.OptState
    step: Int[Array, " b"]
    needed: Int[Array, " b"]
    loss: Float[Array, " b"]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Fitted scenes (leading axis: identities, in the captures' order) and how well they show the held-out views.

    Attributes:
        psnr, ssim: per identity, over the held-out views (all views when none is held out).
        losses: mean loss after each call, with its step.
        capacity: tile hits per view that were enough.
    """

    scene: Scene
    psnr: Float[np.ndarray, " b"]
    ssim: Float[np.ndarray, " b"]
    losses: list[tuple[int, float]]
    capacity: int


def held_out(views: int, every: int) -> np.ndarray:
    """Indices of the views kept from the fit, spread evenly."""
    return np.arange(every // 2, views, every) if every else np.arange(0)


def _fitted_views(capture: Capture, config: FitConfig) -> np.ndarray:
    views = len(capture.images)
    return np.setdiff1d(np.arange(views), held_out(views, config.hold_out))


def backgrounds(capture: Capture) -> Float[np.ndarray, "v 3"]:
    """The colour behind the head in [0, 1]: known, or the median of what the labels call background."""
    if capture.background is not None:
        return np.tile(np.asarray(capture.background, np.float32) / 255, (len(capture.images), 1))
    if capture.labels is None:
        raise InputError(f"capture {capture.identity}", wanted="labels or a known background", got="neither")
    colors = [image[label == 0] for image, label in zip(capture.images, capture.labels)]
    everywhere = np.concatenate(colors)
    if not everywhere.size:
        raise InputError(f"capture {capture.identity}: labels", wanted="some background", got="none in any view")
    return np.stack([np.median(c if len(c) else everywhere, 0) for c in colors]).astype(np.float32) / 255


def stack_photos(captures: list[Capture], config: FitConfig) -> Photos:
    """All captures as one batch.

    Raises:
        InputError: when image sizes differ.
    """
    sizes = {c.images.shape[1:3] for c in captures}
    if len(sizes) != 1:
        raise InputError("fit: captures", wanted="images of one size", got=sorted(sizes))
    views = max(len(c.images) for c in captures)

    def pad(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, np.repeat(x[-1:], views - len(x), 0)])

    kept = [_fitted_views(c, config) for c in captures]
    longest = max(map(len, kept))
    blank = [np.full(c.images.shape[:3], IGNORE, np.uint8) if c.labels is None else c.labels for c in captures]
    first = captures[0].cameras
    matrices, intrinsics = (
        jnp.asarray(np.stack([pad(np.asarray(getattr(c.cameras, name))) for c in captures]))
        for name in ("camera_from_world", "intrinsics")
    )
    return Photos(
        images=jnp.asarray(np.stack([pad(c.images) for c in captures])),
        labels=jnp.asarray(np.stack([pad(b) for b in blank])),
        cameras=Camera(matrices, intrinsics, first.width, first.height),
        background=jnp.asarray(np.stack([pad(backgrounds(c)) for c in captures])),
        train=jnp.asarray(np.stack([np.resize(k, longest) for k in kept])),
        train_count=jnp.asarray([len(k) for k in kept]),
        radius=jnp.asarray([scene_sphere(c.cameras)[1] for c in captures], jnp.float32),
        seed=jnp.asarray([zlib.crc32(c.identity.encode()) & 0x7FFFFFFF for c in captures]),
    )


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


def _losses(scene: Scene, photo, labels, camera, background, config: FitConfig, capacity: int):
    """Loss per identity and the render; all inputs with the identities in front."""
    render, rgb, classes = _predict(scene, camera, background, config, capacity)
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
        loss, render = _losses(scene, photo, photos.labels[rows, view], camera, background, config, capacity)
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
    stepped = FitState(scene, moments, state.step + 1, jnp.maximum(state.needed, needed), loss)
    frozen = replace(state, needed=stepped.needed)
    active = (needed <= capacity) & (state.step < until)
    return _select(active, stepped, frozen)


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
    shown = [c.only(_fitted_views(c, config)) for c in captures]  # what is held out takes no part in carving either
    scenes = [starting_scene(c, config, key, classes) for c, key in zip(shown, keys)]
    return jax.tree.map(lambda *x: jnp.stack(x), *scenes)


def fit(captures: list[Capture], config: FitConfig, seed: int = 0, start: Scene | None = None) -> FitResult:
    """Fits all captures at once.

    Args:
        captures: images of one size; labels are used for the silhouettes (when the background is unknown) and, with
            `label_weight` > 0, as targets.
        start: scenes to start from, leading axis: identities; carved from the silhouettes if None.

    Returns:
        scenes on the device, in the captures' order. The same seed on the same machine gives the same bits.
    """
    if not captures:
        raise InputError("fit: captures", wanted="at least one", got=0)
    labelsets = {c.labelset for c in captures if c.labelset is not None}
    if len(labelsets) > 1:
        raise InputError("fit: captures", wanted="one label set", got=[s.names for s in labelsets])
    classes = len(next(iter(labelsets))) if labelsets else 1
    photos = stack_photos(captures, config)
    photos = replace(photos, seed=photos.seed ^ seed)
    scene = _carved(captures, photos, config, seed, classes) if start is None else start
    mesh = _mesh(len(captures))
    count = jnp.zeros(len(captures), jnp.int32)
    moments = jax.vmap(_optimizer(config).init)(scene)  # type: ignore[arg-type]
    state = FitState(scene, moments, count, count, jnp.zeros(len(captures)))
    # The loop donates its state, so every buffer must be its own: used once, and not the caller's `start`.
    state = jax.device_put(state, NamedSharding(mesh, P(AXIS)), may_alias=False)
    photos = jax.device_put(photos, NamedSharding(mesh, P(AXIS)))
    capacity = int(config.hits_per_gaussian * scene.gaussians.means.shape[1])
    progress, losses, done = Progress("fit", config.steps), [], 0
    while done < config.steps:
        until = min(done + config.steps_per_call, config.steps)
        state = _advance(state, photos, jnp.int32(until), mesh=mesh, config=config, capacity=capacity)
        if int(state.step.min()) < until:
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
            state = _relocate_all(state, photos, mesh=mesh, config=config)
        losses.append((until, float(state.loss.mean())))
        progress.advance(until - done, loss=losses[-1][1])
        done = until
    psnr, similarity = _score(state.scene, photos, captures, config)
    return FitResult(state.scene, psnr, similarity, losses, capacity)


def _score(scene: Scene, photos: Photos, captures: list[Capture], config: FitConfig):
    """PSNR and SSIM per identity on the held-out views."""
    psnrs, ssims = [], []
    for i, capture in enumerate(captures):
        views = held_out(len(capture.images), config.hold_out)
        views = views if len(views) else np.arange(len(capture.images))
        own = jax.tree.map(lambda x, i=i: jax.device_get(x[i]), scene)
        cameras, behind, shots = jax.device_get(
            (photos.cameras[i, views], photos.background[i, views], photos.images[i, views])
        )
        capacity = capacity_for(own.gaussians, cameras)
        psnr, score = _score_views(own, cameras, behind, shots, capacity=capacity)
        psnrs.append(float(psnr))
        ssims.append(float(score))
    return np.asarray(psnrs), np.asarray(ssims)


@functools.partial(jax.jit, static_argnames="capacity")
def _score_views(scene: Scene, cameras: Camera, background, images, *, capacity: int):
    def view(item):
        camera, behind, photo = item
        rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
        shown = rasterize(scene.gaussians, rgb, camera, background=behind, capacity=capacity).channels
        photo = photo.astype(jnp.float32) / 255
        return -10 * jnp.log10(jnp.mean((jnp.clip(shown, 0, 1) - photo) ** 2)), ssim(shown, photo)

    psnr, score = over_views(view, (cameras, background, images))
    return psnr.mean(), score.mean()
