"""The Triton kernels, interpreted: against the reference on the named cases, and what is theirs alone."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.target import lowering_for
from jsplat.kernels.blend import triton, xla
from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, COUNT, SIZE
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.collect import sum_over_images
from tests.close import assert_close, assert_gradient_close, assert_image_close
from tests.kernels.test_blend import ATTRIBUTES, LOSS, truth, unit_depth

SPLIT = 1e-4
SPLIT_WHY = "factors of products keep 16 bits: 2^-17 of each, and sums of terms of both signs"
PART = 2.0**-17
PART_WHY = "two numbers of 8 bits, both rounded"
RESERVED = {"size": SIZE, "capacity": CAPACITY}
ONE_SET = jnp.zeros(1, jnp.int32)


@functools.cache
def drawn(name: str):
    """Image of a case with depths of at most 1, and the gradients of the tests' linear loss."""
    splats = CASES[name]().arrays()
    scale = unit_depth(splats.depths)
    args = (splats, ONE_SET)
    shown, _ = triton.forward(*args, **RESERVED, interpret=True)
    to_unit = jnp.ones(CHANNELS + 2).at[CHANNELS].set(scale)
    grad = jnp.asarray(LOSS, jnp.float32)[None] * to_unit
    gradients = triton.backward(*args, shown, Shown.of(grad), **RESERVED, shape_channels=CHANNELS, interpret=True)
    return shown.image * to_unit, dict(zip(ATTRIBUTES, gradients))


@pytest.mark.parametrize("name", CASES)
def test_image_and_gradients_are_the_references(name):
    want, wanted, band = truth(name)
    image, gradients = drawn(name)
    assert image.dtype == np.float32
    assert_image_close(image, want, band)
    for key, gradient in gradients.items():
        if wanted[key].any():
            assert_gradient_close({key: gradient[0]}, {key: wanted[key][0]})
        else:
            assert not gradient.any(), f"{key}: a gradient where the reference has none"


@functools.cache
def views(module, **options):
    """Three views of two sets of features: 15 channels, so that depth and alpha lie in two blocks of columns."""
    names, random = ("random", "opaque_layers", "random"), np.random.default_rng(5)
    rows = [jnp.concatenate(x) for x in zip(*(CASES[name]().arrays()[:4] for name in names))]
    features = jnp.asarray(random.uniform(size=(2, COUNT, 15)), jnp.float32)
    args = (Splats(*rows, features), jnp.asarray([1, 0, 1], jnp.int32))
    shown, needed = module.forward(*args, **RESERVED, **options)
    grad = jnp.asarray(random.normal(size=shown.image.shape), jnp.float32)
    grad = grad.at[2].set(grad[0])
    gradients = module.backward(*args, shown, Shown.of(grad), **RESERVED, shape_channels=4, **options)
    return shown.image, needed, dict(zip(ATTRIBUTES, gradients))


def test_views_that_share_features_give_what_xla_gives():
    image, needed, gradients = views(triton, interpret=True)
    want, wanted_needed, wanted = views(xla)
    np.testing.assert_array_equal(needed, wanted_needed)
    assert_close(image, want, SPLIT, SPLIT_WHY)
    assert gradients["features"].shape == (2, COUNT, 15)
    assert_close(gradients, wanted, SPLIT, SPLIT_WHY, relative=True)


def test_a_view_has_the_same_bits_wherever_it_lies_in_the_batch():
    image, _, gradients = views(triton, interpret=True)
    np.testing.assert_array_equal(image[0], image[2])
    for key in ("means2d", "conic_roots", "opacities", "depths"):
        assert gradients[key][0].any()
        np.testing.assert_array_equal(gradients[key][0], gradients[key][2])


@pytest.mark.parametrize("interpret", [True, None], ids=["kernel", "this device"])
def test_images_are_summed_by_their_sets_and_do_not_touch_others(interpret):
    rows = np.random.default_rng(0).integers(-99, 99, (5, 100, 7)).astype(np.float32)
    rows[3] = np.nan
    got = sum_over_images(jnp.asarray(rows), jnp.asarray([2, 0, 2, 3, 0], jnp.int32), 4, interpret=interpret)
    want = [rows[1] + rows[4], 0 * rows[0], rows[0] + rows[2], rows[3]]
    np.testing.assert_array_equal(got, np.stack(want))


def test_two_parts_hold_sixteen_bits_however_they_are_made():
    x = jnp.asarray(np.random.default_rng(0).normal(size=1000) * np.geomspace(1e-20, 1e20, 1000), jnp.float32)
    high, low = triton._parts(x)
    off = (np.asarray(high, np.float64) + np.asarray(low, np.float64)) / np.asarray(x, np.float64) - 1
    assert_close(off, 0 * off, PART, PART_WHY)
    for a, b in zip(triton._unpacked(triton._packed(x)), (high, low)):
        np.testing.assert_array_equal(a, b)


def test_no_sum_on_a_gpu_is_a_scatter_of_floats_or_a_loop():
    """A scatter-add of floats is what would make gradients differ from run to run."""
    shapes = [(2, COUNT, 2), (2, COUNT, 3), (2, COUNT), (2, COUNT), (1, COUNT, 22)]
    splats = Splats(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    set_ids = jax.ShapeDtypeStruct((2,), jnp.int32)
    shown = Shown(*(jax.ShapeDtypeStruct((2, *SIZE[::-1], *rest), jnp.float32) for rest in ((22,), (), ())))
    with lowering_for("NVIDIA A100"):
        traced = triton.backward.trace(splats, set_ids, shown, shown, **RESERVED, shape_channels=22)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    scattered = re.findall(r'"stablehlo\.scatter"\(.*?\}\) : \((.*?)\) ->', text, re.DOTALL)
    assert scattered
    assert not [types for types in scattered if "f32" in types]
    assert "stablehlo.while" not in text
    names = re.findall(r'kernel_name = "(\w+)"|name = "(\w+)"', text)
    kernels = {a or b for a, b in names}
    assert {"blend_backward", "collect", "sum_over_images"} <= kernels
