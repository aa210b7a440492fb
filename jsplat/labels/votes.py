"""Which views to believe: evidence from many views of one head becomes class probabilities per Gaussian.

Every method is a weighted mean of what the views say, or a model of how each view errs; they differ in whom they trust,
which decides more than anything else. "best" is meant for use, the others are its parts and the ablations beside it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jsplat.errors import InputError
from jsplat.runtime.precision import einsum

_EPS = 1e-12


@dataclasses.dataclass(frozen=True)
class VoteConfig:
    """How views are weighed against each other.

    Attributes:
        method: one of `METHODS`.
        remove_background: drop class 0. A Gaussian on the head is never background, though a lost teacher says so.
        min_weight: a view that gives a Gaussian less blend weight than this (pixels) does not see it.
        half_weight: blend weight (pixels) at which a view counts half of its limit: w / (w + half_weight).
        cosine_floor: "cosine": the weight left at grazing angles.
        entropy_power: "entropy": weight (1 - H)^power, H the entropy of a view's opinion, 1 = uniform.
        agreement_power: "agreement": weight of a view = (its agreement with the consensus)^power.
        pose_sigma: "pose", "tempered", "best": degrees of the pose prior; inf = no pose prior.
        pose_floor: what the pose prior leaves to views far from the front.
        trust_power: "tempered", "best": weight (1 - H)^power of an opinion in the log evidence.
        sharpness: "tempered", "best": power of the opinions, 1 = as they came; infinite would be hard votes.
        temperature: "tempered", "best": the most independent opinions that the views of one Gaussian may count for.
        pseudo_counts: "tempered", "best": pull of a view's confusion matrix, row by row, to the one pooled over views.
        iterations: rounds between consensus and trust.
    """

    method: str = "best"
    remove_background: bool = True
    min_weight: float = 0.01
    half_weight: float = 0.5
    cosine_floor: float = 0.001
    entropy_power: float = 4.0
    agreement_power: float = 12.0
    pose_sigma: Annotated[float, math.inf] = 40.0
    pose_floor: float = 0.001
    trust_power: float = 2.0
    sharpness: float = 3.0
    temperature: float = 3.0
    pseudo_counts: float = 50.0
    iterations: int = 4

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError("VoteConfig.method", wanted=f"one of {', '.join(METHODS)}", got=repr(self.method))
        for name in ("half_weight", "pose_sigma", "sharpness", "temperature", "pseudo_counts", "iterations"):
            if not getattr(self, name) > 0:
                raise InputError(f"VoteConfig.{name}", wanted="a positive number", got=getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Ballots:
    """What the views of one voter say of the Gaussians.

    Attributes:
        opinions: "v n k", rows sum to 1, or to 0 where unseen.
        visible_mass: "v n" in [0, 1), how much a view sees of a Gaussian.
        pose: "v 1", trust by pose.
        cosines: "v n", if they were given.
    """

    opinions: Array
    visible_mass: Array
    pose: Array
    cosines: Array | None = None

    @staticmethod
    def of(
        evidence: Float[Array, "v n k"], weight: Float[Array, "v n"], pose: Float[Array, " v"], config: "VoteConfig"
    ) -> "Ballots":
        """From what is lifted: evidence without background, and the blend weight."""
        mass = evidence.sum(-1)
        seen = (weight >= config.min_weight) & (mass > _EPS)
        opinions = jnp.where(seen, 1 / jnp.maximum(mass, _EPS), 0)[..., None] * evidence
        # A view that calls most of a Gaussian background says little about its class: it counts with the mass it has
        # left.
        return Ballots(opinions, jnp.where(seen, mass / (weight + config.half_weight), 0), pose[:, None])


def certainty(opinions: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """1 - H, the entropy H scaled so that a uniform opinion has 1."""
    return jnp.clip(1 + jnp.sum(jax.scipy.special.xlogy(opinions, opinions), -1) / jnp.log(opinions.shape[-1]), 0, 1)


def _mean(opinions: Array, weights: Array) -> Array:
    """Mean over views; rows that no view supports are 0 (`vote` fills them)."""
    total = einsum("vnk,vn->nk", opinions, weights)
    return total / jnp.maximum(total.sum(-1, keepdims=True), _EPS)


def _one_hot(opinions: Array) -> Array:
    return jax.nn.one_hot(jnp.argmax(opinions, -1), opinions.shape[-1], dtype=opinions.dtype)


def _plain(ballots: Ballots, config: VoteConfig) -> Array:
    return _mean(ballots.opinions, ballots.visible_mass)


def _one_hot_votes(ballots: Ballots, config: VoteConfig) -> Array:
    return _mean(_one_hot(ballots.opinions), ballots.visible_mass)


def _cosine(ballots: Ballots, config: VoteConfig) -> Array:
    assert ballots.cosines is not None
    return _mean(ballots.opinions, ballots.visible_mass * (jnp.clip(ballots.cosines, 0, 1) + config.cosine_floor))


def _entropy(ballots: Ballots, config: VoteConfig) -> Array:
    trust = certainty(ballots.opinions) ** config.entropy_power
    return _mean(ballots.opinions, ballots.visible_mass * (trust + _EPS))


def _agreement(ballots: Ballots, config: VoteConfig) -> Array:
    def step(consensus, _):
        alike = einsum("vnk,nk,vn->v", ballots.opinions, consensus, ballots.visible_mass) / (
            ballots.visible_mass.sum(-1) + _EPS
        )
        trust = (alike / (alike.max() + _EPS)) ** config.agreement_power
        return _mean(ballots.opinions, ballots.visible_mass * trust[:, None]), None

    return jax.lax.scan(step, _plain(ballots, config), length=config.iterations)[0]


def mean_by_pose(ballots: Ballots) -> Float[Array, "n k"]:
    """The mean opinion, by trust in poses; rows of 0 where no view sees anything."""
    return _mean(ballots.opinions, ballots.visible_mass * ballots.pose)


def _pose(ballots: Ballots, config: VoteConfig) -> Array:
    return mean_by_pose(ballots)


def _confusion(opinions: Array, visible_mass: Array, consensus: Array, pseudo_counts: float, pooled: bool) -> Array:
    """`v t s`: how often a view says s where the consensus is t, each row a distribution.

    The prior is `pseudo_counts` draws from the matrix pooled over the views, or from the uniform distribution.
    """
    return smoothed(einsum("vns,vn,nt->vts", opinions, visible_mass, consensus), pseudo_counts, pooled)


def smoothed(counts: Float[Array, "v t s"], pseudo_counts: float, pooled: bool) -> Float[Array, "v t s"]:
    """Rows that are distributions, from counts and `pseudo_counts` draws from the prior (see `_confusion`)."""
    prior = counts.sum(0) + 1 / counts.shape[-1] if pooled else jnp.ones(counts.shape[1:], counts.dtype)
    counts = counts + pseudo_counts * prior / prior.sum(-1, keepdims=True)
    return counts / counts.sum(-1, keepdims=True)


def posterior(evidence: Float[Array, "n k"], consensus: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Class prior (the consensus's own shares, one draw spread evenly on top) times evidence."""
    totals = consensus.sum(0) + 1 / consensus.shape[-1]
    return jax.nn.softmax(evidence + jnp.log(totals / totals.sum()), -1)


def _dawid_skene(ballots: Ballots, config: VoteConfig) -> Array:
    """Textbook expectation-maximisation on hard opinions, every view an independent witness (Dawid and Skene, 1979).

    Views of one head are not independent, hence its overconfidence: kept as an ablation.
    """
    opinions, visible_mass = _one_hot(ballots.opinions), (ballots.visible_mass > 0).astype(ballots.opinions.dtype)

    def step(consensus, _):
        confusion = _confusion(opinions, visible_mass, consensus, pseudo_counts=1.0, pooled=False)
        return posterior(einsum("vns,vn,vts->nt", opinions, visible_mass, jnp.log(confusion)), consensus), None

    return jax.lax.scan(step, _mean(opinions, visible_mass), length=config.iterations)[0]


def log_evidence(ballots: Ballots, confusion: Callable[[Array], Array], config: VoteConfig) -> Array:
    """The log evidence "n t" of one voter for each class.

    The mean over views counts for min(effective views, temperature) witnesses, because the errors of neighbouring
    views are the same error. Effective views: (sum w)^2 / sum w^2 (Kish).

    Args:
        confusion: "v t s" from the sharpened opinions "v n s".
    """
    # Sharpened: in a soft opinion the many small classes, each with a little, outvote what the view really says.
    opinions = sharper(ballots.opinions, config)
    trust = ballots.visible_mass * ballots.pose * certainty(ballots.opinions) ** config.trust_power
    total = trust.sum(0)
    effective = total**2 / jnp.maximum((trust**2).sum(0), _EPS)
    weights = trust * (jnp.minimum(effective, config.temperature) / jnp.maximum(total, _EPS))
    return einsum("vns,vn,vts->nt", opinions, weights, jnp.log(confusion(opinions)))


def sharper(opinions: Float[Array, "*b k"], config: VoteConfig) -> Float[Array, "*b k"]:
    """To the power of `sharpness`, rows that sum to 1, or to 0."""
    opinions = opinions**config.sharpness
    return opinions / jnp.maximum(opinions.sum(-1, keepdims=True), _EPS)


def in_rounds(evidence: Callable[[Array], Array], start: Array, config: VoteConfig) -> Array:
    """The consensus "n t" after rounds of evidence from the last one and posterior from the evidence."""

    def step(consensus, _):
        return posterior(evidence(consensus), consensus), None

    return jax.lax.scan(step, start, length=config.iterations)[0]


def _tempered(ballots: Ballots, config: VoteConfig) -> Array:
    """Dawid and Skene with soft opinions, pooled confusion matrices, and evidence that is averaged, not summed."""

    def evidence(consensus: Array) -> Array:
        def confusion(opinions: Array) -> Array:
            return _confusion(opinions, ballots.visible_mass, consensus, config.pseudo_counts, pooled=True)

        return log_evidence(ballots, confusion, config)

    return in_rounds(evidence, mean_by_pose(ballots), config)


def _best(ballots: Ballots, config: VoteConfig) -> Array:
    """The mean of both: the pose prior is right about small frontal parts, the error model about the sides."""
    return (_pose(ballots, config) + _tempered(ballots, config)) / 2


METHODS: dict[str, Callable[[Ballots, VoteConfig], Array]] = {
    "plain": _plain,
    "one_hot": _one_hot_votes,
    "cosine": _cosine,
    "entropy": _entropy,
    "agreement": _agreement,
    "pose": _pose,
    "dawid_skene": _dawid_skene,
    "tempered": _tempered,
    "best": _best,
}


def pose_prior(
    yaw: Float[Array | np.ndarray, " v"], pitch: Float[Array | np.ndarray, " v"], config: VoteConfig
) -> Float[Array, " v"]:
    """Trust in a view by its pose alone: a parser trained on frontal pictures is right in frontal pictures.

    Args:
        yaw, pitch: degrees in the head frame.

    Returns:
        exp(-(yaw^2 + pitch^2) / (2 sigma^2)) + floor.
    """
    distance = jnp.asarray(yaw, jnp.float32) ** 2 + jnp.asarray(pitch, jnp.float32) ** 2
    return jnp.exp(-distance / (2 * config.pose_sigma**2)) + config.pose_floor


@functools.partial(jax.jit, static_argnames="config")
def vote(
    evidence: Float[Array, "v n k"],
    weight: Float[Array, "..."],  # "...": shapes that must match are checked inside, with a message
    yaw: Float[Array | np.ndarray, "..."],
    pitch: Float[Array | np.ndarray, "..."],
    config: VoteConfig,
    cosines: Float[Array, "..."] | None = None,
) -> Float[Array, "n k"]:
    """Class probabilities of every Gaussian of one head; `vmap` it over heads, pad views with weight 0.

    Args:
        evidence: per view, Gaussian and class, the blend weight times the parser's probability, summed over pixels.
        weight: "v n", the blend weight alone, summed over pixels; 0 where the view does not see the Gaussian.
        yaw, pitch: "v", degrees in the head frame.
        config: the method and what it depends on.
        cosines: "v n", of the viewing ray and the surface normal, for "cosine" only.

    Returns:
        Rows that sum to 1. Class 0 is 0 if the background is removed. A Gaussian that no view sees (or that all call
        background while the background is removed) gets the mean of the other rows, or the uniform row if all are so.

    Raises:
        InputError: shapes that do not fit, or no cosines for "cosine".
    """
    v, n, k = evidence.shape
    first = int(config.remove_background)
    for name, array, shape in (("weight", weight, (v, n)), ("yaw", yaw, (v,)), ("pitch", pitch, (v,))):
        if array.shape != shape:
            raise InputError(f"vote: {name}", wanted=f"shape {shape} for evidence {evidence.shape}", got=array.shape)
    if k - first < 2:
        raise InputError("vote: evidence", wanted="at least two classes to choose from", got=evidence.shape)
    if config.method == "cosine" and (cosines is None or cosines.shape != (v, n)):
        raise InputError("vote: cosines", wanted=f"shape {(v, n)}", got=None if cosines is None else cosines.shape)

    ballots = Ballots.of(evidence[..., first:], weight, pose_prior(yaw, pitch, config), config)
    probabilities = METHODS[config.method](dataclasses.replace(ballots, cosines=cosines), config)
    return jnp.pad(filled(probabilities, (ballots.visible_mass > 0).any(0)), ((0, 0), (first, 0)))


def filled(probabilities: Float[Array, "n k"], seen: Bool[Array, " n"]) -> Float[Array, "n k"]:
    """The rows, and for Gaussians that no view sees the mean of the others, or the uniform row if all are so."""
    known = seen[:, None]
    fallback = jnp.where(known, probabilities, 0).sum(0) + _EPS
    return jnp.where(known, probabilities, fallback / fallback.sum())


def confidence(probabilities: Float[Array, "*b n k"]) -> Float[Array, "*b n"]:
    """How clearly the first class leads the second, in [0, 1]."""
    top = jax.lax.top_k(probabilities, 2)[0]
    return top[..., 0] - top[..., 1]
