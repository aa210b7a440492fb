"""The voters of the label stage as a re-vote hears them: the error models and weights of `jsplat.labels.sharpen`."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from jsplat.labels import SharpenConfig, VoterLabels
from jsplat.labels.opinions import Opinions, dense
from jsplat.labels.sharpen import error_models, small_parts
from jsplat.labels.together import informative_labels
from jsplat.labelsets.labelset import IGNORE


@dataclasses.dataclass(frozen=True)
class Voice:
    """What one voter says of the p pixels of every view.

    Attributes:
        labels: the likeliest of its labels; any where `sure` is 0.
        sure: its weight: trust in the view, by pose and by what the view tells, times how certain it is.
        confusion: per view, how often it says s (last axis) where the consensus is t.
        small: how far it is taken at its word where a class is or is said to be (`small_parts`); 0 of all but the first
            voter.
    """

    labels: UInt8[np.ndarray, "v p"]
    sure: Float[np.ndarray, "v p"]
    confusion: Float[np.ndarray, "v k s"]
    small: Float[np.ndarray, " k"]


def heard(
    first: Opinions | Float[np.ndarray, "v h w k"],
    trust: Float[np.ndarray, " v"],
    others: Sequence[VoterLabels],
    shown: Float[np.ndarray, "v p k"],
    solid: Float[np.ndarray, "v p"],
    config: SharpenConfig,
) -> tuple[Voice, ...]:
    """All voters of a head, the first voter first.

    Args:
        first: its class probabilities; trust: of each of its views.
        shown: what the consensus shows in the views.
        solid: 1 where pixels count (`SharpenConfig.alpha_gate`), else 0.
    """
    k = shown.shape[-1]
    opinions = [_probabilities(first, trust, k, config), *(_labels(other, k) for other in others)]
    counts = [np.zeros((len(shown), k, size), np.float32) for *_, size in opinions]
    for v in range(len(shown)):
        prior = normalised(shown[v])  # of one view at a time: that of all is as large as what is shown
        for counted, (labels, mass, _, size) in zip(counts, opinions):
            hard = np.zeros((labels.shape[1], size), np.float32)
            hard[np.arange(len(hard)), labels[v]] = mass[v] * solid[v]
            counted[v] = prior.T @ hard
    models = error_models(counts, means=(None, *(other.means for other in others)), config=config)
    found, small = [], np.asarray(small_parts(counts[0], config=config))
    for (labels, _, sure, _), (confusion, told) in zip(opinions, models):
        weight = np.asarray(told)[:, None] if others else np.float32(1)
        found.append(Voice(labels, (sure * solid * weight).astype(np.float32), np.asarray(confusion), small))
        small = np.zeros_like(small)
    return tuple(found)


def _probabilities(first: Opinions | np.ndarray, trust: np.ndarray, k: int, config: SharpenConfig) -> tuple:
    """Labels, mass and weight "v p" of soft opinions, and how many labels there are."""
    found = []
    for v in range(len(trust)):
        opinion = dense(first, v).reshape(-1, k)
        mass = opinion[:, 1:].sum(-1)
        opinion = opinion / np.maximum(mass, 1e-12)[:, None]
        opinion[:, 0] = 0
        entropy = -(opinion * np.log(np.maximum(opinion, 1e-12))).sum(-1) / np.log(k)
        sure = trust[v] * np.clip(1 - entropy, 0, 1) ** config.trust_power * mass
        found.append((opinion.argmax(-1).astype(np.uint8), mass, sure))
    labels, mass, sure = (np.stack(of) for of in zip(*found))
    return labels, mass, sure, k


def _labels(voter: VoterLabels, k: int) -> tuple:
    """The same of a voter with labels of its own."""
    labels = np.asarray(voter.labels).reshape(len(voter.trust), -1)
    mass = np.isin(labels, informative_labels(voter.means, k)).astype(np.float32)
    sure = np.asarray(voter.trust)[:, None] * mass
    return np.where(labels == IGNORE, np.uint8(0), labels), mass, sure, len(voter.means)


def likelihood(
    voices: Sequence[Voice], view: int, pixel: Int[np.ndarray, " p"], classes: Int[np.ndarray, " c"]
) -> tuple[Float[np.ndarray, "p c"], Float[np.ndarray, " p"]]:
    """What the voters say of some pixels of a view if a class were true, and the weight of that.

    A voter speaks in a pixel as far as it is surer there than the others.
    """
    likelihoods = [voice.confusion[view][classes].T[voice.labels[view][pixel]] for voice in voices]
    sures = [voice.sure[view][pixel] for voice in voices]
    if len(voices) == 1:
        return likelihoods[0], sures[0]
    most = np.max(sures, 0)
    powers = [(sure / np.maximum(most, 1e-12))[:, None] for sure in sures]
    return np.prod([of**power for of, power in zip(likelihoods, powers)], 0), most


def word(
    voice: Voice, view: int, pixel: Int[np.ndarray, " p"], classes: Int[np.ndarray, " c"], most: Float[np.ndarray, " p"]
) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """What a voter says in some pixels of a view, counted among `classes`, and how far that may count.

    As far as it speaks beside the others, whose weight is `most`; not at all where it says another class.
    """
    said = voice.labels[view][pixel]
    at = np.minimum(np.searchsorted(classes, said), len(classes) - 1)
    return at, np.where(classes[at] == said, voice.sure[view][pixel] / np.maximum(most, 1e-12), 0)


def normalised(x: np.ndarray) -> np.ndarray:
    """Rows that sum to 1, or 0."""
    return x / np.maximum(x.sum(-1, keepdims=True), 1e-12)
