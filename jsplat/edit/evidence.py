"""An edit is evidence, not a patch: what a person says about some pixels goes into the vote on the geometry.

The vote is redone for the Gaussians under the edited pixels by the update of `jsplat.labels.sharpen` with one more
voice. Let r be the voters' side of the update (all views, each believed through its own confusion matrix) and h the
person's (the classes said, shared out to the Gaussians by responsibility), both rows that sum to 1. Then

    row = (1 - a) r + a h,   a = s / (1 + s),   s = weight * (m / best)^power

with m the Gaussian's blend weight in the pixels the person spoke about and `best` the most it has in any view: whoever
sees a Gaussian as well as any view does counts `weight` times as much as all views of all voters together; who sees it
at a grazing angle, where small parts are thinner than a pixel, hardly counts. A person names the class that leads in a
pixel, not one that fills it: the target of such a pixel is the mixture nearest to what shows there in which that class
leads by `class_margin`. All other Gaussians stay as they are, so a re-vote costs what a few Gaussians reach, not what
the head has.
"""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int, UInt8
from scipy import ndimage

from jsplat.edit.head import UNTOUCHED, Head
from jsplat.edit.voices import likelihood, normalised, word
from jsplat.errors import InputError
from jsplat.labels import clean, to_masks
from jsplat.labelsets.labelset import IGNORE
from jsplat.runtime.devices import cores


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one edit did.

    Attributes:
        changed: view -> pixels whose class changed, the edited view among them, views without a change left out.
        others: other views with more than `EditConfig.changed` changed pixels.
        gaussians: how many were voted on again.
        seconds: what it took.
    """

    changed: dict[int, int]
    others: int
    gaussians: int
    seconds: float


def check_layer(head: Head, view: int, layer: np.ndarray) -> None:
    """InputError unless a layer has a view's size and holds classes or UNTOUCHED."""
    if not 0 <= view < len(head.masks):
        raise InputError("edit: view", wanted=f"0 to {len(head.masks) - 1}", got=view)
    if layer.shape != head.masks[0].shape or layer.dtype != np.uint8:
        wanted = f"one 8-bit channel of shape {head.masks[0].shape}"
        raise InputError("edit: layer", wanted=wanted, got=f"{layer.dtype} {layer.shape}")
    head.settings.labelset.check(layer, "edit: layer")


def edit(head: Head, view: int, layer: UInt8[np.ndarray, "..."]) -> Outcome:
    """Replaces what a person says about one view, and votes again on the Gaussians that this concerns.

    Args:
        layer: `h w`, class ids where the person spoke, UNTOUCHED elsewhere; all UNTOUCHED takes the edit back.

    Raises:
        InputError: a layer of another shape, or with an id that is no class.
    """
    check_layer(head, view, layer)
    start = time.perf_counter()
    before = np.stack([head.mask(v) for v in range(len(head.masks))])
    old = head.layers.pop(view, np.full_like(layer, UNTOUCHED))
    if (layer != UNTOUCHED).any():
        head.layers[view] = layer.copy()
    who = _under(head, view, (old != UNTOUCHED) | (layer != UNTOUCHED))
    if len(who):
        _vote_again(head, who)
    changed = {}
    for v in range(len(head.masks)):
        count = int((head.mask(v) != before[v]).sum())
        if count:
            changed[v] = count
    others = sum(n > head.settings.edit.changed_pixels for v, n in changed.items() if v != view)
    return Outcome(changed, others, len(who), time.perf_counter() - start)


def edit_all(head: Head, layers: dict[int, np.ndarray]) -> None:
    """Takes all edits at once, as they lie on disk: one vote on everything they touch."""
    touched = []
    for view, layer in layers.items():
        check_layer(head, view, layer)
        head.layers[view] = layer
        touched.append(_under(head, view, layer != UNTOUCHED))
    who = np.unique(np.concatenate(touched)) if touched else np.zeros(0, np.int64)
    if len(who):
        _vote_again(head, who)


def _under(head: Head, view: int, touched: np.ndarray) -> np.ndarray:
    """The Gaussians on which a person has a say by these pixels of a view."""
    mass = head.weights[view].T @ touched.ravel().astype(np.float32)
    return np.flatnonzero(_influence(head, mass) >= head.settings.edit.min_influence)


def _influence(head: Head, mass: np.ndarray, who: np.ndarray | slice = slice(None)) -> np.ndarray:
    """The share a, in [0, 1), that a person has in the vote on Gaussians with this blend weight under what was said."""
    settings = head.settings.edit
    strength = settings.weight * (mass / np.maximum(head.best[who], settings.half_weight)) ** settings.visibility_power
    return strength / (1 + strength)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the n Gaussians of a re-vote show in one view (p pixels), and what is said there about k classes.

    Attributes:
        classes: which k play a part; the others are left out of the arithmetic.
        rest: what all other Gaussians show there.
        sure: the voters' weight; `likelihood`: of what they say if a class were true.
        said: what the first voter says (`word`), counted among `classes`; `speaks`: how far that may count; `small`:
            how far each class is a small part, where it does count.
        heard: the s pixels that people named a class for; `named`: which, counted among `classes`; `hears`: their part
            of the weights.
    """

    view: int
    pixel: Int[np.ndarray, " p"]
    weights: sp.csc_matrix  # p x n
    classes: Int[np.ndarray, " k"]
    rest: Float[np.ndarray, "p k"]
    sure: Float[np.ndarray, "p 1"]
    likelihood: Float[np.ndarray, "p k"]
    said: Int[np.ndarray, " p"]
    speaks: Float[np.ndarray, " p"]
    small: Float[np.ndarray, " k"]
    heard: Int[np.ndarray, " s"]
    named: Int[np.ndarray, " s"]
    hears: sp.csc_matrix  # s x n


def _vote_again(head: Head, who: np.ndarray) -> None:
    """EM on the rows of a few Gaussians; the others only show through. Views side by side: each fits into the cache."""
    old, base = head.probabilities[who], head.voted_probabilities[who]
    spoken_labels = {v: _drawn_classes(head, v) for v in head.layers}
    spoken = np.unique(np.concatenate(list(spoken_labels.values()) or [np.zeros(0, np.uint8)]))
    # "Background" corrects the outline of its own view alone: no Gaussian on the head is background, and the vote
    # removes that class too.
    spoken = spoken[(spoken != UNTOUCHED) & (spoken != 0)]
    with ThreadPoolExecutor(cores()) as threads:
        found = threads.map(lambda v: _place(head, who, v, spoken_labels.get(v), spoken), range(len(head.weights)))
        places = [place for place in found if place is not None]
        mass = sum((np.asarray(place.hears.sum(0)).ravel() for place in places), np.zeros(len(who), np.float32))
        person = _influence(head, mass, who)[:, None].astype(np.float32)
        wanted = np.zeros_like(base)
        for place in places:
            wanted[:, place.classes] += place.hears.T @ np.eye(len(place.classes), dtype=np.float32)[place.named]
        seed = np.float32(0.02) * person  # a class that a Gaussian never had would stay at 0
        table = (1 - seed) * base + seed * normalised(wanted)
        for _ in range(head.settings.edit.rounds):
            voters, human = np.zeros_like(table), np.zeros_like(table)
            asked = threads.map(lambda place, now=table: _update(place, now, head.settings.edit.class_margin), places)
            for place, (one, other) in zip(places, asked):
                voters[:, place.classes] += one
                human[:, place.classes] += other
            voters = np.where(voters.sum(-1, keepdims=True) > 1e-6, normalised(voters), base)
            table = normalised((1 - person) * voters + person * normalised(human)).astype(np.float32)
        head.probabilities[who] = table
        list(threads.map(lambda place: _show(head, place, table - old), places))


def _place(head: Head, who: np.ndarray, v: int, spoken_labels: np.ndarray | None, named: np.ndarray) -> _Place | None:
    """One view, given what was said in it and which classes in any; None where the Gaussians reach no pixel of it."""
    part, settings = head.weights[v][:, who], head.settings.edit
    pixel = np.flatnonzero(np.bincount(part.indices, part.data, minlength=part.shape[0]) >= settings.min_pixel_weight)
    if not len(pixel):
        return None
    row = np.full(part.shape[0], -1, np.int32)
    row[pixel] = np.arange(len(pixel))
    kept = row[part.indices] >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])[part.indptr]
    weights = sp.csc_matrix((part.data[kept], row[part.indices[kept]], ends), shape=(len(pixel), len(who)))
    spoken = np.full(len(pixel), UNTOUCHED, np.uint8) if spoken_labels is None else spoken_labels[pixel]
    heard = np.flatnonzero(np.isin(spoken, named))
    shown = head.shown[v][pixel]
    plays = shown.max(0) > settings.min_class_probability
    plays[named] = True
    classes = np.flatnonzero(plays)
    # A pixel that a person spoke about says nothing else.
    likelihoods, most = likelihood(head.voices, v, pixel, classes)
    sure = np.where(spoken == UNTOUCHED, most, 0)[:, None].astype(np.float32)
    said, speaks = word(head.voices[0], v, pixel, classes, most)
    return _Place(
        view=v,
        pixel=pixel,
        weights=weights,
        classes=classes,
        rest=shown[:, classes] - weights @ head.probabilities[np.ix_(who, classes)],
        sure=sure,
        likelihood=likelihoods,
        said=said,
        speaks=speaks.astype(np.float32),
        small=head.voices[0].small[classes],
        heard=heard,
        named=np.searchsorted(classes, spoken[heard]),
        hears=sp.csc_matrix(weights.tocsr()[heard]) if len(heard) else sp.csc_matrix((0, len(who)), dtype=np.float32),
    )


def _update(place: _Place, table: np.ndarray, lead: float) -> tuple[np.ndarray, np.ndarray]:
    """One update: how much of each class the voters and people see in the Gaussians, both n k."""
    own = np.ascontiguousarray(table[:, place.classes])
    prior = normalised(place.rest + place.weights @ own)
    inverse = np.where(prior > 1e-6, 1 / np.maximum(prior, np.float32(1e-3)), 0)
    # The posterior, but for what is taken at its word: share * "said" + (1 - share) * posterior, as in `sharpen`.
    at, small = np.arange(len(prior)), place.small
    share = place.speaks * np.minimum(prior @ small + small[place.said] * (1 - prior[at, place.said]), 1)
    target = normalised(prior * place.likelihood) * (1 - share)[:, None]
    target[at, place.said] += share
    voters = place.weights.T @ (place.sure * target * inverse)
    heard = place.heard
    human = place.hears.T @ (_leading_mixture(prior[heard], place.named, lead) * inverse[heard])
    return own * voters, own * human


def _leading_mixture(prior: np.ndarray, named: np.ndarray, lead: float) -> np.ndarray:
    """The mixture nearest to `prior` in which the named class leads every other by `class_margin`.

    A person names the class that is largest in a pixel, not one that fills it: a pixel where it leads already is left.
    """
    at = np.arange(len(prior))
    others = prior.copy()
    others[at, named] = 0
    ranked = -np.sort(-others, -1)
    taken = np.cumsum(np.pad(ranked, ((0, 0), (1, 0))), -1)[:, :-1]  # of the m largest rivals, m = 0, 1, ..
    m = np.arange(prior.shape[1])
    level = (prior[at, named][:, None] + taken + m * lead) / (1 + m)
    first = (level - lead >= ranked).argmax(-1)
    level = level[at, first][:, None]
    won = np.minimum(others, np.maximum(level - lead, 0))
    won[at, named] = level[:, 0]
    return normalised(won)


def _drawn_classes(head: Head, v: int) -> np.ndarray:
    """What people said in a view, by pixel: classes, or UNTOUCHED; the rim of an edit counts as it was shown."""
    around = np.ones((2 * head.settings.edit.border + 1,) * 2, bool)
    layer, mask = head.layers[v], head.mask(v)
    touched = layer != UNTOUCHED
    rim = ndimage.binary_dilation(touched, around) & ~touched & (mask != IGNORE)
    return np.where(rim, mask, layer).reshape(-1)


def _show(head: Head, place: _Place, moved: np.ndarray) -> None:
    """A view's render and mask after its Gaussians' rows moved; what no edit moved stays as the label stage had it."""
    settings, v, pixel = head.settings, place.view, place.pixel
    head.shown[v][pixel] += place.weights @ moved
    raw, confidence, alpha = (x[v].reshape(-1) for x in (head.raw, head.confidence, head.alpha))
    # All places as one picture, one pixel wide.
    labels, sure = to_masks(
        head.shown[v][pixel][None, :, None], alpha[pixel][None, :, None], settings.labelset, settings.mask
    )
    changed = (labels.reshape(-1) != raw[pixel]).any()
    raw[pixel], confidence[pixel] = labels.reshape(-1), sure.reshape(-1)
    if changed:
        part = slice(v, v + 1)
        cleaned = clean(head.raw[part], head.confidence[part], settings.labelset, settings.mask)
        head.masks[part] = np.where(cleaned == head.start[part], head.refined[part], cleaned)
