"""The checks find what they are there to find, and let pass what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import (
    assert_close,
    assert_finite_differences,
    assert_gradient_close,
    assert_image_close,
    cosine,
    missing_fraction,
    near,
    relative_error,
)


def test_close_at_the_tolerance_and_not_beyond():
    assert_close([1.0, 2.0], [1.0, 2.5], 0.5, "half")
    with pytest.raises(AssertionError, match=r"off by 0\.5 at \(1,\) \(got 2, want 2\.5\), 50\.00% .* \(reason\)"):
        assert_close(np.array([1.0, 2.0]), np.array([1.0, 2.5]), 0.49, "reason")


def test_close_relative_to_the_largest_entry():
    assert_close(np.array([100.0, 1.0]), np.array([100.0, 0.0]), 0.01, "1 of 100", relative=True)
    with pytest.raises(AssertionError, match="beyond 0"):
        assert_close(np.array([1.0]), np.array([0.0]), 0.5, "nothing of 0", relative=True)


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (np.zeros(2), np.zeros((2, 1)), r"shape \(2,\), want \(2, 1\)"),
        (np.array([np.nan]), np.array([np.nan]), "1 entries are not finite"),
        (np.zeros(1), np.array([np.inf]), "the wanted array is not finite"),
        ({"a": np.zeros(1)}, {"b": np.zeros(1)}, r"got \[\"\['a'\]\"\], want \[\"\['b'\]\"\]"),
    ],
)
def test_close_refuses_what_cannot_be_compared(got, want, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(got, want, 1e9, "anything")


def test_close_names_the_array_of_a_tree():
    with pytest.raises(AssertionError, match=r"\['b'\]: off by 1"):
        assert_close({"a": np.zeros(2), "b": np.ones(2)}, {"a": np.zeros(2), "b": np.zeros(2)}, 0, "equal")


def test_empty_arrays_are_close():
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), 0, "nothing", relative=True)


def test_near_is_a_band_around_the_cutoff():
    values = np.array([[[0.1, 0.5], [0.0989, 0.5]], [[0.1009, 0.0], [0.5, 0.5]]])
    assert near(values, 0.1, 0.01).tolist() == [[True, False], [True, False]]


def image_with_band():
    image, band = np.full((1, 10, 10, 3), 0.5), np.zeros((1, 10, 10), bool)
    band[0, 2, 3] = True
    return image, band


def test_an_image_may_differ_inside_the_band_only():
    image, band = image_with_band()
    inside, outside = image.copy(), image.copy()
    inside[0, 2, 3, 1] += 0.003
    outside[0, 2, 4, 1] += 0.003
    assert_image_close(inside, image, band)
    with pytest.raises(AssertionError, match=r"off by 0\.003 at \(0, 2, 4, 1\).*outside the band"):
        assert_image_close(outside, image, band)


def test_an_image_may_not_differ_by_anything_inside_the_band():
    image, band = image_with_band()
    wrong = image.copy()
    wrong[0, 2, 3, 1] += 0.1
    with pytest.raises(AssertionError, match="inside the band"):
        assert_image_close(wrong, image, band)


def test_a_band_may_not_hide_the_image():
    image, band = image_with_band()
    with pytest.raises(AssertionError, match=r"band: covers 100\.00% of the pixels, at most 2\.00%"):
        assert_image_close(image + 0.003, image, np.ones_like(band))
    with pytest.raises(AssertionError, match=r"band: shape \(10, 10\), want \(1, 10, 10\)"):
        assert_image_close(image, image, band[0])


def test_nan_inside_the_band_is_found():
    image, band = image_with_band()
    wrong = image.copy()
    wrong[0, 2, 3] = np.nan
    with pytest.raises(AssertionError, match="3 entries are not finite"):
        assert_image_close(wrong, image, band)


def test_missing_share_counts_rows_on_both_sides():
    want = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
    assert missing_fraction(want * 2, want) == 0
    assert missing_fraction(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0], [1.0, 0.0]]), want) == 0.5


def test_cosine_and_error_of_known_vectors():
    assert cosine([1, 0], [1, 1]) == pytest.approx(np.sqrt(0.5), abs=1e-15)  # two roundings of 1e-16
    assert (cosine([0, 0], [0, 0]), cosine([0, 0], [1, 0]), cosine([1, 2], [-1, -2])) == (1, 0, pytest.approx(-1))
    assert relative_error([3, 4], [0, 4]) == 0.75
    assert (relative_error([0], [0]), relative_error([1], [0])) == (0, np.inf)


def gradient():
    return {"means": np.random.default_rng(0).standard_normal((1000, 3)), "alpha": np.ones(1000)}


def test_a_gradient_with_float32_noise_passes():
    want = gradient()
    noise = np.random.default_rng(1)
    assert_gradient_close(jax.tree.map(lambda x: x * (1 + 1e-3 * noise.standard_normal(x.shape)), want), want)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: x * 1.01, {}, "relative error at most 0.005"),
        (lambda x: x[:, ::-1], {}, "cosine at least 0.9999"),
        (lambda x: x + np.array([0.05, 0, 0]), {"error": 1.0}, "cosine at least 0.9999"),
        (lambda x: np.where(np.arange(1000)[:, None] == 7, 0, x), {"error": 1.0, "angle": 0.9}, "missing 0.100%"),
        (lambda x: np.where(np.arange(1000)[:, None] == 7, np.nan, x), {}, "3 entries are not finite"),
    ],
)
def test_a_wrong_gradient_is_found(change, options, message):
    want = gradient()
    with pytest.raises(AssertionError, match=message) as error:
        assert_gradient_close({**want, "means": change(want["means"])}, want, **options)
    assert str(error.value).startswith("['means']")


def test_a_wanted_gradient_of_zero_tests_nothing():
    with pytest.raises(AssertionError, match="tests nothing"):
        assert_gradient_close(np.zeros((2, 3)), np.zeros((2, 3)))


def test_differences_agree_with_a_right_gradient():
    def function(tree, scale):
        return jnp.sum(jnp.sin(tree["x"]) * scale) + 1e-3 * jnp.sum(tree["y"] ** 3)

    assert_finite_differences(function, {"x": np.linspace(0, 1, 12).reshape(3, 4), "y": np.arange(3.0)}, 2.0)
    assert not jax.config.jax_enable_x64


def test_differences_find_a_wrong_gradient_beside_a_large_right_one():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (g * 3.0001 * x**2,))

    def function(x, y):
        return 1e3 * jnp.sum(x) + jnp.sum(cube(y))

    with pytest.raises(AssertionError, match=r"^\[1\]: autodiff"):
        assert_finite_differences(function, np.ones(4), np.ones(4))


def test_differences_refuse_a_function_in_float32():
    with pytest.raises(AssertionError, match="computes in float32, want float64"):
        assert_finite_differences(lambda x: jnp.sum(x.astype(jnp.float32)), np.ones(2))
