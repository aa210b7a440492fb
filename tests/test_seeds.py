"""Scores of one student trained with several seeds."""

import pytest

from jsplat.pipeline.seeds import mean_over_seeds, spread_over_seeds


def scores(side: float, ci: list | None, agreement: float | None = 0.5) -> dict:
    bins = {name: {"f1": side, "f1_core": side / 2, "n": 7} for name in ("side", "0-15")}
    return {"unseen": {"bins": bins, "ci": {"side": ci}, "agreement": agreement, "confusion": {"side": [[1, 2]]}}}


def test_the_mean_is_of_every_number_and_the_spread_names_each_seed():
    found = {"teacher": scores(0.2, [0.1, 0.3]), "student": scores(0.5, [0.4, 0.6]), "control": scores(0.3, None)}
    found["student-2"] = scores(0.7, [0.6, 0.8], None)
    taught = {"student": ["student", "student-2"], "control": ["control"]}
    mean = mean_over_seeds(found, taught, {"student": {"unseen": {"side": [0.42, 0.78]}}})
    assert mean.keys() == {"teacher", "student", "control"}
    assert mean["teacher"] is found["teacher"]
    unseen = mean["student"]["unseen"]
    assert unseen["bins"]["side"] == {"f1": pytest.approx(0.6), "f1_core": pytest.approx(0.3), "n": 7}
    assert unseen["ci"]["side"] == [0.42, 0.78]  # of means: not the mean of the ends
    assert (unseen["agreement"], unseen["confusion"]["side"]) == (None, [[1, 2]])
    spread = spread_over_seeds(found, taught)
    assert spread.keys() == {"student"}
    assert spread["student"]["unseen"]["side"] == [0.5, 0.7]
    assert spread["student"]["unseen"]["frontal_core"] == [0.25, 0.35]
