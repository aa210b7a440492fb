"""Public label sets, and ids of one turned into ids of another."""

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.labelsets.tables import (
    CELEBAMASK_HQ_FARL,
    CELEBAMASK_HQ_OFFICIAL,
    FACESYNTHETICS,
    IBUGMASK_14,
    LABEL_SETS,
    LAPA,
    label_set,
    mapping,
    relabel,
    swapped,
    usual_choices,
)

MERGED = LabelSet(
    ("background", "brows", "eye", "ear_r"),
    ((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
    ("background", "brows", "eye", "ear_r"),
)
PAIRS = ("brow", "eye", "ear")


@pytest.mark.parametrize(
    ("name", "row"),
    [  # ids of background, skin, l_brow, r_brow, l_eye, r_eye, nose, mouth, u_lip, l_lip, hair in each published order
        ("celebamask-hq", [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 17]),
        ("celebamask-hq-official", [0, 1, 6, 7, 4, 5, 2, 10, 11, 12, 13]),
        ("celebamask-hq-farl", [0, 2, 6, 7, 8, 9, 10, 11, 13, 12, 14]),
        ("lapa", [0, 1, 3, 2, 5, 4, 6, 8, 7, 9, 10]),
        ("helen", [0, 1, 3, 2, 5, 4, 6, 8, 7, 9, 10]),
        ("ibugmask-14", [0, 1, 3, 2, 5, 4, 6, 8, 7, 9, 10]),
        ("facesynthetics", [0, 1, 6, 5, 4, 3, 2, 9, 10, 11, 13]),
    ],
)
def test_the_published_orders(name, row):
    parts = ["background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "mouth", "u_lip", "l_lip", "hair"]
    assert [label_set(name).id(part) for part in parts] == row


def test_sizes_and_the_classes_that_few_sets_have():
    assert {name: len(s) for name, s in LABEL_SETS.items()} == {
        **{"celebamask-hq": 19, "celebamask-hq-official": 19, "celebamask-hq-farl": 19, "lapa": 11, "helen": 11},
        **{"ibugmask": 11, "ibugmask-14": 14, "facesynthetics": 19},
    }
    assert [FACESYNTHETICS.id(n) for n in ("neck", "beard", "cloth", "eye_g", "hat", "facewear")] == [
        12,
        *range(14, 19),
    ]
    assert [IBUGMASK_14.id(n) for n in ("r_ear", "l_ear", "eye_g")] == [11, 12, 13]
    with pytest.raises(InputError, match=r"label set: wanted one of celebamask-hq, .*, got 'ade20k'"):
        label_set("ade20k")


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_table_mirrors_in_pairs_and_has_colours_of_its_own(name):
    labelset = label_set(name)
    changed = {n for n, m in zip(labelset.names, labelset.mirror) if n != m}
    assert changed == {n for n in labelset.names if n[2:] in PAIRS}
    assert len(set(labelset.colors)) == len(labelset)


@pytest.mark.parametrize("target", [CELEBAMASK_HQ_OFFICIAL, CELEBAMASK_HQ_FARL])
def test_the_orders_of_one_set_are_permutations(target):
    table = mapping(CELEBAMASK_HQ, target)
    assert sorted(table[:19]) == list(range(19))
    assert [target.names[i] for i in table[:19]] == list(CELEBAMASK_HQ.names)
    np.testing.assert_array_equal(mapping(target, CELEBAMASK_HQ)[table[:19]], np.arange(19))
    assert (table[19:] == IGNORE).all()


def test_sides_change_ids_between_the_subjects_and_the_viewers_sets():
    """LaPa's id 2 is the brow on the left of the picture: the person's right one, id 3 of CelebAMask-HQ."""
    table = mapping(LAPA, CELEBAMASK_HQ)
    assert table[[2, 3, 4, 5]].tolist() == [3, 2, 5, 4]


def test_the_usual_choices_follow_the_literature():
    """Ears and beards are skin, a hat is background, glasses are left out; a necklace lies on a neck if it can."""
    table = mapping(CELEBAMASK_HQ, LAPA, usual_choices(CELEBAMASK_HQ, LAPA))
    assert table[:19].tolist() == [0, 1, 3, 2, 5, 4, 255, 1, 1, 255, 6, 8, 7, 9, 0, 0, 0, 10, 0]
    table = mapping(FACESYNTHETICS, CELEBAMASK_HQ, usual_choices(FACESYNTHETICS, CELEBAMASK_HQ))
    assert table[:19].tolist() == [0, 1, 10, 5, 4, 3, 2, 8, 7, 11, 12, 13, 14, 17, 1, 16, 6, 18, 255]
    assert usual_choices(LAPA, CELEBAMASK_HQ) == {"background": None}


@pytest.mark.parametrize("source", LABEL_SETS)
@pytest.mark.parametrize("target", LABEL_SETS)
def test_the_usual_choices_make_every_mapping_possible(source, target):
    a, b = label_set(source), label_set(target)
    table = mapping(a, b, usual_choices(a, b))
    same = [n for n in a.names[1:] if n in b.names]
    assert [b.names[table[a.id(n)]] for n in same] == same


def test_sides_are_merged_only_where_the_target_has_none():
    source = LabelSet(
        ("background", "l_brow", "r_brow", "l_eye", "r_eye", "ear_r"),
        tuple((i, i, i) for i in range(6)),
        ("background", "r_brow", "l_brow", "r_eye", "l_eye", "ear_r"),
    )
    assert mapping(source, MERGED)[:6].tolist() == [0, 1, 1, 2, 2, 3]
    with pytest.raises(InputError, match=r"mapping: wanted a choice .* for what .* do not name, got brows, eye"):
        mapping(MERGED, source)
    one = LabelSet(
        ("background", "l_brow", "r_brow", "brow"), ((0, 0, 0),) * 4, ("background", "r_brow", "l_brow", "brow")
    )
    with pytest.raises(InputError, match="mapping: brow: wanted a class with a side, got one without, for l_brow"):
        mapping(one, source, {"brow": "l_brow"})


def test_what_has_no_place_is_named_unless_it_is_chosen():
    with pytest.raises(InputError, match=r"got eye_g, l_ear, r_ear, ear_r, neck, neck_l, cloth, hat$"):
        mapping(CELEBAMASK_HQ, LAPA)
    with pytest.raises(InputError, match=r"mapping: choices: wanted classes among .*, got scarf"):
        mapping(LAPA, CELEBAMASK_HQ, {"scarf": None})
    with pytest.raises(InputError, match="class name: wanted one of"):
        mapping(LAPA, CELEBAMASK_HQ, {"skin": "scarf"})
    assert mapping(LAPA, CELEBAMASK_HQ, {"skin": None})[1] == IGNORE


def test_maps_are_relabelled_and_checked():
    labels = np.array([[2, 3], [IGNORE, 10]], np.uint8)
    np.testing.assert_array_equal(relabel(labels, LAPA, CELEBAMASK_HQ), [[3, 2], [IGNORE, 17]])
    with pytest.raises(InputError, match=r"relabel: labels: wanted class ids below 11 or 255, got \[11\]"):
        relabel(np.full((1, 1), 11, np.uint8), LAPA, CELEBAMASK_HQ)


def test_swapping_exchanges_names_and_keeps_ids():
    other = swapped(LAPA)
    assert other.names[:4] == ("background", "skin", "l_brow", "r_brow")
    assert swapped(other) == LAPA
    assert other.colors[2] == LAPA.colors[3]
