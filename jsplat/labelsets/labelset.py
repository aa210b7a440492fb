"""Class names, sides and colours. Left and right are the subject's; masks carry names, never bare ids."""

import dataclasses
import typing

import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError

IGNORE = 255
# What ignored pixels look like, as Pascal VOC paints its void; no class of ours has this colour.
IGNORE_COLOR = (224, 224, 192)


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a label map, in the order of their ids.

    Attributes:
        names: class names; a label map holds indices into them, or `IGNORE`.
        colors: RGB in 0..255 per class.
        mirror: per class, the name it turns into when the picture is flipped left to right.
        rare: classes left out of the core score (accessories few people wear).
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    mirror: tuple[str, ...]
    rare: frozenset[str] = frozenset()

    def __post_init__(self):
        if len(set(self.names)) != len(self.names) or len(self.names) >= IGNORE:
            raise InputError("LabelSet.names", wanted=f"fewer than {IGNORE} unique names", got=self.names)
        if len(self.colors) != len(self.names):
            raise InputError("LabelSet.colors", wanted=f"{len(self.names)} colours", got=len(self.colors))
        if not all(0 <= c <= 255 for color in self.colors for c in color):
            raise InputError("LabelSet.colors", wanted="numbers from 0 to 255", got=f"{self.colors}"[:200])
        if len(self.mirror) != len(self.names) or set(self.mirror) != set(self.names):
            raise InputError("LabelSet.mirror", wanted=f"a permutation of {self.names}", got=self.mirror)
        if not np.array_equal(self.mirror_ids[self.mirror_ids], np.arange(len(self))):
            raise InputError("LabelSet.mirror", wanted="names that swap in pairs", got=self.mirror)
        if not self.rare <= set(self.names):
            raise InputError("LabelSet.rare", wanted=f"some of {self.names}", got=sorted(self.rare - set(self.names)))

    def __len__(self) -> int:
        return len(self.names)

    def id(self, name: str) -> int:
        """The id of a class name."""
        if name not in self.names:
            raise InputError("class name", wanted=f"one of {', '.join(self.names)}", got=repr(name))
        return self.names.index(name)

    @property
    def mirror_ids(self) -> np.ndarray:
        """`k`: the id each class gets when the picture is flipped."""
        return np.asarray([self.names.index(m) for m in self.mirror])

    @property
    def merged_ids(self) -> np.ndarray:
        """`k`: ids with the two sides of a pair merged into the lower id."""
        return np.minimum(np.arange(len(self)), self.mirror_ids)

    @property
    def core_ids(self) -> np.ndarray:
        """Ids of the foreground classes that count for the core score."""
        return np.asarray([i for i, n in enumerate(self.names) if i > 0 and n not in self.rare])

    def colorize(self, labels: np.ndarray) -> UInt8[np.ndarray, "*b h w 3"]:
        """RGB picture of a label map; `IGNORE` gets `IGNORE_COLOR`."""
        table = np.full((256, 3), IGNORE_COLOR, np.uint8)
        table[: len(self)] = self.colors
        return table[np.asarray(labels, np.uint8)]

    def check(self, labels: np.ndarray, where: str) -> None:
        """Raises InputError when a label map holds an id that is no class."""
        bad = np.setdiff1d(np.unique(labels), [*range(len(self)), IGNORE])
        if bad.size:
            raise InputError(where, wanted=f"class ids below {len(self)} or {IGNORE}", got=bad.tolist())

    def to_json(self) -> dict:
        """A JSON-ready description."""
        return {
            "names": list(self.names),
            "colors": [list(c) for c in self.colors],
            "mirror": list(self.mirror),
            "rare": sorted(self.rare),
        }

    @staticmethod
    def from_json(data: typing.Any) -> "LabelSet":
        """The inverse of `to_json`."""
        try:
            colors = tuple((int(r), int(g), int(b)) for r, g, b in data["colors"])
            return LabelSet(tuple(data["names"]), colors, tuple(data["mirror"]), frozenset(data["rare"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("label set", wanted="names, colors, mirror, rare", got=error) from error


_CELEBAMASK = {  # name: (colour, mirrored name), in the order of zllrunning/face-parsing.PyTorch
    "background": ((0, 0, 0), "background"),
    "skin": ((255, 178, 140), "skin"),
    "l_brow": ((60, 60, 255), "r_brow"),
    "r_brow": ((0, 190, 255), "l_brow"),
    "l_eye": ((0, 160, 60), "r_eye"),
    "r_eye": ((150, 60, 220), "l_eye"),
    "eye_g": ((120, 120, 0), "eye_g"),
    "l_ear": ((0, 230, 150), "r_ear"),
    "r_ear": ((255, 235, 0), "l_ear"),
    "ear_r": ((255, 255, 255), "ear_r"),
    "nose": ((255, 70, 70), "nose"),
    "mouth": ((120, 0, 0), "mouth"),
    "u_lip": ((255, 0, 160), "u_lip"),
    "l_lip": ((255, 130, 0), "l_lip"),
    "neck": ((190, 130, 40), "neck"),
    "neck_l": ((0, 255, 255), "neck_l"),
    "cloth": ((70, 100, 170), "cloth"),
    "hair": ((90, 140, 130), "hair"),
    "hat": ((190, 0, 200), "hat"),
}

CELEBAMASK_HQ = LabelSet(
    names=tuple(_CELEBAMASK),
    colors=tuple(color for color, _ in _CELEBAMASK.values()),
    mirror=tuple(mirror for _, mirror in _CELEBAMASK.values()),
    rare=frozenset({"eye_g", "ear_r", "neck_l", "hat"}),
)
