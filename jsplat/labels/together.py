"""Several voters on one head: parsers, and masks from elsewhere that may know only some of the classes.

Each voter has labels of its own and its own error model, a confusion matrix from the classes to its labels per view,
learned from the consensus of all. A label may mean several classes: between those the voter says nothing, for they have
one row in common. What it says where a class is that none of its labels means is learned. The log evidence of a voter
is averaged over its views, whose errors are one error; that of several voters is summed, for their errors are their own
(Dawid and Skene 1979, tempered as in `jsplat.labels.votes`).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jsplat.errors import InputError
from jsplat.labels.poll import Ballots, Poll, VoteConfig
from jsplat.labels.votes import (
    confusion_counts,
    evidence_weights,
    filled,
    in_rounds,
    log_evidence,
    mean_by_pose,
    pooled_by_pose,
    seen,
    sharper,
)
from jsplat.raster.pytree import pytree, static
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.precision import einsum, matmul

ERROR_MODELS = ("tempered", "best")  # the methods that are, or hold, a model of errors, which several voters share
_EPS = 1e-12
_LEAST = 1e-3

Means = tuple[frozenset[int], ...]
"""Per label of a voter, the ids of the classes that it may mean; of a label without any, nothing is known."""


@pytree
class VoterEvidence:
    """What one voter says about the Gaussians of one head.

    Attributes:
        evidence: per view, Gaussian and label, the blend weight times the probability of the label, summed over pixels.
        trust: of a view by its pose (`pose_prior`; ones if nothing is known).
        near: how much the errors of one view tell of those of another (`near_views`).
        means: per label, the classes it may mean, background among them; those of none say nothing.
    """

    evidence: KeptViews | Float[Array, "v n s"]
    trust: Float[Array, " v"]
    near: Float[Array, "v v"]
    means: Means = static()


def knows_all(means: Means, k: int) -> bool:
    """Whether a voter has a label of its own for each of `k` classes."""
    return {min(of) for of in means if len(of) == 1} == set(range(k))


def informative_labels(means: Means, k: int) -> list[int]:
    """The labels of a voter that count on the head.

    Those that mean something; the background alone is none where the voter knows all classes (a parser that is lost
    says so), else it may stand for what the voter does not know.
    """
    complete = knows_all(means, k)
    return [i for i, of in enumerate(means) if of and not (complete and of == {0})]


def informative_table(means: Means, k: int) -> Bool[np.ndarray, "s k"]:
    """Whether a label may mean a class; labels that do not count mean none."""
    table = np.zeros((len(means), k), bool)
    for i in informative_labels(means, k):
        table[i, list(means[i])] = True
    return table


def alike_classes(means: Means, k: int) -> Float[np.ndarray, "k k"]:
    """1 where two classes have the same labels, which are some, or are one class."""
    table = informative_table(means, k)
    same = (table[:, :, None] == table[:, None, :]).all(0) & table.any(0)
    return (same | np.eye(k, dtype=bool)).astype(np.float32)


def vote_together(
    voters: Sequence[VoterEvidence], weight: KeptViews | Float[Array, "v n"], config: VoteConfig, k: int
) -> tuple[Float[Array, "n k"], Float[Array, "m k"]]:
    """Class probabilities of every Gaussian of one head, from all voters.

    The first voter that knows all classes begins; where none does, all begin with their labels spread evenly over what
    they may mean.

    Args:
        voters: at least one.
        weight: the blend weight alone, summed over pixels; 0 where a view does not see a Gaussian.
        config: its method is "tempered"; or "best", the mean of that and of the beginner's rows by pose, on which the
            evidence of the others was added: a class that the error model lost is not lost in both.
        k: how many classes there are.

    Returns:
        rows that sum to 1, as of `vote`; belief: per voter and class, how often it says what it ought to where the
        consensus is that class, NaN for classes that none of its labels means.

    Raises:
        InputError: another method.
    """
    if config.method not in ERROR_MODELS:
        wanted = f"{' or '.join(ERROR_MODELS)}, which several voters, or one that lacks classes, can share"
        raise InputError("vote.method", wanted=wanted, got=repr(config.method))
    first = int(config.remove_background)
    voices = [_Voice.of(heard, weight, config, k) for heard in voters]
    begins = next((i for i, heard in enumerate(voters) if knows_all(heard.means, k)), None)
    begin = voices if begins is None else [voices[begins]]
    start = functools.reduce(jnp.add, [_spread(mean_by_pose(voice.poll), voice.table) for voice in begin])
    start = start / jnp.maximum(start.sum(-1, keepdims=True), _EPS)

    def evidence(consensus: Array) -> Array:
        # Sharper than it came: of the little that every class has everywhere, the error models would learn that small
        # parts are mistaken for everything.
        consensus = sharper(consensus, config)
        return functools.reduce(jnp.add, [voice.evidence(consensus) for voice in voices])

    probabilities = in_rounds(evidence, start, config)
    if config.method == "best" and begins is not None:
        others = [voice.evidence(sharper(probabilities, config)) for i, voice in enumerate(voices) if i != begins]
        # What the beginner never says must stay possible, or nobody could say it.
        likely = jnp.log((1 - _LEAST) * start + _LEAST / start.shape[-1])
        probabilities = (jax.nn.softmax(functools.reduce(jnp.add, others, likely), -1) + probabilities) / 2
    probabilities = filled(probabilities, jnp.stack([seen(voice.poll) for voice in voices]).any(0))
    belief = jnp.stack([voice.belief(probabilities) for voice in voices])
    pad = ((0, 0), (first, 0))
    return jnp.pad(probabilities, pad), jnp.pad(belief, pad, constant_values=jnp.nan)


def _spread(means: Float[Array, "n s"], table: Bool[np.ndarray, "s k"]) -> Float[Array, "n k"]:
    frequencies = table / np.maximum(table.sum(1, keepdims=True), 1)
    return matmul(means, jnp.asarray(frequencies, means.dtype))


def _agreement_counts(ballots: Ballots, config: VoteConfig, probabilities: Float[Array, "n t"]) -> Float[Array, "t s"]:
    return einsum("vns,vn,nt->ts", ballots.opinions, ballots.visible_mass, probabilities)


@dataclasses.dataclass(frozen=True)
class _Voice:
    """A voter as the error model hears it: opinions in its labels, how much its views count (`evidence_weights`), which
    classes its labels may mean `table` "s t", and which of the classes have one row `alike` "t t"."""

    poll: Poll
    weights: Array
    table: np.ndarray
    alike: np.ndarray

    @staticmethod
    def of(heard: VoterEvidence, weight: KeptViews | Float[Array, "v n"], config: VoteConfig, k: int) -> "_Voice":
        kept, first = informative_labels(heard.means, k), int(config.remove_background)
        table = informative_table(heard.means, k)[kept]
        poll = Poll(heard.evidence, weight, heard.trust, heard.near, tuple(kept), config)
        return _Voice(poll, evidence_weights(poll), table[:, first:], alike_classes(heard.means, k)[first:, first:])

    def evidence(self, consensus: Float[Array, "n t"]) -> Float[Array, "n t"]:
        counts = einsum("vts,ut->vus", confusion_counts(self.poll, consensus), jnp.asarray(self.alike))
        return log_evidence(self.poll, pooled_by_pose(counts, self.poll.near), self.weights)

    def belief(self, probabilities: Float[Array, "n t"]) -> Float[Array, " t"]:
        counts = self.poll.total(_agreement_counts, probabilities)
        right = jnp.where(self.table.T, counts, 0).sum(-1) / jnp.maximum(counts.sum(-1), _EPS)
        return jnp.where(self.table.any(0), right, jnp.nan)
