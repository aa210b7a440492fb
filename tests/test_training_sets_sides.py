"""Which side a labelled set really calls left."""

import cv2
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet
from jsplat.labelsets.tables import swapped
from jsplat.synthetic import HeadsConfig, render_captures
from jsplat.training_sets.reading import SidesConfig, doubled, opinions, side_convention, vote


@pytest.fixture(scope="module")
def frontal() -> np.ndarray:
    """16 near-frontal heads of 4 people."""
    captures = render_captures(range(4), 4, HeadsConfig(size=64, samples=1), rig="frontal")
    return np.concatenate([c.labels for c in captures if c.labels is not None])


def turned(labels: np.ndarray, degrees: float) -> np.ndarray:
    h, w = labels.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(labels, matrix, (w, h), flags=cv2.INTER_NEAREST)


def test_procedural_heads_are_named_from_the_subjects_side(frontal):
    seen = side_convention(list(frontal), CELEBAMASK_HQ)
    assert seen.convention == "subject"
    assert seen.votes == (1,) * 16
    assert (seen.contradicting, seen.inconsistent, seen.doubled) == ((), (), ())
    z = 1.959963984540054
    assert seen.confidence == pytest.approx(16 / (16 + z**2), rel=1e-12)  # Wilson's lower end for n of n


@pytest.mark.parametrize("change", ["mirrored pictures", "a viewer's names"])
def test_a_viewers_set_is_found_out(frontal, change):
    if change == "mirrored pictures":
        seen = side_convention(list(frontal[:, :, ::-1]), CELEBAMASK_HQ)
    else:
        seen = side_convention(list(frontal), swapped(CELEBAMASK_HQ))
    assert seen.convention == "viewer"
    assert seen.votes == (-1,) * 16
    assert seen.confidence > 0.8


def test_a_right_flip_changes_nothing(frontal):
    flipped = CELEBAMASK_HQ.mirror_ids.astype(np.uint8)[frontal[:, :, ::-1]]
    assert side_convention(list(flipped), CELEBAMASK_HQ).convention == "subject"


def test_pictures_mirrored_without_exchanging_the_names_are_listed(frontal):
    mixed = frontal.copy()
    mixed[[3, 8, 9]] = mixed[[3, 8, 9], :, ::-1]
    seen = side_convention(list(mixed), CELEBAMASK_HQ)
    assert (seen.convention, seen.contradicting) == ("mixed", (3, 8, 9))
    assert side_convention(list(mixed), CELEBAMASK_HQ, SidesConfig(mixed_above=0.2)).convention == "subject"


@pytest.mark.parametrize("degrees", [-150, -60, 35, 90, 180])
def test_a_head_that_hangs_is_read_along_its_own_axis(frontal, degrees):
    assert [vote(turned(x, degrees), CELEBAMASK_HQ)[0] for x in frontal[::4]] == [1] * 4


def test_profiles_and_backs_of_heads():
    """Of a whole dome every picture that has an opinion has the right one; from behind, none has any."""
    (capture,) = render_captures([5], 56, HeadsConfig(size=64, samples=1))
    assert capture.labels is not None
    votes = np.asarray([vote(x, CELEBAMASK_HQ)[0] for x in capture.labels])
    assert (votes >= 0).all()
    assert votes.mean() > 0.8
    assert not any(doubled(x, CELEBAMASK_HQ, 0.25) for x in capture.labels)
    behind = np.where(np.isin(capture.labels[0], [7, 8, 17]), capture.labels[0], 0).astype(np.uint8)
    assert opinions(behind, CELEBAMASK_HQ).size == 0


def test_parts_that_disagree_give_no_opinion(frontal):
    """A parser trained with flips and no swap: the eyes one way, the brows the other."""
    torn = frontal.copy()
    eyes = np.arange(256, dtype=np.uint8)
    eyes[[4, 5]] = [5, 4]
    torn[2] = eyes[torn[2]]
    seen = side_convention(list(torn), CELEBAMASK_HQ)
    assert (seen.votes[2], seen.inconsistent, seen.convention) == (0, (2,), "subject")


@pytest.mark.parametrize("name", ["eye", "brow"])
def test_both_sides_under_one_name_are_listed(frontal, name):
    """What parsers do that saw mirrored pictures under unchanged names: two left eyes."""
    mixed, pair = frontal.copy(), [CELEBAMASK_HQ.id(f"{side}_{name}") for side in "lr"]
    # Where hair leaves both sides to be seen.
    first, second = [i for i, x in enumerate(frontal) if min((x == k).sum() for k in pair) >= 10][:2]
    for i in (first, second):
        mixed[i][mixed[i] == pair[1]] = pair[0]
    mixed[second] = turned(mixed[second], 70)
    seen = side_convention(list(mixed), CELEBAMASK_HQ)
    assert (seen.convention, seen.doubled) == ("subject", (first, second))


def test_too_little_to_tell_by(frontal):
    seen = side_convention([frontal[0], np.zeros((4, 4), np.uint8)], CELEBAMASK_HQ)
    assert (seen.convention, seen.confidence, seen.votes) == ("unknown", 0.0, (1, 0))


def test_what_has_no_sides_cannot_be_asked(frontal):
    plain = LabelSet(("background", "skin"), ((0, 0, 0), (1, 1, 1)), ("background", "skin"))
    with pytest.raises(InputError, match="side_convention: labelset: wanted classes with a left and a right"):
        side_convention(list(frontal), plain)
    with pytest.raises(InputError, match=r"side_convention: labels\[0\]: wanted class ids below 19 or 255, got \[30\]"):
        side_convention([np.full((2, 2), 30, np.uint8)], CELEBAMASK_HQ)
