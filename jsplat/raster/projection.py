"""From Gaussians and a camera to what the blending kernels take: ellipses on the image plane."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree
from jsplat.raster.scene import Gaussians
from jsplat.raster.spherical_harmonics import is_direction, unit
from jsplat.runtime.precision import einsum, rotated

NEAR = 0.01  # world units; nearer Gaussians are hidden
LOW_PASS = 0.3  # pixel^2 added to the projected covariance (Kerbl et al. 2023)
FARTHEST = 1e30  # world units: what float32 can still multiply by a focal length
FRUSTUM_MARGIN = 0.15  # of the image size beyond which the projection's Jacobian is held fixed, as gsplat does


@pytree
class Projection:
    """Gaussians on an image plane; see `jsplat.kernels.tiling.bin_tiles` for units."""

    means2d: Float[Array, "*b n 2"]
    conic_roots: Float[Array, "*b n 3"]
    opacities: Float[Array, "*b n"]
    depths: Float[Array, "*b n"]

    @property
    def conics(self) -> Float[Array, "*b n 3"]:
        """(a, b, c) of the inverse covariances [[a, b], [b, c]]; a needle's lose in float32 what its roots keep."""
        u, v, w = jnp.moveaxis(self.conic_roots, -1, 0)
        return jnp.stack([u * u, u * v, v * v + w * w], -1)


def rotation_matrices(quats: Float[Array, "*b 4"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrices of wxyz quaternions of any length; the identity for one that is zero or not finite."""
    w, x, y, z = jnp.moveaxis(unit(quats, (1.0, 0.0, 0.0, 0.0)), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


@functools.partial(jax.jit, static_argnames="antialiased")
def project(gaussians: Gaussians, camera: Camera, *, antialiased: bool = False) -> Projection:
    """EWA splatting (Zwicker et al. 2001) with a low-pass of 0.3 pixel^2.

    A Gaussian is hidden, and sends no gradient anywhere, when it lies nearer than NEAR, is none (not finite, no
    rotation) or is too large for its numbers (in float32 more than 1e9 pixels).

    Args:
        gaussians, camera: leading axes broadcast against each other.
        antialiased: scale opacities by sqrt(det / det with low-pass), so that thin splats do not grow brighter
            (Mip-Splatting, Yu et al. 2024).
    """
    # What a hidden Gaussian holds is replaced before the arithmetic: 0 * NaN would reach the camera's gradient.
    valid = _valid(gaussians)
    means, log_scales = (jnp.where(valid[..., None], x, 0.0) for x in (gaussians.means, gaussians.log_scales))
    rotation, translation = camera.camera_from_world[..., None, :3, :3], camera.camera_from_world[..., None, :3, 3]
    position = rotated(rotation, means) + translation
    visible = valid & (position[..., 2] > NEAR) & (jnp.abs(position) < FARTHEST).all(-1)
    x, y, z = jnp.moveaxis(jnp.where(visible[..., None], position, jnp.asarray([0.0, 0.0, 1.0], position.dtype)), -1, 0)
    intrinsics = camera.intrinsics[..., None, :, :]
    fx, fy, skew, center = intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 1], intrinsics[..., :2, 2]
    offset = jnp.stack([(fx * x + skew * y) / z, fy * y / z], -1)

    size = jnp.asarray([camera.width, camera.height], z.dtype)
    clamped = jnp.clip(offset, -FRUSTUM_MARGIN * size - center, (1 + FRUSTUM_MARGIN) * size - center)
    zero = jnp.zeros_like(z)
    row_x = jnp.stack([fx / z + zero, skew / z + zero, -clamped[..., 0] / z], -1)
    row_y = jnp.stack([zero, fy / z + zero, -clamped[..., 1] / z], -1)
    axes = rotation_matrices(gaussians.quats) * jnp.exp(log_scales)[..., None, :]
    # Rows into the world's frame: two products with a vector each instead of one of matrices.
    u, v = (einsum("...i,...ij->...j", rotated(rotation.mT, row), axes) for row in (row_x, row_y))
    visible &= (jnp.maximum(jnp.abs(u), jnp.abs(v)) < jnp.finfo(z.dtype).max ** 0.24).all(-1)  # fourth powers follow
    u, v = (jnp.where(visible[..., None], stretch, 0.0) for stretch in (u, v))
    xx, xy, yy = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    # Lagrange's identity: what is xx yy - xy^2 on paper is a difference of large numbers for a needle.
    unfiltered = (jnp.cross(u, v) ** 2).sum(-1)
    determinant = unfiltered + LOW_PASS * (xx + yy + LOW_PASS)
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    root = jnp.sqrt(yy / determinant)
    conic_roots = jnp.stack([root, -root * (xy / yy), 1 / jnp.sqrt(yy)], -1)
    opacities = jax.nn.sigmoid(jnp.where(visible, gaussians.logit_opacities, -jnp.inf))
    if antialiased:
        opacities = opacities * jnp.sqrt(jnp.maximum(unfiltered / determinant, 1e-12))
    return Projection(offset + center, conic_roots, opacities, jnp.where(visible, z, jnp.inf))


def _valid(gaussians: Gaussians) -> Bool[Array, "*b n"]:
    """Which of them are Gaussians, of a size that can be squared."""
    largest = 0.5 * jnp.log(jnp.finfo(gaussians.log_scales.dtype).max)
    near, flat = (jnp.abs(gaussians.means) < FARTHEST).all(-1), (gaussians.log_scales < largest).all(-1)
    return near & flat & is_direction(gaussians.quats) & ~jnp.isnan(gaussians.logit_opacities)
