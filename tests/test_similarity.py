"""Structural similarity and the photo loss: their formulas, derivatives, and where programs with them run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import ndimage

from bench.aot.target import lowering_for
from jsplat.kernels import primitives
from jsplat.kernels.select import use_backend
from jsplat.kernels.similarity import mosaic_gpu, xla
from jsplat.raster.similarity import photo_loss, ssim
from tests.close import assert_close
from tests.kernels.test_select import gpu

similarity = jax.jit(ssim)


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def test_ssim_is_the_formula_of_its_paper():
    a, b = pictures(2, 20, 17, 3), pictures(2, 20, 17, 3, seed=1)
    near = 0.7 * a + 0.3 * b

    def window(x):  # sigma 1.5, 11 pixels, zero outside
        return ndimage.gaussian_filter(np.asarray(x, np.float64), 1.5, axes=(1, 2), mode="constant", truncate=3.4)

    x, y = np.asarray(a, np.float64), np.asarray(near, np.float64)
    mx, my = window(x), window(y)
    vx, vy, cov = window(x * x) - mx**2, window(y * y) - my**2, window(x * y) - mx * my
    want = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    got = similarity(jnp.asarray(a), jnp.asarray(near))
    assert_close(got, want.mean((1, 2, 3)), 1e-5, "float32 variances as differences of numbers about 0.3, over 9e-4")
    assert 0.3 < float(got[0]) < 0.95


def test_photo_loss_has_the_gradient_of_its_formula():
    a, b = jnp.asarray(pictures(2, 20, 17, 3)), jnp.asarray(pictures(2, 20, 17, 3, seed=1))
    a = a.at[0, :9].set(b[0, :9])

    def plain(render):
        l1 = (render - b) * jnp.sign(jax.lax.stop_gradient(render - b))  # `abs` has a slope where they are equal
        return 0.7 * l1.mean((-3, -2, -1)) + 0.3 * (1 - ssim(render, b)) / 2

    losses = (lambda render: photo_loss(render, b, 0.3)), plain
    both = (jax.jit(jax.value_and_grad(lambda x, f=f: f(x) @ jnp.array([1.0, 2.0])))(a) for f in losses)
    (value, slope), (want, slope_wanted) = both
    assert_close(value, want, 1e-6, "float32 sums in another order")
    assert_close(slope, slope_wanted, 1e-6 * float(jnp.abs(slope_wanted).max()), "float32, the same terms regrouped")


def test_equal_pictures_have_ssim_one_and_no_loss():
    a = jnp.asarray(pictures(2, 16, 16, 3))
    assert_close(similarity(a, a), np.ones(2), 1e-6, "float32: numerator and denominator of one value")
    loss = jax.jit(photo_loss, static_argnames="ssim_weight")
    assert_close(loss(a, a, ssim_weight=0.2), np.zeros(2), 1e-6, "float32, as above")
    assert_close(loss(a, a + 0.25, ssim_weight=0.0), np.full(2, 0.25), 1e-6, "float32 mean of one number")


def test_any_leading_axes_and_vmap_give_the_same_numbers():
    a, b = (jnp.asarray(pictures(2, 3, 16, 12, 3, seed=k)) for k in (0, 1))

    def loss(render, photo):
        return photo_loss(render, photo, 0.2)

    want = loss(a, b)
    assert want.shape == (2, 3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.vmap(loss)))(a, b), jax.jit(loss)(a, b))
    np.testing.assert_array_equal(jax.vmap(loss, (0, None))(a, b[0])[0], loss(a[0], b[0]))
    own = jax.vmap(jax.grad(lambda x, y: loss(x, y).sum()))(a, b)
    assert_close(own, jax.grad(lambda x: loss(x, b).sum())(a), 1e-7, "float32, in another program")


def test_doubles_stay_doubles():
    with jax.enable_x64(True):
        a, b = (jnp.asarray(pictures(16, 12, 3, seed=k), jnp.float64) for k in (0, 1))
        value, slope = jax.value_and_grad(lambda x: photo_loss(x, b, 0.2))(a)
        assert (value.dtype, slope.dtype) == (jnp.float64, jnp.float64)
        eps = 1e-6 * jnp.cos(jnp.arange(a.size).reshape(a.shape))
        want = (photo_loss(a + eps, b, 0.2) - photo_loss(a - eps, b, 0.2)) / 2
        assert_close((slope * eps).sum(), want, 1e-12, "central differences in float64")


def lowered() -> str:
    shape = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    with lowering_for("NVIDIA H100 80GB HBM3"):
        program = jax.jit(lambda a, b: photo_loss(a, b, 0.2)).trace(shape, shape)
        return program.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(("capability", "kernels"), [("9.0", True), ("10.0", True), ("8.0", False)])
def test_a_gpu_with_kernels_for_it_gets_them(monkeypatch, capability, kernels):
    monkeypatch.setattr(primitives, "device_for", lambda platform: gpu(capability))
    assert ("mosaic_gpu" in lowered()) == kernels


@pytest.mark.parametrize("backend", ["xla", "triton"])
def test_who_asks_for_another_backend_gets_the_loss_of_xla(monkeypatch, backend):
    monkeypatch.setattr(primitives, "device_for", lambda platform: gpu("9.0"))
    with use_backend(backend):
        assert "mosaic_gpu" not in lowered()


def test_exported_programs_run_on_any_device_of_their_platform():
    """A GPU that is not known yet may be one that has no kernel here."""
    shape = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    program = export.export(jax.jit(lambda a, b: photo_loss(a, b, 0.2)), platforms=["cpu", "cuda"])(shape, shape)
    assert "mosaic_gpu" not in program.mlir_module()


def test_blocks_cover_every_pixel_once():
    for shape in ((1, 1, 1, 3), (2, 16, 32, 3), (3, 17, 33, 3)):
        parts = mosaic_gpu.Parts(shape)
        assert parts.across * mosaic_gpu.WIDTH >= shape[2] > (parts.across - 1) * mosaic_gpu.WIDTH
        assert parts.down * mosaic_gpu.HEIGHT >= shape[1] > (parts.down - 1) * mosaic_gpu.HEIGHT
        assert parts.blocks == 3 * shape[0] * parts.across * parts.down
    assert len(xla.WINDOW) == 2 * mosaic_gpu.HALO + 1
