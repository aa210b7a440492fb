"""Alpha blending of projected Gaussians: one differentiable function, one contract, several implementations.

The contract is `reference.blend_reference`. `custom_vjp` stands outside and `custom_vmap` inside, so that any nesting
of `vmap` and `grad` folds into one flat list of images, never a lockstep over the longest tile. An implementation is a
module with `forward` and `backward` like those of `xla`: i images, f sets of features, `owner` the set of each image.
"""

import contextlib
import functools
import operator
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jsplat.kernels import select
from jsplat.kernels.blend.images import over_images
from jsplat.kernels.select import Facts, Implementation
from jsplat.kernels.tiling import MOST

_HOPPER_OR_BLACKWELL = "an NVIDIA GPU of compute capability 9.0 or 10.x"
_AMPERE_OR_LATER = "an NVIDIA GPU of compute capability 8.0 or later"
_MOST_CHANNELS = 64  # of the Mosaic kernels


def _mosaic_declines(facts: Facts) -> str | None:
    if not 1 <= facts.channels <= _MOST_CHANNELS:
        return f"wanted 1 to {_MOST_CHANNELS} channels, got {facts.channels}"
    return select.needs_gpu(facts, wanted=_HOPPER_OR_BLACKWELL, supported=lambda cc: cc == (9, 0) or cc[0] == 10)


def _triton_declines(facts: Facts) -> str | None:
    return select.needs_gpu(facts, wanted=_AMPERE_OR_LATER, supported=lambda cc: cc >= (8, 0))


def _entry(name, declines):
    return Implementation(select.module(f"jsplat.kernels.blend.{name}"), declines)


# The best first; the last one runs everywhere.
IMPLEMENTATIONS = {
    "mosaic_gpu": _entry("mosaic_gpu", _mosaic_declines),
    "triton": _entry("triton", _triton_declines),
    "xla": _entry("xla", lambda facts: None),
}
BACKENDS = tuple(IMPLEMENTATIONS)


class Blended(typing.NamedTuple):
    """Channels and depth weighted by alpha * transmittance, the weights' sum, and the tile hits each image needed."""

    channels: Float[Array, "*b h w c"]
    alpha: Float[Array, "*b h w"]
    depth: Float[Array, "*b h w"]
    needed: Int[Array, "*b"]


@functools.lru_cache(maxsize=64)
def blend_function(size: tuple[int, int], capacity: int, shape_channels: int, backend: str):
    """The differentiable blend for one image size and capacity: image and need of arrays of one dtype."""
    implementation = IMPLEMENTATIONS[backend].load()

    def forward(*args):
        images = args[-1].shape[0]
        if images * capacity > MOST:
            raise ValueError(f"blend: capacity: wanted at most {MOST // images} for {images} images, got {capacity}")
        with _as_written(args[0].dtype):
            image, needed = implementation.forward(*args, size=size, capacity=capacity)
            return _nan_where(needed > capacity, image), needed

    def backward(*args):
        *args, image, grad, needed, owner = args
        with _as_written(args[0].dtype):
            *own, features = implementation.backward(
                *args, owner, image, grad, size=size, capacity=capacity, shape_channels=shape_channels
            )
            # An image that is NaN has no gradients, its features among them; zeros would look like a minimum.
            over = needed > capacity
            of_sets = jnp.zeros(features.shape[0], bool).at[owner].max(over)
            return *(_nan_where(over, x) for x in own), _nan_where(of_sets, features)

    run = over_images(forward, gradients=False)
    pull = over_images(backward, gradients=True)

    @jax.custom_vjp
    def blend_images(*args):
        return run(*args)

    def blend_fwd(*args):
        image, needed = _once(run)(*args)
        return (image, needed), (args, image, needed)

    def blend_bwd(residuals, cotangents):
        args, image, needed = residuals
        return _once(pull)(*args, image, cotangents[0], needed)

    blend_images.defvjp(blend_fwd, blend_bwd)
    return blend_images


def _once(function):
    """`function`, which within a gradient is not to be differentiated again."""
    function = jax.custom_jvp(function)

    @function.defjvp
    def _(primals, tangents):
        raise NotImplementedError("blend: wanted first derivatives (jax.grad, jax.vjp), got a derivative of one")

    return function


@contextlib.contextmanager
def _as_written(dtype):
    """Within the block integers have 32 bits, types and ranks are promoted, whatever the program around it wants."""
    types, ranks = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(dtype == jnp.float64), types, ranks:
        yield


def _nan_where(mask, x):
    return jnp.where(jnp.expand_dims(mask, tuple(range(1, x.ndim))), jnp.nan, x)


def _device(x):
    return select.default_device() if isinstance(x, Tracer) else next(iter(x.devices()))


def _in_one_dtype(arrays):
    """Arrays in float64 if one of them is, else in float32: what sums and exponentials need."""
    arrays = [jnp.asarray(x) for x in arrays]
    common = jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
    return [x.astype(common) for x in arrays]


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
            on other NVIDIA GPUs, else, and for float64, `xla`. Arrays that lie on a device decide by it, under `jit`
            the default device does.

    Returns:
        what the images show, in float64 if an argument is, else in float32. An image that needed more than
        `capacity` is NaN, and so are its gradients; the others are not affected. Gradients have the arguments' types.

    Raises:
        ValueError: shapes that do not fit, an impossible capacity, or a backend that cannot run here.
    """
    args = _in_one_dtype((means2d, conic_roots, opacities, depths, features))
    lead, sets, channels = args[2].shape[:-1], args[4].shape[:-2], args[4].shape[-1]
    _check(lead, sets, channels, shape_channels, capacity)
    if channels == 0:  # every implementation blends at least one
        args[4] = jnp.zeros((*args[4].shape[:-1], 1), args[4].dtype)
    facts = Facts(_device(args[0]), args[0].dtype, args[4].shape[-1])
    backend = select.choose("blend", IMPLEMENTATIONS, backend, facts)
    if args[2].size == 0:  # no images, or nothing to draw
        empty = jnp.zeros((*lead, size[1], size[0], channels + 2), facts.dtype)
        return Blended(empty[..., :-2], empty[..., -1], empty[..., -2], jnp.zeros(lead, jnp.int32))
    shaping = channels if shape_channels is None else shape_channels
    function = blend_function(size, operator.index(capacity), shaping, backend)
    sets = (1,) * (len(lead) - len(sets)) + sets
    out, needed = function(*args[:4], args[4].reshape(*sets, *args[4].shape[-2:]))
    return Blended(out[..., :channels], out[..., -1], out[..., -2], needed)


def _check(lead, sets, channels, shape_channels, capacity):
    if len(sets) > len(lead) or any(f not in (1, b) for f, b in zip(sets[::-1], lead[::-1])):
        raise ValueError(f"blend: features: wanted leading axes that broadcast to {lead}, got {sets}")
    if shape_channels is not None and not 0 <= shape_channels <= channels:
        raise ValueError(f"blend: shape_channels: wanted 0 to {channels}, got {shape_channels}")
    if capacity < 1:
        raise ValueError(f"blend: capacity: wanted 1 or more tile hits an image, got {capacity}")
