"""`blend` in a program that is traced before its device is known: chosen when XLA lowers it, by the platform."""

from typing import Any

from jaxtyping import Array, Float, Int

from jsplat.kernels import select
from jsplat.kernels.blend import IMPLEMENTATIONS
from jsplat.kernels.blend.results import gradients_of, shown_of, sums_of
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.blend.sums import sums_by
from jsplat.kernels.primitives import primitive, rules
from jsplat.kernels.select import Facts


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


_forward_p = primitive("blend_forward", shown_of, rules(_forward))
_backward_p = primitive("blend_backward", gradients_of, rules(_backward))
_splat_sums_p = primitive("blend_splat_sums", sums_of, rules(_splat_sums))


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
