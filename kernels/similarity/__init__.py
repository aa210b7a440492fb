"""How like two pictures are: structural similarity, and the photo loss with its gradient in closed form.

`xla` is the reference and runs everywhere; `mosaic_gpu` does the loss and its gradient in three kernels on Hopper and
Blackwell. Which one runs is decided when XLA lowers the program.
"""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from jsplat.kernels import select
from jsplat.kernels.primitives import primitive, rules
from jsplat.kernels.select import HOPPER_OR_BLACKWELL, Facts, Implementation, is_hopper_or_blackwell
from jsplat.kernels.similarity.xla import similarity_map

__all__ = ["photo_loss_and_slope", "similarity_map"]

CHANNELS = 3


def _mosaic_declines(facts: Facts) -> str | None:
    return select.needs_gpu(facts, wanted=HOPPER_OR_BLACKWELL, supported=is_hopper_or_blackwell)


# The best first, as in `blend`.
IMPLEMENTATIONS = {
    "mosaic_gpu": Implementation(select.module("jsplat.kernels.similarity.mosaic_gpu"), _mosaic_declines),
    "xla": Implementation(select.module("jsplat.kernels.similarity.xla"), lambda facts: None),
}


def photo_loss_and_slope(
    render: Float[Array, "*b h w 3"], photo: Float[Array, "*b h w 3"], ssim_weight: float
) -> tuple[Float[Array, "*b"], Float[Array, "*b h w 3"]]:
    """(1 - s) L1 + s (1 - SSIM) / 2 of each picture, as Kerbl et al. 2023, and its gradient in the render.

    Args:
        render, photo: of one dtype, float32 or float64, in [0, 1].
        ssim_weight: s.
    """
    size = render.shape[-3:]

    @custom_vmap
    def run(render, photo):
        lead = render.shape[:-3]
        flat = (x.reshape(-1, *size) for x in (render, photo))
        asked = select.asked(None)
        backend = asked if asked is None or asked in IMPLEMENTATIONS else "xla"  # one that has no photo loss of its own
        loss, slope = _photo_loss_p(*flat, ssim_weight=ssim_weight, backend=backend)
        return loss.reshape(lead), slope.reshape(render.shape)

    @run.def_vmap
    def _(axis_size, in_batched, *pictures):
        wide = (x if own else jnp.broadcast_to(x, (axis_size, *x.shape)) for x, own in zip(pictures, in_batched))
        return run(*wide), (True, True)

    return run(render, photo)


def _shapes(render, photo, **_):
    return [(render.shape[:1], render.dtype), (render.shape, render.dtype)]


def _photo_loss(device: select.Device, *pictures: jax.Array, ssim_weight: float, backend: str | None):
    facts = Facts(device, pictures[0].dtype, CHANNELS)
    with select.use_backend(None):
        name = select.choose("photo_loss", IMPLEMENTATIONS, backend, facts)
    return IMPLEMENTATIONS[name].load().photo_loss_and_slope(*pictures, ssim_weight)


_photo_loss_p = primitive("photo_loss", _shapes, rules(_photo_loss))
