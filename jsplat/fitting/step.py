"""One step of the fit, and many of them in one compiled call, sharded over devices by identity."""

import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Bool, Float, Int, Key

from jsplat.fitting.adam import Moments, adam, factors_of, first_moments
from jsplat.fitting.config import FitConfig
from jsplat.fitting.loss import label_loss, labelled_pixels
from jsplat.fitting.mcmc import exploration, relocate
from jsplat.fitting.photos import Photos, bucket, padded_size
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import HITS_PER_GAUSSIAN, backend_tile, hits_of
from jsplat.raster.pytree import pytree, replace
from jsplat.raster.rasterizer import rasterize, render_scene
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.raster.similarity import photo_loss
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.programs import planned_bytes


@pytree
class FitState:
    """What a step changes; leading axis: identities.

    Attributes:
        counts: `step`, `needed` and `failed` side by side: on GPUs each would be a kernel of its own.
    """

    scene: Scene
    moments: Moments
    counts: Int[Array, "b 3"]
    loss: Float[Array, " b"]

    @property
    def step(self) -> Int[Array, " b"]:
        """Steps done; an identity stands still from the first view that exceeds the capacity."""
        return self.counts[:, 0]

    @property
    def needed(self) -> Int[Array, " b"]:
        """The most tile hits any view needed so far."""
        return self.counts[:, 1]

    @property
    def failed(self) -> Bool[Array, " b"]:
        """Whether a step would have left something that is not finite; the identity stands still before it."""
        return self.counts[:, 2] > 0


def _predict(scene: Scene, camera: Camera, background, config: FitConfig, capacity: int):
    if config.label_weight > 0:
        return render_scene(
            scene, camera, background=background, capacity=capacity, labels_move_geometry=config.labels_move_geometry
        )
    rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
    render = rasterize(scene.gaussians, rgb, camera, background=background, capacity=capacity)
    return render, render.channels, None


def _losses(scene: Scene, photo, valid, labels, labelled, camera, background, config: FitConfig, capacity: int):
    """Loss per identity and the render; all inputs with the identities in front."""
    render, rgb, classes = _predict(scene, camera, background, config, capacity)
    # Where the photograph says nothing the render is right, and learns nothing.
    photo = jnp.where(valid[..., None], photo, jax.lax.stop_gradient(rgb))
    loss = photo_loss(rgb, photo, config.ssim_weight)
    if classes is not None:
        loss += config.label_weight * label_loss(classes, labels, labelled)
    gaussians = scene.gaussians
    loss += config.opacity_weight * jax.nn.sigmoid(gaussians.logit_opacities).mean(-1)
    return loss, render


class Draws(typing.NamedTuple):
    """What is drawn at random for the steps of a call, by identity: so many calls of a generator are one.

    Attributes:
        first: the number of the first of the steps.
        views: which photograph each step fits.
        keys: of each step's exploration.
        rows: all small numbers of each step in one row: what `_row_of` reads.
    """

    first: Int[Array, " b"]
    views: Int[Array, "b s"]
    keys: Key[Array, "b s"]
    rows: Float[Array, "b s 33"]


class Row(typing.NamedTuple):
    """What is known of a step before it is taken.

    Attributes:
        factors: of Adam.
        wander: how far Gaussians explore.
        labelled: pixels of the photograph that have a label.
    """

    camera: Camera
    background: Float[Array, "b 3"]
    factors: Float[Array, "b 3"]
    wander: Float[Array, " b"]
    labelled: Float[Array, " b"]


def _row_of(numbers: Float[Array, "b 33"], width: int, height: int) -> Row:
    pose, lens, background, factors, rest = jnp.split(numbers, (16, 25, 28, 31), -1)
    camera = Camera(pose.reshape(-1, 4, 4), lens.reshape(-1, 3, 3), width, height)
    return Row(camera, background, factors, rest[:, 0], rest[:, 1])


def draws(first: Int[Array, " b"], photos: Photos, count: int, config: FitConfig) -> Draws:
    """Those of `count` steps from the first on."""

    def of_step(seed, step, train, train_count):
        for_view, for_noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 2)
        return train[jax.random.randint(for_view, (), 0, train_count)], for_noise

    of_identity = jax.vmap(of_step, (None, 0, None, None))
    numbers = first[:, None] + jnp.arange(count, dtype=first.dtype)
    views, keys = jax.vmap(of_identity)(photos.seed, numbers, photos.train, photos.train_count)
    identities = jnp.arange(len(first))[:, None]
    cameras, labels = photos.cameras[identities, views], photos.labels[identities, views]
    rate = optax.exponential_decay(config.lr_means, config.steps, config.lr_final)(numbers)
    columns = [
        cameras.camera_from_world.reshape(*views.shape, 16),
        cameras.intrinsics.reshape(*views.shape, 9),
        photos.background[identities, views],
        factors_of(numbers, config),
        jnp.where(numbers < config.relocate_until * config.steps, config.noise * rate, 0.0)[..., None],
        labelled_pixels(labels)[..., None],
    ]
    return Draws(first, views, keys, jnp.concatenate(columns, -1))


def one_step(
    state: FitState, photos: Photos, drawn: Draws, until: Array, *, config: FitConfig, capacity: int
) -> FitState:
    """A step of all identities; those that are through, or cannot go on, stand still."""
    rows, at = np.arange(photos.seed.shape[0], dtype=np.int32), state.step - drawn.first
    view, keys = drawn.views[rows, at], drawn.keys[rows, at]
    known = _row_of(drawn.rows[rows, at], photos.cameras.width, photos.cameras.height)
    photo = photos.images[rows, view].astype(jnp.float32) / 255

    def total(scene: Scene):
        labels, valid = photos.labels[rows, view], photos.valid[rows, view]
        of_view = (labels, known.labelled, known.camera, known.background)
        loss, render = _losses(scene, photo, valid, *of_view, config, capacity)
        scales = jnp.exp(scene.gaussians.log_scales).mean((-2, -1)) / photos.radius
        return (loss + config.scale_weight * scales).sum(), (loss, render.needed)

    (_, (loss, needed)), grads = jax.value_and_grad(total, has_aux=True)(state.scene)
    updates, moments = adam(grads, state.moments, known.factors, config)
    wandered = known.wander[:, None, None] * jax.vmap(exploration)(state.scene.gaussians, keys)
    moved = updates.gaussians.means * photos.radius[:, None, None] + wandered
    updates = replace(updates, gaussians=replace(updates.gaussians, means=moved))
    active = (needed <= capacity) & (state.step < until) & ~state.failed
    # Asked before anything is written, so that on GPUs it is written once: with these finite Adam's step is, too.
    finite = _finite((grads, wandered, loss))
    taken = active & finite
    new = (jax.tree.map(jnp.add, state.scene, updates), moments, loss)
    scene, moments, loss = _select(taken, new, (state.scene, state.moments, state.loss))
    counts = (state.step + taken, jnp.maximum(state.needed, needed), state.failed | (active & ~finite))
    return FitState(scene, moments, jnp.stack(counts, -1), loss)


def _finite(tree) -> Bool[Array, " b"]:
    """Which identities have no NaN and no infinity."""
    rows = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)]

    def each(*rows):
        return functools.reduce(jnp.logical_and, (jnp.isfinite(x).all(1) for x in rows))

    def together(*rows):  # a GPU would start two kernels for each array
        return jnp.isfinite(jnp.concatenate(rows, 1)).all(1)

    return jax.lax.platform_dependent(*rows, cpu=each, default=together)


def _select(chosen, yes, no):
    """Per identity, one tree or the other."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def _relocate(state: FitState, photos: Photos, *, config: FitConfig) -> FitState:
    keys = jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 7))(
        photos.seed, state.step
    )
    scene, changed = jax.vmap(relocate, in_axes=(0, 0, None))(state.scene, keys, config.dead_opacity)

    def forget(moment):
        return jnp.where(changed.reshape(*changed.shape, *[1] * (moment.ndim - 2)), 0.0, moment)

    return replace(state, scene=scene, moments=jax.tree.map(forget, state.moments))


@functools.partial(jax.jit, static_argnames=("config", "capacity"), donate_argnums=0)
def steps(state: FitState, photos: Photos, until: Array, *, config: FitConfig, capacity: int) -> FitState:
    """At most `steps_per_call` steps towards `until`, on the device where the state lies."""

    drawn = draws(state.step, photos, config.steps_per_call, config)

    def body(state, _):
        return one_step(state, photos, drawn, until, config=config, capacity=capacity), None

    return jax.lax.scan(body, state, length=config.steps_per_call)[0]


def advance(state: FitState, photos: Photos, until: int, *, config: FitConfig, capacity: int) -> FitState:
    """`steps` of every device's own identities.

    Each device runs the program that a single one would run. Partitioned by XLA it would be another program, which
    rounds differently, and all devices would wait for the slowest.
    """
    run = functools.partial(steps, until=np.int32(until), config=config, capacity=capacity)
    return _on_each_device(run, state, photos)


def bytes_of(state: FitState, photos: Photos, *, config: FitConfig, capacity: int) -> int:
    """What the first of the devices needs for a call of `advance`."""

    def own(x):
        return jax.ShapeDtypeStruct(x.addressable_shards[0].data.shape, x.dtype)

    arrays = jax.tree.map(own, (state, photos))
    return planned_bytes(steps.lower(*arrays, jnp.int32(0), config=config, capacity=capacity).compile())


@in_32_bits
def compile_steps(
    state: FitState, photos: Photos, where: SingleDeviceSharding, *, config: FitConfig, capacity: int
) -> None:
    """Compiles what `advance` and `relocate_all` run on a device; of the arrays shapes and types count alone."""
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), (state, photos))
    steps.lower(*arrays, until=np.int32(0), config=config, capacity=capacity).compile()
    if config.relocate_every:
        _relocate.lower(*arrays, config=config).compile()


def relocate_all(state: FitState, photos: Photos, *, config: FitConfig) -> FitState:
    """Moves the dead Gaussians of every identity onto living ones."""
    return _on_each_device(functools.partial(_relocate, config=config), state, photos)


def _on_each_device(run: Callable[[FitState, Photos], FitState], state: FitState, photos: Photos) -> FitState:
    """Calls `run` with what each device holds of arrays that are sharded by identity, all at the same time."""
    sharding = state.step.sharding
    devices = sharding.mesh.devices.flat  # type: ignore[attr-defined]

    def own(device):
        alone = SingleDeviceSharding(device)

        def part(x):
            # Made anew: a shard's type remembers the mesh, what a program returns does not, and each has its program.
            shard = next(s.data for s in x.addressable_shards if s.device == device)
            return jax.make_array_from_single_device_arrays(shard.shape, alone, [shard])

        return jax.tree.map(part, (state, photos))

    def whole(*parts):
        shape = (sum(len(p) for p in parts), *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    per_device = [own(device) for device in devices]  # all of them first: the calls give the state away
    return jax.tree.map(whole, *[run(*arguments) for arguments in per_device])


def first_state(scene: Scene) -> FitState:
    """The state before the first step; leading axis: identities."""
    rows = scene.gaussians.means.shape[0]
    return FitState(scene, first_moments(scene), jnp.zeros((rows, 3), jnp.int32), jnp.zeros(rows))


def first_capacity(hits: float, gaussians: int, classes: int, config: FitConfig) -> int:
    """Room for so many hits of each Gaussian, in tiles of 8 x 8 pixels, counted in those of the backend that runs."""
    return hits_of(hits * gaussians, backend_tile(3 + (classes if config.label_weight > 0 else 0)))


def shapes_of(rows: int, shape: tuple[int, int, int], classes: int, config: FitConfig) -> tuple[FitState, Photos]:
    """The arrays of `steps`, shapes and types alone.

    Args:
        rows: identities.
        shape: views, height and width of their pictures.
    """

    def blank():
        views, (height, width), n = bucket(shape[0]), padded_size(*shape[1:]), config.gaussians
        per_pixel, per_view = (rows, views, height, width), (rows, views)
        cameras = Camera(jnp.zeros((*per_view, 4, 4)), jnp.zeros((*per_view, 3, 3)), width, height)
        photos = Photos(
            images=jnp.zeros((*per_pixel, 3), jnp.uint8),
            labels=jnp.zeros(per_pixel, jnp.uint8),
            valid=jnp.zeros(per_pixel, bool),
            cameras=cameras,
            background=jnp.zeros((*per_view, 3)),
            train=jnp.zeros(per_view, jnp.int32),
            train_count=jnp.zeros(rows, jnp.int32),
            radius=jnp.zeros(rows),
            seed=jnp.zeros(rows, jnp.int32),
        )
        means = jnp.zeros((rows, n, 3))
        gaussians = Gaussians(means, jnp.zeros((rows, n, 4)), means, jnp.zeros((rows, n)))
        attributes = Attributes(jnp.zeros((rows, n, (config.sh_degree + 1) ** 2, 3)), jnp.zeros((rows, n, classes)))
        return first_state(Scene(gaussians, attributes)), photos

    return jax.eval_shape(blank)


@in_32_bits
def bytes_per_identity(shape: tuple[int, int, int], classes: int, config: FitConfig) -> int:
    """What one identity needs on a device: arguments and temporaries of the compiled steps.

    Args:
        shape: views, height and width of its pictures.
    """
    capacity = first_capacity(HITS_PER_GAUSSIAN, config.gaussians, classes, config)
    arrays = shapes_of(1, shape, classes, config)
    return planned_bytes(steps.lower(*arrays, jnp.int32(0), config=config, capacity=capacity).compile())
