"""`blend` in C++ for processors: an implementation like `xla`, several times as fast (see kernels/README.md).

In a program that is exported, or lowered for anything but a processor, XLA's version stands in its place.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend import xla
from jsplat.kernels.blend.cpu import compiled
from jsplat.kernels.blend.results import gradients_of, shown_of, sums_of
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.primitives import Shapes, primitive

TILE = xla.TILE  # it counts as XLA does, whose place it takes


def _operation(name: str, shapes: Shapes, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """One function of the library, which XLA lowers where the program will run; elsewhere the same by other means."""

    def native(*arrays, threads, skip, **options):
        compiled.load()
        results = [jax.ShapeDtypeStruct(*of) for of in shapes(*arrays, **options)]
        width, height = options.pop("size")
        options |= {"width": width, "height": height, "threads": threads, "skip": skip}
        call = jax.ffi.ffi_call(f"jsplat_{name}_{arrays[0].dtype.name}", results)
        return call(*arrays, **{key: np.int64(value) for key, value in options.items()})

    def instead(*arrays, threads, skip, **options):
        return jax.tree.leaves(fallback(*arrays, **options))

    lowered_native, lowered_instead = (mlir.lower_fun(one, multiple_results=True) for one in (native, instead))

    def on_processors(ctx, *arrays, **options):
        # A program that leaves this process must not ask for a library of ours.
        leaves = ctx.module_context.lowering_parameters.for_export or len(ctx.module_context.platforms) > 1
        return (lowered_instead if leaves else lowered_native)(ctx, *arrays, **options)

    return primitive(f"jsplat_{name}", shapes, {None: lowered_instead, "cpu": on_processors})


def _forward_by_xla(*arrays, **how):
    return xla.forward(Splats(*arrays[:5]), arrays[5], **how)


def _backward_by_xla(*arrays, **how):
    return xla.backward(Splats(*arrays[:5]), arrays[5], Shown(*arrays[6:9]), Shown(*arrays[9:]), **how)


_forward = _operation("forward", shown_of, _forward_by_xla)
_backward = _operation("backward", gradients_of, _backward_by_xla)
_splat_sums = _operation("splat_sums", sums_of, xla.splat_sums)


@functools.partial(jax.jit, static_argnames=("size", "capacity", "threads", "skip"))
def forward(
    splats: Splats, set_ids: Int[Array, " i"], *, size: tuple[int, int], capacity: int, threads: int = 0, skip: int = 0
) -> tuple[Shown, Int[Array, " i"]]:
    """See `xla.forward`; lists are as long as they have to be, whatever the capacity is.

    Args:
        threads: at most so many; 0 = as many as the process may use.
        skip: leaves out the best instruction sets of those that the processor has, for tests.
    """
    *shown, needed = _forward(*splats, set_ids, size=size, capacity=capacity, threads=threads, skip=skip)
    return Shown(*shown), needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels", "threads", "skip"))
def backward(
    splats: Splats,
    set_ids: Int[Array, " i"],
    shown: Shown,
    grad_shown: Shown,
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
    threads: int = 0,
    skip: int = 0,
) -> Splats:
    """See `xla.backward`, and `forward` for the rest: the same bits on any number of threads."""
    how = {"size": size, "capacity": capacity, "shape_channels": shape_channels, "threads": threads, "skip": skip}
    return Splats(*_backward(*splats, set_ids, *shown, *grad_shown, **how))


@functools.partial(jax.jit, static_argnames=("size", "capacity", "threads", "skip"))
def splat_sums(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    pictures: Float[Array, "i h w c"],
    *,
    size: tuple[int, int],
    capacity: int,
    threads: int = 0,
    skip: int = 0,
) -> tuple[Float[Array, "i n c"], Int[Array, " i"]]:
    """See `xla.splat_sums`, and `forward` for the rest."""
    how = {"size": size, "capacity": capacity, "threads": threads, "skip": skip}
    sums, needed = _splat_sums(means2d, conic_roots, opacities, depths, pictures, **how)
    return sums, needed
