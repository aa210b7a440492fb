"""The kernel for processors, beyond what all implementations have in common (test_blend.py)."""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bench.sanitize import DEGENERATE, degenerate
from jsplat.kernels.blend import blend, cpu
from jsplat.kernels.blend.cases import CAPACITY, CASES, SIZE, headlike
from jsplat.kernels.blend.cpu import compiled
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.blend.sums import splat_sums
from tests.close import assert_close

pytestmark = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
IMAGES, EDGE, CHANNELS, ROOM = 3, 48, 5, 4096


@functools.cache
def heads() -> tuple[Splats, jax.Array]:
    """Three images, of which the outer two show the same features."""
    rows = headlike(IMAGES, 200, EDGE, CHANNELS).arrays()
    return rows._replace(features=rows.features[:2]), jnp.array([0, 1, 0], jnp.int32)


def everything(**how):
    """Image, gradients and sums of weights."""
    splats, set_ids = heads()
    how |= {"size": (EDGE, EDGE), "capacity": ROOM}
    shown, needed = cpu.forward(splats, set_ids, **how)
    sums, _ = cpu.splat_sums(*splats[:4], shown.channels, **how)
    return shown, needed, cpu.backward(splats, set_ids, shown, slopes(shown), shape_channels=2, **how), sums


def slopes(shown: Shown) -> Shown:
    """Random gradients of what images show."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), shown)


def equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_number_of_threads_changes_no_bit():
    equal(everything(threads=1), everything(threads=2))
    equal(everything(threads=1), everything())


@pytest.mark.parametrize("skip", [1, 2])
def test_every_instruction_set_gives_the_same_numbers(skip):
    """Where the processor has fewer of them the baseline is compared with itself."""
    for got, want in zip(jax.tree.leaves(everything(skip=min(skip, sets() - 1))), jax.tree.leaves(everything())):
        assert_close(got, want, 1e-5, "float32: multiply and add round once or twice", relative=True)


def sets() -> int:
    return {"x86-64-v4": 3, "x86-64-v3": 2, "baseline": 1}[compiled.instruction_set()]


@pytest.mark.parametrize("seeds", np.array_split(np.arange(DEGENERATE), 2))
def test_degenerate_gaussians_are_what_the_reference_makes_of_them(seeds):
    """Numbers that are too large, too small or none hide a Gaussian or not, in float64 exactly as the reference."""
    for seed in seeds:
        case = degenerate(int(seed))
        case = case._replace(features=np.random.default_rng(0).uniform(size=(*case.opacities.shape, 3)))
        # What the contract calls hidden; the reference knows it of depths alone.
        u, v, w = np.moveaxis(case.conic_roots, -1, 0)
        told = np.isfinite(case.means2d).all(-1) & np.isfinite(u + v + w) & (u > 0) & (w > 0)
        told &= np.isfinite(case.opacities)
        seen = case._replace(
            means2d=np.where(told[..., None], case.means2d, 0.0),
            conic_roots=np.where(told[..., None], case.conic_roots, 1.0),
            opacities=np.where(told, case.opacities, 0.0),
        )
        with jax.enable_x64(True):
            want, alpha, _ = blend_reference(*seen.arrays(np.float64), size=SIZE)
            got = blend(*case.arrays(np.float64), size=SIZE, capacity=48 * 20, backend="cpu")
        assert_close(got.alpha, alpha, 1e-9, "float64")
        assert_close(got.channels, want, 1e-9, "float64")


def test_what_is_exported_runs_without_the_library():
    args = CASES["random"]().arrays()

    def shown(*args):
        return jax.value_and_grad(lambda *x: blend(*x, size=SIZE, capacity=CAPACITY).channels.sum(), (0, 1, 2, 4))(
            *args
        )

    assert "jsplat_forward" in jax.jit(shown).lower(*args).as_text()
    program = jax.export.export(jax.jit(shown))(*args)
    called = re.findall(r"custom_call @([\w.]+)", program.mlir_module())
    assert [name for name in called if "jsplat" in name] == []
    got = jax.export.deserialize(program.serialize()).call(*args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(shown(*args))):
        assert_close(one, other, 1e-5, "float32, by other means", relative=True)


# Sums of weights


def by_gradient(backend, splats, pictures):
    blank = jnp.zeros((*splats.opacities.shape, pictures.shape[-1]))

    def paint(features):
        return blend(*splats[:4], features, size=SIZE, capacity=CAPACITY, shape_channels=0, backend=backend).channels

    return jax.vjp(paint, blank)[1](pictures)[0]


@pytest.mark.parametrize("backend", ["cpu", "xla"])
def test_sums_of_weights_are_the_gradient_of_features(backend):
    splats = CASES["random"]().arrays()
    pictures = jnp.asarray(np.random.default_rng(3).uniform(size=(1, SIZE[1], SIZE[0], 4)), jnp.float32)
    sums, needed = splat_sums(*splats[:4], pictures, capacity=CAPACITY, backend=backend)
    want = jax.jit(functools.partial(by_gradient, backend))(splats, pictures)
    if backend == "xla":
        equal(want, sums)
    assert_close(sums, want, 1e-5, "float32 sums in another order", relative=True)
    if backend == "cpu":
        few, _ = splat_sums(*splats[:4], pictures, capacity=int(needed[0]) - 1, backend=backend)
        assert np.isnan(few).all()
    with pytest.raises(NotImplementedError, match="splat_sums: wanted first derivatives"):
        jax.grad(lambda x: splat_sums(*splats[:4], x, capacity=CAPACITY, backend=backend)[0].sum())(pictures)


def test_lists_are_made_once_for_both_passes():
    splats, set_ids = heads()
    splats = splats._replace(depths=splats.depths + 1)  # nobody has drawn these
    how = {"size": (EDGE, EDGE), "capacity": ROOM}
    before = lists_made()
    shown, _ = cpu.forward(splats, set_ids, **how)
    cpu.backward(splats, set_ids, shown, slopes(shown), shape_channels=2, **how).means2d.block_until_ready()
    assert lists_made() - before == IMAGES


@pytest.mark.parametrize("name", ["means2d", "conic_roots", "opacities", "depths"])
def test_lists_of_other_gaussians_are_never_used(name):
    """Gaussians that differ from those drawn last in one number: their gradients are what they are without those."""
    splats, set_ids = heads()
    how = {"size": (EDGE, EDGE), "capacity": ROOM}
    changed = np.array(getattr(splats, name))
    changed[(IMAGES - 1, -1) + (0,) * (changed.ndim - 2)] *= 1.5
    others = splats._replace(**{name: jnp.asarray(changed)})
    # With another capacity they have lists of their own, whatever was drawn before.
    apart = how | {"capacity": ROOM + 1}
    shown, needed = cpu.forward(others, set_ids, **apart)
    want = cpu.backward(others, set_ids, shown, slopes(shown), shape_channels=2, **apart)
    before, _ = cpu.forward(splats, set_ids, **how)
    equal(cpu.backward(others, set_ids, shown, slopes(shown), shape_channels=2, **how), want)
    assert not np.array_equal(before.image, shown.image)
    jax.block_until_ready(cpu.forward(splats, set_ids, **how))
    equal(cpu.forward(others, set_ids, **how), (shown, needed))


def lists_made() -> int:
    """Of so many images the library has made the lists so far."""
    library = compiled.load()
    assert not isinstance(library, str)
    return library.jsplat_lists_made()
