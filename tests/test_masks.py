"""Label maps from rendered channels, and the rules that clean them."""

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labels.masks import RULES, MaskConfig, clean, to_masks
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet

LABELS = CELEBAMASK_HQ
SIZE = 64
CONFIG = MaskConfig()
ANY = LabelSet(("nothing", "cat", "dog"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ("nothing", "cat", "dog"))


def head(n=1, size=SIZE):
    """Skin with a nose, two eyes, lips around teeth, hair above; on background."""
    u = size // 64
    labels = np.zeros((n, size, size), np.uint8)

    def box(name, y0, y1, x0, x1):
        labels[:, y0 * u : y1 * u, x0 * u : x1 * u] = LABELS.id(name)

    box("hair", 6, 20, 14, 50)
    box("skin", 20, 56, 16, 48)
    box("r_eye", 26, 29, 20, 26)
    box("l_eye", 26, 29, 38, 44)
    box("nose", 30, 38, 29, 35)
    box("u_lip", 42, 44, 26, 38)
    box("mouth", 44, 46, 28, 36)
    box("l_lip", 46, 48, 26, 38)
    return labels


def cleaned(labels, confidence=None, labelset=LABELS, config=CONFIG):
    confidence = np.ones(labels.shape, np.float32) if confidence is None else confidence
    return clean(labels, confidence, labelset, config)


def test_masks_are_gate_and_argmax():
    probabilities = np.zeros((1, 1, 4, 3))
    probabilities[0, 0] = [[0.0, 0.9, 0.1], [0.0, 0.1, 0.3], [0.2, 0.3, 0.5], [0.5, 0.25, 0.25]]
    alpha = np.array([[[1.0, 0.4, 1.0, 1.0]]])
    labels, confidence = to_masks(probabilities, alpha, ANY, CONFIG)
    np.testing.assert_array_equal(labels[0, 0], [1, 0, 2, 0])
    np.testing.assert_allclose(confidence[0, 0], [0.8, 0.6, 0.2, 0.25], atol=1e-6)  # float32


def test_masks_do_not_depend_on_division_by_alpha():
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.1, 1, (2, 8, 8))
    mixture = rng.dirichlet(np.ones(3), (2, 8, 8))
    divided = to_masks(mixture, alpha, ANY, CONFIG)
    rendered = to_masks(mixture * alpha[..., None], alpha, ANY, CONFIG)
    np.testing.assert_array_equal(divided[0], rendered[0])
    np.testing.assert_allclose(divided[1], rendered[1], atol=1e-6)  # float32
    assert divided[0].dtype == np.uint8
    assert divided[1].min() >= 0
    assert divided[1].max() <= 1


def test_an_empty_pixel_is_sure_background():
    labels, confidence = to_masks(np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2)), ANY, CONFIG)
    assert (labels == 0).all()
    assert (confidence == 1).all()


def test_a_clean_head_stays():
    labels = head(2)
    before = labels.copy()
    np.testing.assert_array_equal(cleaned(labels), labels)
    np.testing.assert_array_equal(labels, before)  # the argument is not written to


def test_stray_regions_go_to_the_class_around_them():
    labels = head()
    labels[0, 50:52, 20:22] = LABELS.id("nose")  # a second nose, on the chin
    labels[0, 10, 30] = LABELS.id("l_brow")  # a speck in the hair
    labels[0, 60, 3] = LABELS.id("skin")  # a floater
    labels[0, 24, 24] = 0  # a hole
    np.testing.assert_array_equal(cleaned(labels)[0][[50, 24, 60]], head()[0][[50, 24, 60]])
    assert LABELS.id("l_brow") in cleaned(
        labels
    )  # one pixel at this size: the only brow there is, above its least area
    again = labels.copy()
    again[0, 22:24, 38:44] = LABELS.id("l_brow")
    assert cleaned(again)[0, 10, 30] == LABELS.id("hair")
    assert cleaned(again)[0, 22, 40] == LABELS.id("l_brow")


def test_lips_cannot_eat_teeth():
    labels = head()
    labels[0, 44:46, 28:36] = LABELS.id("l_lip")
    labels[0, 45, 30] = LABELS.id("mouth")  # all that is seen of the teeth, enclosed by a lip
    np.testing.assert_array_equal(cleaned(labels), labels)


def test_parts_cut_by_a_fringe_stay():
    labels = head()
    labels[0, 26:29, 22] = LABELS.id("hair")  # one strand of 3 pixels over the right eye
    eye = cleaned(labels)[0, 27, 20:26] == LABELS.id("r_eye")
    assert eye[0]
    assert eye[3:].all()


def test_confidence_ranks_regions():
    labels = np.zeros((1, SIZE, SIZE), np.uint8)
    labels[0, 5:45, 5:45] = LABELS.id("skin")
    labels[0, 10:14, 10:14] = LABELS.id("nose")
    labels[0, 30:36, 30:36] = LABELS.id("nose")
    confidence = np.ones(labels.shape, np.float32)
    assert (cleaned(labels, confidence)[0, 10:14, 10:14] == LABELS.id("nose")).all()  # a rival: 16 of 36 pixels
    confidence[0, 30:36, 30:36] = 0.1
    out = cleaned(labels, confidence)[0]
    assert (out[10:14, 10:14] == LABELS.id("nose")).all()
    assert (out[30:36, 30:36] == LABELS.id("skin")).all()


def test_pictures_do_not_touch_each_other():
    """The same region in neighbouring pictures of the stack is not one region."""
    labels = np.concatenate([head(), head()])
    labels[1, 30:38, 29:35] = LABELS.id("skin")
    labels[1, 36, 30] = LABELS.id("nose")
    labels[1, 50:53, 20:23] = LABELS.id("nose")
    out = cleaned(labels)
    np.testing.assert_array_equal(out[0], head()[0])
    assert (out[1, 50:53, 20:23] == LABELS.id("nose")).all()
    assert out[1, 36, 30] == LABELS.id("skin")
    np.testing.assert_array_equal(out, np.concatenate([cleaned(labels[:1]), cleaned(labels[1:])]))
    np.testing.assert_array_equal(out, cleaned(labels, config=MaskConfig(batch=1)))


def test_rules_scale_with_the_picture():
    noisy = head()
    rng = np.random.default_rng(0)
    for _ in range(40):
        y, x = rng.integers(0, SIZE, 2)
        noisy[0, y, x] = rng.integers(0, len(LABELS))
    big = noisy.repeat(4, 1).repeat(4, 2)
    np.testing.assert_array_equal(cleaned(big)[:, ::4, ::4], cleaned(noisy))


def test_ignored_pixels_stay_and_do_not_vote():
    labels = head()
    labels[0, 49:54, 19:24] = IGNORE
    labels[0, 51, 21] = LABELS.id("nose")  # nothing but ignored pixels around it
    labels[0, 24, 20:22] = IGNORE
    labels[0, 24, 22] = LABELS.id("nose")
    out = cleaned(labels)
    assert (out[labels == IGNORE] == IGNORE).all()
    assert out[0, 51, 21] == LABELS.id("nose")
    assert out[0, 24, 22] == LABELS.id("skin")


def test_cleaning_again_changes_little():
    rng = np.random.default_rng(1)
    noisy = np.where(rng.random((2, SIZE, SIZE)) < 0.05, rng.integers(0, 19, (2, SIZE, SIZE)), head(2)).astype(np.uint8)
    once = cleaned(noisy)
    assert (once != head(2)).mean() < (noisy != head(2)).mean() / 2
    # Patches that merge can break a rule they did not break before, but few do.
    assert (cleaned(once) != once).mean() < 0.002


def test_other_label_sets_use_the_default_rule():
    labels = np.zeros((1, SIZE, SIZE), np.uint8)
    labels[0, 8:40, 8:40] = 1
    labels[0, 50:58, 50:58] = 1
    labels[0, 60, 2] = 1
    out = cleaned(labels, labelset=ANY)
    assert out[0, 60, 2] == 1  # one pixel of 64 x 64 is above the least area
    big = cleaned(labels.repeat(2, 1).repeat(2, 2), labelset=ANY)
    assert big[0, 120, 4] == 1
    assert set(RULES) < set(LABELS.names)


def test_what_is_wrong_is_said():
    alpha = np.ones((1, 2, 2))
    with pytest.raises(InputError, match=r"to_masks: probabilities: wanted shape \(1, 2, 2, 3\)"):
        to_masks(np.ones((1, 2, 2, 4)), alpha, ANY, CONFIG)
    with pytest.raises(InputError, match="to_masks: picture 0: wanted finite channels and alpha"):
        to_masks(np.full((1, 2, 2, 3), np.nan), alpha, ANY, CONFIG)
    with pytest.raises(InputError, match=r"clean: confidence: wanted shape \(1, 2, 2\), as the labels"):
        clean(np.zeros((1, 2, 2), np.uint8), np.ones((2, 2, 2)), ANY, CONFIG)
    with pytest.raises(InputError, match=r"clean: labels: wanted class ids below 3 or 255, got \[7\]"):
        clean(np.full((1, 2, 2), 7, np.uint8), alpha, ANY, CONFIG)
    with pytest.raises(InputError, match=r"MaskConfig.alpha_gate: wanted a number between 0 and 1, got 1\.0"):
        MaskConfig(alpha_gate=1.0)
    with pytest.raises(InputError, match=r"MaskConfig.batch: wanted a positive number, got 0"):
        MaskConfig(batch=0)
