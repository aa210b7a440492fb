"""Which views to believe: evidence from many views of one head becomes class probabilities per Gaussian.

Every method is a weighted mean of what the views say, or a model of how each view errs; they differ in whom they trust,
which decides more than anything else. "best" is meant for use, the others are its parts and the ablations beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jsplat.errors import InputError
from jsplat.labels.poll import Ballots, Poll, VoteConfig
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.precision import einsum

_EPS = 1e-12


def certainty(opinions: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """1 - H, the entropy H scaled so that a uniform opinion has 1."""
    return jnp.clip(1 + jnp.sum(jax.scipy.special.xlogy(opinions, opinions), -1) / jnp.log(opinions.shape[-1]), 0, 1)


def _one_hot(opinions: Array) -> Array:
    return jax.nn.one_hot(jnp.argmax(opinions, -1), opinions.shape[-1], dtype=opinions.dtype)


def _mean(total: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """From a weighted sum over views; rows that no view supports are 0 (`vote` fills them)."""
    return total / jnp.maximum(total.sum(-1, keepdims=True), _EPS)


def _sum(opinions: Array, weights: Array) -> Array:
    return einsum("vnk,vn->nk", opinions, weights)


# Programs over a block of views (see `Poll`).


def _plain_sum(ballots: Ballots, config: VoteConfig) -> Array:
    return _sum(ballots.opinions, ballots.visible_mass)


def _one_hot_sum(ballots: Ballots, config: VoteConfig) -> Array:
    return _sum(_one_hot(ballots.opinions), ballots.visible_mass)


def _cosine_sum(ballots: Ballots, config: VoteConfig) -> Array:
    assert ballots.cosines is not None
    return _sum(ballots.opinions, ballots.visible_mass * (jnp.clip(ballots.cosines, 0, 1) + config.cosine_floor))


def _entropy_sum(ballots: Ballots, config: VoteConfig) -> Array:
    trust = certainty(ballots.opinions) ** config.entropy_power
    return _sum(ballots.opinions, ballots.visible_mass * (trust + _EPS))


def _pose_sum(ballots: Ballots, config: VoteConfig) -> Array:
    return _sum(ballots.opinions, ballots.visible_mass * ballots.pose)


def _trusted_sum(ballots: Ballots, config: VoteConfig, trust: Float[Array, " v"]) -> Array:
    return _sum(ballots.opinions, ballots.visible_mass * trust[:, None])


def _alike(ballots: Ballots, config: VoteConfig, consensus: Float[Array, "n k"]) -> Float[Array, " v"]:
    alike = einsum("vnk,nk,vn->v", ballots.opinions, consensus, ballots.visible_mass)
    return alike / (ballots.visible_mass.sum(-1) + _EPS)


def _confusion_counts(ballots: Ballots, config: VoteConfig, consensus: Float[Array, "n t"]) -> Float[Array, "v t s"]:
    """How often each view says s, sharpened, where the consensus is t."""
    return einsum("vns,vn,nt->vts", sharper(ballots.opinions, config), ballots.visible_mass, consensus)


def _trust(ballots: Ballots, config: VoteConfig) -> Float[Array, "v n"]:
    return ballots.visible_mass * ballots.pose * certainty(ballots.opinions) ** config.trust_power


def _log_evidence(
    ballots: Ballots, config: VoteConfig, weights: Float[Array, "v n"], log_confusion: Float[Array, "v t s"]
) -> Float[Array, "n t"]:
    # Sharpened: in a soft opinion the many small classes, each with a little, outvote what the view really says.
    return einsum("vns,vn,vts->nt", sharper(ballots.opinions, config), weights, log_confusion)


def _hard_sum(ballots: Ballots, config: VoteConfig) -> Array:
    return _sum(_one_hot(ballots.opinions), (ballots.visible_mass > 0).astype(ballots.opinions.dtype))


def _hard_counts(ballots: Ballots, config: VoteConfig, consensus: Float[Array, "n t"]) -> Float[Array, "v t s"]:
    seen = (ballots.visible_mass > 0).astype(ballots.opinions.dtype)
    return einsum("vns,vn,nt->vts", _one_hot(ballots.opinions), seen, consensus)


def _hard_evidence(ballots: Ballots, config: VoteConfig, log_confusion: Float[Array, "v t s"]) -> Float[Array, "n t"]:
    seen = (ballots.visible_mass > 0).astype(ballots.opinions.dtype)
    return einsum("vns,vn,vts->nt", _one_hot(ballots.opinions), seen, log_confusion)


def _views_that_see(ballots: Ballots, config: VoteConfig) -> Int[Array, " n"]:
    return (ballots.visible_mass > 0).sum(0)


def seen(poll: Poll) -> Bool[Array, " n"]:
    """Whether any view sees a Gaussian."""
    return poll.total(_views_that_see) > 0


def evidence_weights(poll: Poll) -> Float[Array, "v n"]:
    """How much each view counts in the log evidence: the mean over views, for min(effective views, temperature)
    witnesses, because the errors of neighbouring views are the same error.

    Effective views: (sum w)^2 / sum w^2 (Kish).
    """
    trust = poll.each_view(_trust)
    total = trust.sum(0)
    effective = total**2 / jnp.maximum((trust**2).sum(0), _EPS)
    return trust * (jnp.minimum(effective, poll.config.temperature) / jnp.maximum(total, _EPS))


def confusion_counts(poll: Poll, consensus: Float[Array, "n t"]) -> Float[Array, "v t s"]:
    """How often each view says s, sharpened, where the consensus is t."""
    return poll.each_view(_confusion_counts, consensus)


def log_evidence(poll: Poll, confusion: Float[Array, "v t s"], weights: Float[Array, "v n"]) -> Float[Array, "n t"]:
    """The log evidence of one voter for each class; `weights`: its `evidence_weights`, the same in every round."""
    return poll.total(_log_evidence, of_views=(weights, jnp.log(confusion)))


def _plain(poll: Poll) -> Array:
    return _mean(poll.total(_plain_sum))


def _one_hot_votes(poll: Poll) -> Array:
    return _mean(poll.total(_one_hot_sum))


def _cosine(poll: Poll) -> Array:
    return _mean(poll.total(_cosine_sum))


def _entropy(poll: Poll) -> Array:
    return _mean(poll.total(_entropy_sum))


def _agreement(poll: Poll) -> Array:
    consensus = _plain(poll)
    for _ in range(poll.config.iterations):
        alike = poll.each_view(_alike, consensus)
        trust = (alike / (alike.max() + _EPS)) ** poll.config.agreement_power
        consensus = _mean(poll.total(_trusted_sum, of_views=(trust,)))
    return consensus


def mean_by_pose(poll: Poll) -> Float[Array, "n k"]:
    """The mean opinion, by trust in poses; rows of 0 where no view sees anything."""
    return _mean(poll.total(_pose_sum))


def near_views(
    yaw: Float[Array | np.ndarray, " v"], pitch: Float[Array | np.ndarray, " v"], config: VoteConfig
) -> Float[Array, "v v"]:
    """How much the errors of one view tell of those of another: exp(-angle^2 / (2 pose_neighborhood^2)).

    Args:
        yaw, pitch: degrees in the head frame.
    """
    turn, tilt = (jnp.radians(jnp.asarray(angle, jnp.float32)) for angle in (yaw, pitch))
    toward = jnp.stack([jnp.sin(turn) * jnp.cos(tilt), jnp.sin(tilt), jnp.cos(turn) * jnp.cos(tilt)], -1)
    # Half the chord is the sine of half the angle; the angle's cosine would lose small angles in float32.
    chord = jnp.linalg.norm(toward[:, None] - toward, axis=-1)
    angle = jnp.degrees(2 * jnp.arcsin(jnp.minimum(chord / 2, 1)))
    return jnp.exp(-(angle**2) / (2 * config.pose_neighborhood**2))


def pooled_by_pose(counts: Float[Array, "v t s"], near: Float[Array, "v v"]) -> Float[Array, "v t s"]:
    """Each view's confusion matrix: how often it and those near it say s where the consensus is t, rows that sum to 1.

    One more draw is spread evenly over a row.
    """
    return _distributions(einsum("vu,uts->vts", near, counts))


def _distributions(counts: Float[Array, "v t s"]) -> Float[Array, "v t s"]:
    counts = counts + 1 / counts.shape[-1]
    return counts / counts.sum(-1, keepdims=True)


@jax.jit
def posterior(evidence: Float[Array, "n k"], consensus: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Class prior (the consensus's own shares, one draw spread evenly on top) times evidence."""
    totals = consensus.sum(0) + 1 / consensus.shape[-1]
    return jax.nn.softmax(evidence + jnp.log(totals / totals.sum()), -1)


def _dawid_skene(poll: Poll) -> Array:
    """Textbook expectation-maximisation on hard opinions, every view an independent witness (Dawid and Skene, 1979).

    Views of one head are not independent, hence its overconfidence: kept as an ablation.
    """

    def evidence(consensus: Array) -> Array:
        confusion = _distributions(poll.each_view(_hard_counts, consensus))
        return poll.total(_hard_evidence, of_views=(jnp.log(confusion),))

    return in_rounds(evidence, _mean(poll.total(_hard_sum)), poll.config)


def sharper(opinions: Float[Array, "*b k"], config: VoteConfig) -> Float[Array, "*b k"]:
    """To the power of `sharpness`, rows that sum to 1, or to 0."""
    opinions = opinions**config.sharpness
    return opinions / jnp.maximum(opinions.sum(-1, keepdims=True), _EPS)


def in_rounds(evidence: Callable[[Array], Array], start: Array, config: VoteConfig) -> Array:
    """The consensus "n t" after rounds of evidence from the last one and posterior from the evidence."""

    consensus = start
    for _ in range(config.iterations):
        consensus = posterior(evidence(consensus), consensus)
    return consensus


def _tempered(poll: Poll) -> Array:
    """Dawid and Skene with soft opinions, confusion matrices by pose, and evidence that is averaged, not summed."""

    weights = evidence_weights(poll)

    def evidence(consensus: Array) -> Array:
        return log_evidence(poll, pooled_by_pose(confusion_counts(poll, consensus), poll.near), weights)

    return in_rounds(evidence, mean_by_pose(poll), poll.config)


def _best(poll: Poll) -> Array:
    """The mean of both: the pose prior is right about small frontal parts, the error model about the sides."""
    return (mean_by_pose(poll) + _tempered(poll)) / 2


_METHODS: dict[str, Callable[[Poll], Array]] = {
    "plain": _plain,
    "one_hot": _one_hot_votes,
    "cosine": _cosine,
    "entropy": _entropy,
    "agreement": _agreement,
    "pose": mean_by_pose,
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


def vote(
    evidence: KeptViews | Float[Array, "v n k"],
    weight: KeptViews | Float[Array, "..."],  # "...": shapes that must match are checked inside, with a message
    yaw: Float[Array | np.ndarray, "..."],
    pitch: Float[Array | np.ndarray, "..."],
    config: VoteConfig,
    cosines: KeptViews | Float[Array, "..."] | None = None,
) -> Float[Array, "n k"]:
    """Class probabilities of every Gaussian of one head, from a block of views at a time.

    `vmap` it over heads, pad views with weight 0.

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

    pose, near = pose_prior(yaw, pitch, config), near_views(yaw, pitch, config)
    poll = Poll(evidence, weight, pose, near, tuple(range(first, k)), config, cosines)
    return jnp.pad(filled(_METHODS[config.method](poll), seen(poll)), ((0, 0), (first, 0)))


@jax.jit
def filled(probabilities: Float[Array, "n k"], seen: Bool[Array, " n"]) -> Float[Array, "n k"]:
    """The rows, and for Gaussians that no view sees the mean of the others, or the uniform row if all are so."""
    known = seen[:, None]
    fallback = jnp.where(known, probabilities, 0).sum(0) + _EPS
    return jnp.where(known, probabilities, fallback / fallback.sum())


def confidence(probabilities: Float[Array, "*b n k"]) -> Float[Array, "*b n"]:
    """How clearly the first class leads the second, in [0, 1]."""
    top = jax.lax.top_k(probabilities, 2)[0]
    return top[..., 0] - top[..., 1]
