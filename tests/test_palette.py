"""Palette colours and clusters: what they keep, and the edge they lose."""

import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labels.palette import PaletteConfig, from_colors, third_color_pairs, to_colors
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet

LABELS = CELEBAMASK_HQ
RGB = LabelSet(("background", "a", "b"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)), ("background", "a", "b"))


def random_labels(n=2, size=16, k=19):
    return np.random.default_rng(0).integers(0, k, (n, size, size), dtype=np.uint8)


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_clean_colors_come_back_exactly(iterations):
    labels = random_labels()
    colors = to_colors(labels, LABELS)
    assert colors.dtype == np.float32
    assert colors.min() >= 0
    assert colors.max() <= 1
    back = from_colors(colors, np.ones(labels.shape), LABELS, PaletteConfig(iterations=iterations))
    np.testing.assert_array_equal(back, labels)


def test_noise_below_half_the_colour_distance_is_undone():
    labels = random_labels(k=3)
    noise = np.random.default_rng(1).uniform(-0.2, 0.2, (*labels.shape, 3))  # 0.35 long at most: colours are 1 apart
    back = from_colors(to_colors(labels, RGB) + noise, np.ones(labels.shape), RGB, PaletteConfig())
    np.testing.assert_array_equal(back, labels)


def test_clusters_follow_faded_colors():
    """Half the blue pixels are nearer to red than to blue, but nearer to where the cluster of the blue ones moves."""
    labels = np.array([[[1] * 8 + [2] * 8]], np.uint8)
    colors = to_colors(labels, RGB)
    colors[0, 0, 8:10] = (0.52, 0.0, 0.48)
    colors[0, 0, 10:] = (0.45, 0.0, 0.55)
    alone = from_colors(colors, np.ones(labels.shape), RGB, PaletteConfig(iterations=0))
    np.testing.assert_array_equal(alone[0, 0], [1] * 10 + [2] * 6)
    clustered = from_colors(colors, np.ones(labels.shape), RGB, PaletteConfig())
    np.testing.assert_array_equal(clustered, labels)


def test_alpha_gate():
    labels = np.full((1, 4, 4), 5, np.uint8)
    alpha = np.ones((1, 4, 4))
    alpha[0, 0] = 0.4
    back = from_colors(to_colors(labels, LABELS), alpha, LABELS, PaletteConfig())
    assert (back[0, 0] == 0).all()
    assert (back[0, 1:] == 5).all()


def test_the_documented_trap():
    """Most soft edges of this palette turn into a third class: why the palette is kept only to compare."""
    pairs = third_color_pairs(LABELS)
    assert len(pairs) == 130  # of 19 * 18 / 2 = 171
    assert third_color_pairs(RGB) == []
    one, other, third = pairs[0]
    colors = to_colors(np.array([[[LABELS.id(one), LABELS.id(other)]]], np.uint8), LABELS)
    edge = colors.mean(2, keepdims=True)
    blended = from_colors(edge, np.ones((1, 1, 1)), LABELS, PaletteConfig(iterations=0))
    assert LABELS.names[blended.item()] == third
    assert third not in (one, other)


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="to_colors: labels: wanted class ids below 19, got 255"):
        to_colors(np.full((1, 2, 2), 255, np.uint8), LABELS)
    twins = LabelSet(("background", "a"), ((0, 0, 0), (0, 0, 0)), ("background", "a"))
    with pytest.raises(InputError, match=r"LabelSet.colors: wanted one colour per class, all different"):
        to_colors(np.zeros((1, 2, 2), np.uint8), twins)
    with pytest.raises(InputError, match=r"from_colors: renders: wanted shape \(1, 2, 2, 3\)"):
        from_colors(np.zeros((1, 2, 3, 3)), np.ones((1, 2, 2)), LABELS, PaletteConfig())
    with pytest.raises(InputError, match="from_colors: renders: wanted finite colours"):
        from_colors(np.full((1, 2, 2, 3), np.nan), np.ones((1, 2, 2)), LABELS, PaletteConfig())
    with pytest.raises(InputError, match=r"PaletteConfig.alpha_gate: wanted a number between 0 and 1, got 1\.5"):
        PaletteConfig(alpha_gate=1.5)
    with pytest.raises(InputError, match=r"PaletteConfig.iterations: wanted 0 or more, got -1"):
        PaletteConfig(iterations=-1)
