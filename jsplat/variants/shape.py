"""Other shapes of a head: smooth random maps of space, whose Jacobians move the covariances along."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jsplat.raster.projection import rotation_matrices
from jsplat.raster.pytree import pytree
from jsplat.raster.scene import Gaussians
from jsplat.runtime.precision import einsum
from jsplat.variants.config import ShapeConfig


@pytree
class Warp:
    """A map of space: x -> centre + linear (x - centre) + the sum over bumps of push exp(-|x - site|^2 / 2 width^2).

    Attributes:
        linear: stretch and shear about the centre.
        sites, pushes, widths: of the bumps, world units.
    """

    centre: Float[Array, " 3"]
    linear: Float[Array, "3 3"]
    sites: Float[Array, "m 3"]
    pushes: Float[Array, "m 3"]
    widths: Float[Array, " m"]


def random_warp(
    key: Key[Array, ""],
    points: Float[Array, "n 3"],
    weights: Float[Array, " n"],
    centre: Float[Array, " 3"],
    size: Float[Array, ""],
    config: ShapeConfig,
) -> Warp:
    """A map that keeps neighbours neighbours.

    Args:
        points, weights: bumps stand on these, as often as they weigh.
        centre, size: of the head: how far its surface is from there on average.
    """
    stretch_key, shear_key, site_key, width_key, push_key = jax.random.split(key, 5)
    stretch = jnp.exp(config.stretch * jax.random.normal(stretch_key, (3,)))
    shear = config.shear * jax.random.normal(shear_key, (3, 3)) * (1 - jnp.eye(3))
    chosen = jax.random.choice(site_key, len(points), (config.bumps,), p=weights / weights.sum())
    low, high = config.bump_width
    widths = size * jax.random.uniform(width_key, (config.bumps,), minval=low, maxval=high)
    pushes = config.bump_height * widths[:, None] * jax.random.normal(push_key, (config.bumps, 3))
    return Warp(centre, jnp.diag(stretch) + shear, points[chosen], pushes, widths)


def warped(warp: Warp, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n 3"], Float[Array, "n 3 3"]]:
    """Where points go, and the Jacobian of the map at each."""
    away = points[:, None] - warp.sites
    height = jnp.exp(-(away**2).sum(-1) / (2 * warp.widths**2))
    moved = warp.centre + einsum("ij,nj->ni", warp.linear, points - warp.centre)
    moved += einsum("nm,mi->ni", height, warp.pushes)
    slope = -(height / warp.widths**2)[..., None] * away
    return moved, warp.linear + einsum("mi,nmj->nij", warp.pushes, slope)


def moved(gaussians: Gaussians, means: Float[Array, "n 3"], jacobians: Float[Array, "n 3 3"]) -> Gaussians:
    """Gaussians at other places, their covariances S as J S J^T: exact for maps that are linear across a Gaussian."""
    axes = einsum("nij,njk->nik", jacobians, rotation_matrices(gaussians.quats))
    axes = axes * jnp.exp(gaussians.log_scales)[:, None]
    variances, rotations = jnp.linalg.eigh(einsum("nik,njk->nij", axes, axes))
    # Where two axes are alike their order and signs are free; a rotation has determinant 1.
    rotations = rotations.at[..., 2].multiply(jnp.sign(jnp.linalg.det(rotations))[:, None])
    log_scales = 0.5 * jnp.log(jnp.maximum(variances, jnp.finfo(variances.dtype).tiny))
    return Gaussians(means, quats_of(rotations), log_scales, gaussians.logit_opacities)


def quats_of(rotations: Float[Array, "n 3 3"]) -> Float[Array, "n 4"]:
    """Quaternions wxyz of rotation matrices, of any length: the longest of the four products with w, x, y, z."""
    m = rotations
    trace = jnp.trace(m, axis1=-2, axis2=-1)
    x, y, z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    diagonal = [1 - trace + 2 * m[..., i, i] for i in range(3)]
    rows = [
        [1 + trace, x, y, z],
        [x, diagonal[0], xy, xz],
        [y, xy, diagonal[1], yz],
        [z, xz, yz, diagonal[2]],
    ]
    products = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    longest = jnp.argmax(jnp.diagonal(products, axis1=-2, axis2=-1), -1)
    return jnp.take_along_axis(products, longest[:, None, None], -2)[:, 0]
