"""Images with any leading axes, given or added by `vmap`, as the one flat list that implementations blend.

So no batch is a lockstep over the longest tile: more images are a longer list. Features that several images show are
kept once: the flat list knows the set of features of each image.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jsplat.kernels.blend.splats import Splats, map_images


def folded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays with any leading axes, from one of a flat list of images.

    Args:
        function: of `Splats` with one leading axis each, the set of features of each image, and arrays with one entry
            an image. Returns a tree of such arrays and `Splats`.

    Returns:
        the function of `Splats` and the arrays; the features have as many leading axes as the others, 1 where images
        share a set.
    """

    def run(splats: Splats, *others: jax.Array) -> Any:
        lead, sets = splats.opacities.shape[:-1], splats.features.shape[:-2]
        set_ids = jnp.arange(math.prod(sets), dtype=jnp.int32).reshape(sets)
        set_ids = jnp.broadcast_to(set_ids, lead).reshape(-1)

        def flat(x):
            return x.reshape(-1, *x.shape[len(lead) :])

        def unflat(axes):
            return lambda x: x.reshape(*axes, *x.shape[1:])

        flat_splats, *flat_others = map_images(flat, flat, (splats, *others))
        return map_images(unflat(lead), unflat(sets), function(flat_splats, set_ids, *flat_others))

    return run


def with_vmap(function: Callable[..., Any], *, gradients: bool) -> Callable[..., Any]:
    """A function as `folded` gives it, to which `vmap` adds a leading axis.

    Args:
        gradients: it returns those of its `Splats`. Features that the new axis shares are copied then, as the gradients
            of its entries are not shared.
    """
    batched = custom_vmap(function)

    @batched.def_vmap
    def rule(axis_size, in_batched, *args):
        def widen(size):
            return lambda x, is_batched: x if is_batched else jnp.broadcast_to(x, (size, *x.shape))

        out = batched(*map_images(widen(axis_size), widen(axis_size if gradients else 1), args, tuple(in_batched)))
        return out, jax.tree.map(lambda _: True, out)

    return batched
