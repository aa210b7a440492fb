"""Intervals over people: what they are by definition, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from jsplat.metrics.statistics import FEWEST, f1_difference, f1_interval
from scripts.interval_coverage import POPULATIONS, Population, coverage

EXACT = 1e-12  # the same numbers added in another order


def people(hit, true, answered):
    """Counts "3 k" of each person from arrays "n k"."""
    return {f"p{i:02}": np.stack(of) for i, of in enumerate(zip(hit, true, answered))}


def constant(rates, n=8):
    """Everybody alike: of 100 pixels of each foreground class and as many answered, a part is hit."""
    pixels = np.full((n, 1 + len(rates)), 100)
    return people(pixels * np.asarray([1.0, *rates]), pixels, pixels)


def test_people_who_are_alike_leave_no_doubt():
    a, b = constant([0.8, 0.6]), constant([0.5, 0.5])
    difference, interval = f1_difference([a], [b])
    assert [difference, *interval] == pytest.approx([0.2] * 3, abs=EXACT)
    assert f1_interval(a) == pytest.approx([0.7, 0.7], abs=EXACT)
    difference, interval = f1_difference([a, b], [b])  # two seeds
    assert [difference, *interval] == pytest.approx([0.1] * 3, abs=EXACT)
    few = constant([0.8], FEWEST - 1), constant([0.5], FEWEST - 1)
    assert f1_interval(few[0]) is None
    assert f1_difference(few[:1], few[1:]) == (pytest.approx(0.3, abs=EXACT), None)


def test_of_people_of_one_class_and_one_size_it_is_the_interval_of_a_mean():
    rng = np.random.default_rng(0)
    hit, other = rng.uniform(20, 90, (2, 7, 2))
    pixels = np.full((7, 2), 100.0)
    difference, interval = f1_difference([people(hit, pixels, pixels)], [people(other, pixels, pixels)])
    each = (hit - other)[:, 1] / 100
    wanted = stats.t.interval(0.95, 6, loc=each.mean(), scale=stats.sem(each))
    assert [difference, *interval] == pytest.approx([each.mean(), *wanted], abs=1e-9)


def test_a_class_of_one_person_makes_it_wider_and_nobody_is_scored_on_an_easier_set():
    a, b = constant([0.8, 0.6]), constant([0.5, 0.5])
    for of in (a, b):
        for name in list(of)[1:]:
            of[name][:, 2] = 0
    difference, interval = f1_difference([a], [b])
    assert difference == pytest.approx(0.2, abs=EXACT)
    spread = stats.t.ppf(0.975, 7) * np.sqrt(2 * 0.1**2) / 2  # two classes, both 0.1 from their mean, one counted
    assert interval[1] - difference == pytest.approx(spread / np.sqrt(2), abs=EXACT)
    empty = constant([0.5])
    for of in empty.values():
        of[:, 1:] = 0
    assert f1_difference([empty], [empty]) is None
    assert f1_interval(empty) is None
    assert f1_interval({}) is None
    assert f1_difference([{}], [{}]) is None


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """The same trials show what the delta method misses: who alone has a class has no influence on it."""
    about = POPULATIONS["a quarter has the rare ones"]
    for n in (6, 8):
        population = Population(np.random.default_rng(0), *about)
        ours, linear = coverage(population, n, 300, ("jackknife", "delta method"))
        assert 0.92 < ours < 0.99, n  # of 300 trials at 95 % one in a hundred samples has fewer
        assert linear < 0.9, n
