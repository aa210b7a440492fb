"""Training a parser from scratch, and fine-tuning one with replay of its own training set."""

import dataclasses
import functools
import hashlib
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8

from jsplat.errors import InputError
from jsplat.files.resume import Checkpoints
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.metrics.classes import class_counts, confusion, f1_per_class, iou_per_class
from jsplat.parser.any_size import predict_labels
from jsplat.parser.augment import AugmentConfig, augment
from jsplat.parser.bisenet import Architecture
from jsplat.parser.fresh import FreshPool, Source
from jsplat.parser.loss import HARD, ohem, pixel_loss
from jsplat.parser.model import Parser, Variables, is_kernel, is_statistic, new_parser, variables, with_variables
from jsplat.parser.pool import Pool, draw
from jsplat.parser.resize import logits_to_pixels, normalise
from jsplat.raster.pytree import pytree
from jsplat.runtime.devices import batch_mesh, replicate, replicated, split
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.progress import Progress
from jsplat.training_sets.auxiliary import KNOWN_CLASSES, AuxiliarySet, check_scorable, squared


@dataclasses.dataclass(frozen=True)
class ParserConfig:
    """Numbers of a training run; the defaults suit 128-pixel pictures on a small machine.

    Attributes:
        steps, batch: pictures seen = steps x batch.
        learning_rate: the peak, reached after `warmup` steps and then lowered to 0 by a cosine.
        warmup: steps of linear warm-up.
        weight_decay: decoupled, on convolution kernels only.
        clip_norm: the largest global norm of a gradient.
        ema_decay: what is kept of the moving average of weights and statistics at a step, at most; the average is the
            parser that comes out. 0: the last step's.
        replay_fraction: share of each batch that comes from the replay set, when there is one.
        frozen_statistics: leave the running batch statistics as they are and normalise with them.
        ohem_threshold, ohem_min_fraction: the OHEM rule (`jsplat.parser.loss.ohem`).
        class_balance: chosen pixels count by the inverse frequency of their class to this power; 0 = all alike.
        auxiliary_weight: weight of each of the two auxiliary heads.
        label_size: side in pixels of the grid on which the loss compares what the network says with the labels, over
            the square that it sees; 0: the longer side of the training pictures, and no more than the network sees.
        augment: how far pictures are changed.
        log_every: steps between two numbers of the history.
        validate_every: logged entries between two scores on the validation set; 0 = at the end only.
        save_every: seconds between two checkpoints for resuming.
    """

    steps: int = 1000
    batch: int = 16
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.02
    clip_norm: float = 5.0
    ema_decay: float = 0.0
    replay_fraction: float = 0.5
    frozen_statistics: bool = False
    ohem_threshold: float = HARD
    ohem_min_fraction: float = 1 / 16
    class_balance: float = 1 / 3
    auxiliary_weight: float = 1.0
    label_size: int = 0
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    log_every: int = 20
    validate_every: int = 0
    save_every: float = 60.0

    def __post_init__(self):
        for name in ("steps", "batch", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{type(self).__name__}.{name}", wanted="at least 1", got=getattr(self, name))
        what = type(self).__name__
        if self.label_size < 0:
            raise InputError(f"{what}.label_size", wanted="0 or more", got=self.label_size)
        if not 0 <= self.replay_fraction < 1:
            raise InputError(f"{what}.replay_fraction", wanted="a share in [0, 1)", got=self.replay_fraction)
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"{what}.ema_decay", wanted="a share in [0, 1)", got=self.ema_decay)

    def for_side(self, pixels: int, input_size: int) -> "ParserConfig":
        """With the grid of the labels decided, where it is left open (0).

        Args:
            pixels: of the longer side of the training pictures.
            input_size: what the network sees.
        """
        return dataclasses.replace(self, label_size=self.label_size or min(pixels, input_size))


@dataclasses.dataclass(frozen=True)
class TeacherConfig(ParserConfig):
    """A network, and the numbers of its training; the defaults suit 128-pixel pictures on a small machine.

    Attributes:
        depth, width: of its ResNet (see `Architecture`).
        input_size: side in pixels of the square that the network sees, and that every picture is brought to.
    """

    depth: int = 18
    width: float = 0.25
    input_size: int = 320

    @property
    def architecture(self) -> Architecture:
        """The network a training from scratch builds."""
        return Architecture(self.depth, self.width, self.input_size)


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What of a `ParserConfig` a training step is compiled for; trainings that differ in the rest share the program."""

    weight_decay: float
    clip_norm: float
    frozen_statistics: bool
    ohem_threshold: float
    ohem_min_fraction: float
    auxiliary_weight: float
    label_size: int
    augment: AugmentConfig

    @staticmethod
    def of(config: ParserConfig) -> "StepConfig":
        """Of a training run."""
        return StepConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(StepConfig)})


class Pace(typing.NamedTuple):
    """How far a step goes.

    Attributes:
        rate: the learning rate.
        kept: share of the moving averages that stays.
    """

    rate: Float[np.ndarray | np.float32, ""]
    kept: Float[np.ndarray | np.float32, ""]


@dataclasses.dataclass
class History:
    """Curves: one entry per logged step, and one per validation.

    Attributes:
        steps, loss: the mean loss of the steps since the entry before.
        validation_steps, miou, f1: scores on the validation set (`validation_scores`).
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    loss: list[float] = dataclasses.field(default_factory=list)
    validation_steps: list[int] = dataclasses.field(default_factory=list)
    miou: list[float] = dataclasses.field(default_factory=list)
    f1: list[float] = dataclasses.field(default_factory=list)


@pytree
class State:
    """What a training step changes; variables by dotted name.

    Attributes:
        averages: moving averages of weights and statistics; none where nobody asked for them.
    """

    weights: Variables
    statistics: Variables
    optimiser: optax.OptState
    averages: Variables

    @property
    def result(self) -> Variables:
        """The variables of the parser that training has come to."""
        return self.averages or (self.weights | self.statistics)


def paces(config: ParserConfig) -> list[Pace]:
    """Of each step: a warm-up and a cosine; averages over few steps have all of them (TensorFlow's warm-up)."""
    warmup, steps = min(config.warmup, config.steps // 2), np.arange(config.steps)
    rate = optax.warmup_cosine_decay_schedule(
        config.learning_rate / (warmup + 1), config.learning_rate, warmup, config.steps
    )
    kept = np.minimum(config.ema_decay, (1 + steps) / (10 + steps)).astype(np.float32)
    return [Pace(*of) for of in zip(np.asarray(jax.vmap(rate)(steps), np.float32), kept)]


def optimiser(config: StepConfig) -> optax.GradientTransformation:
    """AdamW up to the learning rate, by which its updates are yet to be multiplied; only convolution kernels decay."""
    decays = functools.partial(jax.tree_util.tree_map_with_path, lambda path, _: is_kernel(path[-1].key))
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
    )


def batch_loss(
    weights: Variables,
    statistics: Variables,
    colours: Float[Array, "b s s 3"],
    labels: UInt8[Array, "b l l"],
    importance: Float[Array, " b"],
    class_weights: Float[Array, " k"],
    config: StepConfig,
    architecture: Architecture,
) -> tuple[Float[Array, ""], Variables]:
    """The OHEM loss of all three heads, and the running statistics after the batch."""
    model = with_variables(architecture, len(class_weights), weights | statistics)
    main, *auxiliary = model.training_logits(normalise(colours), running=config.frozen_statistics)
    side, grid = (colours.shape[1], colours.shape[2]), (labels.shape[1], labels.shape[2])

    def head(logits, every):
        pixels, wanted = logits_to_pixels(logits, side, side, grid, every), labels[:, ::every, ::every]
        counts = class_weights[jnp.minimum(wanted, len(class_weights) - 1)] * importance[:, None, None]
        valid = jnp.where(wanted == IGNORE, 0, counts)
        return ohem(pixel_loss(pixels, wanted), valid, config.ohem_threshold, config.ohem_min_fraction)

    # The auxiliary heads are coarse by design: every other label tells them enough, at a quarter of the cost.
    loss = head(main, 1) + config.auxiliary_weight * sum(head(a, 2) for a in auxiliary)
    return loss, {name: value for name, value in variables(model).items() if is_statistic(name)}


@functools.partial(jax.jit, static_argnames=("counts", "mesh"))
def draw_batch(
    key: Key[Array, ""], step: Int[Array, ""], pools: tuple[Pool, ...], counts: tuple[int, ...], mesh: Mesh
) -> tuple[Pool, Key[Array, ""]]:
    """So many pictures of each pool for a step, and the key for the rest of the step; whole on all devices of the mesh.

    A program of its own, so that training sets of different sizes share the large one.
    """
    own, rest = jax.random.split(jax.random.fold_in(key, step))
    parts = [draw(k, p, n) for k, p, n in zip(jax.random.split(own, len(pools)), pools, counts)]
    # Whole on every device: a share of it would have to be gathered again, for backgrounds come from other pictures.
    return jax.lax.with_sharding_constraint(
        (jax.tree.map(lambda *x: jnp.concatenate(x), *parts), rest), replicated(mesh)
    )


@functools.partial(jax.jit, static_argnames=("config", "architecture", "mesh"), donate_argnames="state")
def train_step(
    state: State,
    key: Key[Array, ""],
    batch: Pool,
    mirror_ids: Int[Array, " k"],
    class_weights: Float[Array, " k"],
    pace: Pace,
    config: StepConfig,
    architecture: Architecture,
    mesh: Mesh,
) -> tuple[State, Float[Array, ""]]:
    """One step on a batch of pictures.

    All arrays that come and go lie on every device of the mesh. Each device augments and looks at its share of the
    pictures, and what is summed over the batch (statistics of batch norms, pixels that OHEM counts, the loss,
    gradients) is summed over all devices.

    One step a call, not a scan over many: inside a loop XLA on CPU computes the gradients of convolution kernels
    30 times slower, and calls are queued anyway.
    """
    sizes = architecture.input_size, config.label_size
    augmented = augment(key, batch.images, batch.labels, mirror_ids, config.augment, *sizes)
    colours, labels, importance = jax.lax.with_sharding_constraint((*augmented, batch.weights), split(mesh))
    (loss, statistics), gradient = jax.value_and_grad(batch_loss, has_aux=True)(
        state.weights, state.statistics, colours, labels, importance, class_weights, config, architecture
    )
    updates, moments = optimiser(config).update(gradient, state.optimiser, state.weights)
    updates = jax.tree.map(lambda update: -pace.rate * update, updates)
    weights = optax.apply_updates(state.weights, updates)
    values = weights | statistics  # type: ignore[operator]
    averages = {name: pace.kept * old + (1 - pace.kept) * values[name] for name, old in state.averages.items()}
    after = State(weights, statistics, moments, averages)  # type: ignore[arg-type]
    return jax.lax.with_sharding_constraint((after, loss), replicated(mesh))


def class_weights(sets: list[AuxiliarySet], power: float) -> Float[np.ndarray, " k"]:
    """Inverse class frequency to a power, each set counting alike; classes below 1e-5 of the pixels count as 1e-5."""
    k = len(sets[0].labelset)
    frequencies = [
        np.bincount(s.labels[s.labels != IGNORE], minlength=k) / max((s.labels != IGNORE).sum(), 1) for s in sets
    ]
    return (np.maximum(np.mean(frequencies, 0), 1e-5) ** -power).astype(np.float32)


def validation_scores(parser: Parser, data: AuxiliarySet) -> tuple[float, float]:
    """Mean IoU and mean F1 over the foreground classes that the truth shows, from one confusion matrix."""
    counts = class_counts(confusion(predict_labels(parser, data.images), data.labels, len(parser.labelset)))[:, 1:]
    shown = counts[1] > 0
    return float(iou_per_class(counts)[shown].mean()), float(f1_per_class(counts)[shown].mean())


def _check(sets: dict[str, AuxiliarySet | None], labelset: LabelSet) -> None:
    shape = None
    for name, data in sets.items():
        if data is None:
            continue
        if not len(data):
            raise InputError(f"train_parser: {name}", wanted="at least one picture", got="none")
        if data.labelset != labelset:
            wanted, got = ", ".join(labelset.names), ", ".join(data.labelset.names)
            raise InputError(f"train_parser: {name}.labelset", wanted=wanted, got=got, hint=KNOWN_CLASSES)
        shape = shape or data.images.shape[1:3]
        if max(data.images.shape[1:3]) != max(shape) and name != "validation":
            wanted = f"pictures with a longer side of {max(shape)}"
            raise InputError(f"train_parser: {name}.images", wanted=wanted, got=data.images.shape[1:3])
        if name == "validation":
            check_scorable(data, f"train_parser: {name}.labels")
        elif not any(w > 0 and (p != IGNORE).any() for p, w in zip(data.labels, data.weights)):
            wanted = f"a pixel to learn from: labelled (not {IGNORE}), in a picture of weight above 0"
            raise InputError(f"train_parser: {name}.labels", wanted=wanted, got=f"{len(data)} pictures without")


def _fingerprint(config: ParserConfig, seed: int, start: Parser, sets: list[AuxiliarySet], fresh: Source | None) -> str:
    about = dataclasses.replace(config, save_every=0.0), seed, start.architecture
    digest = hashlib.sha256(repr(about if fresh is None else (*about, fresh.fingerprint)).encode())
    arrays = [*start.variables.values(), *(a for s in sets for a in (s.images, s.labels, s.weights))]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def first_state(start: Parser, config: ParserConfig) -> State:
    """The state before the first step; its arrays are the parser's own."""
    weights = {name: value for name, value in start.variables.items() if not is_statistic(name)}
    statistics = {name: value for name, value in start.variables.items() if is_statistic(name)}
    averages = start.variables if config.ema_decay else {}
    return State(weights, statistics, optimiser(StepConfig.of(config)).init(weights), dict(averages))


@in_32_bits
def train_parser(
    data: AuxiliarySet,
    config: ParserConfig,
    seed: int,
    *,
    start: Parser | None = None,
    replay: AuxiliarySet | None = None,
    validation: AuxiliarySet | None = None,
    fresh: Source | None = None,
    resume: Path | None = None,
    mesh: Mesh | None = None,
) -> tuple[Parser, History]:
    """Trains a parser, or fine-tunes one.

    The same arguments on the same machine give bitwise the same parser, whether or not the run was killed between. On
    another number of devices the pictures and their augmentation are the same, and sums over the batch differ in the
    order of their terms.

    Args:
        data: pictures and labels; `weights` multiply the loss of a picture's pixels.
        config: numbers; of the architecture only when `start` is None.
        seed: decides the first weights, the order of pictures and their augmentation.
        start: the parser to fine-tune; it keeps its architecture and label set.
        replay: pictures mixed into every batch (`config.replay_fraction`), usually what `start` was trained on.
        validation: scored on the way and at the end.
        fresh: makes more pictures while the parser trains.
        resume: a folder for checkpoints; a run found there is carried on.
        mesh: the devices that share every batch; None = `batch_mesh()`. Where they do not divide it evenly, the last
            ones get fewer pictures, or none. They belong to this process, or to all processes, each of which then calls
            this with the same arguments and gets the same result.

    Returns:
        the parser, on this process's own device, and the curves.

    Raises:
        InputError: label sets or picture sizes that differ, nothing to learn from, a validation set without foreground,
            processes that were given different data, or `resume` holds another run.
    """
    labelset = start.labelset if start is not None else data.labelset
    _check({"data": data, "replay": replay, "validation": validation}, labelset)
    if start is None:
        assert isinstance(config, TeacherConfig), "a parser to fine-tune, or settings that name a network"
        start = new_parser(config.architecture, labelset, seed)
    mesh = mesh or batch_mesh()
    config = config.for_side(max(data.images.shape[1:3]), start.architecture.input_size)
    # The network sees squares in training; what is upright must not be stretched to them.
    sets = [squared(of) for of in (data, replay) if of is not None]
    state, history, done = first_state(start, config), History(), 0
    fingerprint = _fingerprint(config, seed, start, sets, fresh) if resume is not None or mesh.is_multi_process else ""
    checkpoints = Checkpoints(resume, fingerprint, config.save_every, shared=mesh.is_multi_process)
    if (found := checkpoints.load(state)) is not None:
        done, state, curves = found
        history = History(**curves)
    # Copies, because every step donates its state and `start` must live on.
    state = replicate(state, mesh)
    tables = jnp.asarray(labelset.mirror_ids), jnp.asarray(class_weights(sets, config.class_balance))
    # As arrays of the host: on their way through one device they would lie there twice.
    stored = tuple((s.images, s.labels, s.weights) for s in sets)
    stored, key, (mirror_ids, weights_of_classes) = replicate((stored, jax.random.key(seed), tables), mesh)
    pools = tuple(Pool(*arrays) for arrays in stored)  # type: ignore[arg-type]

    def parser() -> Parser:
        named = {name: jnp.array(np.array(value)) for name, value in state.result.items()}
        return Parser(named, start.architecture, labelset)

    replayed = round(config.batch * config.replay_fraction) if sets[1:] else 0
    made = 0 if fresh is None else round((config.batch - replayed) * fresh.fraction)
    more = FreshPool(fresh, done, mesh) if fresh is not None and made and done < config.steps else None
    counts = ((config.batch - replayed - made, replayed)[: len(sets)]) + ((made,) if more else ())
    compiled_for, pace = StepConfig.of(config), paces(config)
    progress = Progress("fine-tune" if sets[1:] else "train", config.steps - done)
    losses = []
    for step in range(done, config.steps):
        drawn_from = pools if more is None else (*pools, more.at(step))
        batch, rest = draw_batch(key, jnp.int32(step), drawn_from, counts, mesh)
        known = mirror_ids, weights_of_classes, pace[step]
        state, loss = train_step(state, rest, batch, *known, compiled_for, start.architecture, mesh)
        losses.append(loss)
        ends = step + 1 == config.steps
        if (step + 1) % config.log_every and not ends:
            continue
        history.steps.append(step + 1)
        history.loss.append(float(np.mean(jax.device_get(losses))))
        if not np.isfinite(history.loss[-1]):
            got = f"{history.loss[-1]} at step {step + 1}"
            hint = "take a lower learning rate (`lr` of teacher or finetune)"
            raise InputError("train_parser: loss", wanted="a finite number", got=got, hint=hint)
        shown = {"loss": history.loss[-1]}
        turn = (step + 1) // config.log_every
        if validation is not None and (ends or (config.validate_every and turn % config.validate_every == 0)):
            history.validation_steps.append(step + 1)
            for curve, score in zip((history.miou, history.f1), validation_scores(parser(), validation)):
                curve.append(score)
            shown["F1"] = history.f1[-1]
        progress.advance(len(losses), **shown)
        losses = []
        checkpoints.keep(step + 1, state, dataclasses.asdict(history), last=ends)
    if more is not None:
        more.close()
    return parser(), history
