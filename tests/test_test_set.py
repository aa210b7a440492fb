"""Pictures that parsers are scored on and none is taught."""

import dataclasses

import numpy as np
import pytest

from jsplat.captures.capture import write_capture
from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE
from jsplat.parser import Architecture, new_parser, save_parser
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.scoring import Counts, set_scores
from jsplat.pipeline.settling import Request, settle
from jsplat.pipeline.work import _check_test
from jsplat.training_sets.auxiliary import from_captures
from tests import ball


def a_set(*names):
    captures = [ball.capture(name, [0.0, 10.0, -70.0]) for name in names]
    data = from_captures(captures)
    noise = np.random.default_rng(ord(names[0])).integers(0, 9, data.images.shape, np.uint8)
    return dataclasses.replace(data, images=data.images // 2 + noise)


def test_its_scores_are_a_group_of_their_own_and_none_of_the_votes():
    data, labelset = a_set("a", "b"), ball.SIDES
    parsers = {name: new_parser(Architecture(18, 0.05, 32), labelset, seed) for seed, name in enumerate(("x", "y"))}
    counts = Counts(labelset, ("x", "y"))
    counts.add_test_set(data, parsers)
    scores = counts.scores()
    assert scores == {n: {"test": set_scores(parser, data) | {"agreement": None}} for n, parser in parsers.items()}
    assert scores["x"]["test"]["bins"]["all"]["f1"] != scores["y"]["test"]["bins"]["all"]["f1"]
    assert scores["x"]["test"]["bins"]["all"]["n"] == 6
    rows = counts.differences([("x", "y")], {})
    assert [(row["group"], row["bin"], row["people"]) for row in rows] == [
        ("test", name, 2) for name in ("side", "0-15", "all")
    ]
    assert counts.ablation({"a vote": "x"}) == {}


def test_a_set_on_which_nothing_can_be_scored_is_refused():
    data = a_set("a")
    _check_test(data, ball.SIDES, None)
    _check_test(data, ball.SIDES, a_set("b"))
    empty = dataclasses.replace(data, labels=np.where(data.labels > 0, IGNORE, data.labels))
    with pytest.raises(InputError, match=r"--test: labels: wanted a pixel of the foreground, .*got 3 pictures without"):
        _check_test(empty, ball.SIDES, None)
    mirror = ("background", "other", "left")
    others = dataclasses.replace(ball.SIDES, names=("background", "left", "other"), mirror=mirror)
    with pytest.raises(InputError, match=r"--test: classes: wanted background, .*dataset\.labels"):
        _check_test(data, others, None)


def test_pictures_that_a_parser_learns_from_are_refused():
    data = a_set("a")
    old = dataclasses.replace(a_set("b"), images=np.roll(data.images, 1, 0))
    old.images[0] = 0
    with pytest.raises(InputError, match="--test: wanted pictures that no parser learns from, got 2 of 3 pictures"):
        _check_test(data, ball.SIDES, old)


def test_what_is_not_looked_at_is_told(tmp_path):
    """A run that ends before its report does not score."""
    write_capture(tmp_path / "captures" / "a", ball.capture("a"))
    parser = new_parser(Architecture(18, 0.05, 32), ball.SIDES, 0)
    save_parser(tmp_path / "teacher" / "parser", parser)
    told = {
        until: settle(
            Request(tmp_path / "captures", tmp_path / "teacher", test=tmp_path / "front", until=until),
            tmp_path / "out",
            RunConfig(),
            tmp_path / "brought",
        ).told
        for until in ("label", None)
    }
    line = "--test front is not looked at: parsers are scored with the report, after the last stage"
    assert [line in told[until] for until in ("label", None)] == [True, False]
