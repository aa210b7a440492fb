"""How sure a score is."""

import numpy as np

from jsplat.metrics.classes import f1_per_class, mean_known
from jsplat.metrics.config import EvaluateConfig


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
