"""What `blend` does where something is hidden, too much, none at all, or of another type."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.target import lowering_for
from jsplat.kernels.blend import blend, blend_function
from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, COUNT, SIZE, VISIBLE
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.blend.splats import Splats
from tests.close import assert_close
from tests.kernels.test_blend import IN_DOUBLE, LOSS, RUNS, equal, loss_of, stacked

draw = functools.partial(blend, size=SIZE, capacity=CAPACITY)


def gradients(function, *args):
    return jax.grad(lambda *args: loss_of(*function(*args)), range(5))(*args)


# Overflow, and NaN in features


@jax.jit
def two_by_two(*args):
    """Images, and gradients, of two sets of features with two views each, of which one needs too much."""
    draw = functools.partial(blend, size=SIZE, capacity=ENOUGH)
    return stacked(*draw(*args)), gradients(draw, *args)


ENOUGH = 700  # for all but the layers


def views():
    names = ("one", "opaque_layers", "one_at_the_corner", "random")
    *rows, features = (np.stack(x).reshape(2, 2, *x[0].shape[1:]) for x in zip(*(CASES[n]().arrays() for n in names)))
    return *rows, features[:, :1]


def test_overflow_gives_gradients_of_nan_to_its_image_and_to_the_features_it_shares():
    image, (*own, features) = jax.tree.map(np.asarray, two_by_two(*views()))
    for x in (image, *own):
        assert np.isnan(x[0, 1]).all()
        assert np.isfinite(x[0, 0]).all()
        assert np.isfinite(x[1]).all()
    assert np.isnan(features[0]).all()
    assert np.isfinite(features[1]).all()


def test_a_set_of_nan_features_leaves_the_other_alone():
    *rows, features = views()
    broken = features.copy()
    broken[0] = np.nan
    got, want = ([x[1] for x in jax.tree.leaves(two_by_two(*rows, f))] for f in (broken, features))
    equal(got, want)
    assert np.asarray(want[0]).any()


@pytest.mark.parametrize("backend", sorted({name for name, _ in RUNS} - set(IN_DOUBLE)))
def test_a_cotangent_of_nan_stays_in_its_pixel(backend):
    """The NaN is one that only a GPU makes; rounded to 16 bits it would be none."""
    args, (y, x) = CASES["random"]().arrays(), (10, 13)

    def pulled(cotangent, backend=backend):
        def draw(*args):
            return stacked(*blend(*args, size=SIZE, capacity=CAPACITY, backend=backend))

        return [np.asarray(g)[0].reshape(COUNT, -1) for g in jax.vjp(draw, *args)[1](jnp.asarray(cotangent))]

    only, without, broken = (np.array(x[None], np.float32) for x in (0 * LOSS, LOSS, LOSS))
    only[0, y, x], without[0, y, x] = 1, 0
    broken[0, y, x, 1] = np.asarray(0x7FFFFFFF, np.uint32).view(np.float32)
    shown = pulled(only, "xla")[-1].any(-1)
    assert 0 < shown.sum() < shown.size / 2
    for got, want in zip(pulled(broken), pulled(without)):
        assert np.isnan(got[shown]).all()
        equal(got[~shown], want[~shown])


# Types


def test_one_array_in_float64_makes_the_image_float64():
    with jax.enable_x64(True):
        args = list(CASES["one"]().arrays())
        args[1] = args[1].astype(jnp.float64)
        assert draw(*args).channels.dtype == np.float64
        shapes = jax.eval_shape(functools.partial(gradients, draw), *args)
        assert [g.dtype for g in shapes] == [x.dtype for x in args]


def test_float64_depths_are_ordered_in_float64():
    with jax.enable_x64(True):
        args = list(CASES["random"]().arrays(np.float64))
        nearness = np.random.default_rng(0).permutation(VISIBLE)
        args[3] = args[3].at[0, :VISIBLE].set(1 + 1e-8 * nearness)  # in float32 they are one
        want = blend_reference(*args, size=SIZE)[0]
        assert_close(draw(*args).channels, want, 1e-9, "float64, the same formulas")
        assert np.abs(draw(*args[:3], args[3].astype(jnp.float32), args[4]).channels - want).max() > 0.1


def test_numpy_arrays_are_taken():
    args = CASES["one"]().arrays()
    equal(draw(*map(np.asarray, args)).channels, draw(*args).channels)


# Settings of JAX


def test_jax_enable_x64_changes_nothing_of_float32():
    args, by_xla = CASES["one"]().arrays(), functools.partial(draw, backend="xla")
    want = jax.make_jaxpr(functools.partial(gradients, by_xla))(*args)
    with jax.enable_x64(True):
        got = jax.make_jaxpr(functools.partial(gradients, by_xla))(*args)
    assert got.out_avals == want.out_avals
    inner = [[str(e) for e in jaxpr.eqns if "while" in str(e)] for jaxpr in (got, want)]
    assert inner[0]
    assert inner[0] == inner[1]


@pytest.mark.parametrize("backend", ["mosaic_gpu", "triton"])
def test_kernels_are_lowered_where_jax_enable_x64_is_set(backend):
    """That they compile, too, is checked by bench/aot."""
    blending = blend_function(SIZE, CAPACITY, CHANNELS, backend)
    with jax.enable_x64(True), lowering_for("NVIDIA H100 80GB HBM3"):
        args = [jax.ShapeDtypeStruct((1, COUNT, *rest), jnp.float32) for rest in ((2,), (3,), (), (), (CHANNELS,))]
        traced = jax.jit(jax.grad(lambda splats: blending(splats)[0].image.sum())).trace(Splats(*args))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "f64" not in text


def test_without_jit_the_same_numbers_come_out():
    args = [x[:, :2] for x in CASES["one"]().arrays()]
    args[0] = jnp.full_like(args[0], 2.0)

    def found(*args):
        return jax.grad(lambda *args: blend(*args, size=(4, 4), capacity=4).channels[0, 1, 1].sum(), range(5))(*args)

    want = found(*args)
    with jax.disable_jit():
        got = found(*args)
    assert_close(got, want, 1e-5, "float32, operations one by one")
    assert np.asarray(want[0]).any()


def test_second_derivatives_are_refused_by_name():
    args = CASES["one"]().arrays()
    slope = jax.grad(lambda *args: blend(*args, size=(4, 4), capacity=4).channels.sum(), 2)
    with pytest.raises(NotImplementedError, match="blend: wanted first derivatives"):
        jax.jacobian(slope, 2)(*args)


# None, and too many


def test_without_channels_depth_and_alpha_are_left():
    *args, features = CASES["random"]().arrays()
    want = draw(*args, features)
    got = draw(*args, features[..., :0])
    assert got.channels.shape == (1, SIZE[1], SIZE[0], 0)
    equal(got.needed, want.needed)
    other = "programs of other widths round in another order"
    assert_close((got.alpha, got.depth), (want.alpha, want.depth), 1e-6, other, relative=True)
    pulled = jax.grad(lambda *x: draw(*x).alpha.sum(), range(5))
    found, wanted = pulled(*args, features[..., :0]), pulled(*args, features)
    assert found[4].shape == (1, COUNT, 0)
    assert_close(found[:4], wanted[:4], 1e-5, "float32 sums in another order", relative=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 0}, "capacity: wanted 1 or more tile hits an image, got 0"),
        ({"capacity": -8}, "capacity: wanted 1 or more tile hits an image, got -8"),
        ({"capacity": 2**30}, "capacity: wanted at most 715827882 for 3 images, got 1073741824"),
        ({"shape_channels": 4}, "shape_channels: wanted 0 to 3, got 4"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, message):
    names = ("means2d", "conic_roots", "opacities", "depths", "features")
    args = dict(zip(names, (jnp.concatenate([x] * 3) for x in CASES["one"]().arrays())))
    with pytest.raises(ValueError, match=re.escape(f"blend: {message}")):
        blend(**{**args, "size": SIZE, "capacity": CAPACITY, **changes})
