"""What the labels of masks from elsewhere may mean: one class, several, or nothing; and sets that know only bodies."""

import dataclasses
from collections.abc import Mapping

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.labelsets.tables import LABEL_SETS

_FACE = "skin l_brow r_brow l_eye r_eye nose mouth u_lip l_lip l_ear r_ear"
_ON_SKIN = ("l_brow", "r_brow", "l_eye", "r_eye", "nose", "u_lip", "l_lip", "l_ear", "r_ear", "beard", "facewear")
_LIES_ON: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_ON_SKIN, ("skin",)),
    "mouth": ("u_lip", "l_lip"),
    "eye_g": ("skin", "l_eye", "r_eye"),
    "ear_r": ("l_ear", "r_ear"),
    "neck_l": ("neck",),
    "skin": ("background",),
}
_AROUND: Mapping[str, tuple[str, ...]] = dict.fromkeys(("hair", "hat", "neck", "cloth"), ("background",))
"""What is painted where a set has no class for a part of a face; and around it, which sets do differently."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The labels of a source of masks.

    Attributes:
        labelset: their names and colours, by number.
        means: label -> classes it may mean; a label that is not here means the class of its name (a part without a
            side: both sides). A class that the set in question lacks is what it lies on there.
        frontal: whether views from the front are to be trusted more, as those of face parsers; None: if a label means
            the nose alone.
        numbered: True: the numbers in a mask decide what it means, because nothing says what its colours are; False:
            the colours do, in grey masks too; None: the numbers of grey masks, else the colours.
    """

    labelset: LabelSet
    means: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    frontal: bool | None = None
    numbered: bool | None = None

    def ids_in(self, classes: LabelSet, where: str) -> tuple[frozenset[int], ...]:
        """Per label, the ids of the classes it may mean; empty: it says nothing.

        A part of a face that no label means is painted as what it lies on: a nose as skin, or as background where skin
        has no label; in public face-parsing sets, whose authors say so, the rest as background. Else nothing is known.

        Raises:
            InputError: (`where`: whose labels) one that means nothing known.
        """
        found = self._told(classes, where)
        for missing, labels in self._covers(found, classes).items():
            for label in labels:
                found[label] = (*found[label], missing)
        return tuple(frozenset(map(classes.id, names)) for names in found.values())

    def presumed(self, classes: LabelSet, where: str) -> str:
        """In words, what `ids_in` makes of classes that no label means; "" if there are no such classes."""
        stand: dict[str, list[str]] = {}
        for missing, labels in self._covers(self._told(classes, where), classes).items():
            stand.setdefault(" or ".join(labels) or "not known what", []).append(missing)
        return "; ".join(f"{labels} for {', '.join(names)}" for labels, names in stand.items())

    def _covers(self, found: Mapping[str, tuple[str, ...]], classes: LabelSet) -> dict[str, list[str]]:
        """Class that no label means -> the labels that are painted there."""
        named = {name for names in found.values() for name in names}
        public = not self.means and self.labelset.names in [known.names for known in LABEL_SETS.values()]
        lies_on = {**_LIES_ON, **_AROUND} if public else _LIES_ON

        def labels_of(name: str) -> list[str]:
            if name in named:
                return [label for label, names in found.items() if name in names]
            return list(dict.fromkeys(label for under in lies_on.get(name, ()) for label in labels_of(under)))

        return {name: labels_of(name) for name in classes.names if name not in named}

    def _told(self, classes: LabelSet, where: str) -> dict[str, tuple[str, ...]]:
        found, homeless = {}, []
        for label in self.labelset.names:
            named = _known(label, classes)
            if label in self.means:
                named = tuple(n for of in self.means[label] for n in _known(of, classes) or (of,))
            if named is None:
                homeless.append(label)
            found[label] = tuple(dict.fromkeys(named or ()))
        if homeless:
            hint = f'a table file says so: {{"means": {{"{homeless[0]}": [classes] or null}}}}'
            wanted = f"labels whose meaning among {', '.join(classes.names)} is known"
            raise InputError(where, wanted=wanted, got=", ".join(homeless), hint=hint)
        if strange := [name for names in found.values() for name in names if name not in classes.names]:
            raise InputError(
                f"{where}: means", wanted=f"classes among {', '.join(classes.names)}", got=", ".join(strange)
            )
        return found

    def trusts_front(self, ids: tuple[frozenset[int], ...], classes: LabelSet) -> bool:
        """Whether its views are weighed by pose as a parser's are; `ids`: of `ids_in`."""
        if self.frontal is not None:
            return self.frontal
        return "nose" in classes.names and frozenset({classes.id("nose")}) in ids


def _known(name: str, classes: LabelSet) -> tuple[str, ...] | None:
    """The classes that a word means: its own, both sides of it, the part without sides, or what it lies on."""
    if name in classes.names:
        return (name,)
    for stem in (name, name.removesuffix("s")):
        if sides := tuple(n for n in (f"l_{stem}", f"r_{stem}") if n in classes.names):
            return sides
    under = _LIES_ON.get(name, _AROUND.get(name))
    if under is None:
        return None
    both = [n for n in (name[2:], f"{name[2:]}s") if name[1] == "_" and n in classes.names]
    return tuple(both[:1]) or tuple(n for of in under for n in _known(of, classes) or ())


def _voc(i: int) -> tuple[int, int, int]:
    """The colour of a number in the palette of Pascal VOC, which most body parsers write: its bits, dealt out."""
    r, g, b = (sum((i >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3)) for c in range(3))
    return r, g, b


def plain_labels(names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...] | None = None) -> LabelSet:
    """Labels without sides, in the colours of Pascal VOC if no others are given."""
    return LabelSet(names, colors or tuple(_voc(i) for i in range(len(names))), names)


def _bodies(names: str, told: Mapping[str, str], numbered: bool | None = None) -> Vocabulary:
    """Labels in order, and what those of them mean that say anything about heads."""
    labels = plain_labels(tuple(names.split()))
    means = {label: tuple(told.get(label, "").split()) for label in labels.names}
    return Vocabulary(labels, means, numbered=numbered)


_CLOTHES = ("Upper-clothes", "UpperClothes", "Dress", "Coat", "Jumpsuits", "Scarf")
_PEOPLE = dict.fromkeys(_CLOTHES, "cloth") | {
    "Background": "background",
    "Hat": "hat",
    "Hair": "hair",
    "Sunglasses": "eye_g",
    "Face": _FACE,
}
_SAPIENS = dict.fromkeys(("Lower_Teeth", "Upper_Teeth", "Tongue"), "mouth") | {
    "Background": "background",
    "Hair": "hair",
    "Face_Neck": f"{_FACE} neck neck_l",
    "Torso": "neck",
    "Upper_Clothing": "cloth",
    "Lower_Lip": "l_lip",
    "Upper_Lip": "u_lip",
}

BODIES: dict[str, Vocabulary] = {
    "lip": _bodies(
        "Background Hat Hair Glove Sunglasses Upper-clothes Dress Coat Socks Pants Jumpsuits Scarf Skirt Face "
        "Left-arm Right-arm Left-leg Right-leg Left-shoe Right-shoe",
        _PEOPLE,
    ),
    "cihp": _bodies(
        "Background Hat Hair Glove Sunglasses UpperClothes Dress Coat Socks Pants Torso-skin Scarf Skirt Face "
        "Left-arm Right-arm Left-leg Right-leg Left-shoe Right-shoe",
        _PEOPLE | {"Torso-skin": "neck"},
    ),
    "atr": _bodies(
        "Background Hat Hair Sunglasses Upper-clothes Skirt Pants Dress Belt Left-shoe Right-shoe Face "
        "Left-leg Right-leg Left-arm Right-arm Bag Scarf",
        _PEOPLE,
    ),
    # MediaPipe's selfie_multiclass.
    "selfie": _bodies(
        "background hair body-skin face-skin clothes others",
        {"background": "background", "hair": "hair", "body-skin": "neck", "face-skin": _FACE, "clothes": "cloth"},
        numbered=True,
    ),
    # The 28 parts of Sapiens; its face model has the labels of `facesynthetics`.
    "sapiens": _bodies(
        "Background Apparel Face_Neck Hair Left_Foot Left_Hand Left_Lower_Arm Left_Lower_Leg Left_Shoe Left_Sock "
        "Left_Upper_Arm Left_Upper_Leg Lower_Clothing Right_Foot Right_Hand Right_Lower_Arm Right_Lower_Leg Right_Shoe "
        "Right_Sock Right_Upper_Arm Right_Upper_Leg Torso Upper_Clothing Lower_Lip Upper_Lip Lower_Teeth Upper_Teeth "
        "Tongue",
        _SAPIENS,
        numbered=True,
    ),
}
"""Sets that know people, not faces. Labels that say nothing about heads mean nothing; sides are on limbs alone."""


def known_table(name: str) -> Vocabulary | None:
    """A table by name: a face-parsing set's or a body set's."""
    return Vocabulary(LABEL_SETS[name]) if name in LABEL_SETS else BODIES.get(name)


def table_names() -> str:
    """The names that `known_table` knows."""
    return ", ".join([*LABEL_SETS, *BODIES])


def read_table(table: object, where: str) -> Vocabulary:
    """A table file: {"names": [...], "colors": [[r, g, b], ...], "means": {label: class, [classes] or null},
    "frontal": true or false}; all but the names may be left out.

    Raises:
        InputError: (`where`: the file) anything else.
    """
    wanted = "names of labels by number; perhaps colors, means (label to classes), frontal"
    try:
        assert isinstance(table, dict)
        extra = table.keys() - {"names", "colors", "means", "frontal", "mirror", "rare", "ignore"}
        if extra:
            raise InputError(where, wanted=wanted, got=f"also {', '.join(sorted(map(str, extra)))}")
        names, given = tuple(map(str, table["names"])), table.get("colors")
        colors = None if given is None else tuple((int(r), int(g), int(b)) for r, g, b in given)
        if colors is not None and len(set(colors)) < len(colors):
            raise InputError(f"{where}: colors", wanted="one of its own for every label", got=given)
        means = {
            str(label): () if of is None else (of,) if isinstance(of, str) else tuple(map(str, of))
            for label, of in table.get("means", {}).items()
        }
        if table.get("frontal") not in (None, True, False):
            raise InputError(f"{where}: frontal", wanted="true or false", got=repr(table["frontal"]))
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(where, wanted=wanted, got=repr(error)) from error
    if strange := [label for label in means if label not in names]:
        raise InputError(f"{where}: means", wanted=f"labels among {', '.join(names)}", got=", ".join(strange))
    return Vocabulary(plain_labels(names, colors), means, table.get("frontal"), colors is None)
