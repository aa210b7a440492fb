"""`blend`: every implementation against the float64 reference, on the named cases."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.kernels.blend import BACKENDS, IMPLEMENTATIONS, blend
from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, COUNT, SIZE, VISIBLE, Splats, splats
from jsplat.kernels.blend.cpu import compiled
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.select import Facts, default_device
from tests.close import (
    assert_close,
    assert_finite_differences,
    assert_gradient_close,
    assert_image_close,
    near,
)
from tests.kernels.interpreted import INTERPRETED, ON_DEVICE

FLOOR_WIDTH = 1e-5  # float32 gives alpha to some 1e-6 of itself
STOP_WIDTH = 1e-3  # a transmittance is a product of 1 - alpha, and 1 - 0.999 keeps only 6e-5 of relative precision
DOUBLE = 1e-9
DOUBLE_WHY = "float64: rounding of 1e-16, amplified by 1 / (1 - 0.999) for each opaque layer and by sums over pixels"
REGROUPED = 1e-5
REGROUPED_WHY = "float32 sums in another order: chunks of other images move the borders of the blocks"
ATTRIBUTES = ("means2d", "conic_roots", "opacities", "depths", "features")
LOSS = np.random.default_rng(7).normal(size=(SIZE[1], SIZE[0], CHANNELS + 2))  # weights of channels, depth and alpha


INTERPRETED_CASES = {  # the interpreter of Mosaic kernels needs a second for each
    "mosaic_gpu interpreted": (
        "random",
        "nothing_visible",
        "one_at_the_corner",
        "needle",
        "needles_of_20000",
        "huge",
        "point",
        "opacity_zero",
        "two_chunks",
        "two_chunks_and_one",
        "nearly_opaque_layers",
        "far_apart_depths",
    ),
    "triton interpreted": ("random",),  # the others in test_triton.py
}


def works_here(backend: str) -> bool:
    """Whether an implementation takes float32 on this device."""
    facts = Facts(default_device(), np.dtype(np.float32), CHANNELS)
    return IMPLEMENTATIONS[backend].declines(facts) is None


NATIVE = tuple(name for name in BACKENDS if works_here(name))
RUNS = [(name, case) for name in NATIVE for case in CASES]
if not ON_DEVICE:
    RUNS += [(name, case) for name in INTERPRETED for case in INTERPRETED_CASES[name]]
IN_DOUBLE = tuple(name for name in NATIVE if name in ("cpu", "xla"))


def stacked(out, alpha, depth, *_):
    """All that an image shows, in one array."""
    return jnp.concatenate([out, depth[..., None], alpha[..., None]], -1)


def unit_depth(depths):
    """What makes the depths of a case at most 1, so that they weigh as much as the colours do."""
    return 1 / jnp.maximum(jnp.where(jnp.isfinite(depths), depths, 0).max(), 1e-30)


def loss_of(*blended):
    image = stacked(*blended)
    return (image * jnp.asarray(LOSS, image.dtype)).sum()


def image_and_gradients(function):
    """Image with depth and alpha, and the gradients of a random linear loss."""

    def run(*args):
        scale = unit_depth(args[3])

        def loss(*args):
            out, alpha, depth, *_ = function(*args)
            return loss_of(out, alpha, depth * scale), stacked(out, alpha, depth * scale)

        gradients, image = jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True)(*args)
        return image, dict(zip(ATTRIBUTES, gradients))

    return run


@functools.cache
def implementation(backend: str):
    return image_and_gradients(functools.partial(blend, size=SIZE, capacity=CAPACITY, backend=backend))


@functools.cache
def truth(name: str):
    """Image, gradients (numpy, float64) and the band of pixels near a cutoff."""
    with jax.enable_x64(True):
        run = _truth_function()
        image, gradients = jax.tree.map(np.asarray, run(*CASES[name]().arrays(np.float64)))
    assert image.dtype == np.float64
    return image, gradients, cutoff_band(CASES[name]())


@functools.cache
def _truth_function():
    return jax.jit(image_and_gradients(functools.partial(blend_reference, size=SIZE)))


def cutoff_band(case: Splats) -> np.ndarray:
    """Pixels `i h w` where some alpha is near the floor or the ceiling, or some transmittance near the stop."""
    floors, stops = [], []
    for means2d, (u, v, w), opacities, depths in zip(
        case.means2d, np.moveaxis(case.conic_roots, -1, 1), case.opacities, case.depths
    ):
        order = np.argsort(depths, kind="stable")
        pixels = np.stack(np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5), -1)
        dx, dy = np.moveaxis(means2d - pixels[:, :, None], -1, 0)
        alpha = opacities * np.exp(-0.5 * ((u * dx + v * dy) ** 2 + (w * dy) ** 2)) * np.isfinite(depths)
        alpha = alpha[..., order]
        transmittance = np.cumprod(1 - np.where(alpha >= ALPHA_FLOOR, np.minimum(alpha, ALPHA_CEILING), 0), -1)
        floors.append(near(alpha, ALPHA_FLOOR, FLOOR_WIDTH))
        stops.append(near(transmittance, TRANSMITTANCE_STOP, STOP_WIDTH))
    return np.stack(floors) | np.stack(stops)


def test_these_implementations_ran():
    """On a device: some kernel of our own, or the variable is a mistake; elsewhere each is interpreted."""
    if ON_DEVICE:
        assert NATIVE[-1] == "xla"
        assert len(NATIVE) > 1, f"no kernel takes {default_device().device_kind}"
    else:
        assert (("xla",) if compiled.problem() else ("cpu", "xla")) == NATIVE, compiled.problem()
        assert {f"{name} interpreted" for name in BACKENDS if name not in ("cpu", "xla")} == set(INTERPRETED)
    assert {name for name, _ in RUNS} == {*NATIVE, *(() if ON_DEVICE else INTERPRETED)}


def test_an_unknown_implementation_is_refused():
    with pytest.raises(
        ValueError,
        match=r"blend: backend: wanted one of \('mosaic_gpu', 'triton', 'cpu', 'xla'.*\) or None, got 'cuda'",
    ):
        blend(*CASES["one"]().arrays(), size=SIZE, capacity=CAPACITY, backend="cuda")


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_image_and_gradients_are_the_references(backend, name):
    want, wanted, band = truth(name)
    image, gradients = implementation(backend)(*CASES[name]().arrays())
    assert image.dtype == np.float32
    assert_image_close(image, want, band)
    for key, gradient in gradients.items():
        got, true = (np.asarray(g).reshape(-1, *g.shape[2:]) for g in (gradient, wanted[key]))
        if true.any():
            assert_gradient_close({key: got}, {key: true})
        else:
            assert not got.any(), f"{key}: a gradient where the reference has none"


@pytest.mark.parametrize("backend", sorted({name for name, _ in RUNS}))
def test_nan_in_hidden_rows_changes_no_bit_of_anything(backend):
    args = CASES["random"]().arrays()
    hidden = np.arange(COUNT) >= VISIBLE
    depths = args[3].at[0, -1].set(jnp.nan)  # the last one by NaN, the others by an infinite depth
    poisoned = [jnp.where(hidden.reshape(-1, *[1] * (x.ndim - 2)), jnp.nan, x) for x in args]
    clean_image, clean = jax.block_until_ready(implementation(backend)(*args))  # two at once stop the interpreter
    image, found = implementation(backend)(*poisoned[:3], depths, poisoned[4])
    equal(image, clean_image)
    equal(found, clean)
    assert not any(np.asarray(g)[:, hidden].any() for g in found.values())


def test_the_cases_are_what_their_names_say():
    def weight(name):
        return truth(name)[0][..., -1]

    for name in ("nothing_visible", "all_behind", "all_outside", "opacity_zero", "just_below_the_floor"):
        assert not truth(name)[0].any(), name
    for name in ("random", "one", "needle", "point", "one_chunk", "two_chunks_and_one", "equal_depths"):
        assert weight(name).any(), name
    assert weight("huge").min() > 0.69  # covers every pixel with its opacity of 0.7
    for name in ("opaque_layers", "nearly_opaque_layers"):
        transmittance = 1 - weight(name)
        assert 0 < transmittance.min() < TRANSMITTANCE_STOP, name  # the stop acted: all 64 layers would leave far less
        assert transmittance.min() > 1e-8, name


@pytest.mark.parametrize("name", ["random", "opacity_one", "opaque_layers", "needle"])
@pytest.mark.parametrize("backend", IN_DOUBLE)
def test_in_float64_the_same_formulas_come_out(backend, name):
    want, wanted, _ = truth(name)
    with jax.enable_x64(True):
        image, gradients = implementation(backend)(*CASES[name]().arrays(np.float64))
    assert image.dtype == np.float64
    assert_close(image, want, DOUBLE, DOUBLE_WHY)
    assert_close(gradients, wanted, DOUBLE, DOUBLE_WHY, relative=True)


def test_the_reference_has_the_gradient_of_its_finite_differences():
    case = CASES["random"]()
    count = 12  # few enough that no pixel lies near a cutoff
    few = Splats(*(x[:, :count] for x in (case.means2d, case.conic_roots, case.opacities, case.depths, case.features)))
    assert not cutoff_band(few).any()

    def loss(*args):
        return loss_of(*blend_reference(*args, size=SIZE))

    assert_finite_differences(loss, few.means2d, few.conic_roots, few.opacities, few.depths, few.features)


# Batches


@functools.cache
def batch() -> tuple[jax.Array, ...]:
    """Four images of quite different cost: `4 n ...`."""
    names = ("random", "opaque_layers", "one", "nothing_visible")
    return tuple(jnp.concatenate(rows) for rows in zip(*(CASES[name]().arrays() for name in names)))


def one_image(*args):
    return blend(*args, size=SIZE, capacity=CAPACITY)[:3]


def gradient_of(function):
    return jax.grad(lambda *args: loss_of(*function(*args)), (0, 1, 2, 3, 4))


@functools.cache
def unbatched():
    """Images and gradients, one image at a time."""

    def run(*args):
        return stacked(*one_image(*args)), dict(zip(ATTRIBUTES, gradient_of(one_image)(*args)))

    rows = [run(*(x[k : k + 1] for x in batch())) for k in range(4)]
    return jax.tree.map(lambda *x: np.concatenate(x), *rows)


def equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_leading_axes_equal_one_image_at_a_time():
    pairs = [x.reshape(2, 2, *x.shape[1:]) for x in batch()]
    got = blend(*pairs, size=SIZE, capacity=CAPACITY)
    assert (got.channels.shape, got.needed.shape) == ((2, 2, SIZE[1], SIZE[0], CHANNELS), (2, 2))
    got = stacked(*got).reshape(unbatched()[0].shape)
    assert_close(got, unbatched()[0], REGROUPED, REGROUPED_WHY)


NESTINGS = {
    "grad": lambda args: gradient_of(one_image)(*args),
    "vmap(grad)": lambda args: jax.vmap(gradient_of(one_image))(*args),
    "grad(vmap)": lambda args: gradient_of(jax.vmap(one_image))(*args),
    "jit(vmap(jit(grad)))": lambda args: jax.jit(jax.vmap(jax.jit(gradient_of(one_image))))(*args),
    "vmap(vmap(grad))": lambda args: jax.vmap(jax.vmap(gradient_of(one_image)))(*in_pairs(args)),
    "grad(vmap(vmap))": lambda args: gradient_of(jax.vmap(jax.vmap(one_image)))(*in_pairs(args)),
    "vmap(grad(vmap))": lambda args: jax.vmap(gradient_of(jax.vmap(one_image)))(*in_pairs(args)),
}


def in_pairs(args):
    return [x.reshape(2, 2, *x.shape[1:]) for x in args]


@pytest.mark.parametrize("name", NESTINGS)
def test_nested_transformations_equal_one_image_at_a_time(name):
    got = NESTINGS[name](batch())
    want = unbatched()[1]
    got = {key: np.asarray(g).reshape(want[key].shape) for key, g in zip(ATTRIBUTES, got)}
    assert_close(got, want, REGROUPED, REGROUPED_WHY, relative=True)


def test_nesting_changes_no_bit():
    plain = NESTINGS["grad(vmap)"](batch())
    equal(NESTINGS["vmap(grad)"](batch()), plain)
    equal(tuple(x.reshape(4, *x.shape[2:]) for x in NESTINGS["vmap(grad(vmap))"](batch())), plain)


def test_an_axis_that_is_not_batched_is_shared():
    args = tuple(x[0] for x in batch())
    colors = jnp.stack([args[4] * scale for scale in (1, 2, 3, 4)])
    over = (None, None, None, None, 0)
    out, *_ = jax.vmap(one_image, over)(*args[:4], colors)
    shared = jax.grad(lambda *a: jax.vmap(one_image, over)(*a, colors)[0].sum(), (0, 1, 2))(*args[:4])
    copies = [jnp.stack([x] * 4) for x in args[:4]]
    every = jax.grad(lambda *a: jax.vmap(one_image)(*a, colors)[0].sum(), (0, 1, 2))(*copies)
    equal(out, jax.vmap(one_image)(*copies, colors)[0])
    assert_close(shared, [g.sum(0) for g in every], REGROUPED, REGROUPED_WHY, relative=True)


def test_features_that_images_share_are_not_copied():
    views, sets = 4, 2
    rows = [jnp.stack([x[k : k + sets] for k in range(views - sets + 1)]) for x in batch()[:4]]  # "3 2 n ..."
    features = jnp.tile(batch()[4][:1, None], 2)[..., :5]  # one set for all six images; 5: unlike every other axis

    def shown(rows, features):
        return stacked(*blend(*rows, features, size=SIZE, capacity=CAPACITY))

    copied = jnp.broadcast_to(features, (*rows[2].shape, 5))
    assert_close(shown(rows, features), shown(rows, copied), 0, "the same numbers in the same order")
    text = str(jax.make_jaxpr(lambda f: jax.vmap(shown, (0, None))(rows, f[0]))(features))
    assert not re.search(rf"f32\[(3,2|6),{COUNT},5\]", text)
    got, want = (jax.grad(lambda f: (shown(rows, f)[..., :5] * LOSS).sum())(f) for f in (features, copied))
    assert_close(got[0, 0], want.sum((0, 1)), REGROUPED, REGROUPED_WHY, relative=True)


def test_features_that_do_not_broadcast_are_refused():
    case = CASES["one"]().arrays()
    with pytest.raises(ValueError, match=r"features: wanted leading axes that broadcast to \(1,\), got \(2,\)"):
        blend(*case[:4], jnp.concatenate([case[4]] * 2), size=SIZE, capacity=CAPACITY)


# XLA's path adds the gradients of a block by atomics on GPUs.
@pytest.mark.parametrize("backend", [name for name in NATIVE if name != "xla" or default_device().platform == "cpu"])
def test_two_runs_give_the_same_bits(backend):
    run = implementation(backend)
    equal(run(*CASES["random"]().arrays()), run(*CASES["random"]().arrays()))


# Channels


MANY_CHANNELS = [(name, channels) for name in NATIVE for channels in (1, 22, 33)]
MANY_CHANNELS += [] if ON_DEVICE else [("mosaic_gpu interpreted", 22)]


@pytest.mark.parametrize(("backend", "channels"), MANY_CHANNELS)
def test_any_number_of_channels(backend, channels):
    case = CASES["random"]().arrays()
    features = np.random.default_rng(channels).uniform(size=(1, COUNT, channels)).astype(np.float32).astype(np.float64)
    out, alpha, *_ = blend(*case[:4], jnp.asarray(features, jnp.float32), size=SIZE, capacity=CAPACITY, backend=backend)
    with jax.enable_x64(True):
        want, over, _ = blend_reference(*CASES["random"]().arrays(np.float64)[:4], jnp.asarray(features), size=SIZE)
    assert out.shape == (1, SIZE[1], SIZE[0], channels)
    assert_image_close(out, want, truth("random")[2])
    assert_image_close(alpha[..., None], over[..., None], truth("random")[2])


def gradients_by_channels(shape_channels, features, used):
    """Gradients of a loss on the first `used` channels, depth and alpha."""
    case = CASES["random"]().arrays()
    weights = np.where(np.arange(CHANNELS + 2) < used, LOSS, 0)
    weights[..., -2:] = LOSS[..., -2:]

    def loss(means2d, conic_roots, opacities, features):
        blended = blend(
            means2d,
            conic_roots,
            opacities,
            case[3],
            features,
            size=SIZE,
            capacity=CAPACITY,
            shape_channels=shape_channels,
        )
        return (stacked(*blended) * weights).sum()

    return jax.grad(loss, (0, 1, 2, 3))(*case[:3], features)


@pytest.mark.parametrize("shaping", [0, 2])
def test_only_shape_channels_depth_and_alpha_move_the_geometry(shaping):
    features = CASES["random"]().arrays()[4]
    got = gradients_by_channels(shaping, features, CHANNELS)
    want = gradients_by_channels(None, features, shaping)  # the same, had the loss not seen the other channels
    full = gradients_by_channels(None, features, CHANNELS)
    assert_gradient_close([g[0] for g in got[:3]], [g[0] for g in want[:3]], error=1e-5)  # float32, same terms
    equal(got[3], full[3])  # all channels learn their features
    assert not np.allclose(want[0], full[0], rtol=1e-2)


@pytest.mark.parametrize("shaping", [-1, 4])
def test_impossible_shape_channels_are_refused(shaping):
    with pytest.raises(ValueError, match=f"blend: shape_channels: wanted 0 to 3, got {shaping}"):
        blend(*CASES["one"]().arrays(), size=SIZE, capacity=CAPACITY, shape_channels=shaping)


def drawn(*args):
    return blend(*args, size=SIZE, capacity=CAPACITY)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_gradients_have_the_types_of_their_arguments(promotion):
    args = list(CASES["random"]().arrays())
    args[4] = args[4].astype(jnp.bfloat16)
    args[2] = args[2].astype(jnp.float16)
    want = drawn(*(x.astype(jnp.float32) for x in args)).channels
    with jax.numpy_dtype_promotion(promotion):
        equal(drawn(*args).channels, want)
        assert [g.dtype for g in gradient_of(drawn)(*args)] == [x.dtype for x in args]


# Capacity


def test_a_view_above_capacity_is_nan_and_its_neighbours_do_not_notice():
    capacity = 400  # above the 20 tiles of one Gaussian, below the 1280 of the layers

    def with_neighbours(middle):
        cases = [CASES[name]().arrays() for name in ("one", middle, "one_at_the_corner")]
        return [jnp.concatenate(rows) for rows in zip(*cases)]

    @jax.jit
    def run(*args):
        def loss(*args):
            out, alpha, _, needed = blend(*args, size=SIZE, capacity=capacity)
            return out[::2].sum(), (out, alpha, needed)

        return jax.grad(loss, (0, 1, 2, 4), has_aux=True)(*args)

    gradients, (out, alpha, needed) = run(*with_neighbours("opaque_layers"))
    assert needed[1] == CAPACITY
    assert max(needed[0], needed[2]) <= 20
    assert np.isnan(out[1]).all()
    assert np.isnan(alpha[1]).all()
    want, (clean, over, _) = run(*with_neighbours("nothing_visible"))  # the same program beside an empty view
    equal((out[::2], alpha[::2], [g[::2] for g in gradients]), (clean[::2], over[::2], [g[::2] for g in want]))
    assert clean[0].any()


def test_a_capacity_that_just_suffices_is_enough():
    args = CASES["random"]().arrays()
    want, *_, needed = blend(*args, size=SIZE, capacity=CAPACITY)
    assert_close(blend(*args, size=SIZE, capacity=int(needed[0]))[0], want, REGROUPED, REGROUPED_WHY)
    assert np.isnan(blend(*args, size=SIZE, capacity=int(needed[0]) - 1)[0]).all()


def test_no_gaussians_at_all_give_an_empty_image():
    out, alpha, _, needed = blend(*(x[:, :0] for x in CASES["one"]().arrays()), size=SIZE, capacity=1)
    assert not out.any()
    assert not alpha.any()
    assert needed.tolist() == [0]


def test_hidden_rows_fill_a_case_up():
    rows = splats(np.ones((1, 2)), [[1, 0, 1]], [0.5], [1.0], np.ones((1, 3)))
    assert rows.means2d.shape == (1, COUNT, 2)
    assert np.isfinite(rows.depths).sum() == 1
