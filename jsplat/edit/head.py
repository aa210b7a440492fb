"""A head under edit: what never changes with an edit, and the labels as they stand."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, UInt8

from jsplat.edit.blend_matrix import blend_weights
from jsplat.edit.voices import Voice, heard
from jsplat.errors import InputError
from jsplat.labels import MaskConfig, SharpenConfig, VoterLabels, clean, to_masks
from jsplat.labels.opinions import Opinions
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera
from jsplat.raster.scene import Scene

UNTOUCHED = IGNORE  # in a layer of edits: the person said nothing here


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """How edits enter the vote.

    Attributes:
        weight: how many times all other voters together a person counts for a Gaussian seen as well as it can be.
        visibility_power: how fast that falls where a Gaussian is seen less well than in its best view.
        half_weight: a Gaussian's best view counts as at least this blend weight (pixels).
        class_margin: by how much the class that a person names is to lead every other, in [0, 1).
        border: pixels around an edit that count as agreed to as they were shown; whoever draws an edge says both sides.
        rounds: EM updates of a re-vote.
        min_influence: Gaussians on which a person has less of a share than this are not voted on again.
        min_pixel_weight: a pixel of any view takes part if such Gaussians have more blend weight there than this.
        min_class_probability: a class takes part in the vote on a view if it has more than this in some pixel, or was
            named.
        min_blend_weight: blend weights up to this are left out of the cached matrix.
        changed_pixels: another view counts as changed by an edit when more pixels than this changed their class.
        outline_tolerance: pixels by which another program may move outlines before it counts as an edit (`--from`); 0:
            exactly.
    """

    weight: float = 10.0
    visibility_power: float = 1.5
    half_weight: float = 0.5
    class_margin: float = 0.5
    border: int = 2
    rounds: int = 4
    min_influence: float = 0.05
    min_pixel_weight: float = 0.03
    min_class_probability: float = 0.02
    min_blend_weight: float = 0.002
    changed_pixels: int = 20
    outline_tolerance: int = 1

    def __post_init__(self):
        for name in (
            "weight",
            "half_weight",
            "visibility_power",
            "rounds",
            "min_influence",
            "min_pixel_weight",
            "min_class_probability",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"EditConfig.{name}", wanted="a positive number", got=getattr(self, name))
        if not 0 <= self.class_margin < 1:
            raise InputError("EditConfig.class_margin", wanted="a number from 0 to below 1", got=self.class_margin)
        if min(self.border, self.changed_pixels, self.outline_tolerance) < 0 or not 0 <= self.min_blend_weight < 0.1:
            got = (self.border, self.min_blend_weight, self.changed_pixels, self.outline_tolerance)
            raise InputError(
                "EditConfig: border, min_blend_weight, changed_pixels, outline_tolerance",
                wanted="0 or more, min_blend_weight below 0.1",
                got=got,
            )


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
        voices: what the voters of the label stage say.
        voted_probabilities: the label stage's table; `probabilities`: the table as it stands; `shown`: its render.
        refined: masks of the label stage; `start`: the same from the matrix here, to see what an edit changed.
        raw: class ids of `shown` before small regions are cleaned away; `confidence`: how sure they are.
        masks: as they stand, without what a person said in that very view.
        layers: view -> "h w", the class a person gave, or UNTOUCHED.
    """

    settings: Settings
    weights: list[sp.csc_matrix]
    best: Float[np.ndarray, " n"]
    alpha: Float[np.ndarray, "v h w"]
    voices: tuple[Voice, ...]
    voted_probabilities: Float[np.ndarray, "n k"]
    probabilities: Float[np.ndarray, "n k"]
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


def prepare(
    scene: Scene,
    cameras: Camera,
    first: Opinions | Float[np.ndarray, "v h w k"],
    known: dict[str, np.ndarray],
    trust: Float[np.ndarray, " v"],
    settings: Settings,
    others: Sequence[VoterLabels] = (),
) -> Head:
    """Everything a re-vote of one head needs; the slow part, once per head.

    Args:
        first: the first voter's class probabilities.
        known: of the label stage: "rows_refined", "refined" and "alpha".
        trust: weight of each of its views; with `others`: the further voters, as `sharpen` had them.
    """
    weights = blend_weights(scene.gaussians, cameras, settings.edit.min_blend_weight)
    probabilities = np.asarray(known["rows_refined"], np.float32)
    shown = np.empty((len(weights), known["alpha"][0].size, probabilities.shape[1]), np.float32)
    for v, seen in enumerate(weights):
        shown[v] = seen @ probabilities
    solid = (known["alpha"] >= settings.sharpen.alpha_gate).reshape(len(weights), -1).astype(np.float32)
    pictures = shown.reshape(*known["alpha"].shape, -1)
    raw, confidence = to_masks(pictures, known["alpha"], settings.labelset, settings.mask)
    return Head(
        settings=settings,
        weights=weights,
        best=np.max([np.asarray(w.sum(0)).ravel() for w in weights], 0),
        alpha=known["alpha"],
        voices=heard(first, trust, others, shown, solid, settings.sharpen),
        voted_probabilities=probabilities,
        probabilities=probabilities.copy(),
        shown=shown,
        refined=known["refined"],
        start=clean(raw, confidence, settings.labelset, settings.mask),
        raw=raw,
        confidence=confidence,
        masks=known["refined"].copy(),
    )
