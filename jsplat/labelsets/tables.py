"""The label sets of public face-parsing data, and how ids of one become ids of another.

Every set is named from the subject's point of view, whatever its authors wrote: a viewer-side set (LaPa, HELEN*) simply
has its names exchanged here, so that reading it needs no change of pixels.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet

_COLORS = dict(zip(CELEBAMASK_HQ.names, CELEBAMASK_HQ.colors)) | {"beard": (110, 60, 40), "facewear": (200, 200, 90)}


def _side_of(name: str) -> str:
    """The same part on the other side; l_lip is the lower lip, not a left one."""
    other = {"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]
    return other if other in _COLORS else name


def _table(names: str) -> LabelSet:
    split = tuple(names.split())
    mirror = tuple(_side_of(name) for name in split)
    return LabelSet(split, tuple(_COLORS[n] for n in split), mirror, CELEBAMASK_HQ.rare & set(split))


# Official `face_parsing` code of the data's authors, also EAGRNet and the SegFormer on Hugging Face.
CELEBAMASK_HQ_OFFICIAL = _table(
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip "
    "hair hat ear_r neck_l neck cloth"
)
# FaRL and facer (`celebm`), SegFace.
CELEBAMASK_HQ_FARL = _table(
    "background neck skin cloth l_ear r_ear l_brow r_brow l_eye r_eye nose mouth l_lip u_lip "
    "hair eye_g hat ear_r neck_l"
)
# LaPa's authors count "left" from the viewer's side, as HELEN* does; hence r_brow before l_brow. Ears are skin.
LAPA = _table("background skin r_brow l_brow r_eye l_eye nose u_lip mouth l_lip hair")
# iBugMask's training set is HELEN* turned in depth, so its sides are taken to be HELEN*'s. Skin includes the scalp.
IBUGMASK_14 = _table("background skin r_brow l_brow r_eye l_eye nose u_lip mouth l_lip hair r_ear l_ear eye_g")
FACESYNTHETICS = _table(
    "background skin nose r_eye l_eye r_brow l_brow r_ear l_ear mouth u_lip l_lip neck "
    "hair beard cloth eye_g hat facewear"
)

LABEL_SETS: dict[str, LabelSet] = {
    "celebamask-hq": CELEBAMASK_HQ,
    "celebamask-hq-official": CELEBAMASK_HQ_OFFICIAL,
    "celebamask-hq-farl": CELEBAMASK_HQ_FARL,
    "lapa": LAPA,
    "helen": LAPA,
    "ibugmask": LAPA,
    "ibugmask-14": IBUGMASK_14,
    "facesynthetics": FACESYNTHETICS,
}

# What becomes of a class where the other set has no name for it: the class that covers it there, or None (ignore) where
# annotators disagree or paint what lies underneath.
COVERED_BY: dict[str, str | None] = {
    **{"l_ear": "skin", "r_ear": "skin", "beard": "skin", "eye_g": None, "ear_r": None, "facewear": None},
    **{"neck_l": "neck", "neck": "background", "cloth": "background", "hat": "background"},
}


def label_set(name: str) -> LabelSet:
    """The table of that name in `LABEL_SETS`."""
    if name not in LABEL_SETS:
        raise InputError("label set", wanted=f"one of {', '.join(LABEL_SETS)}", got=repr(name))
    return LABEL_SETS[name]


def swapped(labelset: LabelSet) -> LabelSet:
    """The same ids with left and right exchanged: for data that turn out to be named from the other side."""
    color = dict(zip(labelset.names, labelset.colors))
    return LabelSet(labelset.mirror, tuple(color[n] for n in labelset.mirror), labelset.names, labelset.rare)


def usual_choices(source: LabelSet, target: LabelSet) -> dict[str, str | None]:
    """What to tell `mapping` about classes that only one of two sets has, as face parsing usually does.

    Ears and beard become skin; neck, clothes and hats background; glasses, earrings and face masks are ignored. Where
    the target has classes that the source paints as background (LaPa's neck is background), background is ignored,
    since it says nothing.
    """
    choices = {}
    for name in (n for n in source.names if n not in target.names and n in COVERED_BY):
        to = COVERED_BY[name]
        to = COVERED_BY.get(to) if to is not None and to not in target.names else to
        if to is None or to in target.names:
            choices[name] = to
    if any(COVERED_BY.get(n) == "background" for n in target.names if n not in source.names):
        choices["background"] = None
    return choices


def _merged(name: str, source: LabelSet, target: LabelSet) -> str | None:
    """The sideless class of the target that holds both sides of a source class."""
    other = source.mirror[source.id(name)]
    if other == name or other in target.names:
        return None
    stem = name.removeprefix("l_").removeprefix("r_")
    return next((n for n in (stem, f"{stem}s") if n in target.names and target.mirror[target.id(n)] == n), None)


def mapping(
    source: LabelSet, target: LabelSet, choices: Mapping[str, str | None] | None = None
) -> UInt8[np.ndarray, "256"]:
    """Table that turns ids of one label set into ids of another, by name and side: `mapping(a, b)[labels]`.

    Left and right become one class only where the target has the part without sides (l_brow, r_brow -> brow or brows).
    What the sets merely call alike is taken to be alike.

    Args:
        source: what the ids mean now.
        target: what they shall mean.
        choices: {source class: target class, or None to ignore}; goes before equal names. `usual_choices` has some.

    Raises:
        InputError: names the classes that have no place in the target.
    """
    choices = choices or {}
    strange = [n for n in choices if n not in source.names]
    if strange:
        raise InputError("mapping: choices", wanted=f"classes among {', '.join(source.names)}", got=", ".join(strange))
    table, homeless = np.full(256, IGNORE, np.uint8), []
    for i, name in enumerate(source.names):
        to = choices[name] if name in choices else name if name in target.names else _merged(name, source, target)
        if to is None and name not in choices:
            homeless.append(name)
        elif to is not None:
            table[i] = target.id(to)
            sided, kept = source.mirror[i] != name, target.mirror[target.id(to)] != to
            if kept and not sided:
                raise InputError(f"mapping: {name}", wanted="a class with a side", got=f"one without, for {to}")
    if homeless:
        wanted = f"a choice (a class or ignore) for what {', '.join(target.names)} do not name"
        raise InputError("mapping", wanted=wanted, got=", ".join(homeless))
    return table


def relabel(
    labels: UInt8[np.ndarray, "*b h w"],
    source: LabelSet,
    target: LabelSet,
    choices: Mapping[str, str | None] | None = None,
) -> UInt8[np.ndarray, "*b h w"]:
    """Label maps of one set in the ids of another; see `mapping`."""
    source.check(labels, "relabel: labels")
    return mapping(source, target, choices)[labels]
