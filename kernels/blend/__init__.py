"""Alpha blending of projected Gaussians: one differentiable function, one contract, several implementations.

The contract is `reference.blend_reference`. `custom_vjp` stands outside and `custom_vmap` inside, so that any nesting
of `vmap` and `grad` folds into one flat list of images, never a lockstep over the longest tile. An implementation is a
module with `forward` and `backward` like those of `xla`: i images, f sets of features, `owner` the set of each image.
"""

import functools
import typing

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jsplat.kernels import select
from jsplat.kernels.blend.images import over_images
from jsplat.kernels.select import Facts, Implementation

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
def _blend_function(size: tuple[int, int], capacity: int, shape_channels: int, backend: str):
    """The differentiable blend for one image size and capacity."""
    implementation = IMPLEMENTATIONS[backend].load()

    def forward(*args):
        image, needed = implementation.forward(*args, size=size, capacity=capacity)
        return jnp.where((needed > capacity)[:, None, None, None], jnp.nan, image), needed

    def backward(*args):
        *args, image, grad, owner = args
        return implementation.backward(
            *args, owner, image, grad, size=size, capacity=capacity, shape_channels=shape_channels
        )

    run = over_images(forward, gradients=False)
    pull = over_images(backward, gradients=True)

    @jax.custom_vjp
    def blend_images(*args):
        return run(*args)

    def blend_fwd(*args):
        image, needed = run(*args)
        return (image, needed), (args, image)

    def blend_bwd(residuals, cotangents):
        args, image = residuals
        return pull(*args, image, cotangents[0])

    blend_images.defvjp(blend_fwd, blend_bwd)
    return blend_images


def _device(x):
    return select.default_device() if isinstance(x, Tracer) else next(iter(x.devices()))


def blend(
    means2d: Float[Array, "*b n 2"],
    conics: Float[Array, "*b n 3"],
    opacities: Float[Array, "*b n"],
    depths: Float[Array, "*b n"],
    features: Float[Array, "*f n c"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int | None = None,
    backend: str | None = None,
) -> Blended:
    """Blends Gaussians front to back; `reference.blend_reference` is the contract.

    Args:
        means2d, conics, opacities, depths: see `jsplat.kernels.tiling.bin_tiles`; the order of depths gets no gradient.
        features: any number of channels; the leading axes broadcast to those of the others, without a copy.
        size: (width, height) in pixels.
        capacity: tile hits an image may need.
        shape_channels: only the first so many channels, depth and alpha send gradients to the geometry; None = all.
        backend: one of `BACKENDS`, or None for the best that works here: `mosaic_gpu` on Hopper and Blackwell, `triton`
            on other NVIDIA GPUs, else, and for float64, `xla`. Arrays that lie on a device decide by it, under `jit`
            the default device does.

    Returns:
        what the images show. An image that needed more than `capacity` is NaN; the others are not affected.
    """
    facts = Facts(_device(means2d), means2d.dtype, features.shape[-1])
    backend = select.choose("blend", IMPLEMENTATIONS, backend, facts)
    lead, channels = opacities.shape[:-1], features.shape[-1]
    if shape_channels is not None and not 0 <= shape_channels <= channels:
        raise ValueError(f"blend: shape_channels: wanted 0 to {channels}, got {shape_channels}")
    sets = features.shape[:-2]
    if len(sets) > len(lead) or any(f not in (1, b) for f, b in zip(sets[::-1], lead[::-1])):
        raise ValueError(f"blend: features: wanted leading axes that broadcast to {lead}, got {sets}")
    if opacities.size == 0:  # no images, or nothing to draw
        empty = jnp.zeros((*lead, size[1], size[0], channels + 2), features.dtype)
        return Blended(empty[..., :-2], empty[..., -1], empty[..., -2], jnp.zeros(lead, jnp.int32))
    function = _blend_function(size, capacity, channels if shape_channels is None else shape_channels, backend)
    sets = (1,) * (len(lead) - len(sets)) + sets
    out, needed = function(means2d, conics, opacities, depths, features.reshape(*sets, *features.shape[-2:]))
    return Blended(out[..., :-2], out[..., -1], out[..., -2], needed)
