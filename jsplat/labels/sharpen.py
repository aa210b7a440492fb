"""From votes per Gaussian to sharp masks: expectation-maximisation of the rendered class mixture.

A vote gives each Gaussian the mean of what lies under its footprint, so rendering it blurs a second time and small
parts drown. A render is a mixture, sum of weight times class probability, and the maximum-likelihood table for given
pixel labels is found by the multiplicative EM update for mixtures (Richardson 1972, Lucy 1974; one render and one
vector-Jacobian product per view). The pixel labels are not the parser's: they are the posterior of the consensus as
prior and the view's own confusion matrix as likelihood, so a view that errs is not believed where it errs. The matrices
are counted against these posteriors: against the blurred render every parser errs at every outline. Opinions stay soft:
a likeliest label would call the rim of a brow skin, in every view and in every round again.

A small part is all outline, where a parser's errors are those of its resolution. A confusion matrix has these down as
errors of the class, and would leave brows and lips as wide as the blur. There the opinions are taken as they are.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jsplat.errors import InputError
from jsplat.labels.opinions import Opinions, pixels
from jsplat.labels.together import Means, alike_classes, informative_labels
from jsplat.labels.votes import certainty
from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree, static
from jsplat.raster.rasterizer import rasterize, splat_sums
from jsplat.raster.scene import Gaussians
from jsplat.runtime.precision import einsum, in_32_bits
from jsplat.runtime.view_blocks import Devices, join_blocks, over_views, per_device, to_blocks, unpadded, view_count

_LEAST = 1e-3  # channels below this do not divide
_SURE = 1e-6


@dataclasses.dataclass(frozen=True)
class SharpenConfig:
    """How votes are sharpened.

    Attributes:
        rounds: EM updates; 0 leaves the votes as they are.
        acceleration: each update goes this many times as far (its factors to this power); 1 is plain EM.
        confusion: believe a view through its own confusion matrix; otherwise its opinions are taken as they are.
        pseudo_counts: pull (pixels per class) of a view's confusion matrix to the one pooled over views.
        trust_power: weight (1 - entropy)^power of a pixel's opinion.
        alpha_gate: pixels with less alpha than this are left out.
        small_part: share of the foreground up to which a class counts as a small part: in its pixels the parser's
            opinions stand for the posteriors, of larger ones in inverse proportion to their size; 0: nowhere.
    """

    # These were chosen on people that are not among the unseen of any table (bench/sharpened.py).
    rounds: int = 3
    acceleration: float = 1.5
    confusion: bool = True
    pseudo_counts: float = 200.0
    trust_power: float = 1.0
    alpha_gate: float = 0.5
    small_part: float = 0.003

    def __post_init__(self):
        if self.rounds < 0 or self.pseudo_counts <= 0 or not 1 <= self.acceleration <= 2:
            wanted, got = "at least 0, positive, from 1 to 2", (self.rounds, self.pseudo_counts, self.acceleration)
            raise InputError("SharpenConfig: rounds, pseudo_counts, acceleration", wanted=wanted, got=got)
        if not 0 <= self.small_part < 1:
            raise InputError("SharpenConfig.small_part", wanted="a share in [0, 1)", got=self.small_part)


@pytree
class VoterLabels:
    """What a voter with labels of its own says of the pixels of one head.

    Attributes:
        labels: its labels, or `IGNORE`.
        trust: weight of each view, on the scale of the others'.
        means: per label, the classes it may mean (see `Heard`).
    """

    labels: UInt8[Array | np.ndarray, "v h w"]
    trust: Float[Array | np.ndarray, " v"]
    means: Means = static()


def _normalised(x: Array) -> Array:
    return x / jnp.maximum(x.sum(-1, keepdims=True), 1e-12)


@in_32_bits
def sharpen(
    gaussians: Gaussians,
    probabilities: Float[Array, "n k"],
    cameras: Camera,
    pictures: Opinions | Float[Array | np.ndarray, "v h w k"] | None,
    trust: Float[Array, " v"],
    *,
    capacity: int,
    config: SharpenConfig,
    devices: Devices = (),
    others: Sequence[VoterLabels] = (),
) -> Float[Array, "n k"]:
    """Sharper class probabilities per Gaussian of one head.

    Args:
        gaussians, cameras: of the head; one camera per picture.
        probabilities: votes that sum to 1; class 0 (background) stays 0 if it is 0.
        pictures: the parser's class probabilities per view, or what makes them, one view at a time; None: no parser.
        trust: weight of each view, any scale.
        capacity: tile hits a view may need (`capacity_for`).
        config: rounds, and how far a view is believed.
        devices: share the views; where the arrays lie if none.
        others: further voters, weighed by what their views tell of the votes. A pixel's target is the posterior of all
            that speak there.
    """
    if not config.rounds:
        return probabilities
    # Whether confusion counts is an argument of the compiled program, not a part of it: the ablation asks for both.
    count, believe = view_count(cameras), itertools.repeat(np.bool_(config.confusion))
    how = {"capacity": capacity, "config": dataclasses.replace(config, rounds=0, confusion=True)}
    seen = to_blocks((cameras, pictures, trust, tuple(others)), devices)
    heads = list(itertools.islice(itertools.cycle(per_device(gaussians, devices)), len(seen)))

    def gains(program: Callable, probabilities: Array, *more: Iterable) -> list:
        tables = itertools.cycle(per_device(probabilities, devices))
        return [program(*block, **how) for block in zip(heads, tables, seen, *more)]

    means = (*([None] if pictures is not None else []), *(voter.means for voter in others))
    counts = join_blocks(gains(_first_counts, probabilities), count, devices)
    for _ in range(config.rounds):
        confusion = to_blocks(error_models(counts, means=means, config=how["config"]), devices)
        small = itertools.cycle(per_device(small_parts(counts[0], config=how["config"]), devices))
        found = gains(_gain, probabilities, confusion, unpadded(count), believe, small)
        gained = join_blocks([g for g, _ in found], len(found), devices)
        counts = join_blocks([c for _, c in found], count, devices)
        probabilities = _moved(probabilities, gained, jnp.float32(config.acceleration))
    return probabilities


def _opinion(picture: Float[Array, "h w k"]) -> tuple[Float[Array, "h w k"], Float[Array, "h w"]]:
    """What the parser says of the foreground, and how much it leaves to it."""
    return _normalised(picture.at[..., 0].set(0.0)), picture[..., 1:].sum(-1)


def _shown(gaussians: Gaussians, table: Float[Array, "n k"], camera: Camera, capacity: int) -> Float[Array, "h w k1"]:
    # The column of ones makes alpha a channel.
    wide = jnp.concatenate([table, jnp.ones_like(table[:, :1])], -1)
    return rasterize(gaussians, wide, camera, capacity=capacity, shape_channels=0).channels


@dataclasses.dataclass(frozen=True)
class _Opinion:
    """What one voter says of the pixels of one view: the probabilities of its `labels` "h w s", how much of each pixel
    it speaks of, `mass`, and that times its weight there, `sure`."""

    labels: Array
    mass: Array
    sure: Array


def _opinions(
    picture: Array | None, weight: Array, others: tuple[VoterLabels, ...], power: float, k: int
) -> list[_Opinion]:
    found = []
    if picture is not None:
        opinion, mass = _opinion(picture)
        sure = weight * certainty(opinion) ** power * mass
        found.append(_Opinion(opinion, mass, sure))
    for voter in others:
        speaks = np.isin(np.arange(256), informative_labels(voter.means, k)).astype(np.float32)
        mass = jnp.asarray(speaks)[voter.labels]
        labels = jax.nn.one_hot(voter.labels, len(voter.means))
        found.append(_Opinion(labels, mass, jnp.asarray(voter.trust) * mass))
    return found


def _counts(prior: Array, opinions: list[_Opinion], solid: Array) -> list[Float[Array, "k _"]]:
    return [einsum("hwt,hws->ts", prior, (opinion.mass * solid)[..., None] * opinion.labels) for opinion in opinions]


@functools.partial(jax.jit, static_argnames=("capacity", "config"))
def _first_counts(
    gaussians: Gaussians, probabilities: Array, seen: tuple, *, capacity: int, config: SharpenConfig
) -> list[Float[Array, "v k _"]]:
    """How often each voter's view of a block says s where the votes say t."""

    def one(item):
        camera, picture, weight, others = item
        picture = None if picture is None else pixels(picture)
        opinions = _opinions(picture, weight, others, config.trust_power, probabilities.shape[1])
        shown = _shown(gaussians, probabilities, camera, capacity)
        return _counts(_normalised(shown[..., :-1]), opinions, shown[..., -1] >= config.alpha_gate)

    return over_views(one, seen)


def _told(counts: Float[Array, "v k s"]) -> Float[Array, " v"]:
    """The mutual information of class and label in each view, as a share of the label's entropy: 0 for noise."""
    joint = counts / jnp.maximum(counts.sum((1, 2), keepdims=True), 1e-12)
    entropy = [
        -jax.scipy.special.xlogy(p, p).sum(-1) for p in (joint.sum(1), joint.sum(2), joint.reshape(len(joint), -1))
    ]
    return jnp.clip((entropy[0] + entropy[1] - entropy[2]) / jnp.maximum(entropy[0], 1e-6), 0, 1)


@functools.partial(jax.jit, static_argnames=("means", "config"))
def error_models(
    counts: list[Float[Array, "v k _"]], *, means: tuple[Means | None, ...], config: SharpenConfig
) -> list[tuple[Float[Array, "v k _"], Float[Array, " v"]]]:
    """The confusion matrices of each voter, rows that sum to 1, and what its views tell, from 0 to 1.

    Args:
        counts: how often each voter says s where the votes are t.
        means: of its labels; None where they are the classes: the parser, whose views are weighed by pose instead.
    """

    def smooth(of: Array) -> Array:
        pooled = _normalised(of.sum(0) + 1e-3)
        return _normalised(of + config.pseudo_counts * pooled)

    def one(of: Array, meaning: Means | None) -> tuple[Array, Array]:
        if meaning is None:
            return smooth(of), jnp.ones(len(of))
        return smooth(einsum("vts,ut->vus", of, jnp.asarray(alike_classes(meaning, of.shape[1])))), _told(of)

    return [one(of, meaning) for of, meaning in zip(counts, means)]


@functools.partial(jax.jit, static_argnames="config")
def small_parts(counts: Float[Array, "v k s"], *, config: SharpenConfig) -> Float[Array, " k"]:
    """How far each class is a small part, from 0 to 1, by the pixels that the posteriors give it in all views."""
    pixels_of = counts.sum((0, 2)).at[0].set(0.0)
    share = pixels_of / jnp.maximum(pixels_of.sum(), 1e-12)
    return jnp.minimum(config.small_part / jnp.maximum(share, 1e-6), 1.0).at[0].set(0.0)


@functools.partial(jax.jit, static_argnames=("capacity", "config"))
def _gain(
    gaussians: Gaussians,
    probabilities: Array,
    seen: tuple,
    confusion: list[tuple[Array, Array]],
    unpadded: Array,
    believe: Array,
    small: Array,
    *,
    capacity: int,
    config: SharpenConfig,
) -> tuple[Float[Array, "1 n k"], list[Float[Array, "v k _"]]]:
    """By how much each entry of the table is multiplied, as a block sees it, and the block's counts."""

    def one(item):
        (camera, picture, weight, others), matrices, there = item
        picture = None if picture is None else pixels(picture)
        opinions = _opinions(picture, weight, others, config.trust_power, probabilities.shape[1])
        shown = _shown(gaussians, probabilities, camera, capacity)
        solid = shown[..., -1] >= config.alpha_gate
        prior = _normalised(shown[..., :-1])
        likelihoods = [
            einsum("hws,ts->hwt", opinion.labels, matrix) for (matrix, _), opinion in zip(matrices, opinions)
        ]
        sures = [
            opinion.sure * told if len(opinions) > 1 else opinion.sure for (_, told), opinion in zip(matrices, opinions)
        ]
        most = functools.reduce(jnp.maximum, sures)
        powers = [jnp.float32(1)]
        if len(opinions) > 1:
            # A voter speaks in a pixel as far as it is surer there than the others.
            powers = [(sure / jnp.maximum(most, 1e-12))[..., None] for sure in sures]
            likelihood = functools.reduce(jnp.multiply, map(jnp.power, likelihoods, powers))
        else:
            likelihood = likelihoods[0]
        target = _normalised(prior * likelihood)
        if picture is not None:
            said = opinions[0].labels
            taken = jnp.minimum((small * jnp.maximum(prior, said)).sum(-1, keepdims=True), 1.0) * powers[0]
            target = jnp.where(believe, target + taken * (said - target), said)
        sure = jnp.where(solid & there, most, 0.0)[..., None]
        ratio = jnp.where(prior > _SURE, target / jnp.maximum(prior, _LEAST), 0.0)
        gained = splat_sums(gaussians, camera, sure * ratio, capacity=capacity)
        return gained, _counts(target, opinions, solid)

    gained, counts = over_views(one, (seen, confusion, unpadded))
    return gained.sum(0, keepdims=True), counts


@jax.jit
def _moved(
    probabilities: Float[Array, "n k"], gained: Float[Array, "b n k"], acceleration: Float[Array, ""]
) -> Float[Array, "n k"]:
    """The table after an update; what nobody saw stays.

    Factors to a power: over-relaxation of the multiplicative update (Meinel 1986), which converges in fewer rounds.
    """
    factors = gained.sum(0)
    seen = (probabilities * factors).sum(-1, keepdims=True)
    factors = factors / jnp.maximum(seen, _SURE)
    return jnp.where(seen > _SURE, _normalised(probabilities * factors**acceleration), probabilities)
