"""Colours that depend on the direction they are seen from: real spherical harmonics."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.errors import InputError
from jsplat.raster.camera import Camera
from jsplat.raster.scene import SH_C0
from jsplat.raster.vectors import components, unit
from jsplat.runtime.precision import by_own_rules, einsum


@by_own_rules
@jax.jit
def sh_colors(sh: Float[Array, "*b n s 3"], means: Float[Array, "*b n 3"], camera: Camera) -> Float[Array, "*v n 3"]:
    """Colours towards a camera from real spherical harmonics of degree 0 to 3, plus 0.5, not below 0.

    The basis and its signs are those of Sloan, "Efficient Spherical Harmonic Evaluation" (2013), as 3DGS uses them.
    """
    count = sh.shape[-2]
    if count not in (1, 4, 9, 16):
        raise InputError("sh_colors: sh", wanted="1, 4, 9 or 16 coefficients a channel", got=count)
    if count == 1:
        rgb = sh[..., 0, :] * SH_C0
        rgb = jnp.broadcast_to(rgb, jnp.broadcast_shapes(rgb.shape, (*camera.centers.shape[:-1], 1, 3)))
        return jnp.maximum(rgb + 0.5, 0.0)
    # A NaN stays that row's own: as a factor of 0 it would reach the camera's gradient.
    valid = jnp.isfinite(sh).all((-2, -1))[..., None]
    sh = jnp.where(valid[..., None], sh, 0.0)
    away = [x - c for x, c in zip(components(means), components(camera.centers[..., None, :]))]
    x, y, z = unit(away, (0.0, 0.0, 1.0))
    basis = [jnp.full_like(x, SH_C0), -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count > 4:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if count > 9:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    rgb = einsum("...ns,...nsc->...nc", jnp.stack(basis, -1), sh)
    return jnp.where(valid, jnp.maximum(rgb + 0.5, 0.0), jnp.nan)
