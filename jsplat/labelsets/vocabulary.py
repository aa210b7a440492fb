"""What the labels of masks from elsewhere may mean: one class, several, or nothing; and sets that know only bodies."""

import dataclasses
from collections.abc import Mapping

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.labelsets.tables import COVERED_BY, LABEL_SETS

_FACE = "skin l_brow r_brow l_eye r_eye nose mouth u_lip l_lip l_ear r_ear"
_CLOTH = "Upper-clothes Dress Coat Jumpsuits Scarf UpperClothes"
_LIMBS = "Glove Socks Pants Skirt Left-arm Right-arm Left-leg Right-leg Left-shoe Right-shoe Belt Bag body-skin others"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The labels of a source of masks.

    Attributes:
        labelset: their names and colours, by number.
        means: label -> classes it may mean; a label that is not here means the class of its name (a part without a
            side: both sides), or what face parsing usually makes of it.
        frontal: whether views from the front are to be trusted more, as those of face parsers; None: if a label means
            the nose alone.
        numbered: the numbers in a mask decide what it means, not the colours, because nothing says what they are.
    """

    labelset: LabelSet
    means: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    frontal: bool | None = None
    numbered: bool = False

    def ids_in(self, classes: LabelSet, where: str) -> tuple[frozenset[int], ...]:
        """Per label, the ids of the classes it may mean; empty: it says nothing.

        Raises:
            InputError: (`where`: whose labels) one that means nothing known.
        """
        found, homeless = {}, []
        for name in self.labelset.names:
            told = self._told(name, classes)
            if told is None:
                homeless.append(name)
            found[name] = told or ()
        if homeless:
            hint = f'a table file says so: {{"means": {{"{homeless[0]}": [classes] or null}}}}'
            wanted = f"labels whose meaning among {', '.join(classes.names)} is known"
            raise InputError(where, wanted=wanted, got=", ".join(homeless), hint=hint)
        if strange := [name for names in found.values() for name in names if name not in classes.names]:
            raise InputError(
                f"{where}: means", wanted=f"classes among {', '.join(classes.names)}", got=", ".join(strange)
            )
        # A public face-parsing set without a class paints what lies around it there, as its authors say.
        if not self.means and self.labelset.names in [known.names for known in LABEL_SETS.values()]:
            for missing in (n for n in classes.names if not any(n in of for of in found.values())):
                cover = COVERED_BY.get(missing)
                cover = COVERED_BY.get(cover) if cover is not None and cover not in found else cover
                if cover in found:
                    found[cover] = (*found[cover], missing)
        return tuple(frozenset(map(classes.id, names)) for names in found.values())

    def _told(self, name: str, classes: LabelSet) -> tuple[str, ...] | None:
        if name in self.means:
            return self.means[name]
        if name in classes.names:
            return (name,)
        for stem in (name, name.removesuffix("s")):
            if sides := tuple(n for n in (f"l_{stem}", f"r_{stem}") if n in classes.names):
                return sides
        if name in COVERED_BY:
            cover = COVERED_BY[name]
            return (cover,) if cover in classes.names else ()
        return None

    def trusts_front(self, ids: tuple[frozenset[int], ...], classes: LabelSet) -> bool:
        """Whether its views are weighed by pose as a parser's are; `ids`: of `ids_in`."""
        if self.frontal is not None:
            return self.frontal
        return "nose" in classes.names and frozenset({classes.id("nose")}) in ids


def _voc(i: int) -> tuple[int, int, int]:
    """The colour of a number in the palette of Pascal VOC, which most body parsers write: its bits, dealt out."""
    r, g, b = (sum((i >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3)) for c in range(3))
    return r, g, b


def plain_labels(names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...] | None = None) -> LabelSet:
    """Labels without sides, in the colours of Pascal VOC if no others are given."""
    return LabelSet(names, colors or tuple(_voc(i) for i in range(len(names))), names)


def _bodies(names: str) -> Vocabulary:
    labels = plain_labels(tuple(names.split()))
    means: dict[str, tuple[str, ...]] = {str(n): ("cloth",) for n in _CLOTH.split()}
    means |= {str(n): () for n in _LIMBS.split()}
    means |= {"Face": tuple(_FACE.split()), "face-skin": tuple(_FACE.split()), "Hair": ("hair",), "Hat": ("hat",)}
    means |= {"Sunglasses": ("eye_g",), "Torso-skin": ("neck",), "Background": ("background",), "clothes": ("cloth",)}
    return Vocabulary(labels, {n: means[n] for n in labels.names if n in means})


BODIES: dict[str, Vocabulary] = {
    "lip": _bodies(
        "Background Hat Hair Glove Sunglasses Upper-clothes Dress Coat Socks Pants Jumpsuits Scarf Skirt Face "
        "Left-arm Right-arm Left-leg Right-leg Left-shoe Right-shoe"
    ),
    "cihp": _bodies(
        "Background Hat Hair Glove Sunglasses UpperClothes Dress Coat Socks Pants Torso-skin Scarf Skirt Face "
        "Left-arm Right-arm Left-leg Right-leg Left-shoe Right-shoe"
    ),
    "atr": _bodies(
        "Background Hat Hair Sunglasses Upper-clothes Skirt Pants Dress Belt Left-shoe Right-shoe Face "
        "Left-leg Right-leg Left-arm Right-arm Bag Scarf"
    ),
    "selfie": _bodies("background hair body-skin face-skin clothes others"),  # MediaPipe's selfie_multiclass
}
"""Sets that know people, not faces; of necks (but for CIHP), earrings and necklaces they say nothing that is known."""


def known_table(name: str) -> Vocabulary | None:
    """A table by name: a face-parsing set's or a body set's."""
    return Vocabulary(LABEL_SETS[name]) if name in LABEL_SETS else BODIES.get(name)


def table_names() -> str:
    """The names that `known_table` knows."""
    return ", ".join([*LABEL_SETS, *BODIES])


def read_table(said: object, where: str) -> Vocabulary:
    """A table file: {"names": [...], "colors": [[r, g, b], ...], "means": {label: class, [classes] or null},
    "frontal": true or false}; all but the names may be left out.

    Raises:
        InputError: (`where`: the file) anything else.
    """
    wanted = "names of labels by number; perhaps colors, means (label to classes), frontal"
    try:
        assert isinstance(said, dict)
        extra = said.keys() - {"names", "colors", "means", "frontal", "mirror", "rare", "ignore"}
        if extra:
            raise InputError(where, wanted=wanted, got=f"also {', '.join(sorted(map(str, extra)))}")
        names, given = tuple(map(str, said["names"])), said.get("colors")
        colors = None if given is None else tuple((int(r), int(g), int(b)) for r, g, b in given)
        means = {
            str(label): () if of is None else (of,) if isinstance(of, str) else tuple(map(str, of))
            for label, of in said.get("means", {}).items()
        }
        if said.get("frontal") not in (None, True, False):
            raise InputError(f"{where}: frontal", wanted="true or false", got=repr(said["frontal"]))
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(where, wanted=wanted, got=repr(error)) from error
    if strange := [label for label in means if label not in names]:
        raise InputError(f"{where}: means", wanted=f"labels among {', '.join(names)}", got=", ".join(strange))
    return Vocabulary(plain_labels(names, colors), means, said.get("frontal"), colors is None)
