"""Alpha blending of projected Gaussians: one differentiable function, one contract, several implementations.

The contract is `reference.blend_reference`. `custom_vjp` stands outside and `custom_vmap` inside, so that any nesting
of `vmap` and `grad` folds into one flat list of images, never a lockstep over the longest tile.
"""

import functools

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend import xla
from jsplat.kernels.tiling import tile_grid

BACKENDS = ("xla",)


def _fold(function):
    """Makes a function over images (leading axis) fold every vmapped axis into the images."""
    folded = custom_vmap(function)

    @folded.def_vmap
    def rule(axis_size, in_batched, *args):
        def widen(x, batched):
            x = x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            return x.reshape(axis_size * x.shape[1], *x.shape[2:])

        flat = folded(*jax.tree.map(widen, args, tuple(in_batched)))
        out = jax.tree.map(lambda x: x.reshape(axis_size, x.shape[0] // axis_size, *x.shape[1:]), flat)
        return out, jax.tree.map(lambda _: True, out)

    return folded


@functools.lru_cache(maxsize=64)
def _blend_function(size: tuple[int, int], capacity: int, shape_channels: int):
    """The differentiable blend for one image size and capacity."""

    @_fold
    def run(means2d, conics, opacities, depths, features):
        tiled, needed = xla.forward(means2d, conics, opacities, depths, features, size=size, capacity=capacity)
        image = untile(tiled, size)
        return jnp.where((needed > capacity)[:, None, None, None], jnp.nan, image), needed

    @_fold
    def pull(means2d, conics, opacities, depths, features, image, grad):
        whole = (xla.shaping(image, shape_channels) * xla.shaping(grad, shape_channels)).sum(-1, keepdims=True)
        return xla.backward(
            means2d,
            conics,
            opacities,
            depths,
            features,
            to_tiles(whole)[..., 0],
            to_tiles(grad),
            size=size,
            capacity=capacity,
            shape_channels=shape_channels,
        )

    @jax.custom_vjp
    def blend_images(*args):
        return run(*args)

    def blend_fwd(*args):
        image, needed = run(*args)
        return (image, needed), (args, image)

    def blend_bwd(residuals, cotangents):
        args, image = residuals
        means2d, conics, opacities, features = pull(*args, image, cotangents[0])
        return means2d, conics, opacities, jnp.zeros_like(args[3]), features

    blend_images.defvjp(blend_fwd, blend_bwd)
    return blend_images


def to_tiles(image: Float[Array, "i h w c"]) -> Float[Array, "t p c"]:
    """Images cut into tiles, padded with zeros to whole tiles."""
    i, h, w, c = image.shape
    across, down = tile_grid(w, h, xla.TILE)
    padded = jnp.pad(image, ((0, 0), (0, down * xla.TILE - h), (0, across * xla.TILE - w), (0, 0)))
    cut = padded.reshape(i, down, xla.TILE, across, xla.TILE, c).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(i * down * across, xla.TILE**2, c)


def untile(tiled: Float[Array, "t p c"], size: tuple[int, int]) -> Float[Array, "i h w c"]:
    """The inverse of `to_tiles`."""
    across, down = tile_grid(*size, xla.TILE)
    cut = tiled.reshape(-1, down, across, xla.TILE, xla.TILE, tiled.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(cut.shape[0], down * xla.TILE, across * xla.TILE, -1)[:, : size[1], : size[0]]


def blend(
    means2d: Float[Array, "*b n 2"],
    conics: Float[Array, "*b n 3"],
    opacities: Float[Array, "*b n"],
    depths: Float[Array, "*b n"],
    features: Float[Array, "*b n c"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int | None = None,
    backend: str | None = None,
) -> tuple[Float[Array, "*b h w c"], Float[Array, "*b h w"], Int[Array, "*b"]]:
    """Blends Gaussians front to back; `reference.blend_reference` is the contract.

    Args:
        means2d, conics, opacities, depths: see `jsplat.kernels.tiling.bin_tiles`; depths get no gradient.
        features: any number of channels.
        size: (width, height) in pixels.
        capacity: tile hits an image may need.
        shape_channels: only the first so many channels (and alpha) send gradients to the geometry; None = all.
        backend: one of `BACKENDS`, or None for the best that works here.

    Returns:
        blended features, alpha in [0, 1], and the tile hits each image needed. An image that needed more than
        `capacity` is NaN; the others are not affected.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"blend: backend: wanted one of {BACKENDS} or None, got {backend!r}")
    lead, channels = opacities.shape[:-1], features.shape[-1]
    if shape_channels is not None and not 0 <= shape_channels <= channels:
        raise ValueError(f"blend: shape_channels: wanted 0 to {channels}, got {shape_channels}")
    if opacities.size == 0:  # no images, or nothing to draw
        empty = jnp.zeros((*lead, size[1], size[0], channels + 1), features.dtype)
        return empty[..., :-1], empty[..., -1], jnp.zeros(lead, jnp.int32)
    flat = [x.reshape(-1, *x.shape[len(lead) :]) for x in (means2d, conics, opacities, depths, features)]
    out, needed = _blend_function(size, capacity, channels if shape_channels is None else shape_channels)(*flat)
    out = out.reshape(*lead, *out.shape[1:])
    return out[..., :-1], out[..., -1], needed.reshape(lead)
