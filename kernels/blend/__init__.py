"""Alpha blending of projected Gaussians: one differentiable function, one contract, several implementations.

The contract is `reference.blend_reference`. `custom_vjp` stands outside and `custom_vmap` inside (`batching`), so that
any nesting of `vmap` and `grad` calls the same function with more images. An implementation is a module with `TILE`,
`forward` and `backward` like those of `xla`: i images, f sets of features, `set_ids` the set of each image. Images that
need more than the capacity are NaN as they come from there, and so are their gradients.
"""

import functools
import operator
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jsplat.kernels import select
from jsplat.kernels.blend.batching import folded, with_vmap
from jsplat.kernels.blend.sharding import over_devices
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.primitives import as_written
from jsplat.kernels.select import Facts, Implementation
from jsplat.kernels.tiling import INT32_MAX

_AMPERE_OR_LATER = "an NVIDIA GPU of compute capability 8.0 or later"
_MOST_CHANNELS = 64  # of the Mosaic kernels


def _mosaic_declines(facts: Facts) -> str | None:
    if not 1 <= facts.channels <= _MOST_CHANNELS:
        return f"wanted 1 to {_MOST_CHANNELS} channels, got {facts.channels}"
    return select.needs_gpu(facts, wanted=select.HOPPER_OR_BLACKWELL, supported=select.is_hopper_or_blackwell)


def _triton_declines(facts: Facts) -> str | None:
    return select.needs_gpu(facts, wanted=_AMPERE_OR_LATER, supported=lambda cc: cc >= (8, 0))


def _entry(name, declines):
    return Implementation(select.module(f"jsplat.kernels.blend.{name}"), declines)


_compiled = select.module("jsplat.kernels.blend.cpu.compiled")


def _cpu_declines(facts: Facts) -> str | None:
    if facts.device.platform != "cpu":
        return f"wanted a processor, got {facts.device.device_kind} ({facts.device.platform})"
    return _compiled().problem()


# The best first; the last one runs everywhere.
IMPLEMENTATIONS = {
    "mosaic_gpu": _entry("mosaic_gpu", _mosaic_declines),
    "triton": _entry("triton", _triton_declines),
    "cpu": _entry("cpu", _cpu_declines),
    "xla": _entry("xla", lambda facts: None),
}
BACKENDS = tuple(IMPLEMENTATIONS)
ANYWHERE = "anywhere"  # what `chosen` gives where the device is not known yet


class Blended(typing.NamedTuple):
    """Channels and depth weighted by alpha * transmittance, the weights' sum, and the tile hits each image needed."""

    channels: Float[Array, "*b h w c"]
    alpha: Float[Array, "*b h w"]
    depth: Float[Array, "*b h w"]
    needed: Int[Array, "*b"]


def tile_of(facts: Facts, backend: str | None = None) -> tuple[int, int]:
    """Width and height in pixels of the tiles in which `blend` counts what images need, by the backend that runs.

    Raises:
        ValueError: a backend that cannot run here.
    """
    return IMPLEMENTATIONS[select.choose("blend", IMPLEMENTATIONS, backend, facts)].load().TILE


@functools.lru_cache(maxsize=64)
def blend_function(
    size: tuple[int, int], capacity: int, shape_channels: int, backend: str
) -> Callable[[Splats], tuple[Shown, Int[Array, "*b"]]]:
    """The differentiable blend for one image size and capacity, of arrays of one dtype.

    Returns:
        a function of `Splats` that gives what they show, and the tile hits needed.
    """
    entry = implementation_of(backend)
    implementation = entry.load()

    def forward(splats, set_ids):
        images = set_ids.shape[0]
        if images * capacity > INT32_MAX:
            most = INT32_MAX // images
            raise ValueError(f"blend: capacity: wanted at most {most} for {images} images, got {capacity}")
        with as_written(splats.means2d.dtype):
            return implementation.forward(splats, set_ids, size=size, capacity=capacity)

    def backward(splats, set_ids, *pictures):
        shown, grad_shown = Shown(*pictures[:3]), Shown(*pictures[3:])
        with as_written(splats.means2d.dtype):
            return implementation.backward(
                splats, set_ids, shown, grad_shown, size=size, capacity=capacity, shape_channels=shape_channels
            )

    run = over_images(forward, entry, gradients=False)
    vjp = over_images(backward, entry, gradients=True)

    @jax.custom_vjp
    def blend_images(splats):
        return run(splats)

    def blend_fwd(splats):
        shown, needed = first_order(run)(splats)
        return (shown, needed), (splats, shown)

    def blend_bwd(residuals, cotangents):
        splats, shown = residuals
        return (first_order(vjp)(splats, *shown, *cotangents[0]),)

    blend_images.defvjp(blend_fwd, blend_bwd)
    return blend_images


def over_images(function: Callable[..., Any], implementation: Implementation, *, gradients: bool) -> Callable[..., Any]:
    """A function of a flat list of images for those with any leading axes, under `vmap` and on several devices."""
    function = folded(function)
    if not implementation.calls_host:
        function = over_devices(function, gradients=gradients)
    return with_vmap(function, gradients=gradients)


def first_order(function: Callable[..., Any], op: str = "blend") -> Callable[..., Any]:
    """`function`, which within a gradient is not to be differentiated again."""
    function = jax.custom_jvp(function)

    @function.defjvp
    def _(primals, tangents):
        raise NotImplementedError(f"{op}: wanted first derivatives (jax.grad, jax.vjp), got a derivative of one")

    return function


def implementation_of(backend: str) -> Implementation:
    """By what `chosen` gives."""
    return _entry(ANYWHERE, lambda facts: None) if backend == ANYWHERE else IMPLEMENTATIONS[backend]


def chosen(op: str, x: Array, channels: int, backend: str | None) -> str:
    """The implementation for arrays like x, `ANYWHERE` if nobody names one and the arrays are not there yet.

    Raises:
        ValueError: one that is unknown, or cannot run here.
    """
    if isinstance(x, Tracer) and select.asked(backend) is None:
        return ANYWHERE
    return select.choose(op, IMPLEMENTATIONS, backend, Facts(device_of(x), x.dtype, channels))


def device_of(x: Array) -> select.Device:
    """The array's device, under `jit` the default one."""
    return select.default_device() if isinstance(x, Tracer) else next(iter(x.devices()))


def _in_one_dtype(splats: Splats) -> Splats:
    """In float64 if one array is, else in float32: what sums and exponentials need."""
    arrays = [jnp.asarray(x) for x in splats]
    common = jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
    return Splats(*(x.astype(common) for x in arrays))


def blend(
    means2d: Float[Array | np.ndarray, "*b n 2"],
    conic_roots: Float[Array | np.ndarray, "*b n 3"],
    opacities: Float[Array | np.ndarray, "*b n"],
    depths: Float[Array | np.ndarray, "*b n"],
    features: Float[Array | np.ndarray, "*f n c"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int | None = None,
    backend: str | None = None,
) -> Blended:
    """Blends Gaussians front to back; `reference.blend_reference` is the contract.

    Args:
        means2d, conic_roots, opacities, depths: see `jsplat.kernels.tiling.bin_tiles`; the order of depths gets no
            gradient.
        features: any number of channels, also none; the leading axes broadcast to those of the others, without a copy.
        size: (width, height) in pixels.
        capacity: tile hits an image may need; times the number of images below 2^31.
        shape_channels: only the first so many channels, depth and alpha send gradients to the geometry; None = all.
        backend: one of `BACKENDS`, or None for the best that works here: `mosaic_gpu` on Hopper and Blackwell, `triton`
            on other NVIDIA GPUs, `cpu` on processors where it could be compiled, else `xla`, which is also for float64
            on GPUs. The device decides on which the arrays lie, under `jit` that for which the program is lowered.

    Returns:
        what the images show, in float64 if an argument is, else in float32. An image that needed more than
        `capacity` is NaN, and so are its gradients; the others are not affected. Gradients have the arguments' types.

    Raises:
        ValueError: shapes that do not fit, an impossible capacity, or a backend that cannot run here.
    """
    splats = _in_one_dtype(Splats(means2d, conic_roots, opacities, depths, features))
    lead, sets, channels = splats.opacities.shape[:-1], splats.features.shape[:-2], splats.features.shape[-1]
    _check(lead, sets, channels, shape_channels, capacity)
    if channels == 0:  # every implementation blends at least one
        splats = splats._replace(features=jnp.zeros((*splats.features.shape[:-1], 1), splats.features.dtype))
    backend = chosen("blend", splats.means2d, splats.features.shape[-1], backend)
    if splats.opacities.size == 0:  # no images, or nothing to draw
        empty = jnp.zeros((*lead, size[1], size[0], channels + 2), splats.means2d.dtype)
        return Blended(empty[..., :-2], empty[..., -1], empty[..., -2], jnp.zeros(lead, jnp.int32))
    shaping = channels if shape_channels is None else shape_channels
    function = blend_function(size, operator.index(capacity), shaping, backend)
    sets = (1,) * (len(lead) - len(sets)) + sets
    features = splats.features.reshape(*sets, *splats.features.shape[-2:])
    shown, needed = function(splats._replace(features=features))
    return Blended(shown.channels if channels else shown.channels[..., :0], shown.alpha, shown.depth, needed)


def _check(lead, sets, channels, shape_channels, capacity):
    if len(sets) > len(lead) or any(f not in (1, b) for f, b in zip(sets[::-1], lead[::-1])):
        raise ValueError(f"blend: features: wanted leading axes that broadcast to {lead}, got {sets}")
    if shape_channels is not None and not 0 <= shape_channels <= channels:
        raise ValueError(f"blend: shape_channels: wanted 0 to {channels}, got {shape_channels}")
    if capacity < 1:
        raise ValueError(f"blend: capacity: wanted 1 or more tile hits an image, got {capacity}")
