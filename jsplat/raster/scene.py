"""The dual model: one geometry, and what is painted on it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.raster.pytree import pytree

SH_C0 = 0.28209479177387814


@pytree
class Gaussians:
    """The geometry: anisotropic 3D Gaussians in world coordinates.

    Attributes:
        means: centres, world units.
        quats: rotations, wxyz, any non-zero length (normalised where used).
        log_scales: natural logarithms of the standard deviations along the three own axes, world units.
        logit_opacities: opacities before the sigmoid.
    """

    means: Float[Array, "*b n 3"]
    quats: Float[Array, "*b n 4"]
    log_scales: Float[Array, "*b n 3"]
    logit_opacities: Float[Array, "*b n"]


@pytree
class Attributes:
    """What is painted on the geometry.

    Attributes:
        sh: spherical-harmonic coefficients of colour in [0, 1] after adding 0.5; s = 1, 4, 9 or 16 (degree 0 to 3).
        label_logits: class logits; their softmax is taken per Gaussian BEFORE blending, so renders are mixtures.
    """

    sh: Float[Array, "*b n s 3"]
    label_logits: Float[Array, "*b n k"]


@pytree
class Scene:
    """Gaussians and what is painted on them: RGB and labels share the geometry by construction."""

    gaussians: Gaussians
    attributes: Attributes


@pytree
class Render:
    """What a camera sees.

    Attributes:
        channels: blended channels plus (1 - alpha) times the background.
        alpha: 1 minus the remaining transmittance, in [0, 1].
        depth: expected z depth in world units, sum(w z) / alpha; 0 where alpha is 0.
        needed: tile hits this view needed; the view is NaN where it exceeds the capacity it was rendered with.
    """

    channels: Float[Array, "*b h w c"]
    alpha: Float[Array, "*b h w"]
    depth: Float[Array, "*b h w"]
    needed: jax.Array


def rgb_to_sh(rgb: Float[Array, "*b n 3"], degree: int = 0) -> Float[Array, "*b n s 3"]:
    """Coefficients whose colour is `rgb` from every direction."""
    base = ((rgb - 0.5) / SH_C0)[..., None, :]
    rest = jnp.zeros((*base.shape[:-2], (degree + 1) ** 2 - 1, 3), base.dtype)
    return jnp.concatenate([base, rest], -2)
