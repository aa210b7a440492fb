"""Voters beside the parser, or in its place: masks from elsewhere, from the command line to the label stage."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.errors import InputError, Unusable
from jsplat.files.foreign import log_once
from jsplat.labels import Means, VoterLabels
from jsplat.labels.opinions import Maps, Voter
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.parser import Parser
from jsplat.pipeline.digests import Digests
from jsplat.pipeline.work_folder import fingerprint, load_arrays
from jsplat.training_sets.elsewhere import MaskFile, Source, log_missing_masks, open_source

VOTERS = "voters.json"  # in the folder of first labels: who voted, and of whom
_ABOUT = "others"  # in the first labels of an identity: JSON, an entry for each further voter


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A source of masks, and what it has for these captures.

    Attributes:
        means: per label, the ids of the classes that it may mean.
        frontal: whether its views are trusted by pose, as the parser's.
        masks: identity -> the mask of each picture, None where there is none.
    """

    source: Source
    means: Means
    frontal: bool
    masks: Mapping[str, Sequence[MaskFile | None]]

    def about(self) -> dict:
        """What the label stage must know of it, JSON-ready."""
        return {"name": self.source.name, "means": [sorted(of) for of in self.means], "frontal": self.frontal}


@dataclasses.dataclass(frozen=True)
class Voters:
    """Who gives first labels.

    Attributes:
        classes: those that are voted on: the parser's, or without one those of the first source.
        parser: None: the first of the sources takes its place.
        others: further voters.
    """

    classes: LabelSet
    parser: Parser | None
    first: Elsewhere | None
    others: tuple[Elsewhere, ...]

    @property
    def names(self) -> list[str]:
        """How people call them, the first voter first."""
        return ["parser" if self.first is None else self.first.source.name, *(o.source.name for o in self.others)]

    def fingerprints(self, weak: str, listed: Sequence[Listed], digests: Digests) -> dict[str, str]:
        """For each identity, of all voters; with a parser alone it is its digest `weak`."""
        sources = [*([self.first] if self.first else []), *self.others]
        if not sources:
            return {one.identity: weak for one in listed}
        about = [source.about() for source in sources]

        def files(one: Listed) -> list[str]:
            return [
                digests.of(
                    source.source.path,
                    f"masks of {one.identity}",
                    {str(i): file.path for i, file in enumerate(source.masks[one.identity]) if file is not None},
                )
                for source in sources
            ]

        return {one.identity: fingerprint(weak, about, files(one)) for one in listed}

    def first_of(self, capture: Capture) -> Voter:
        """The first source, where there is no parser."""
        assert self.first is not None
        masks = self.first.masks[capture.identity]
        if not any(masks):
            wanted = "masks of the first --labels, which begin the vote where there is no parser"
            what = f"{self.first.source.name}: {capture.identity}"
            raise Unusable(what, wanted=wanted, got="none", hint="name first the --labels that know everybody")
        labels = self.first.source.read(masks, capture)
        return Voter(self.first.source.name, self.classes, Maps(labels, len(self.classes)))

    def others_of(self, capture: Capture) -> dict[str, np.ndarray]:
        """What the other voters say of a capture, as arrays for the file of its first labels."""
        if not self.others:
            return {}
        there = [other for other in self.others if any(other.masks[capture.identity])]
        arrays = {f"other_{i}": o.source.read(o.masks[capture.identity], capture) for i, o in enumerate(there)}
        return {_ABOUT: np.asarray(json.dumps([other.about() for other in there])), **arrays}

    def to_json(self) -> list[dict]:
        """For reports: each voter, what its labels mean, and of whom it has masks."""
        found: list[dict] = [{"name": "parser"}] if self.parser is not None else []
        for source in [*([self.first] if self.first else []), *self.others]:
            masks = {name: [file is not None for file in of] for name, of in source.masks.items()}
            meant = {
                label: [self.classes.names[i] for i in sorted(of)]
                for label, of in zip(source.source.vocabulary.labelset.names, source.means)
            }
            found.append(
                {
                    "name": source.source.name,
                    "labels": meant,
                    "people": sum(any(of) for of in masks.values()),
                    "lacks_people": [name for name, of in masks.items() if not any(of)],
                    "pictures": sum(map(sum, masks.values())),
                    "lacks_pictures": sum(len(of) - sum(of) for of in masks.values() if any(of)),
                }
            )
        return found


@dataclasses.dataclass(frozen=True)
class Other:
    """What a further voter says of one capture: `labels` by number or IGNORE, see `Elsewhere`."""

    name: str
    labels: UInt8[np.ndarray, "v h w"]
    means: Means
    frontal: bool

    def voter_labels(self, trust: Float[np.ndarray, " v"]) -> VoterLabels:
        """As it votes; `trust`: in views by their pose alone."""
        return VoterLabels(
            self.labels, np.asarray(trust if self.frontal else np.ones(len(trust), np.float32)), self.means
        )

    def masks(self) -> UInt8[np.ndarray, "v h w"]:
        """As class ids to be looked at: of a label for several classes the first one; IGNORE where nothing is said."""
        table = np.full(256, IGNORE, np.uint8)
        for label, of in enumerate(self.means):
            table[label] = min(of, default=IGNORE)
        return table[self.labels]


def gather(parser: Parser | None, given: Sequence[str], listed: Sequence[Listed]) -> Voters:
    """All who are to vote.

    Args:
        parser: may be None where a source tells all its classes apart.
        given: FOLDER or FOLDER=TABLE, as the command line has them.

    Raises:
        InputError: nobody votes, or a source that cannot be used.
    """
    sources = [open_source(of) for of in given]
    if parser is None and not sources:
        raise InputError("voters", wanted="--parser, --labels, or both", got="neither")
    names = [source.name for source in sources]
    if len(set(names)) != len(names) or "parser" in names:
        hint = "rename a folder: what it is called tells a voter from the others, and `parser` is taken"
        raise InputError("--labels", wanted="folders with names of their own", got=", ".join(names), hint=hint)
    if parser is None and sources[0].vocabulary.means:
        hint = "give a --parser, or first a folder whose table has a label of its own for every class"
        raise InputError(str(sources[0].path), wanted="labels that are classes", got="a table with `means`", hint=hint)
    classes = sources[0].vocabulary.labelset if parser is None else parser.labelset
    found = []
    for source in sources:
        masks = {one.identity: source.masks_of(one, len(listed) == 1) for one in listed}
        log_missing_masks(source, masks)
        means = source.vocabulary.ids_in(classes, str(source.path))
        if presumed := source.vocabulary.presumed(classes, str(source.path)):
            log_once(
                "labels presumed", str(source.path), f"some classes have no label of their own; presumed: {presumed}"
            )
        found.append(Elsewhere(source, means, source.vocabulary.trusts_front(means, classes), masks))
    first, others = (found[0], found[1:]) if parser is None else (None, found)
    return Voters(classes, parser, first, tuple(others))


def others_named(folder: Path, identity: str) -> list[str]:
    """Which voters beside the first spoke of an identity."""
    with np.load(folder / f"{identity}.npz") as arrays:
        return [of["name"] for of in json.loads(str(arrays[_ABOUT]))] if _ABOUT in arrays.files else []


def others_in(folder: Path, capture: Capture) -> list[Other]:
    """What voters beside the first say of a capture, as `parse` wrote it."""
    arrays = load_arrays(folder / f"{capture.identity}.npz")
    if _ABOUT not in arrays:
        return []
    found = []
    for i, entry in enumerate(json.loads(str(arrays[_ABOUT]))):
        labels = arrays[f"other_{i}"]
        if labels.shape != capture.images.shape[:3]:
            wanted = f"{capture.images.shape[:3]} pictures"
            raise Unusable(f"{folder}/{capture.identity}.npz: {entry['name']}", wanted=wanted, got=labels.shape)
        labels = labels if capture.valid is None else np.where(capture.valid, labels, np.uint8(IGNORE))
        found.append(Other(entry["name"], labels, tuple(frozenset(of) for of in entry["means"]), entry["frontal"]))
    return found
