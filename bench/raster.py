"""Rasterizer workloads made ready: ours, the dense reference and the peers on the same projected Gaussians.

Peers, kernels and the fit are imported where they are needed: `bench.gpu` starts many processes.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from bench.floor import count_pairs, floor_of
from bench.timing import CannotRunError, Job, compiled, seconds_of
from bench.workloads import Raster
from jsplat.kernels.blend import IMPLEMENTATIONS, blend, tile_of
from jsplat.kernels.blend.cases import Splats, headlike
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.select import Facts, choose, default_device
from jsplat.kernels.tiling import bin_tiles

STRIP = 8  # rows of the image on which accuracy is measured: the float64 reference is dense
STRIP_PAIRS = 2e7  # Gaussians times pixels that the reference may hold at once
PEERS = ("torch", "gsplat", "opensplat")
# What a job must keep to before it is timed: rounding and flips at the cutoffs (tests/close.py), or 60 dB.
WORST_GRADIENT, WORST_PSNR = 5e-3, 60.0


def prepare(work: Raster) -> Job:
    """A job whose images, and gradients of their weighted sum, were compared with the float64 reference."""
    evaluate, call, more = (_theirs if work.implementation in PEERS else _ours)(work, splats_of(work))
    right = accuracy(work, evaluate)
    if right["psnr"] < WORST_PSNR or right.get("gradient_error", 0.0) > WORST_GRADIENT:
        raise ValueError(f"not what the reference computes: {right}")
    counts = _pairs(work.scene, work.images, work.count, work.edge)
    floor = floor_of(counts, work.images, work.count, work.edge, work.channels, work.gradient)
    facts = Facts(default_device(), np.dtype(np.float32), work.channels)
    about = {"backend": choose("blend", IMPLEMENTATIONS, None, facts)} if work.is_ours else {}
    return Job(call, right, about, {**floor, **counts}, **more)


@functools.lru_cache(maxsize=8)
def _scene(scene: str, *sizes: int) -> Splats:
    if scene == "headlike":
        return headlike(*sizes)
    from bench.scenes import fitted_splats  # the fit and all that it needs

    return fitted_splats(*sizes)


def splats_of(work: Raster) -> Splats:
    """The projected Gaussians of a workload."""
    return _scene(work.scene, work.images, work.count, work.edge, work.channels)


@functools.lru_cache(maxsize=64)
def _pairs(scene: str, images: int, count: int, edge: int) -> dict[str, int]:
    return count_pairs(_scene(scene, images, count, edge, 3), edge)


def weights_of(work: Raster) -> np.ndarray:
    """What the image is multiplied with before it is summed."""
    return _weights(work.images, work.edge, work.edge, work.channels)


@functools.lru_cache(maxsize=2)
def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _weighted(draw: Callable) -> Callable:
    """Image and gradients of the weighted sum with respect to means, conics, opacities and features."""

    def run(weights, means2d, conic_roots, opacities, depths, features):
        def loss(means2d, conic_roots, opacities, features):
            image = draw(means2d, conic_roots, opacities, depths, features)[0]
            return (image * weights).sum(), image

        gradients, image = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(means2d, conic_roots, opacities, features)
        return image, gradients

    return run


def _ours(work: Raster, splats: Splats):
    size = (work.edge, work.edge)
    if work.implementation == "dense":
        draw = functools.partial(blend_reference, size=size)
    elif work.is_ours:
        tile = tile_of(Facts(default_device(), np.dtype(np.float32), work.channels))
        needed = bin_tiles(*splats.arrays()[:4], size=size, tile=tile, capacity=1).needed
        capacity = -(-int(needed.max()) // 4096) * 4096  # rounded up as the fit does
        draw = functools.partial(blend, size=size, capacity=capacity)
        if work.mode == "two passes":
            draw = functools.partial(_in_two_passes, draw)
    else:
        raise CannotRunError(f"there is no implementation {work.implementation!r}")
    function = _weighted(draw) if work.gradient else lambda weights, *args: (draw(*args)[0], ())
    args, weights = splats.arrays(), jnp.asarray(weights_of(work))
    with _scattering() if work.mode == "scatter" else contextlib.nullcontext():
        program, more = compiled(function, weights, *args)

    def evaluate(weights):
        return jax.tree.map(np.asarray, program(jnp.asarray(weights), *args))

    def call():
        with _on_one_core() if work.mode == "one core" else contextlib.nullcontext():
            return jax.block_until_ready(program(weights, *args))

    return evaluate, call, more


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """Within the block all threads of the process share one core."""
    threads, cores = [int(name) for name in os.listdir("/proc/self/task")], os.sched_getaffinity(0)
    for thread in threads:
        os.sched_setaffinity(thread, {min(cores)})
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, cores)


def _in_two_passes(draw: Callable, *args) -> tuple[jax.Array]:
    """The image of two renders: three channels, and the others."""
    *shapes, features = args
    return (jnp.concatenate([draw(*shapes, part)[0] for part in (features[..., :3], features[..., 3:])], -1),)


@contextlib.contextmanager
def _scattering() -> Iterator[None]:
    """Within the block the kernels' gradients are summed by a scatter, for which a GPU has atomics."""
    from jsplat.kernels.blend import mosaic_gpu, triton

    def scatter(rows, hits, count):
        return jax.ops.segment_sum(rows, hits.gaussian_ids, num_segments=count)

    jax.clear_caches()  # what was traced holds the other sum
    with mock.patch.object(mosaic_gpu, "collect", scatter), mock.patch.object(triton, "collect", scatter):
        yield
    jax.clear_caches()


def with_conics(draw: Callable, means2d, conic_roots, opacities, depths, features, *, size: tuple[int, int]):
    """What a peer draws, which takes the inverse covariance itself."""
    from bench.peers import torch

    u, v, w = conic_roots.unbind(-1)
    return draw(means2d, torch.stack([u * u, u * v, v * v + w * w], -1), opacities, depths, features, size=size)


def _theirs(work: Raster, splats: Splats):
    from bench.peers import gsplat, need, opensplat, torch, torch_call, torch_raster

    if work.implementation == "gsplat":
        need("gsplat", cuda=True)
        draw, device = functools.partial(gsplat.blend, mode=work.mode), "cuda"
    else:
        need("torch")
        draw, device = (
            opensplat.blend if work.implementation == "opensplat" else torch_raster.blend_as(work.mode),
            "cpu",
        )
    args = [torch.tensor(np.array(x), device=device) for x in splats.arrays()]
    draw = functools.partial(with_conics, draw)
    fixed = torch.tensor(weights_of(work), device=device)
    size = (work.edge, work.edge)

    def run(weights):
        if not work.gradient:
            with torch.inference_mode():
                return draw(*args, size=size)[0], ()
        leaves = [x.detach().requires_grad_(k != 3) for k, x in enumerate(args)]
        image = draw(*leaves, size=size)[0]
        (image * weights).sum().backward()
        return image.detach(), tuple(leaves[k].grad for k in (0, 1, 2, 4))

    call = torch_call([device], functools.partial(run, fixed))

    def evaluate(weights):
        image, gradients = run(torch.tensor(weights, device=device))
        return image.cpu().numpy(), tuple(g.cpu().numpy() for g in gradients)

    first = seconds_of(call)
    return evaluate, call, {"compile_seconds": first} if "compiled" in work.mode else {}


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over that of what is wanted, in float64."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


def accuracy(work: Raster, evaluate: Callable) -> dict[str, float]:
    """Against the float64 reference, on a strip across the middle of the first image.

    Returns:
        image_error: largest absolute error of a channel; image_beyond: share of values off by more than 1e-4 (one
        contribution at the alpha floor flips by rounding); psnr: in dB, colours in [0, 1]; gradient_error: largest
        relative norm over the attributes.
    """
    rows, want, wanted = _truth(dataclasses.replace(work.ours(), gradient=True))
    weights = np.zeros_like(weights_of(work))
    weights[:1, rows] = weights_of(work)[:1, rows]
    image, gradients = evaluate(weights)
    off = np.abs(np.asarray(image[:1, rows], np.float64) - want)
    found = {"image_error": float(off.max()), "image_beyond": float((off > 1e-4).mean())}
    found["psnr"] = float(-10 * np.log10(max(np.square(off).mean(), 1e-20)))
    if gradients:
        found["gradient_error"] = max(relative_error(a[:1], b) for a, b in zip(gradients, wanted))
    return found


@functools.lru_cache(maxsize=8)
def _truth(work: Raster) -> tuple[slice, np.ndarray, tuple[np.ndarray, ...]]:
    """Rows of the first image, what the float64 reference shows there, and the gradients of its weighted sum."""
    strip = int(np.clip(STRIP_PAIRS / (work.count * work.edge), 1, STRIP))
    top = (work.edge - strip) // 2
    rows = slice(top, top + strip)
    with jax.enable_x64(True):
        truth = [jnp.asarray(np.asarray(x, np.float64)[:1]) for x in splats_of(work).arrays(np.float32)]
        truth[0] = truth[0] - jnp.asarray([0.0, top])
        draw = functools.partial(blend_reference, size=(work.edge, strip))
        weights = jnp.asarray(weights_of(work)[:1, rows], jnp.float64)
        return rows, *jax.tree.map(np.asarray, jax.jit(_weighted(draw))(weights, *truth))
