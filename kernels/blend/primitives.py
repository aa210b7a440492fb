"""Functions of arrays as primitives of JAX: what they do is decided when XLA lowers them for a platform."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from jsplat.kernels.blend.splats import Splats

Shapes = Callable[..., Sequence[tuple[tuple[int, ...], Any]]]


def primitive(name: str, shapes: Shapes, rules: Mapping[str | None, Callable[..., Any]]) -> Callable[..., Any]:
    """A function of arrays and static options.

    Args:
        shapes: shape and dtype of each result, from the arrays and the options.
        rules: how to lower it, by platform; None: for all others.
    """
    operation = Primitive(name)
    operation.multiple_results = True
    for platform, rule in rules.items():
        mlir.register_lowering(operation, rule, platform=platform)

    @operation.def_abstract_eval
    def _(*arrays, **options):
        return [_like(arrays[0], *of) for of in shapes(*arrays, **options)]

    @operation.def_impl
    def _(*arrays, **options):
        with jax.disable_jit(False):
            return jax.jit(functools.partial(operation.bind, **options))(*arrays)

    return operation.bind


def _like(array: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array's type with another shape, in the same place: within a `shard_map` that is a part of its meaning."""
    whole = array.sharding.update(spec=PartitionSpec(*[None] * len(shape)))
    return array.update(shape=shape, dtype=np.dtype(dtype), weak_type=False, sharding=whole)


# What the functions of an implementation give.


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
