"""From Gaussians and a camera to what the blending kernels take: ellipses on the image plane."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree
from jsplat.raster.scene import Gaussians
from jsplat.raster.vectors import Components, components, computed_once, cross, dot, is_direction, largest, unit

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
        u, v, w = components(self.conic_roots)
        return jnp.stack([u * u, u * v, v * v + w * w], -1)


def rotation_matrices(quats: Float[Array, "*b 4"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrices of wxyz quaternions of any length; the identity for one that is zero or not finite."""
    return jnp.stack([jnp.stack(row, -1) for row in rotation_rows(components(quats))], -2)


def rotation_rows(quats: Components) -> list[list[Float[Array, "*b"]]]:
    """The entries of `rotation_matrices`, row by row."""
    w, x, y, z = computed_once(unit(quats, (1.0, 0.0, 0.0, 0.0)))
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


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
    means, quats, log_scales = map(components, (gaussians.means, gaussians.quats, gaussians.log_scales))
    valid = _valid(means, quats, log_scales, gaussians.logit_opacities)
    means, log_scales = ([jnp.where(valid, x, 0.0) for x in vectors] for vectors in (means, log_scales))
    pose = camera.camera_from_world[..., None]
    rotation = [[pose[..., i, k, :] for k in range(3)] for i in range(3)]
    position = computed_once([dot(row, means) + pose[..., i, 3, :] for i, row in enumerate(rotation)])
    visible = valid & (position[2] > NEAR) & (largest(position) < FARTHEST)
    x, y, z = (jnp.where(visible, at, instead) for at, instead in zip(position, (0.0, 0.0, 1.0)))
    intrinsics = camera.intrinsics[..., None]
    fx, fy, skew = intrinsics[..., 0, 0, :], intrinsics[..., 1, 1, :], intrinsics[..., 0, 1, :]
    center = [intrinsics[..., i, 2, :] for i in range(2)]
    offset = [(fx * x + skew * y) / z, fy * y / z]

    clamped = [
        jnp.clip(at, -FRUSTUM_MARGIN * size - c, (1 + FRUSTUM_MARGIN) * size - c)
        for at, size, c in zip(offset, (camera.width, camera.height), center)
    ]
    zero = jnp.zeros_like(z)
    # Rows of the Jacobian, in the world's frame: two products with a vector each instead of one of matrices.
    rows = [fx / z, skew / z, -clamped[0] / z], [zero, fy / z, -clamped[1] / z]
    rows = computed_once([[dot(row, column) for column in zip(*rotation)] for row in rows])
    scales, axes = computed_once(([jnp.exp(s) for s in log_scales], rotation_rows(quats)))
    u, v = computed_once([[dot(row, axis) * scale for axis, scale in zip(zip(*axes), scales)] for row in rows])
    visible &= largest([*u, *v]) < jnp.finfo(z.dtype).max ** 0.24  # fourth powers follow
    u, v = ([jnp.where(visible, x, 0.0) for x in stretch] for stretch in (u, v))
    xx, xy, yy = dot(u, u), dot(u, v), dot(v, v)
    # Lagrange's identity: what is xx yy - xy^2 on paper is a difference of large numbers for a needle.
    normal = cross(u, v)
    xx, xy, yy, unfiltered = computed_once([xx, xy, yy, dot(normal, normal)])
    determinant = unfiltered + LOW_PASS * (xx + yy + LOW_PASS)
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    root = jnp.sqrt(yy / determinant)
    opacities = jax.nn.sigmoid(jnp.where(visible, gaussians.logit_opacities, -jnp.inf))
    if antialiased:
        opacities = opacities * jnp.sqrt(jnp.maximum(unfiltered / determinant, 1e-12))
    return Projection(
        means2d=jnp.stack([at + c for at, c in zip(offset, center)], -1),
        conic_roots=jnp.stack([root, -root * (xy / yy), 1 / jnp.sqrt(yy)], -1),
        opacities=opacities,
        depths=jnp.where(visible, z, jnp.inf),
    )


def _valid(
    means: Components, quats: Components, log_scales: Components, logit_opacities: Float[Array, "*b"]
) -> Bool[Array, "*b"]:
    """Which of them are Gaussians, of a size that can be squared."""
    greatest = 0.5 * jnp.log(jnp.finfo(logit_opacities.dtype).max)
    near = largest(means) < FARTHEST
    flat = functools.reduce(jnp.maximum, log_scales) < greatest
    return near & flat & is_direction(quats) & ~jnp.isnan(logit_opacities)
