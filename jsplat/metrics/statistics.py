"""How sure a score or a share is."""

import numpy as np

from jsplat.metrics.classes import f1_per_class, mean_known
from jsplat.metrics.config import EvaluateConfig

CONFIDENCE = 0.95


def bootstrap_interval(people: dict[str, np.ndarray], config: EvaluateConfig) -> list[float] | None:
    """The 95 % interval of the mean foreground F1 under resampling of people; None for fewer than two.

    Args:
        people: of each person `class_counts` "3 k".
    """
    if len(people) < 2:
        return None  # one person resampled is always the same person
    pooled = np.stack([people[name] for name in sorted(people)]).astype(float)  # sorted: draws go to names
    rng = np.random.default_rng(config.seed)
    draws = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), config.resamples)
    f1 = f1_per_class(np.tensordot(draws.astype(float), pooled, 1))[:, 1:]
    means = [m for m in map(mean_known, f1) if m is not None]
    return [float(x) for x in np.percentile(means, [2.5, 97.5])] if means else None


def wilson(wins: int, n: int) -> tuple[float, float] | None:
    """The score interval of a share (Wilson 1927), at 95 %; None without trials.

    (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) with p = wins / n; the trials count as independent.
    """
    if n == 0:
        return None
    from scipy import stats  # half a second, and few commands ask

    found = stats.binomtest(wins, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
