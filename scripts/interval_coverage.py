"""How often intervals over people hold the truth: those of jsplat.metrics.statistics, the delta method, a bootstrap.

python scripts/interval_coverage.py        # a minute; made-up people, of whom some lack classes
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from jsplat.metrics.classes import f1_per_class
from jsplat.metrics.statistics import f1_difference

CLASSES, RARE = 17, slice(12, None)  # foreground classes; those that few people have
# Name: (how many people have a rare class, how far people differ there, how far they differ in everything).
POPULATIONS = {
    "nobody lacks a class": (1.0, 0.7, 0.4),
    "a quarter has the rare ones": (0.25, 1.2, 0.4),
    "the same, alike": (0.25, 0.7, 0.4),
    "the same, very different": (0.25, 2.0, 0.4),
    "the same, good and bad people": (0.25, 1.2, 1.0),
}

Counts = np.ndarray  # "n 3 k": of each person `class_counts`, background first


class Population:
    """People whom two methods score on; all have their own ease, by class too, shared by both methods."""

    def __init__(self, rng: np.random.Generator, having: float, rare: float, ease: float):
        self.rng, self.ease = rng, ease
        self.having, self.differ = np.ones(CLASSES), np.full(CLASSES, 0.7)
        self.having[RARE], self.differ[RARE] = having, rare
        self.size, self.found, self.gain = (
            np.exp(rng.normal(5, 1, CLASSES)),
            rng.normal(1, 0.8, CLASSES),
            rng.normal(0.5, 0.5, CLASSES),
        )

    def sample(self, n: int) -> tuple[Counts, Counts]:
        """What both methods get right on n people, the better one second."""
        rng, shape = self.rng, (n, CLASSES)
        there = rng.random(shape) < self.having
        true = self.size * np.exp(rng.normal(0, 0.5, shape)) * there
        own = rng.normal(0, self.ease, (n, 1)) + rng.normal(0, 1, shape) * self.differ
        both = []
        for gain in (0.0, self.gain):
            logit = self.found + gain + own + rng.normal(0, 1, shape) * 0.6 * self.differ
            hit = true / (1 + np.exp(-logit))
            wrong = (true - hit) * np.exp(rng.normal(0, 0.3, shape))
            wrong += ~there * (rng.random(shape) < 0.2) * 0.05 * self.size  # said of who lacks the class
            counts = np.stack([hit, true, hit + wrong], 1)
            both.append(np.pad(counts, ((0, 0), (0, 0), (1, 0))))
        return both[0], both[1]


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of the foreground classes of pooled counts "*b 3 k"."""
    return f1_per_class(counts)[..., 1:]


def delta(first: Counts, second: Counts) -> tuple[float, float]:
    """Linearized: a person weighs (2 hit - F1 (true + answered)) / (all true + all answered), mean over classes."""
    known, parts = ~np.isnan(f1(first.sum(0))), []
    for counts in (first, second):
        hit, true, answered = np.moveaxis(counts[:, :, 1:][..., known], 1, 0)
        parts.append((2 * hit - f1(counts.sum(0))[known] * (true + answered)) / (true + answered).sum(0))
    weights, n = (parts[1] - parts[0]).mean(1), len(first)
    half = special.stdtrit(n - 1, 0.975) * np.sqrt(n / (n - 1) * (weights**2).sum())
    middle = np.nanmean(f1(second.sum(0)) - f1(first.sum(0)))
    return middle - half, middle + half


def bootstrap(first: Counts, second: Counts) -> tuple[float, float]:
    """Percentiles over resampled people, the same ones for both methods."""
    n, rng = len(first), np.random.default_rng(0)
    draws = rng.multinomial(n, np.full(n, 1 / n), 400).astype(float)
    change = f1(np.tensordot(draws, second, 1)) - f1(np.tensordot(draws, first, 1))
    low, high = np.percentile(np.nanmean(change, 1), [2.5, 97.5])
    return low, high


def jackknife(first: Counts, second: Counts) -> tuple[float, float]:
    """What the report tells."""
    names = [f"{i:03}" for i in range(len(first))]
    found = f1_difference([dict(zip(names, second))], [dict(zip(names, first))])
    assert found is not None
    assert found[1] is not None
    return found[1][0], found[1][1]


INTERVALS: dict[str, Callable[[Counts, Counts], tuple[float, float]]] = {
    "jackknife": jackknife,
    "delta method": delta,
    "bootstrap": bootstrap,
}


def coverage(population: Population, n: int, trials: int, names: Sequence[str] = tuple(INTERVALS)) -> np.ndarray:
    """How often each interval of the difference of the two methods holds that of the population, in its classes."""
    truth = np.diff([f1(of.sum(0)) for of in population.sample(20_000)], axis=0)[0]
    held = []
    for _ in range(trials):
        both = population.sample(n)
        wanted = truth[~np.isnan(f1(both[0].sum(0)))].mean()
        held.append([low <= wanted <= high for low, high in (INTERVALS[name](*both) for name in names)])
    return np.mean(held, 0)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    print(f"| people | n | {' | '.join(INTERVALS)} |\n| --- |{' ---: |' * (1 + len(INTERVALS))}")
    for name, about in POPULATIONS.items():
        for n in (6, 8, 16):
            found = coverage(Population(np.random.default_rng(0), *about), n, trials)
            print(f"| {name} | {n} | " + " | ".join(f"{100 * share:.1f}" for share in found) + " |", flush=True)


if __name__ == "__main__":
    main()
