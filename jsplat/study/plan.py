"""What raters are shown: which photographs, which two masks on which side, in which order; and the key to it."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet

SIDE_YAW = 60.0  # degrees; from here on a view counts as one from the side, as in the scores
_DIFFERENT = 0.5  # share of the foreground that a spoilt mask of an attention check must change


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """How much a rater is asked.

    Attributes:
        pairs: pairs of masks for each comparison; half of them from the side, where there are so many.
        ratings: photographs for each comparison whose two masks are also rated one by one, 1 to 5.
        checks: attention checks, pairs in which one mask is grossly wrong.
        forgiven: so many failed checks do not yet drop a rater.
    """

    pairs: int = 20
    ratings: int = 5
    checks: int = 4
    forgiven: int = 0

    def __post_init__(self):
        for name, least in (("pairs", 1), ("ratings", 0), ("checks", 1), ("forgiven", 0)):
            if getattr(self, name) < least:
                raise InputError(f"StudyConfig.{name}", wanted=f"at least {least}", got=getattr(self, name))
        if self.forgiven >= self.checks:
            raise InputError("StudyConfig.forgiven", wanted=f"fewer than the {self.checks} checks", got=self.forgiven)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One photograph and the masks that methods gave it.

    Attributes:
        identity, view: whose, and which of their views.
        yaw: degrees.
        photo: sRGB.
        masks: class ids or IGNORE, by method.
    """

    identity: str
    view: int
    yaw: float
    photo: UInt8[np.ndarray, "h w 3"]
    masks: dict[str, UInt8[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Item:
    """One question: two masks (which is better?) or one (how good is it?) on a photograph.

    Attributes:
        id: says nothing.
        masks: as shown, left first.
    """

    id: str
    photo: UInt8[np.ndarray, "h w 3"]
    masks: tuple[UInt8[np.ndarray, "h w"], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study: what raters see, in their order, and the key, JSON-ready, which they do not."""

    study: str
    items: tuple[Item, ...]
    key: dict


def plan(
    photographs: Sequence[Photograph],
    comparisons: Sequence[tuple[str, str]],
    labelset: LabelSet,
    config: StudyConfig,
    seed: int,
) -> Plan:
    """Draws a study; the same arguments give the same one.

    Args:
        photographs: with the masks to choose from; pairs of equal masks are no question and are left out.
        comparisons: pairs of methods.

    Raises:
        InputError: too few photographs on which the two masks differ.
    """
    if not comparisons:
        raise InputError("study: comparisons", wanted="at least one pair of methods", got="none")
    rng = np.random.default_rng(seed)
    pairs: list[tuple[dict, Item]] = []
    singles: dict[tuple[str, int], tuple[dict, Item]] = {}
    for first, second in comparisons:
        able = [i for i, p in enumerate(photographs) if first in p.masks and second in p.masks]
        able = [i for i in able if not np.array_equal(photographs[i].masks[first], photographs[i].masks[second])]
        chosen = _choose(photographs, able, config.pairs, f"study: pairs of {first} and {second}", rng)
        for i in chosen:
            left, right = rng.permutation([first, second]).tolist()
            about = {"kind": "pair", "left": left, "right": right}
            pairs.append(_item(photographs[i], about, [photographs[i].masks[m] for m in (left, right)], rng))
        rated = _choose(photographs, able, config.ratings, f"study: ratings of {first} and {second}", rng)
        for i in rated:
            for method in (first, second):  # a method of two comparisons is rated once on a photograph
                about, mask = {"kind": "rating", "method": method}, photographs[i].masks[method]
                singles.setdefault((method, i), _item(photographs[i], about, [mask], rng))
    pairs += _checks(photographs, comparisons, labelset, config.checks, rng)
    both = [[group[i] for i in rng.permutation(len(group))] for group in (pairs, list(singles.values()))]
    shown = [entry for group in both for entry in group]
    items = {item.id: about for about, item in shown}
    key = {"comparisons": [list(c) for c in comparisons], "seed": seed, "config": dataclasses.asdict(config)}
    key["items"] = items
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    for _, item in shown:
        digest.update(b"".join(np.ascontiguousarray(x).tobytes() for x in (item.photo, *item.masks)))
    study = digest.hexdigest()[:16]
    return Plan(study, tuple(item for _, item in shown), {"study": study, **key})


def _item(of: Photograph, about: dict, masks: list[np.ndarray], rng: np.random.Generator) -> tuple[dict, Item]:
    place = {"identity": of.identity, "view": of.view, "yaw": round(float(of.yaw), 1)}
    return about | place, Item(rng.bytes(6).hex(), of.photo, tuple(masks))


def _choose(
    photographs: Sequence[Photograph], able: list[int], count: int, where: str, rng: np.random.Generator
) -> list[int]:
    """Half from the side, half from the rest; where one half is short, the other fills up."""
    if len(able) < count:
        wanted = f"at most {len(able)}, the photographs where the two differ"
        raise InputError(where, wanted=wanted, got=count, hint="ask for fewer with --pairs and --ratings")
    mixed = [able[i] for i in rng.permutation(len(able))]
    side = [i for i in mixed if abs(photographs[i].yaw) >= SIDE_YAW]
    rest = [i for i in mixed if abs(photographs[i].yaw) < SIDE_YAW]
    of_side = min(len(side), max(count - len(rest), (count + 1) // 2))
    return side[:of_side] + rest[: count - of_side]


def spoilt(mask: UInt8[np.ndarray, "h w"], k: int) -> UInt8[np.ndarray, "h w"]:
    """A mask nobody can take for right: upside down, every foreground class of `k` exchanged for another."""
    turned = mask[::-1]
    moved = 1 + (turned.astype(int) - 1 + max((k - 1) // 2, 1)) % max(k - 1, 1)
    return np.where((turned == 0) | (turned == IGNORE), turned, moved).astype(np.uint8)


def _checks(
    photographs: Sequence[Photograph],
    comparisons: Sequence[tuple[str, str]],
    labelset: LabelSet,
    count: int,
    rng: np.random.Generator,
) -> list[tuple[dict, Item]]:
    method = comparisons[0][0]
    able = []
    for photograph in photographs:
        if method not in photograph.masks:
            continue
        mask = photograph.masks[method]
        wrong = spoilt(mask, len(labelset))
        either = (mask > 0) | (wrong > 0)
        # A tenth of the picture, or the check would ask for a magnifying glass.
        if np.mean(mask > 0) > 0.1 and np.mean(mask[either] != wrong[either]) >= _DIFFERENT:
            able.append((photograph, mask, wrong))
    if len(able) < count:
        wanted = f"{count} photographs with enough foreground for attention checks"
        raise InputError(f"study: masks of {method}", wanted=wanted, got=len(able), hint="ask for fewer with --checks")
    found = []
    for i in rng.permutation(len(able))[:count]:
        photograph, mask, wrong = able[i]
        right = "left" if rng.random() < 0.5 else "right"
        masks = [mask, wrong] if right == "left" else [wrong, mask]
        found.append(_item(photograph, {"kind": "check", "answer": right}, masks, rng))
    return found
