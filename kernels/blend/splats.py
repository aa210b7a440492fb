"""Projected Gaussians: what `blend` takes, and what its gradients are."""

import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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
