"""`blend` in a program that is traced before its device is known: chosen when XLA lowers it, by the platform.

So arrays that lie on a processor get its implementation beside a GPU, too, and what is exported fits its target: for
GPUs, which may be others than those of this process, the kernel that runs on most.
"""

import types
from typing import Any

import jax
from jax.interpreters import mlir
from jaxtyping import Array, Float, Int

from jsplat.kernels import select
from jsplat.kernels.blend import IMPLEMENTATIONS, as_written
from jsplat.kernels.blend.primitives import gradients_of, primitive, shown_of, sums_of
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.blend.sums import sums_by
from jsplat.kernels.select import Facts

_MOST_GPUS = "8.0"  # the compute capability of those that are not here


def device_for(platform: str) -> select.Device:
    """A device of this platform, of this process or of another."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        return _elsewhere(platform)


def _elsewhere(platform: str) -> select.Device:
    """What is known of devices that this process does not have."""
    if platform == "cpu":
        return jax.devices("cpu")[0]
    if platform != "cuda":
        return types.SimpleNamespace(platform=platform, device_kind=platform)
    client = types.SimpleNamespace(platform_version="cuda")
    kind = f"an NVIDIA GPU of compute capability {_MOST_GPUS}"
    return types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=_MOST_GPUS, client=client)


def _implementation(device: select.Device, arrays: Any, channels: int) -> Any:
    facts = Facts(device, arrays[0].dtype, channels)
    with select.use_backend(None):
        return IMPLEMENTATIONS[select.choose("blend", IMPLEMENTATIONS, None, facts)].load()


def _forward(device, *arrays, **how):
    chosen = _implementation(device, arrays, arrays[4].shape[-1])
    return chosen.forward(Splats(*arrays[:5]), *arrays[5:], **how)


def _backward(device, *arrays, **how):
    splats, set_ids, pictures = Splats(*arrays[:5]), arrays[5], arrays[6:]
    chosen = _implementation(device, arrays, splats.features.shape[-1])
    return chosen.backward(splats, set_ids, Shown(*pictures[:3]), Shown(*pictures[3:]), **how)


def _splat_sums(device, *arrays, **how):
    chosen = _implementation(device, arrays, arrays[4].shape[-1])
    return sums_by(chosen)(*arrays, **how)


def _rules(function):
    """How to lower it, by platform."""

    def for_platform(platform):
        def for_device(device):
            def run(*arrays, **how):
                with as_written(arrays[0].dtype):
                    return jax.tree.leaves(function(device, *arrays, **how))

            return mlir.lower_fun(run, multiple_results=True)

        def rule(ctx, *arrays, **how):
            leaves = ctx.module_context.lowering_parameters.for_export
            return for_device((_elsewhere if leaves else device_for)(platform))(ctx, *arrays, **how)

        return rule

    return {platform: for_platform(platform or "other") for platform in (None, "cpu", "cuda")}


_forward_p = primitive("blend_forward", shown_of, _rules(_forward))
_backward_p = primitive("blend_backward", gradients_of, _rules(_backward))
_splat_sums_p = primitive("blend_splat_sums", sums_of, _rules(_splat_sums))


def forward(
    splats: Splats, set_ids: Int[Array, " i"], *, size: tuple[int, int], capacity: int
) -> tuple[Shown, Int[Array, " i"]]:
    """See `xla.forward`."""
    *shown, needed = _forward_p(*splats, set_ids, size=size, capacity=capacity)
    return Shown(*shown), needed


def backward(
    splats: Splats,
    set_ids: Int[Array, " i"],
    shown: Shown,
    grad_shown: Shown,
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
) -> Splats:
    """See `xla.backward`."""
    how = {"size": size, "capacity": capacity, "shape_channels": shape_channels}
    return Splats(*_backward_p(*splats, set_ids, *shown, *grad_shown, **how))


def splat_sums(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    pictures: Float[Array, "i h w c"],
    *,
    size: tuple[int, int],
    capacity: int,
) -> tuple[Float[Array, "i n c"], Int[Array, " i"]]:
    """See `xla.splat_sums`."""
    arrays = (means2d, conic_roots, opacities, depths, pictures)
    sums, needed = _splat_sums_p(*arrays, size=size, capacity=capacity)
    return sums, needed
