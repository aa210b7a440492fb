"""Functions of arrays as primitives of JAX: what they do is decided when XLA lowers them for a platform.

So arrays that lie on a processor get its implementation beside a GPU, too, and what is exported fits its target: for
GPUs, which may be others than those of this process, the kernel that runs on most.
"""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from jsplat.kernels import select

Shapes = Callable[..., Sequence[tuple[tuple[int, ...], Any]]]
_MOST_GPUS = "8.0"  # the compute capability of those that are not here


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


def rules(function: Callable[..., Any]) -> dict[str | None, Callable[..., Any]]:
    """How to lower a function of a device and arrays, by platform: the device is the one that is compiled for."""

    def for_platform(platform):
        def for_device(device):
            def run(*arrays, **how):
                with as_written(arrays[0].dtype):
                    return jax.tree.leaves(function(device, *arrays, **how))

            return mlir.lower_fun(run, multiple_results=True)

        def rule(ctx, *arrays, **how):
            leaves = ctx.module_context.lowering_parameters.for_export
            return for_device((elsewhere if leaves else device_for)(platform))(ctx, *arrays, **how)

        return rule

    return {platform: for_platform(platform or "other") for platform in (None, "cpu", "cuda")}


def device_for(platform: str) -> select.Device:
    """A device of this platform, of this process or of another."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        return elsewhere(platform)


def elsewhere(platform: str) -> select.Device:
    """What is known of devices that this process does not have."""
    if platform == "cpu":
        return jax.devices("cpu")[0]
    if platform != "cuda":
        return types.SimpleNamespace(platform=platform, device_kind=platform)
    client = types.SimpleNamespace(platform_version="cuda")
    kind = f"an NVIDIA GPU of compute capability {_MOST_GPUS}"
    return types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=_MOST_GPUS, client=client)


@contextlib.contextmanager
def as_written(dtype: Any) -> Iterator[None]:
    """Within the block integers have 32 bits, types and ranks are promoted, whatever the program around it wants."""
    types, ranks = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(dtype == jnp.float64), types, ranks:
        yield
