"""How like two pictures are, for the fit and for whoever optimizes pictures."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.kernels.similarity import photo_loss_and_slope, similarity_map


def ssim(a: Float[Array, "*b h w c"], b: Float[Array, "*b h w c"]) -> Float[Array, "*b"]:
    """Structural similarity (Wang et al. 2004) of pictures in [0, 1], mean over pixels and channels; 1 where equal.

    The window is a Gaussian of 11 pixels and sigma 1.5; outside of the picture everything is 0.
    """
    return ssim_map(a, b).mean((-3, -2, -1))


def ssim_map(a: Float[Array, "*b h w c"], b: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Structural similarity at each pixel and channel."""
    return similarity_map(a, b)


def photo_loss(
    render: Float[Array, "*b h w 3"], photo: Float[Array, "*b h w 3"], ssim_weight: float
) -> Float[Array, "*b"]:
    """(1 - s) L1 + s (1 - SSIM) / 2 of each picture, as Kerbl et al. 2023, mean over pixels and channels.

    The gradient in the render is in closed form; the photograph is data and has none.

    Args:
        render, photo: in [0, 1]; in the render's dtype.
        ssim_weight: s, in [0, 1].
    """

    @jax.custom_vjp
    def loss(render, photo):
        return photo_loss_and_slope(render, photo, ssim_weight)[0]

    def back(slope, cotangent):
        return cotangent[..., None, None, None] * slope, jnp.zeros_like(slope)

    photo = photo.astype(render.dtype)
    loss.defvjp(lambda render, photo: photo_loss_and_slope(render, photo, ssim_weight), back)
    return loss(render, photo)
