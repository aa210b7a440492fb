"""From masks to numbers and pictures, one person at a time: what is kept are counts and the few pictures shown."""

import collections
import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jsplat.captures.capture import Capture
from jsplat.errors import InputError, Stopped
from jsplat.files.foreign import some_of
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.labelsets.tables import label_set, mapping, usual_choices
from jsplat.metrics.agreement import agreement
from jsplat.metrics.changes import Changes
from jsplat.metrics.masks import COMPARED, Tally, score, scores_of, tally
from jsplat.metrics.statistics import f1_difference, f1_interval
from jsplat.parser import Parser, predict_labels
from jsplat.parser.any_size import labels_of_any_size
from jsplat.report.findings import TEST, VOTED
from jsplat.report.gallery import PictureRow
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP
from jsplat.training_sets.auxiliary import AuxiliarySet
from jsplat.training_sets.reading import DatasetConfig, check_sides, read_sample, spread
from jsplat.training_sets.split_folders import Listing

BATCH = 8  # pictures that the parser looks at together
SHOWN_YAWS = (0.0, 50.0, -75.0, 100.0)  # one picture row per person and yaw


@dataclasses.dataclass
class Counted:
    """One method on one group of people, as far as they were counted.

    Attributes:
        people: how many.
    """

    tally: Tally
    people: int = 0


class Counts:
    """What all methods got right on the people of all groups, of those with true labels; and how far their masks agree
    across views and what the vote changed, of everybody.

    Args:
        methods: those of which `scores` tells, agreement across views included; `ablation` knows others too.
    """

    def __init__(self, labelset: LabelSet, methods: tuple[str, ...]):
        self.labelset, self.methods = labelset, methods
        self.with_truth: dict[str, int] = {}  # group -> people
        self.counted: dict[str, dict[str, Counted]] = {}  # method -> group -> counts
        self.agreements: dict[str, dict[str, list[float]]] = {}  # method -> group -> of each of whom it can be told
        self.changes = Changes(labelset)

    def add(
        self, group: str, capture: Capture, masks: Mapping[str, np.ndarray], depth: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Counts the masks of one person.

        Args:
            masks: `v h w` by method; "refined", and the first of the methods, whose masks they were refined from.
            depth: `v h w`, which pixels are one point.
            confidence: `v h w`, of the refined masks.
        """
        for method in (method for method in self.methods if method in masks):
            if (across := agreement(masks[method], depth, capture.cameras)) is not None:
                self.agreements.setdefault(method, {}).setdefault(group, []).append(across)
        before = masks[self.methods[0]]
        self.changes.add(before, masks["refined"], confidence, capture.yaw, capture.pitch)
        if capture.labels is None:
            return
        self.with_truth[group] = self.with_truth.get(group, 0) + 1
        names = (capture.identity,) * len(capture.images)
        for method, mask in masks.items():
            groups = self.counted.setdefault(method, {})
            counted = groups.setdefault(group, Counted(Tally.empty(len(self.labelset))))
            counted.tally.add(tally(mask, capture.labels, capture.yaw, capture.pitch, names, self.labelset))
            counted.people += 1

    def add_test_set(self, data: AuxiliarySet, parsers: Mapping[str, Parser]) -> None:
        """Counts what parsers see in pictures that none of them learnt from, in the group TEST."""
        self.with_truth[TEST] = len(set(data.identity))
        for method, parser in parsers.items():
            seen = predict_labels(parser, data.images)
            counted = tally(seen, data.labels, data.yaw, data.pitch, data.identity, self.labelset)
            self.counted.setdefault(method, {})[TEST] = Counted(counted, self.with_truth[TEST])

    def scores(self) -> dict:
        """{method: {group: scores}} in the shape report.json keeps, where all with true labels have masks.

        Agreement is of all people, and there without true labels too.
        """
        out: dict = {}
        for method in self.methods:
            for group, known in self.agreements.get(method, {}).items():
                out.setdefault(method, {})[group] = {"agreement": float(np.mean(known))}
            for group, people in self.with_truth.items():
                counted = self.counted.get(method, {}).get(group)
                if counted is not None and counted.people == people:
                    across = out.setdefault(method, {}).get(group, {"agreement": None})
                    out[method][group] = scores_of(counted.tally, self.labelset) | across
        return out

    def differences(self, pairs: Iterable[tuple[str, str]], runs: Mapping[str, Sequence[str]]) -> list[dict]:
        """F1 of one method minus that of another on the same people, as report.json keeps it under "differences".

        Args:
            pairs: of methods, where all with true labels have masks of both.
            runs: of a method with several runs (seeds), what they are called here; others are called as the method.
        """
        rows = []
        for (a, b), group in itertools.product(pairs, self.with_truth):
            known = [self._complete(runs.get(method, (method,)), group) for method in (a, b)]
            for name in COMPARED if all(known) else ():
                of_a, of_b = ([tally.people[name] for tally in tallies] for tallies in known)
                if (found := f1_difference(of_a, of_b)) is not None:
                    about = {"a": a, "b": b, "group": group, "bin": name, "people": len(of_a[0])}
                    rows.append(about | {"difference": found[0], "interval": found[1]})
        return rows

    def intervals(self, runs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, dict]]:
        """{method: {group: {bin: the interval of its mean F1}}} of methods with several runs (seeds), as "ci" holds it.

        Args:
            runs: what the runs of each method are called here.
        """
        several = [(method, names) for method, names in runs.items() if len(names) > 1]
        found: dict[str, dict[str, dict]] = {}
        for (method, names), group in itertools.product(several, self.with_truth):
            if known := self._complete(names, group):
                of_bins = {name: f1_interval(*(tally.people[name] for tally in known)) for name in COMPARED}
                found.setdefault(method, {})[group] = of_bins
        return found

    def _complete(self, names: Sequence[str], group: str) -> list[Tally]:
        """What was counted of all these masks; nothing unless all people with true labels have all of them."""
        known = [self.counted.get(name, {}).get(group, Counted(Tally.empty(0))) for name in names]
        complete = all(one.people == self.with_truth[group] for one in known)
        return [one.tally for one in known] if complete else []

    def ablation(self, methods: Mapping[str, str]) -> dict:
        """F1 by pose, for every method that has masks of everybody with true labels but of the test set's people.

        Args:
            methods: what a row is called -> the method.
        """
        rows, wanted = {}, {group: people for group, people in self.with_truth.items() if group in VOTED}
        for name, method in methods.items():
            groups = {group: counted for group, counted in self.counted.get(method, {}).items() if group in VOTED}
            if not groups or {group: counted.people for group, counted in groups.items()} != wanted:
                continue
            pooled = Tally.empty(len(self.labelset))
            for counted in groups.values():
                pooled.add(counted.tally)
            bins = scores_of(pooled, self.labelset)["bins"]
            rows[name] = {
                "f1_frontal": bins["0-15"]["f1"],
                "f1_45_75": bins["45-75"]["f1"],
                "f1_75_105": bins["75-105"]["f1"],
                "f1_side": bins["side"]["f1"],
                "f1_core_side": bins["side"]["f1_core"],
            }
        return rows


def set_scores(parser: Parser, data: AuxiliarySet) -> dict:
    """Scores of a parser on a labelled set, in the classes of that set."""
    seen = _in_classes(parser.labelset, data.labelset)[predict_labels(parser, data.images)]
    return score(seen, data.labels, data.yaw, data.pitch, data.identity, data.labelset)


def listed_scores(parser: Parser, listing: Listing, config: DatasetConfig) -> tuple[dict, dict[str, str]]:
    """Scores of a parser on listed pictures, one after the other, in the pixels and the classes of their label maps.

    Returns:
        the scores, and which pictures could not be read, and why.

    Raises:
        InputError: none can be read, or classes of the parser have no place among those of the set.
    """
    classes, failed, waiting = listing.labelset, {}, collections.deque()
    truth, seen_as = np.arange(256, dtype=np.uint8), _in_table(parser.labelset, listing)
    if listing.vocabulary is not None and listing.vocabulary.means:
        silent = [i for i, ids in enumerate(listing.vocabulary.ids_in(parser.labelset, "dataset.table")) if not ids]
        truth[silent] = IGNORE
    if config.labels != "own":
        classes = label_set(config.labels)
        truth = mapping(listing.labelset, classes, usual_choices(listing.labelset, classes))
        seen_as = _in_classes(parser.labelset, classes)
    counted, progress = Tally.empty(len(classes)), Progress("evaluate", len(listing.samples))
    asked: list[np.ndarray] = []
    for sample in spread(listing.samples, config.side_checks) if config.side_checks else ():
        with contextlib.suppress(InputError):  # who cannot be read is named below
            asked.append(read_sample(sample, listing)[1])
    check_sides(asked, listing, config)

    def pictures() -> Iterator[np.ndarray]:
        for sample in listing.samples:
            if STOP.is_set():
                raise Stopped(f"stopped in evaluate, at {sample.name}")
            try:
                image, labels = read_sample(sample, listing)
            except InputError as error:
                failed[sample.name] = str(error)
                print(f"{sample.name} is left out: {error}", file=sys.stderr, flush=True)
                progress.advance()
                continue
            waiting.append((sample, truth[labels]))
            yield image

    for seen in labels_of_any_size(parser, pictures(), BATCH):
        sample, labels = waiting.popleft()
        yaw, pitch = np.asarray([[sample.yaw], [sample.pitch]], np.float32)
        counted.add(tally(seen_as[seen][None], labels[None], yaw, pitch, (sample.name,), classes))
        progress.advance()
    if len(failed) == len(listing.samples):
        raise InputError("evaluate", wanted="a picture and a mask that can be read", got=some_of([*failed.values()]))
    return scores_of(counted, classes), failed


def _in_classes(source: LabelSet, target: LabelSet) -> np.ndarray:
    """Ids of a parser -> ids of a set, by name and side."""
    if source == target:
        return np.arange(256, dtype=np.uint8)
    try:
        return mapping(source, target, usual_choices(source, target))
    except InputError as error:
        hint = "a table with `means` says which of them a label holds (docs/masks_from_elsewhere.md)"
        raise InputError("the parser's classes", wanted=error.wanted, got=error.got, hint=hint) from error


def _in_table(source: LabelSet, listing: Listing) -> np.ndarray:
    """The same where a table may say what its labels mean: a class is of the label that means the fewest others."""
    if listing.vocabulary is None or not listing.vocabulary.means:
        return _in_classes(source, listing.labelset)
    table = np.full(256, IGNORE, np.uint8)
    meant = listing.vocabulary.ids_in(source, "dataset.table")
    for label in sorted(range(len(meant)), key=lambda i: len(meant[i]), reverse=True):
        table[[*meant[label]]] = label
    return table


def bin_lines(bins: Mapping[str, Mapping]) -> list[str]:
    """A line for each pose bin that has pictures; a dash where nothing can be scored (no foreground, no core class)."""
    lines = []
    for name, values in bins.items():
        if values["n"]:
            known = {key: values[key] for key in ("f1", "f1_core", "miou")}
            shown = "  ".join(f"{key} {'-' if score is None else f'{score:.3f}':>5}" for key, score in known.items())
            lines.append(f"{name:>7}  {shown}  n {values['n']}")
    return lines


def picture_rows(
    group: str, capture: Capture, masks: Mapping[str, np.ndarray], voters: Mapping[str, np.ndarray]
) -> list[PictureRow]:
    """Photos of one person with masks from a few directions, also of further voters; the rest is not kept."""
    rows, level = [], np.abs(capture.pitch)
    masks = masks if capture.labels is None else {"truth": capture.labels, **masks}
    for wanted in SHOWN_YAWS:
        view = int(np.argmin(np.abs(capture.yaw - wanted) + level))
        title = f"{capture.identity}, {group}, yaw {capture.yaw[view]:.0f}°, pitch {capture.pitch[view]:.0f}°"
        shown = {method: mask[view].copy() for method, mask in masks.items()}
        heard = {name: mask[view].copy() for name, mask in voters.items()}
        rows.append(PictureRow(title, capture.images[view].copy(), shown, heard))
    return rows
