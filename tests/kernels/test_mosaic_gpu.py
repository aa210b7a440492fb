"""The Mosaic GPU kernels by themselves: what test_blend.py cannot see. Interpreted, or natively on a device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.kernels.blend import IMPLEMENTATIONS, blend, mosaic_gpu, xla
from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, COUNT, SIZE
from jsplat.kernels.blend.mosaic_gpu import layout
from jsplat.kernels.blend.mosaic_gpu.table import SCALE, gaussian_table, unscaled
from jsplat.kernels.blend.mosaic_gpu.walk import LOG2_FLOOR
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.constants import ALPHA_FLOOR
from jsplat.kernels.select import Facts, default_device
from jsplat.kernels.tiling import tile_grid
from tests.close import assert_close, assert_gradient_close
from tests.kernels.interpreted import ON_DEVICE, gpu_interpreter

DECLINED = IMPLEMENTATIONS["mosaic_gpu"].declines(Facts(default_device(), np.dtype(np.float32), CHANNELS))
INTERPRET = None if ON_DEVICE else gpu_interpreter()
BACKEND = "mosaic_gpu" if ON_DEVICE else "mosaic_gpu interpreted"
pytestmark = pytest.mark.skipif(ON_DEVICE and DECLINED is not None, reason=f"mosaic_gpu {DECLINED}")
SPLIT = 3e-5
SPLIT_WHY = "both factors of a sum over pixels keep 16 bits: 2^-16 each, of terms of both signs"
SAME = 2e-6
SAME_WHY = "float32, the same terms in another order"


def same_kernels(case, features, set_ids, *, shape_channels):
    """Images and gradients of the kernels and of XLA's implementation, for a random gradient of the image."""
    args = (Splats(*case, features), set_ids)
    shown, needed = mosaic_gpu.forward(*args, size=SIZE, capacity=CAPACITY, interpret=INTERPRET)
    want, _ = xla.forward(*args, size=SIZE, capacity=CAPACITY)
    grad = Shown.of(jnp.asarray(np.random.default_rng(3).normal(size=want.image.shape), jnp.float32))
    options = {"size": SIZE, "capacity": CAPACITY, "shape_channels": shape_channels}
    got = mosaic_gpu.backward(*args, shown, grad, interpret=INTERPRET, **options)
    wanted = xla.backward(*args, want, grad, **options)
    return (shown.image, want.image), (got, wanted), needed


@functools.cache
def views():
    """Three images of quite different cost, two sets of features, only depth and alpha shape the geometry."""
    names = ("random", "nothing_visible", "opaque_layers")
    case = [jnp.concatenate(rows) for rows in zip(*(CASES[name]().arrays()[:4] for name in names))]
    features = jnp.asarray(np.random.default_rng(5).uniform(size=(2, COUNT, 5)), jnp.float32)
    return same_kernels(case, features, jnp.asarray([1, 0, 1], jnp.int32), shape_channels=0)


def test_images_may_share_features():
    (image, want), _, needed = views()
    assert_close(image, want, SAME, SAME_WHY)
    assert needed[1] == 0


def test_channels_that_shape_nothing_still_learn_their_features():
    _, (got, wanted), _ = views()
    assert got[4].shape == (2, COUNT, 5)
    assert not np.asarray(got[4])[0].any()  # the set of the empty image
    assert_close(got, wanted, SPLIT, SPLIT_WHY, relative=True)


def test_every_hit_is_written_even_behind_the_early_stop():
    """Uninitialised rows would be garbage in the sums; the layers stop long before their lists end."""
    (_, want), (got, _), _ = views()
    assert (1 - np.asarray(want)[2, ..., -1]).max() < 1e-3
    assert all(np.isfinite(g).all() for g in got)
    behind = np.argsort(CASES["opaque_layers"]().depths[0])[-8:]
    assert not np.asarray(got[0])[2, behind].any()


def test_far_means_and_extreme_roots_stay_finite():
    """A mean far away, a conic that underflows and one that overflows when squared, among ordinary neighbours."""
    means, roots, opacities, depths, features = (np.asarray(x).copy() for x in CASES["random"]().arrays())
    means[0, :3] = [[1e6, -1e6], [18.5, 14.5], [20.0, 10.0]]
    roots[0, :3] = [[1.0, 0, 1.0], [1e15, 0, 1e15], [1e-15, 0, 1e-15]]
    case = [jnp.asarray(x, jnp.float32) for x in (means, roots, opacities, depths)]
    (image, want), (got, wanted), _ = same_kernels(
        case, jnp.asarray(features), jnp.zeros(1, jnp.int32), shape_channels=CHANNELS
    )
    assert_close(image, want, 1e-5, "float32: a power of 5 carries 1e-6")
    ordinary = [np.delete(np.asarray(g)[0], [0, 1, 2], 0) for g in (*got, *wanted)]
    assert_gradient_close(ordinary[:5], ordinary[5:], error=1e-4)  # SPLIT, for the norm of each
    assert all(np.isfinite(g).all() for g in got)


def test_an_image_has_the_same_bits_alone_and_in_a_batch_however_it_is_nested():
    names = ("random", "one_at_the_corner")
    pair = [jnp.concatenate(rows) for rows in zip(*(CASES[name]().arrays() for name in names))]

    def loss(means2d, conic_roots, opacities, depths, features):
        image = blend(means2d, conic_roots, opacities, depths, features, size=SIZE, capacity=CAPACITY, backend=BACKEND)
        return (image.channels**2).sum() + image.depth.sum() + image.alpha.sum()

    gradient = jax.grad(loss, (0, 1, 2, 4))
    alone = [jax.jit(gradient)(*(x[k] for x in pair)) for k in range(len(names))]
    nestings = (jax.vmap(gradient), jax.grad(lambda *a: jax.vmap(loss)(*a).sum(), (0, 1, 2, 4)))
    for together in (jax.jit(nesting)(*pair) for nesting in nestings):
        for got, *want in zip(together, *alone):
            assert_close(got, np.stack(want), 0, "each tile and each Gaussian is summed on its own")
            assert np.asarray(got)[1].any()


# What is no kernel


def test_the_table_holds_the_roots_in_other_units():
    roots = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 3)), jnp.float32)
    zeros = jnp.zeros((1, 9))
    rows = np.asarray(
        gaussian_table(Splats(jnp.zeros((1, 9, 2)), roots, zeros + 0.5, zeros, zeros[..., None])), np.float64
    )
    squares = np.square(np.asarray(roots[0], np.float64)) / np.log(4)  # of a half, as a power of two
    assert_close(np.square(rows[:, :3]), squares, 1e-6, "float32: the scale and the product")
    moments = jnp.concatenate([jnp.ones((1, 1)), SCALE * jnp.ones((1, 5))], 1)
    assert_close(unscaled(moments), np.ones((1, 6)), 1e-6, "float32")


def test_log_of_the_floor():
    assert np.float32(LOG2_FLOOR) == np.float32(np.log2(ALPHA_FLOOR))


def test_planes_and_back():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, SIZE[1], SIZE[0], 3)), jnp.float32)
    planes = layout.to_planes(image)
    across, down = tile_grid(SIZE, layout.TILE)
    assert planes.shape == (2 * across * down, 3, layout.PIXELS)
    assert_close(layout.from_planes(planes, size=SIZE), image, 0, "the same numbers elsewhere")


def test_a_warp_holds_a_compact_part_of_its_tile():
    x, y = layout.pixel_centers()
    rows, columns = jnp.meshgrid(jnp.arange(layout.TILE[1]), jnp.arange(layout.TILE[0]), indexing="ij")
    image = jnp.stack([columns, rows], -1)[None] + 0.5 - jnp.asarray(layout.TILE) / 2
    assert_close(layout.to_planes(image)[0], np.stack([x, y]), 0, "the same order of pixels")
    for at in range(0, layout.PIXELS, layout.LANES):
        warp = slice(at, at + layout.LANES)
        assert np.ptp(x[warp]) + 1 == layout.WARP[0]
        assert np.ptp(y[warp]) + 1 == layout.WARP[1]


def test_monomials_are_exact_in_bfloat16():
    exact = layout.monomials()
    assert_close(np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64), exact, 0, "at most 8 bits")
    assert np.abs(exact).max() == 56.25


def test_matrix_tiles_hold_what_lanes_read():
    planes = jnp.arange(9 * layout.PIXELS, dtype=jnp.float32).reshape(1, 9, layout.PIXELS)
    small = jnp.asarray(planes % 251, jnp.bfloat16)
    tiles = np.asarray(layout.matrix_tiles(small), np.float32).reshape(2, 4, 8, 32)
    for column, pixel in ((0, 0), (3, 77), (8, 127)):
        assert tiles[column // 8, pixel // 32, column % 8, pixel % 32] == small[0, column, pixel]
    assert not tiles[1, :, 1:].any()


# Errors


@pytest.mark.parametrize("channels", [0, 65])
def test_channels_outside_1_to_64_are_refused(channels):
    splats = CASES["one"]().arrays()._replace(features=jnp.ones((1, COUNT, channels)))
    with pytest.raises(ValueError, match=f"mosaic_gpu: features: wanted 1 to 64 channels, got {channels}"):
        mosaic_gpu.forward(splats, jnp.zeros(1, int), size=SIZE, capacity=1)


def test_float64_is_refused_and_left_to_xla():
    with jax.enable_x64(True):
        case = CASES["one"]().arrays(np.float64)
        with pytest.raises(ValueError, match="mosaic_gpu: means2d: wanted float32, got float64; backend='xla' takes"):
            mosaic_gpu.forward(case, jnp.zeros(1, jnp.int32), size=SIZE, capacity=CAPACITY)
        with pytest.raises(ValueError, match="blend: backend: mosaic_gpu: wanted float32 arrays, got float64"):
            blend(*case, size=SIZE, capacity=CAPACITY, backend="mosaic_gpu")
