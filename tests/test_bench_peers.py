"""The peers compute what we compute; those that need PyTorch are skipped without it."""

import functools

import numpy as np
import pytest

from bench.floor import count_pairs, floor_of
from bench.peers import gsplat, losses, torch_bisenet, torch_raster, two_models
from bench.raster import with_conics
from bench.workloads import Step
from jsplat.kernels.blend.cases import CASES, SIZE, Splats, headlike
from jsplat.kernels.blend.reference import blend_reference

torch = torch_raster.torch
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

CASES_OF_PEER = ("random", "nothing_visible", "all_behind", "huge", "opacity_one", "equal_depths")


@functools.cache
def _reference():
    """Gradients of a weighted sum with respect to all but depths, and the outputs, in one program for all cases."""
    import jax

    def loss(means, roots, opacities, features, depths, weights):
        image, alpha, depth = blend_reference(means, roots, opacities, depths, features, size=SIZE)
        return (image * weights).sum(), (image, alpha, depth)

    return jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))


@needs_torch
@pytest.mark.parametrize("form", torch_raster.FORMS)
@pytest.mark.parametrize("name", CASES_OF_PEER)
def test_the_torch_rasterizer_keeps_the_contract(name, form):
    """In float64, where both sum the same numbers: 1e-9 is rounding."""
    import jax
    import jax.numpy as jnp

    splats = CASES[name]()
    with jax.enable_x64(True):
        args = [jnp.asarray(x) for x in splats.arrays(np.float64)]
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(SIZE[1], SIZE[0], 3)))

        grads, want = _reference()(*args[:3], args[4], args[3], weights)
        grads, want = jax.tree.map(np.array, (grads, want))
        leaves = [torch.tensor(np.array(x)).requires_grad_(k != 3) for k, x in enumerate(args)]
        weights = torch.tensor(np.array(weights))
    got = with_conics(functools.partial(torch_raster.blend, form=form), *leaves, size=SIZE)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a.detach().numpy(), b, atol=1e-9)
    if not got[0].requires_grad:  # nothing was drawn
        assert not any(np.any(g) for g in grads)
        return
    (got[0] * weights).sum().backward()
    for k, b in zip((0, 1, 2, 4), grads):
        np.testing.assert_allclose(leaves[k].grad.numpy(), b, atol=1e-9 * max(1, np.abs(b).max()))


@needs_torch
def test_images_of_a_batch_do_not_touch():
    splats = headlike(2, 50, 40, 4)
    args = [torch.tensor(np.array(x)) for x in splats.arrays()]
    both = with_conics(torch_raster.blend, *args, size=(40, 40))[0]
    alone = with_conics(torch_raster.blend, *(x[1:] for x in args), size=(40, 40))[0]
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)  # rounding: another order of sums


@needs_torch
def test_the_torch_projection_is_ours():
    import jax.numpy as jnp

    from jsplat.raster.camera import Camera, orbit
    from jsplat.raster.projection import project
    from jsplat.raster.scene import Gaussians

    random = np.random.default_rng(0)
    count, lens = 200, np.array([[60.0, 0, 16], [0, 60, 12], [0, 0, 1]])
    arrays = [random.normal(0, 0.2, (count, 3)), random.normal(size=(count, 4)), random.normal(-4, 1, (count, 3)),
              random.normal(size=count)]  # fmt: skip
    arrays[0][0] = (0, 0, 3)  # behind the camera
    camera: Camera = orbit(*(np.array([x]) for x in (20.0, 10.0, 5.0, 1.2)), lens, (32, 24))[0]
    ours = project(Gaussians(*(jnp.asarray(x, jnp.float32) for x in arrays)), camera)
    view = [torch.tensor(np.array(x)) for x in (camera.camera_from_world, camera.intrinsics)]
    theirs = torch_raster.project(*(torch.tensor(x, dtype=torch.float32) for x in arrays), *view, (32, 24))
    seen = np.isfinite(np.array(ours.depths))  # where the others would be, nobody asks
    assert seen.sum() == count - 1
    np.testing.assert_array_equal(theirs[3].numpy()[~seen], np.inf)
    for name, got in zip(("means2d", "conics", "opacities", "depths"), theirs):
        want, got = np.array(getattr(ours, name))[seen], got[seen]
        # float32, another order of sums; conics of needles lose digits in both
        np.testing.assert_allclose(got.numpy()[1:], want[1:], rtol=2e-4, atol=1e-4)
    assert torch.isinf(theirs[3][0])  # hidden in both; what else it holds is nobody's business
    assert np.isinf(ours.depths[0])


@needs_torch
def test_the_torch_losses_are_ours():
    import jax.numpy as jnp

    from jsplat.fitting import loss
    from jsplat.raster import similarity

    random = np.random.default_rng(0)
    a, b = (random.uniform(size=(2, 20, 24, 3)).astype(np.float32) for _ in range(2))
    classes = random.dirichlet(np.ones(5), (2, 20, 24)).astype(np.float32)
    labels = random.choice([0, 1, 2, 3, 4, 255], (2, 20, 24))
    ta, tb, tc, tl = map(torch.tensor, (a, b, classes, labels))
    ja, jb, jc, jl = map(jnp.asarray, (a, b, classes, labels))
    for got, want in (
        (losses.ssim(ta, tb), similarity.ssim(ja, jb)),
        (losses.photo_loss(ta, tb), similarity.photo_loss(ja, jb, 0.2)),
        (losses.label_loss(tc, tl), loss.label_loss(jc, jl)),
    ):
        np.testing.assert_allclose(got.numpy(), np.array(want), rtol=1e-5)  # float32, another order of sums


@needs_torch
@pytest.mark.parametrize("depth", [18, 34])
def test_bisenet_with_our_weights_gives_our_logits(depth):
    import jax

    from bench.networks import CLASSES, SAME_LOGIT, _logits, _pictures, _weights
    from jsplat.parser import Architecture

    architecture = Architecture(depth, 0.125, 64)
    values, (pictures, _) = _weights(architecture), _pictures(2, 64)
    network = torch_bisenet.bisenet(architecture, CLASSES).eval()
    torch_bisenet.load(network, values, architecture, CLASSES)
    with torch.inference_mode():
        got = network(torch.tensor(pictures).permute(0, 3, 1, 2)).numpy()
    want = np.asarray(jax.jit(functools.partial(_logits, architecture=architecture))(values, pictures))
    assert np.abs(got - want).max() < SAME_LOGIT
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.9999


@needs_torch
def test_a_network_of_another_shape_is_refused():
    from bench.networks import CLASSES, _weights
    from jsplat.parser import Architecture

    deep, flat = Architecture(34, 0.125, 64), Architecture(18, 0.125, 64)
    with pytest.raises(ValueError, match=r"no counterpart.*cp\.resnet\.layer1\.2"):
        torch_bisenet.load(torch_bisenet.bisenet(deep, CLASSES), _weights(flat), flat, CLASSES)


@needs_torch
def test_ohem_is_ours():
    import jax.numpy as jnp

    from jsplat.parser.loss import HARD, ohem, pixel_loss

    random = np.random.default_rng(0)
    labels = random.integers(0, 5, (2, 8, 8))
    for scale in (0.1, 30.0):  # many hard pixels, and few
        logits = random.normal(size=(2, 5, 8, 8)).astype(np.float32) * scale
        logits += 4 * scale * (labels[:, None] == np.arange(5)[:, None, None])
        got = float(torch_bisenet.ohem(torch.tensor(logits), torch.tensor(labels), HARD, 1 / 16))
        want = float(ohem(pixel_loss(jnp.asarray(logits), jnp.asarray(labels)), jnp.ones(labels.shape), HARD, 1 / 16))
        # Logits of about 100: logsumexp minus one of them is right to 1e-7 of that.
        assert got == pytest.approx(want, rel=1e-5, abs=2e-5)


@needs_torch
def test_two_models_learn_a_head():
    from bench.scenes import captures
    from jsplat.fitting import FitConfig

    people = list(captures(1, 6, 24))
    scores = [
        two_models.fit_loop(people, FitConfig(gaussians=200, steps=n, voxels=24, hold_out=3), "batched, 1 threads")
        for n in (1, 30)
    ]
    assert scores[1] > scores[0] + 1  # dB


def test_our_channels_are_split_into_sizes_that_gsplat_was_built_for():
    assert sum(gsplat.SPLIT) == Step("").channels
    assert set(gsplat.SPLIT) <= {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64}


def test_pairs_are_counted():
    """One opaque round Gaussian of variance 4 at a tile's centre: alpha >= 1/255 within a radius of 6.66 pixels."""
    shape = np.array([[[0.5, 0.0, 0.5]]])
    one = Splats(np.array([[[12.0, 12.0]]]), shape, np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1, 3)))
    y, x = np.mgrid[:24, :24] + 0.5
    inside = np.hypot(x - 12, y - 12) <= np.sqrt(2 * 4 * np.log(255))
    counts = count_pairs(one, 24)
    assert counts == {"tile_pairs": 9, "evaluated": 9 * 64, "hits": inside.sum()}
    floor = floor_of(counts, 1, 1, 24, 3, False)
    assert floor == {"operations": inside.sum() * 22.0, "bytes": 4.0 * (10 + 24 * 24 * 4)}
    assert floor_of(counts, 1, 1, 24, 3, True)["operations"] == inside.sum() * (22.0 + 52.0)


def test_what_lies_behind_an_opaque_pile_is_not_counted():
    pile = Splats(
        np.full((1, 4, 2), 4.0), np.tile([1e-3, 0.0, 1e-3], (1, 4, 1)), np.ones((1, 4)), np.arange(1.0, 5)[None],
        np.ones((1, 4, 3)),
    )  # fmt: skip
    # alpha is 0.999 everywhere: the transmittance before the third is 1e-6, below the stop.
    assert count_pairs(pile, 8)["hits"] == 2 * 64
