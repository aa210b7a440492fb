"""Relocation and exploration noise with a fixed number of Gaussians (Kheradmand et al. 2024, "3DGS as MCMC")."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jsplat.raster.projection import rotation_rows
from jsplat.raster.pytree import replace
from jsplat.raster.scene import Gaussians, Scene
from jsplat.raster.vectors import components, dot
from jsplat.runtime.precision import matmul

MOST_COPIES = 16
_SIGN_BINOMIAL = np.zeros((MOST_COPIES, MOST_COPIES))
for _i in range(MOST_COPIES):
    for _k in range(_i + 1):
        _SIGN_BINOMIAL[_i, _k] = math.comb(_i, _k) * (-1) ** _k / math.sqrt(_k + 1)


def split_opacity(
    opacity: Float[Array, " n"], copies: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Opacity of each of `copies` coincident Gaussians that blend like one, and the factor on scales (eq. 9)."""
    copies = jnp.clip(copies, 1, MOST_COPIES)
    each = 1 - (1 - opacity) ** (1 / copies)
    powers = each[:, None] ** jnp.arange(1, MOST_COPIES + 1)
    terms = matmul(powers, jnp.asarray(_SIGN_BINOMIAL.T, opacity.dtype))
    total = jnp.where(jnp.arange(MOST_COPIES) < copies[:, None], terms, 0.0).sum(-1)
    return each, jnp.where(copies > 1, opacity / jnp.maximum(total, 1e-9), 1.0)


def relocate(scene: Scene, key: jax.Array, dead_opacity: float) -> tuple[Scene, Bool[Array, " n"]]:
    """Moves dead Gaussians of one identity onto living ones, drawn by opacity, without changing the render much.

    Returns:
        the scene, and which Gaussians changed (their optimizer moments should be forgotten).
    """
    gaussians = scene.gaussians
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    count = opacity.shape[0]
    dead = opacity < dead_opacity
    # By inversion: `jax.random.categorical` would hold n x n numbers.
    cumulative = jnp.cumsum(jnp.where(dead, 0.0, opacity))
    drawn = jnp.searchsorted(cumulative, jax.random.uniform(key, (count,)) * cumulative[-1], side="right")
    drawn = jnp.minimum(drawn, count - 1)
    source = jnp.where(dead & ~dead.all(), drawn, jnp.arange(count))
    copies = jnp.zeros(count, jnp.int32).at[source].add(1)
    each, factor = split_opacity(opacity, copies)
    changed = dead | (copies > 1)
    each = jnp.clip(each, dead_opacity * 1.05, 1 - 1e-4)
    split = replace(
        gaussians,
        logit_opacities=jnp.where(copies > 1, jnp.log(each / (1 - each)), gaussians.logit_opacities),
        log_scales=gaussians.log_scales + jnp.log(factor)[:, None],
    )
    return jax.tree.map(lambda x: x[source], Scene(split, scene.attributes)), changed


def exploration(gaussians: Gaussians, key: jax.Array) -> Float[Array, "n 3"]:
    """Noise along each Gaussian's own axes, in world units, large only where the opacity is near 0 (eq. 8)."""
    gate = jax.nn.sigmoid(-100 * (jax.nn.sigmoid(gaussians.logit_opacities) - 0.05))
    along = components(jnp.exp(gaussians.log_scales) * jax.random.normal(key, gaussians.means.shape))
    return jnp.stack([gate * dot(row, along) for row in rotation_rows(components(gaussians.quats))], -1)
