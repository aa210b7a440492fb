"""Needles of thousands of pixels in float32, from the projection to the image: none vanishes, none outshines itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.raster.camera import Camera
from jsplat.raster.projection import Projection, project
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians
from tests.close import assert_close

COUNT, EDGE, FOCAL = 8, 32, 100.0
OPACITY = 0.05


def needles(length: float) -> Gaussians:
    """Thin ones of so many pixels, across the view at a distance of 2."""
    random = np.random.default_rng(0)
    angle = np.linspace(0.03, 3.1, COUNT)
    means = np.stack([*random.uniform(-0.2, 0.2, (2, COUNT)), np.full(COUNT, 2.0)], -1)
    quats = np.stack([np.cos(angle / 2), 0 * angle, 0 * angle, np.sin(angle / 2)], -1)
    scales = np.log(np.tile([length * 2 / FOCAL, 1e-4, 1e-4], (COUNT, 1)))
    logits = np.full(COUNT, np.log(OPACITY / (1 - OPACITY)))
    return Gaussians(*(jnp.asarray(x, jnp.float32) for x in (means, quats, scales, logits)))


def camera(dtype=jnp.float32) -> Camera:
    lens = np.array([[FOCAL, 0, EDGE / 2], [0, FOCAL, EDGE / 2], [0, 0, 1]])
    return Camera(jnp.eye(4, dtype=dtype), jnp.asarray(lens, dtype), EDGE, EDGE)


def covariances(view: Projection) -> np.ndarray:
    """From the roots, in float64."""
    u, v, w = np.moveaxis(np.asarray(view.conic_roots, np.float64), -1, 0)
    zero = np.zeros_like(u)
    inverse = np.linalg.inv(np.stack([np.stack([u, v], -1), np.stack([zero, w], -1)], -2))
    return inverse @ inverse.swapaxes(-1, -2)


@pytest.mark.parametrize("length", [5_000.0, 20_000.0])
def test_the_roots_of_needles_are_right_in_float32(length):
    got = project(needles(length), camera())
    with jax.enable_x64(True):
        want = project(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), needles(length)), camera(jnp.float64))
        assert want.conic_roots.dtype == np.float64
    # Each eigenvalue is half a needle's shape: the long one's and the thin one's.
    (thin, long), (thin_want, long_want) = (np.linalg.eigvalsh(covariances(x)).T for x in (got, want))
    assert_close(long / long_want, np.ones(COUNT), 1e-5, "float32")
    assert_close(np.linalg.det(covariances(got)) / np.linalg.det(covariances(want)), np.ones(COUNT), 1e-4, "float32")
    assert (thin > 0).all()
    assert_close(thin_want, np.full(COUNT, 0.3), 1e-3, "the low-pass: the needle itself is thinner")


@pytest.mark.parametrize("length", [5_000.0, 20_000.0])
def test_no_needle_vanishes_or_outshines_its_opacity(length):
    one_each = jnp.eye(COUNT)  # a channel holds the weights of one needle
    weights = np.asarray(rasterize(needles(length), one_each, camera(), capacity=2000).channels)
    most = weights.max((0, 1))
    assert (most <= OPACITY * (1 + 1e-5)).all()
    assert (most > OPACITY * 0.7).all()  # of a pixel's centre the middle of a needle is at most half a pixel away
