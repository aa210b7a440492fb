"""Shape and dtype of what the functions of an implementation give, for JAX, which asks before it compiles them."""

import numpy as np

from jsplat.kernels.blend.splats import Splats


def shown_of(means2d, roots, opacities, depths, features, set_ids, *, size, **_):
    """Of `forward`: channels, depth and alpha, and the tile hits needed."""
    shape, dtype = (opacities.shape[0], size[1], size[0]), opacities.dtype
    return [((*shape, features.shape[-1]), dtype), (shape, dtype), (shape, dtype), (opacities.shape[:1], np.int32)]


def gradients_of(*arrays, **_):
    """Of `backward`: a gradient for each array of the `Splats`."""
    return [(x.shape, x.dtype) for x in arrays[: len(Splats._fields)]]


def sums_of(means2d, roots, opacities, depths, pictures, **_):
    """Of `splat_sums`: the sums, and the tile hits needed."""
    return [((*opacities.shape, pictures.shape[-1]), opacities.dtype), (opacities.shape[:1], np.int32)]
