"""Auxiliary sets on disk: what is written comes back, and every kind of damage gets one clear error."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from close import assert_close
from test_capture import H, W, cut, small_capture, write

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.training_sets.auxiliary import (
    AuxiliarySet,
    concatenate,
    from_captures,
    read_auxiliary,
    squared,
    write_auxiliary,
)


def small_set() -> AuxiliarySet:
    data = from_captures([small_capture("ada"), small_capture("eve", views=2)])
    return dataclasses.replace(data, weights=np.asarray([1, 0.5, 0, 2, 1], np.float32), source=("render",) * 5)


def same(a: AuxiliarySet, b: AuxiliarySet) -> bool:
    arrays = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("images", "labels", "weights", "yaw", "pitch"))
    return arrays and (a.identity, a.source, a.labelset) == (b.identity, b.source, b.labelset)


@pytest.fixture
def samples(tmp_path) -> Path:
    write_auxiliary(tmp_path / "aux", small_set())
    return tmp_path / "aux"


def test_an_auxiliary_set_comes_back(samples):
    assert same(read_auxiliary(samples), small_set())


def test_a_set_of_all_views_of_some_captures():
    got = from_captures([small_capture("ada"), small_capture("eve")])
    assert got.identity == ("ada",) * 3 + ("eve",) * 3
    assert got.source == ("photo",) * 6
    assert got.weights.tolist() == [1.0] * 6
    why = "the head frame lies 3 cm off the orbit's centre, at 1.2 m: 1.5 degrees"
    assert_close(got.yaw[:3], np.asarray([-40.0, 10.0, 60.0]), 1.5, why)


def test_sets_are_joined_in_order():
    joined = concatenate([small_set(), from_captures([small_capture("eve", 2)])])
    assert len(joined) == 7
    assert joined.identity[-1] == "eve"
    assert joined.source == ("render",) * 5 + ("photo",) * 2


def test_upright_and_lying_pictures_are_joined_as_squares_and_none_is_stretched():
    lying, upright = small_set(), small_set()
    upright = dataclasses.replace(upright, images=upright.images.swapaxes(1, 2), labels=upright.labels.swapaxes(1, 2))
    joined = concatenate([lying, upright])
    assert joined.images.shape == (10, 12, 12, 3)
    assert np.array_equal(joined.images[:5, 2:10], lying.images)
    assert np.array_equal(joined.labels[5:, :, 2:10], upright.labels)
    assert np.array_equal(joined.images[:5, :2], np.repeat(lying.images[:, :1], 2, 1))
    assert (joined.labels[:5, [0, 1, 10, 11]] == IGNORE).all()
    assert (joined.labels[5:, :, [0, 1, 10, 11]] == IGNORE).all()
    assert same(squared(joined), joined)


def test_sets_that_do_not_fit_together():
    pair = LabelSet(("background", "face"), ((0, 0, 0), (1, 2, 3)), ("background", "face"))
    capture, other = small_capture(), dataclasses.replace(small_set(), labelset=pair)
    with pytest.raises(InputError, match=r"concatenate: sets: wanted one label set"):
        concatenate([small_set(), other])
    with pytest.raises(InputError, match=r"concatenate: sets: wanted at least one, got none"):
        concatenate([])
    smaller = dataclasses.replace(small_set(), images=small_set().images[:, :, :6], labels=small_set().labels[:, :, :6])
    with pytest.raises(InputError, match=r"concatenate: sets: wanted one longer side, got \[\(8, 12\), \(8, 6\)\]"):
        concatenate([small_set(), smaller])
    with pytest.raises(InputError, match=r"captures: wanted at least one, got none"):
        from_captures([])
    with pytest.raises(InputError, match=r"capture ada: wanted labels to train on, got none"):
        from_captures([capture.with_labels(None, None)])
    with pytest.raises(InputError, match=r"capture ada: wanted the classes of the others \(.*\), got background, face"):
        from_captures([capture, capture.with_labels(capture.labels % 2, pair)])
    tall = dataclasses.replace(capture, images=capture.images[:, :, :6], labels=capture.labels[:, :, :6])
    with pytest.raises(InputError, match=r"ada: wanted a longer side as of the others, 12x8 pixels, got 6x8"):
        from_captures([capture, tall])


ROWS = {  # name: (change of the second row, what the message must say)
    "missing image": (lambda r: r.update(image="images/9.png"), r"line 2, image: wanted an image, got no file 9.png"),
    "no label": (lambda r: r.pop("label"), r"line 2, label: wanted a path inside the folder, got none"),
    "a path that climbs out": (lambda r: r.update(label="../x.png"), r"line 2, label: wanted a path inside the folder"),
    "NaN weight": (lambda r: r.update(weight=float("nan")), r"line 2, weight: wanted a finite number >= 0, got nan"),
    "negative weight": (lambda r: r.update(weight=-1), r"line 2, weight: wanted a finite number >= 0, got -1"),
    "no yaw": (lambda r: r.pop("yaw"), r"line 2, yaw: wanted a finite number, got None"),
    "nameless": (lambda r: r.update(identity=3), r"line 2, identity: wanted a name, got 3"),
    "unknown source": (lambda r: r.update(source="dream"), r"line 2, source: wanted photo or render, got 'dream'"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_says_which_line_and_field(samples, name):
    change, message = ROWS[name]
    rows = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    change(rows[1])
    (samples / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=r"aux/samples.jsonl: " + message):
        read_auxiliary(samples)


SAMPLES = {  # name: (file, what happens to it, what the message must say)
    "truncated image": ("images/00001.png", cut, r"line 2, image: wanted a readable image"),
    "16-bit label": (
        "labels/00001.png",
        lambda p: write(p, np.ones((H, W), np.uint16)),
        r"line 2, label: wanted one 8-bit channel of 12x8 pixels",
    ),
    "unknown class": (
        "labels/00001.png",
        lambda p: write(p, np.full((H, W), 40, np.uint8)),
        r"line 2, label: wanted class ids below 19",
    ),
    "another size": (
        "images/00001.png",
        lambda p: write(p, np.ones((H, W - 1, 3), np.uint8)),
        r"line 2, image: wanted 12x8 pixels, as the others, got 11x8",
    ),
    "no rows": ("samples.jsonl", lambda p: p.write_text(""), r"samples.jsonl: wanted at least one picture, got none"),
    "a row that is no object": ("samples.jsonl", lambda p: p.write_text("3"), r"line 1: wanted an object, got 3"),
    "no JSON": ("samples.jsonl", lambda p: p.write_text("{"), r"aux: wanted an auxiliary set"),
    "no label set": ("labelset.json", lambda p: p.unlink(), r"aux: wanted an auxiliary set .* got .*labelset.json"),
    "a label set that is no object": ("labelset.json", lambda p: p.write_text("3"), r"label set: wanted names, colors"),
    "a broken label set": ("labelset.json", lambda p: p.write_text("{}"), r"label set: wanted names, colors"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_of_a_set_are_named(samples, name):
    file, damage, message = SAMPLES[name]
    damage(samples / file)
    with pytest.raises(InputError, match=message):
        read_auxiliary(samples)
