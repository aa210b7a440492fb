"""The contract of `blend`, dense and in plain jnp: every Gaussian against every pixel. Its autodiff is the truth."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP


def blend_reference(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "i n c"],
    *,
    size: tuple[int, int],
) -> tuple[Float[Array, "i h w c"], Float[Array, "i h w"], Float[Array, "i h w"]]:
    """Front-to-back alpha blending (Kerbl et al. 2023, eq. 2-3).

    alpha = min(0.999, opacity * exp(-power)), power = ((u dx + v dy)^2 + (w dy)^2) / 2 at the pixel's centre.
    A Gaussian counts when alpha >= 1/255 and the transmittance before it is at least 1e-4.

    Returns:
        with weight = alpha * transmittance: the sum of weight * feature, of weight, and of weight * depth.
    """
    width, height = size
    xs, ys = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    pixels = jnp.stack([xs.ravel(), ys.ravel()], -1).astype(means2d.dtype)

    def one(means2d, conic_roots, opacities, depths, features):
        order = jnp.argsort(depths)
        hidden = ~jnp.isfinite(depths)
        means2d, conic_roots, opacities, features, hidden = (
            x[order] for x in (means2d, conic_roots, opacities, features, hidden)
        )
        dx, dy = (means2d[:, None, d] - pixels[None, :, d] for d in (0, 1))
        u, v, w = (conic_roots[:, k, None] for k in range(3))
        power = 0.5 * (jnp.square(u * dx + v * dy) + jnp.square(w * dy))
        alpha = jnp.minimum(ALPHA_CEILING, opacities[:, None] * jnp.exp(-power))
        alpha = jnp.where((alpha >= ALPHA_FLOOR) & ~hidden[:, None], alpha, 0.0)
        after = jnp.cumprod(1 - alpha, axis=0)
        transmittance = jnp.concatenate([jnp.ones_like(after[:1]), after[:-1]])
        weight = jnp.where(transmittance >= TRANSMITTANCE_STOP, alpha * transmittance, 0.0)
        finite_depths = jnp.where(hidden, 0.0, depths[order])
        # In float32 on a GPU, too, in all bits of the factors.
        shown, depth = (jnp.matmul(weight.T, x, precision="highest") for x in (features, finite_depths))
        return shown, weight.sum(0), depth

    channels, alpha, depth = jax.vmap(one)(means2d, conic_roots, opacities, depths, features)
    shape = (-1, height, width)
    return channels.reshape(*shape, features.shape[-1]), alpha.reshape(shape), depth.reshape(shape)
