"""One student trained with several seeds: the mean of its scores, and how far they differ."""

from collections.abc import Mapping, Sequence

SPREAD = {"side": ("side", "f1"), "side_core": ("side", "f1_core"), "frontal": ("0-15", "f1")}
SPREAD |= {"frontal_core": ("0-15", "f1_core")}


def mean_over_seeds(
    scores: Mapping[str, dict], taught: Mapping[str, Sequence[str]], intervals: Mapping[str, Mapping[str, dict]]
) -> dict[str, dict]:
    """Scores by method, where the stages of one student have become one method: means of all numbers.

    Args:
        scores: by method; students by stage.
        taught: the stages of each student.
        intervals: of those with several stages, by group of people (`Counts.intervals`).
    """
    further = {stage for stages in taught.values() for stage in stages[1:]}
    merged = {name: of for name, of in scores.items() if name not in further}
    for name, stages in taught.items():
        found = [scores[stage] for stage in stages if stage in scores]
        if len(found) > 1:
            merged[name] = _mean(found)
            for group, of_bins in intervals.get(name, {}).items():
                merged[name][group]["ci"] = of_bins
    return merged


def spread_over_seeds(scores: Mapping[str, dict], taught: Mapping[str, Sequence[str]]) -> dict[str, dict]:
    """{student: {group: {what: the F1 of each seed}}} of those that were trained more than once."""
    found: dict[str, dict] = {}
    for name, stages in taught.items():
        each = [scores[stage] for stage in stages if stage in scores]
        if len(each) < 2:
            continue
        groups = [group for group, of in each[0].items() if "bins" in of]
        found[name] = {
            group: {what: [of[group]["bins"][b][key] for of in each] for what, (b, key) in SPREAD.items()}
            for group in groups
        }
    return found


def _mean(values: Sequence):
    """Of numbers, lists of such and dicts of such, place by place; None where one is unknown."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([of.get(key) for of in values]) for key in first}
    if any(value is None for value in values):
        return None
    if isinstance(first, list | tuple):
        return [_mean(place) for place in zip(*values)]
    return first if all(value == first for value in values) else sum(values) / len(values)
