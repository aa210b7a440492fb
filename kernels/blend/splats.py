"""Projected Gaussians, what they show, and what the gradients are: what goes into implementations and comes out."""

import functools
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Splats(typing.NamedTuple):
    """Gaussians on image planes, in arrays of JAX or numpy; `jsplat.kernels.tiling.bin_tiles` has the units.

    The images have the leading axes `*b`, the sets of features `*f`: as many, 1 where images share a set.
    """

    means2d: Float[Array | np.ndarray, "*b n 2"]
    conic_roots: Float[Array | np.ndarray, "*b n 3"]
    opacities: Float[Array | np.ndarray, "*b n"]
    depths: Float[Array | np.ndarray, "*b n"]
    features: Float[Array | np.ndarray, "*f n c"]

    @property
    def conics(self) -> Float[np.ndarray, "*b n 3"]:
        """(a, b, c) of the inverse covariances [[a, b], [b, c]]."""
        u, v, w = np.moveaxis(np.asarray(self.conic_roots), -1, 0)
        return np.stack([u * u, u * v, v * v + w * w], -1)

    def arrays(self, dtype: type = np.float32) -> "Splats":
        """The same as arrays of JAX."""
        return Splats(*(jnp.asarray(x, dtype) for x in self))


class Shown(typing.NamedTuple):
    """What images show: features, depth and 1, weighted by alpha * transmittance; or the gradients of these."""

    channels: Float[Array, "*b h w c"]
    depth: Float[Array, "*b h w"]
    alpha: Float[Array, "*b h w"]

    @classmethod
    def of(cls, image: Float[Array, "*b h w k"]) -> "Shown":
        """From one array, k = c + 2."""
        return cls(image[..., :-2], image[..., -2], image[..., -1])

    @property
    def image(self) -> Float[Array, "*b h w k"]:
        """As one array, k = c + 2."""
        return jnp.concatenate([self.channels, self.depth[..., None], self.alpha[..., None]], -1)


def nan_where(mask: Bool[Array, " i"], x: Float[Array, "i ..."]) -> Float[Array, "i ..."]:
    """NaN in the images of the mask."""
    return jnp.where(jnp.expand_dims(mask, tuple(range(1, x.ndim))), jnp.nan, x)


def nan_gradients(mask: Bool[Array, " i"], set_ids: Int[Array, " i"], gradients: Splats) -> Splats:
    """NaN in those of the images of the mask and of the features that these show; zeros would look like a minimum.

    Where there are as many sets of features as images each image shows its own.
    """
    sets = mask
    if (count := gradients.features.shape[0]) != len(mask):
        sets = jnp.zeros(count, bool).at[set_ids].max(mask)
    return map_images(functools.partial(nan_where, mask), functools.partial(nan_where, sets), gradients)


def map_images(of_images: Callable[..., Any], of_sets: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Like `jax.tree.map`, with a function of its own for the features of `Splats`: their leading axes are other ones.

    Args:
        of_images, of_sets: of an array of the tree and the entries of `others` at its place.
        others: of the tree's structure.
    """

    def one(x, *others):
        if not isinstance(x, Splats):
            return of_images(x, *others)
        function = {"features": of_sets}
        return Splats(
            **{name: function.get(name, of_images)(*(getattr(y, name) for y in (x, *others))) for name in x._fields}
        )

    return jax.tree.map(one, tree, *others, is_leaf=lambda x: isinstance(x, Splats))
