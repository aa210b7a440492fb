"""An edit is evidence, not a patch: what a person says about some pixels goes into the vote on the geometry.

The vote is redone for the Gaussians under the edited pixels by the update of `jsplat.labels.sharpen` with one more
voice. Let r be the parser's side of the update (all views, each believed through its own confusion matrix) and h the
person's (the classes said, shared out to the Gaussians by responsibility), both rows that sum to 1. Then

    row = (1 - a) r + a h,   a = s / (1 + s),   s = weight * (m / best)^power

with m the Gaussian's blend weight in the pixels the person spoke about and `best` the most it has in any view: whoever
sees a Gaussian as well as any view does counts `weight` times as much as all the parser's views together; who sees it
at a grazing angle, where small parts are thinner than a pixel, hardly counts. A person names the class that leads in a
pixel, not one that fills it: the target of such a pixel is the mixture nearest to what shows there in which that class
leads by `lead`. All other Gaussians stay as they are, so a re-vote costs what a few Gaussians reach, not what the head
has.
"""

import dataclasses
import time

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, UInt8
from scipy import ndimage

from jsplat.camera import Camera
from jsplat.edit.weights import blend_weights
from jsplat.errors import InputError
from jsplat.labels import MaskConfig, SharpenConfig, clean, to_masks
from jsplat.labelset import IGNORE, LabelSet
from jsplat.scene import Scene

UNTOUCHED = IGNORE  # in a layer of edits: the person said nothing here


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """How edits enter the vote.

    Attributes:
        weight: how many times the whole parser's vote a person counts for a Gaussian seen as well as it can be.
        power: how fast that falls where a Gaussian is seen less well than in its best view.
        half_weight: a Gaussian's best view counts as at least this blend weight (pixels).
        lead: by how much the class that a person names is to lead every other, in [0, 1).
        rim: pixels around an edit that count as agreed to as they were shown; whoever draws an edge says both sides.
        rounds: EM updates of a re-vote.
        least_say: Gaussians on which a person has less of a share than this are not voted on again.
        reach: a pixel of any view takes part if such Gaussians have more blend weight there than this.
        least: blend weights up to this are left out of the cached matrix.
        changed: another view counts as changed by an edit when more pixels than this changed their class.
    """

    weight: float = 10.0
    power: float = 1.5
    half_weight: float = 0.5
    lead: float = 0.5
    rim: int = 2
    rounds: int = 4
    least_say: float = 0.05
    reach: float = 0.03
    least: float = 0.002
    changed: int = 20

    def __post_init__(self):
        for name in ("weight", "half_weight", "power", "rounds", "least_say", "reach"):
            if not getattr(self, name) > 0:
                raise InputError(f"EditConfig.{name}", wanted="a positive number", got=getattr(self, name))
        if not 0 <= self.lead < 1:
            raise InputError("EditConfig.lead", wanted="a number from 0 to below 1", got=self.lead)
        if self.rim < 0 or not 0 <= self.least < 0.1 or self.changed < 0:
            got = (self.rim, self.least, self.changed)
            raise InputError("EditConfig: rim, least, changed", wanted="0 or more, least below 0.1", got=got)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the label stage was run with, and how edits enter."""

    labelset: LabelSet
    sharpen: SharpenConfig
    mask: MaskConfig
    edit: EditConfig = EditConfig()


@dataclasses.dataclass
class Head:
    """One head under edit: what never changes with an edit, and the labels as they stand.

    Pixels are also counted as p = h * w, row by row.

    Attributes:
        weights: per view, blend weight of n Gaussians in p pixels; `best`: a Gaussian's largest sum of a view.
        alpha: of the refined render.
        said, sure: the parser's foreground opinion, and its weight (trust in the view times certainty).
        confusion: per view, how often it says s (last axis) where the consensus is t.
        parser_rows: the label stage's table; `rows`: the table as it stands; `shown`: its render.
        refined: masks of the label stage; `start`: the same from the matrix here, to see what an edit changed.
        raw: class ids of `shown` before small regions are cleaned away; `confidence`: how sure they are.
        masks: as they stand, without what a person said in that very view.
        layers: view -> "h w", the class a person gave, or UNTOUCHED.
    """

    settings: Settings
    weights: list[sp.csc_matrix]
    best: Float[np.ndarray, " n"]
    alpha: Float[np.ndarray, "v h w"]
    said: UInt8[np.ndarray, "v p"]
    sure: Float[np.ndarray, "v p"]
    confusion: Float[np.ndarray, "v k k"]
    parser_rows: Float[np.ndarray, "n k"]
    rows: Float[np.ndarray, "n k"]
    shown: Float[np.ndarray, "v p k"]
    refined: UInt8[np.ndarray, "v h w"]
    start: UInt8[np.ndarray, "v h w"]
    raw: UInt8[np.ndarray, "v h w"]
    confidence: Float[np.ndarray, "v h w"]
    masks: UInt8[np.ndarray, "v h w"]
    layers: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def mask(self, view: int) -> UInt8[np.ndarray, "h w"]:
        """The mask of a view; touched pixels are what the person said."""
        layer = self.layers.get(view)
        return self.masks[view] if layer is None else np.where(layer == UNTOUCHED, self.masks[view], layer)


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


def prepare(
    scene: Scene,
    cameras: Camera,
    first: Float[np.ndarray, "v h w k"],
    known: dict[str, np.ndarray],
    trust: Float[np.ndarray, " v"],
    settings: Settings,
) -> Head:
    """Everything a re-vote of one head needs; the slow part, once per head.

    Args:
        first: the parser's class probabilities.
        known: of the label stage: "rows_refined", "refined" and "alpha".
        trust: weight of each view, as `sharpen` had it.
    """
    sharpen = settings.sharpen
    weights = blend_weights(scene.gaussians, cameras, settings.edit.least)
    rows = np.asarray(known["rows_refined"], np.float32)
    shown = np.stack([w @ rows for w in weights])
    views, k = len(weights), rows.shape[1]
    alpha = known["alpha"].reshape(views, -1)
    said, sure, counts = np.zeros(alpha.shape, np.uint8), np.zeros(alpha.shape, np.float32), np.zeros((views, k, k))
    for v in range(views):
        opinion = first[v].reshape(-1, k).astype(np.float32)
        mass = opinion[:, 1:].sum(-1)
        opinion = opinion / np.maximum(mass, 1e-12)[:, None]
        opinion[:, 0] = 0
        said[v] = opinion.argmax(-1)
        mass = np.where(alpha[v] >= sharpen.alpha_gate, mass, 0)
        entropy = -(opinion * np.log(np.maximum(opinion, 1e-12))).sum(-1) / np.log(k)
        sure[v] = trust[v] * np.clip(1 - entropy, 0, 1) ** sharpen.trust_power * mass
        hard = np.zeros((len(mass), k), np.float32)
        hard[np.arange(len(mass)), said[v]] = mass
        counts[v] = _normalised(shown[v]).T @ hard
    pooled = _normalised(counts.sum(0) + 1e-3)
    pictures = shown.reshape(*known["alpha"].shape, k)
    raw, confidence = to_masks(pictures, known["alpha"], settings.labelset, settings.mask)
    return Head(
        settings=settings,
        weights=weights,
        best=np.max([np.asarray(w.sum(0)).ravel() for w in weights], 0),
        alpha=known["alpha"],
        said=said,
        sure=sure,
        confusion=_normalised(counts + sharpen.pseudo_counts * pooled).astype(np.float32),
        parser_rows=rows,
        rows=rows.copy(),
        shown=shown,
        refined=known["refined"],
        start=clean(raw, confidence, settings.labelset, settings.mask),
        raw=raw,
        confidence=confidence,
        masks=known["refined"].copy(),
    )


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(x.sum(-1, keepdims=True), 1e-12)


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
    others = sum(n > head.settings.edit.changed for v, n in changed.items() if v != view)
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
    return np.flatnonzero(_say(head, mass) >= head.settings.edit.least_say)


def _say(head: Head, mass: np.ndarray, who: np.ndarray | slice = slice(None)) -> np.ndarray:
    """The share a, in [0, 1), that a person has in the vote on Gaussians with this blend weight under what was said."""
    settings = head.settings.edit
    strength = settings.weight * (mass / np.maximum(head.best[who], settings.half_weight)) ** settings.power
    return strength / (1 + strength)


def _vote_again(head: Head, who: np.ndarray) -> None:
    """EM on the rows of a few Gaussians; the others only show through."""
    settings = head.settings
    (view, pixel), reaches = _reached(head, who)
    pulls = reaches.T.tocsr()
    spoken = _spoken(head, view, pixel)
    # "Background" corrects the outline of its own view alone: no Gaussian on the head is background, and the vote
    # removes that class too.
    heard = np.flatnonzero((spoken != UNTOUCHED) & (spoken != 0))
    hears = pulls[:, heard]
    # Classes that play no part here are left out of the arithmetic.
    shown = head.shown[view, pixel]
    part = np.flatnonzero((shown.max(0) > 0.02) | (np.bincount(spoken[heard], minlength=shown.shape[1]) > 0))
    name = np.searchsorted(part, spoken[heard])
    rest = shown[:, part] - reaches @ head.rows[who][:, part]
    said = head.said[view, pixel]
    likelihood = np.moveaxis(head.confusion, 1, 2)[view, said][:, part]
    # A pixel that a person spoke about says nothing else.
    sure = np.where(spoken == UNTOUCHED, head.sure[view, pixel], 0)[:, None].astype(np.float32)
    person = _say(head, np.asarray(hears.sum(1)).ravel(), who)[:, None]
    named = np.eye(len(part), dtype=np.float32)[name]
    base = head.parser_rows[who][:, part]
    seed = np.float32(0.02) * person  # a class that a Gaussian never had would stay at 0
    table = (1 - seed) * base + seed * _normalised(hears @ named)
    for _ in range(settings.edit.rounds):
        prior = _normalised(rest + reaches @ table)
        inverse = np.where(prior > 1e-6, 1 / np.maximum(prior, 1e-3), 0)
        parser = table * (pulls @ (sure * _normalised(prior * likelihood) * inverse))
        human = table * (hears @ (_won(prior[heard], name, settings.edit.lead) * inverse[heard]))
        parser = np.where(parser.sum(-1, keepdims=True) > 1e-6, _normalised(parser), base)
        table = _normalised((1 - person) * parser + person * _normalised(human)).astype(np.float32)
    new = shown.copy()
    new[:, part] = rest + reaches @ table
    head.shown[view, pixel] = new
    head.rows[np.ix_(who, part)] = table
    _repaint(head, view, pixel)


def _won(prior: np.ndarray, named: np.ndarray, lead: float) -> np.ndarray:
    """The mixture nearest to `prior` in which the named class leads every other by `lead`.

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
    return _normalised(won)


def _reached(head: Head, who: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], sp.csr_matrix]:
    """Where some Gaussians show, as (view, pixel) of p places, and their weights there, p x len(who)."""
    views, pixels, parts = [], [], []
    for v, matrix in enumerate(head.weights):
        part = matrix[:, who]
        place = np.flatnonzero(
            np.bincount(part.indices, part.data, minlength=part.shape[0]) >= head.settings.edit.reach
        )
        row = np.full(part.shape[0], -1, np.int32)
        row[place] = np.arange(len(place))
        kept = row[part.indices] >= 0
        ends = np.concatenate([[0], np.cumsum(kept)])[part.indptr]
        small = sp.csc_matrix((part.data[kept], row[part.indices[kept]], ends), shape=(len(place), len(who)))
        views.append(np.full(len(place), v))
        pixels.append(place)
        parts.append(small.tocsr())
    return (np.concatenate(views), np.concatenate(pixels)), sp.vstack(parts, "csr")  # type: ignore[return-value]


def _spoken(head: Head, view: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """What people said at some places: classes, or UNTOUCHED; the rim of an edit counts as it was shown."""
    out = np.full(len(view), UNTOUCHED, np.uint8)
    around = np.ones((2 * head.settings.edit.rim + 1,) * 2, bool)
    for v, layer in head.layers.items():
        touched = layer != UNTOUCHED
        rim = ndimage.binary_dilation(touched, around) & ~touched & (head.mask(v) != IGNORE)
        said = np.where(rim, head.mask(v), layer)
        here = view == v
        out[here] = said.reshape(-1)[pixel[here]]
    return out


def _repaint(head: Head, view: np.ndarray, pixel: np.ndarray) -> None:
    """Masks from the render at the places where it moved; what no edit moved stays as the label stage had it."""
    settings = head.settings
    flat = [x.reshape(len(head.masks), -1) for x in (head.raw, head.confidence, head.alpha)]
    raw, _, alpha = (x[view, pixel] for x in flat)
    column = (head.shown[view, pixel][None, :, None], alpha[None, :, None])  # all places as one picture, one pixel wide
    labels, sure = (x.reshape(-1) for x in to_masks(*column, settings.labelset, settings.mask))
    flat[0][view, pixel], flat[1][view, pixel] = labels, sure
    for v in np.unique(view[labels != raw]):
        part = slice(v, v + 1)
        labels = clean(head.raw[part], head.confidence[part], settings.labelset, settings.mask)
        head.masks[part] = np.where(labels == head.start[part], head.refined[part], labels)
