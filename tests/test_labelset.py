"""Classes, their sides, colours and ids."""

import dataclasses
import json

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, IGNORE_COLOR, LabelSet
from jsplat.labelsets.tables import LABEL_SETS

SMALL = LabelSet(
    names=("background", "l_eye", "r_eye", "hat"),
    colors=((0, 0, 0), (1, 2, 3), (4, 5, 6), (7, 8, 9)),
    mirror=("background", "r_eye", "l_eye", "hat"),
    rare=frozenset({"hat"}),
)


def test_the_order_is_that_of_face_parsing():
    """zllrunning/face-parsing.PyTorch, `atts` in its drawing code; weights trained with it depend on the order."""
    face = "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip"
    assert CELEBAMASK_HQ.names == tuple(f"{face} neck neck_l cloth hair hat".split())
    assert len(CELEBAMASK_HQ) == 19


@pytest.mark.parametrize("labelset", [SMALL, CELEBAMASK_HQ], ids=["small", "celebamask"])
def test_mirroring_twice_changes_nothing(labelset):
    ids = labelset.mirror_ids
    np.testing.assert_array_equal(ids[ids], np.arange(len(labelset)))
    for name, mirrored in zip(labelset.names, labelset.mirror):
        swapped = {"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]
        assert mirrored == (swapped if swapped in labelset.names else name)


def test_exactly_the_pairs_change_sides():
    changed = {n for n, m in zip(CELEBAMASK_HQ.names, CELEBAMASK_HQ.mirror) if n != m}
    assert changed == {f"{side}_{part}" for side in "lr" for part in ("brow", "eye", "ear")}


def test_merged_ids_join_the_sides():
    np.testing.assert_array_equal(SMALL.merged_ids, [0, 1, 1, 3])


def test_the_core_leaves_out_background_and_what_few_people_wear():
    np.testing.assert_array_equal(SMALL.core_ids, [1, 2])
    assert len(CELEBAMASK_HQ.core_ids) == 14


@pytest.mark.parametrize("labelset", [SMALL, CELEBAMASK_HQ], ids=["small", "celebamask"])
def test_json_and_back(labelset):
    assert LabelSet.from_json(json.loads(json.dumps(labelset.to_json()))) == labelset


def test_names_and_ids():
    assert [SMALL.id(name) for name in SMALL.names] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="class name: wanted one of background, l_eye, r_eye, hat, got 'nose'"):
        SMALL.id("nose")


def test_colors_are_distinct_and_ignore_has_its_own():
    picture = SMALL.colorize(np.array([[0, 1], [3, IGNORE]], np.uint8))
    np.testing.assert_array_equal(picture, [[[0, 0, 0], [1, 2, 3]], [[7, 8, 9], IGNORE_COLOR]])
    assert picture.dtype == np.uint8
    for labelset in LABEL_SETS.values():
        assert len({*labelset.colors, IGNORE_COLOR}) == len(labelset) + 1


def test_ids_that_are_no_class_are_named():
    SMALL.check(np.array([0, 3, IGNORE]), "a.png")
    with pytest.raises(InputError, match=r"a\.png: wanted class ids below 4 or 255, got \[4, 200\]"):
        SMALL.check(np.array([0, 4, 200, 4]), "a.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("a", "b", "a", "c")}, "LabelSet.names: wanted fewer than 255 unique names"),
        ({"mirror": ("background", "r_eye", "r_eye", "hat")}, "LabelSet.mirror: wanted a permutation of"),
        ({"mirror": ("background", "r_eye", "hat", "l_eye")}, "LabelSet.mirror: wanted names that swap in pairs"),
        ({"colors": ((0, 0, 0),)}, "LabelSet.colors: wanted 4 colours, got 1"),
        ({"rare": frozenset({"scarf"})}, r"LabelSet.rare: wanted some of \(.*\), got \['scarf'\]"),
    ],
)
def test_what_is_wrong_with_a_label_set_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    "data",
    [{}, {**SMALL.to_json(), "colors": [[1, 2]]}, {**SMALL.to_json(), "colors": 3}, {**SMALL.to_json(), "rare": 3}],
)
def test_what_is_no_label_set_is_refused(data):
    with pytest.raises(InputError, match="label set: wanted names, colors, mirror, rare"):
        LabelSet.from_json(data)
