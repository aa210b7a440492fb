"""Sums of weights: what each Gaussian shows of pictures, without an image and without gradients."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend import chosen, first_order, implementation_of, over_images
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.primitives import as_written


def splat_sums(
    means2d: Float[Array | np.ndarray, "*b n 2"],
    conic_roots: Float[Array | np.ndarray, "*b n 3"],
    opacities: Float[Array | np.ndarray, "*b n"],
    depths: Float[Array | np.ndarray, "*b n"],
    pictures: Float[Array | np.ndarray, "*b h w c"],
    *,
    capacity: int,
    backend: str | None = None,
) -> tuple[Float[Array, "*b n c"], Int[Array, "*b"]]:
    """Of each Gaussian the sum over pixels of its blending weight times the picture.

    That is the gradient of sum(picture * image) with respect to the features that `blend` shows: a vector-Jacobian
    product for which neither the image nor the features are needed.

    Args:
        means2d, conic_roots, opacities, depths, capacity, backend: see `blend`.
        pictures: any number of channels from 1 on.

    Returns:
        the sums, and the tile hits each image needed; NaN where that is more than `capacity`. In float64 if an argument
        is, else in float32. They have no derivative.

    Raises:
        ValueError: a backend that cannot run here.
    """
    arrays = [jnp.asarray(x) for x in (means2d, conic_roots, opacities, depths, pictures)]
    common = jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
    *rows, pictures = (x.astype(common) for x in arrays)
    backend = chosen("splat_sums", rows[0], pictures.shape[-1], backend)
    if rows[2].size == 0:
        lead = rows[2].shape
        return jnp.zeros((*lead, pictures.shape[-1]), common), jnp.zeros(lead[:-1], jnp.int32)
    size = (pictures.shape[-2], pictures.shape[-3])
    unread = rows[2][..., None]  # features, which the sums do not depend on
    return sums_function(size, operator.index(capacity), backend)(Splats(*rows, unread), pictures)


@functools.lru_cache(maxsize=64)
def sums_function(size: tuple[int, int], capacity: int, backend: str) -> Callable[[Splats, Array], tuple[Array, Array]]:
    """`splat_sums` for one size and capacity, of arrays of one dtype; the features of `Splats` are not read."""
    implementation = implementation_of(backend)
    own = sums_by(implementation.load())

    def run(splats, set_ids, pictures):
        with as_written(splats.means2d.dtype):
            return own(*splats[:4], pictures, size=size, capacity=capacity)

    return first_order(over_images(run, implementation, gradients=False), "splat_sums")


def sums_by(implementation: Any) -> Callable[..., tuple[Array, Array]]:
    """An implementation's own kernel for sums; where there is none, the gradient of features that are zeros."""

    def by_gradient(means2d, conic_roots, opacities, depths, pictures, *, size, capacity):
        zeros = jnp.zeros((*opacities.shape, pictures.shape[-1]), pictures.dtype)
        splats = Splats(means2d, conic_roots, opacities, depths, zeros)
        set_ids = jnp.arange(opacities.shape[0], dtype=jnp.int32)
        shown, needed = implementation.forward(splats, set_ids, size=size, capacity=capacity)
        upstream = Shown(pictures, jnp.zeros_like(shown.depth), jnp.zeros_like(shown.alpha))
        how = {"size": size, "capacity": capacity, "shape_channels": 0}
        return implementation.backward(splats, set_ids, shown, upstream, **how).features, needed

    return getattr(implementation, "splat_sums", by_gradient)
