"""What is measured, as data, and how to turn one entry into something that runs."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.kernels.blend import blend
from jsplat.kernels.blend.cases import headlike
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.blend.xla import TILE
from jsplat.kernels.tiling import bin_tiles

STRIP = 8  # rows of the image on which accuracy is measured: the float64 reference is dense


@dataclasses.dataclass(frozen=True)
class Workload:
    """Blending head-like Gaussians.

    Attributes:
        implementation: a name in `jsplat.kernels.blend.BACKENDS`, or "dense": the reference in float32.
        gradient: forward and backward, or forward alone.
        edge: of the square images, in pixels.
    """

    name: str
    implementation: str = "xla"
    images: int = 1
    count: int = 8000
    edge: int = 128
    channels: int = 3
    gradient: bool = True


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of one workload over that of another, measured side by side."""

    name: str
    over: str
    under: str
    direction: str
    bound: float | None = None


@dataclasses.dataclass(frozen=True)
class Suite:
    """Workloads measured in interleaved rounds, and the ratios among them."""

    workloads: tuple[Workload, ...]
    ratios: tuple[Ratio, ...]


SUITES = {
    "cpu-small": Suite(
        workloads=(
            Workload("forward_rgb", gradient=False),
            Workload("forward_22", channels=22, gradient=False),
            Workload("train_rgb"),
            Workload("train_22", channels=22),
            Workload("train_22_identities_8", channels=22, images=8),
            Workload("train_4000", count=4000),
            Workload("dense_4000", count=4000, implementation="dense"),
        ),
        ratios=(
            Ratio("channels_22_over_3", "train_22", "train_rgb", "lower", 2.0),
            Ratio("identities_8_over_1", "train_22_identities_8", "train_22", "lower", 8.5),
            Ratio("dense_over_xla", "dense_4000", "train_4000", "higher", 20.0),
        ),
    ),
    "tiny": Suite(  # seconds: that everything runs, on any machine
        workloads=(
            Workload("train_rgb", count=40, edge=24),
            Workload("dense", count=40, edge=24, implementation="dense"),
        ),
        ratios=(Ratio("dense_over_xla", "dense", "train_rgb", "higher"),),
    ),
}


def runner(work: Workload) -> tuple[Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]], tuple[jax.Array, ...]]:
    """A compiled function of (weights, *inputs) giving the image and the gradients of its weighted sum, and inputs.

    Without gradients the second result is empty.
    """
    size = (work.edge, work.edge)
    if work.implementation == "dense":
        draw = functools.partial(blend_reference, size=size)
    else:
        draw = functools.partial(blend, size=size, capacity=_capacity(work), backend=work.implementation)
    function = _weighted(draw) if work.gradient else lambda weights, *args: (draw(*args)[0], ())
    return jax.jit(function), headlike(work.images, work.count, work.edge, work.channels).arrays()


def _capacity(work: Workload) -> int:
    """What the images need, rounded up as the fit does."""
    rows = headlike(work.images, work.count, work.edge, work.channels).arrays()[:4]
    needed = bin_tiles(*rows, size=(work.edge, work.edge), tile=TILE, capacity=1).needed
    return -(-int(needed.max()) // 4096) * 4096


def weights_of(work: Workload) -> jax.Array:
    """What the image is multiplied with before it is summed."""
    shape = (work.images, work.edge, work.edge, work.channels)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def accuracy(work: Workload, run: Callable, args: tuple[jax.Array, ...]) -> dict[str, float]:
    """Against the float64 reference, on a strip across the middle of the first image.

    Returns:
        image_error: largest absolute error of a channel; image_beyond: share of values off by more than 1e-4 (one
        contribution at the alpha floor flips by rounding); gradient_error: largest relative norm over the attributes.
    """
    top = (work.edge - STRIP) // 2
    rows = slice(top, top + STRIP)
    weights = jnp.zeros_like(weights_of(work)).at[:1, rows].set(weights_of(work)[:1, rows])
    image, gradients = run(weights, *args)
    case = headlike(work.images, work.count, work.edge, work.channels)
    with jax.enable_x64(True):
        truth = [jnp.asarray(np.asarray(x, np.float64)[:1]) for x in case.arrays(np.float32)]
        truth[0] = truth[0] - jnp.asarray([0.0, top])
        draw = functools.partial(blend_reference, size=(work.edge, STRIP))
        want, wanted = jax.jit(_weighted(draw))(jnp.asarray(weights[:1, rows], jnp.float64), *truth)
        want, wanted = jax.tree.map(np.asarray, (want, wanted))
    off = np.abs(np.asarray(image[:1, rows], np.float64) - want)
    found = {"image_error": float(off.max()), "image_beyond": float((off > 1e-4).mean())}
    if gradients:
        errors = [
            np.linalg.norm(np.asarray(a[:1], np.float64) - b) / np.linalg.norm(b) for a, b in zip(gradients, wanted)
        ]
        found["gradient_error"] = float(max(errors))
    return found


def _weighted(draw: Callable) -> Callable:
    """Image and gradients of the weighted sum with respect to means, conics, opacities and features."""

    def run(weights, means2d, conics, opacities, depths, features):
        def loss(means2d, conics, opacities, features):
            image = draw(means2d, conics, opacities, depths, features)[0]
            return (image * weights).sum(), image

        gradients, image = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(means2d, conics, opacities, features)
        return image, gradients

    return run
