"""How sure a score, a difference of two scores or a share is."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jsplat.metrics.classes import f1_per_class, mean_known

CONFIDENCE = 0.95
FEWEST = 6  # people; of fewer no interval is told

People = Mapping[str, Shaped[np.ndarray, "3 k"]]  # of each person `class_counts`


def f1_interval(*runs: People) -> list[float] | None:
    """The 95 % interval over people of the mean foreground F1; None for fewer than `FEWEST`.

    Pixels are pooled over people, and the classes are those of all of them together: a person who lacks a class is no
    easier for it. The interval is of the jackknife (Efron and Tibshirani 1993, chapter 11), with Student's t of n - 1
    degrees: a person's weight is what leaving them out changes. A class that one person alone has says nothing of how
    people differ: it counts as one draw, its own squared distance from the mean is its variance. Of
    simulated groups of 6, 8 and 16 people it held the truth in 93 to 97 %; a bootstrap of people did in 83 to 93 %,
    the delta method in 78 to 95 % (scripts/interval_coverage.py).

    Args:
        runs: of one method, trained with several seeds for instance; their F1 is averaged, class by class. The
            interval is over people alone, for these parsers as they are.
    """
    return _interval(*_left_out(runs), _alone(runs[0]), 0.0) if runs[0] else None


def f1_difference(a: Sequence[People], b: Sequence[People]) -> tuple[float, list[float] | None] | None:
    """Mean foreground F1 of a method minus that of another one on the same people, and its 95 % interval.

    Args:
        a, b: the runs of each method; see `f1_interval`, as for the interval.

    Returns:
        the difference and the interval, None for fewer than `FEWEST` people; None where nobody has a foreground class.
    """
    if not a[0]:
        return None
    values, without = (first - second for first, second in zip(_left_out(a), _left_out(b)))
    difference = mean_known(values)
    return None if difference is None else (difference, _interval(values, without, _alone(a[0]), -1.0))


def _left_out(runs: Sequence[People]) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, "n f"]]:
    """Mean F1 over runs by foreground class, of all people and of all but each; NaN for a class that nobody has."""
    values, without = [], []
    for run in runs:
        each = np.stack([run[name] for name in sorted(run)])
        values.append(f1_per_class(each.sum(0))[1:])
        rest = f1_per_class(each.sum(0) - each)[:, 1:]
        without.append(np.where(np.isnan(rest), values[-1], rest))
    return np.mean(values, 0), np.mean(without, 0)


def _alone(people: People) -> Bool[np.ndarray, " f"]:
    """Which foreground classes one person alone has."""
    return (np.stack([of[1] for of in people.values()]) > 0).sum(0)[1:] == 1


def _interval(
    values: Float[np.ndarray, " f"],
    without: Float[np.ndarray, "n f"],
    alone: Bool[np.ndarray, " f"],
    lowest: float,
) -> list[float] | None:
    """The jackknife's interval of the mean over classes, within `lowest` and 1: no F1 and no difference lies beyond."""
    known, n = ~np.isnan(values), len(without)
    if n < FEWEST or not known.any():
        return None
    from scipy import special  # a tenth of a second, and few commands ask

    middle, means = values[known].mean(), without[:, known].mean(1)
    variance = (n - 1) / n * ((means - means.mean()) ** 2).sum()
    variance += ((values[known & alone] - middle) ** 2).sum() / known.sum() ** 2
    half = special.stdtrit(n - 1, (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return [float(max(middle - half, lowest)), float(min(middle + half, 1.0))]


def wilson(wins: int, n: int) -> tuple[float, float] | None:
    """The score interval of a share (Wilson 1927), at 95 %; None without trials.

    (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) with p = wins / n; the trials count as independent.
    """
    if n == 0:
        return None
    from scipy import stats  # half a second, and few commands ask

    found = stats.binomtest(wins, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
