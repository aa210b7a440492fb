"""Pinhole cameras in OpenCV axes (x right, y down, looking along +z), and where they stand around a head.

The head frame: metres, right-handed, y up, the face looks along +z, the person's left is +x, origin inside the head.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.errors import InputError
from jsplat.raster.pytree import pytree, static
from jsplat.runtime.precision import einsum

Angles = Float[np.ndarray, "*b"]

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@pytree
class Camera:
    """One camera, or a batch of them.

    Attributes:
        camera_from_world: rigid transforms, world units.
        intrinsics: in pixels; the centre of the first pixel lies at (0.5, 0.5).
        width: image width in pixels.
        height: image height in pixels.
    """

    camera_from_world: Float[Array, "*b 4 4"]
    intrinsics: Float[Array, "*b 3 3"]
    width: int = static()
    height: int = static()

    def __getitem__(self, index) -> "Camera":
        """Selects along the leading axes."""
        return Camera(self.camera_from_world[index], self.intrinsics[index], self.width, self.height)

    @property
    def centers(self) -> Float[Array, "*b 3"]:
        """Camera centres in world coordinates."""
        rotation, translation = self.camera_from_world[..., :3, :3], self.camera_from_world[..., :3, 3]
        return -einsum("...ji,...j->...i", rotation, translation)

    def resized(self, width: int, height: int) -> "Camera":
        """The same view with another number of pixels; the half-pixel convention needs no offset here."""
        scale = jnp.asarray([width / self.width, height / self.height, 1.0], self.intrinsics.dtype)
        return Camera(self.camera_from_world, self.intrinsics * scale[:, None], width, height)


def pose_angles(camera: Camera, head_from_world: np.ndarray | None = None) -> tuple[Angles, Angles]:
    """Yaw and pitch in degrees of where each camera stands in the head frame.

    Returns:
        yaw `*b`: > 0 when the camera stands on the person's left; 0 in front; +-180 behind.
        pitch `*b`: > 0 when it stands above.
    """
    centers = np.asarray(camera.centers, np.float64)
    if head_from_world is not None:
        centers = centers @ head_from_world[:3, :3].T + head_from_world[:3, 3]
    x, y, z = np.moveaxis(centers, -1, 0)
    yaw, pitch = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    return np.asarray(np.degrees(yaw)), np.asarray(np.degrees(pitch))


def meeting_point(cameras: Camera) -> Float[np.ndarray, " 3"]:
    """The world point nearest to all optical axes of a batch `v` of cameras, by least squares."""
    axes = np.asarray(cameras.camera_from_world, np.float64)[:, 2, :3]
    centers = np.asarray(cameras.centers, np.float64)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    return np.linalg.lstsq(across.sum(0), np.einsum("vij,vj->i", across, centers), rcond=None)[0]


def orbit(
    yaw: np.ndarray,
    pitch: np.ndarray,
    roll: np.ndarray,
    distance: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    target: np.ndarray | None = None,
) -> Camera:
    """Cameras on spheres around the head frame's origin, looking at `target`.

    Args:
        yaw, pitch, roll: degrees `v`; roll > 0 turns the camera counter-clockwise as the photographer sees it.
        distance: world units `v`, from the target.
        intrinsics: `3 3`, pixels.
        size: (width, height) in pixels.
        target: `3`, a point in the head frame; the origin if None.
    """
    yaw, pitch, roll = (np.radians(np.asarray(a, np.float64)) for a in (yaw, pitch, roll))
    if np.any(np.abs(pitch) > np.radians(89.9)):
        raise InputError("orbit: pitch", wanted="angles within +-89.9 degrees", got=np.degrees(pitch).max())
    toward = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)
    target = np.zeros(3) if target is None else np.asarray(target, np.float64)
    center = target + toward * np.asarray(distance, np.float64)[..., None]
    right = np.stack([np.cos(yaw), np.zeros_like(yaw), -np.sin(yaw)], -1)
    up = np.cross(toward, right)
    cos, sin = np.cos(roll)[..., None], np.sin(roll)[..., None]
    right, up = cos * right + sin * up, cos * up - sin * right
    rotation = np.stack([right, -up, -toward], -2)
    matrix = np.zeros((*yaw.shape, 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, center)
    matrix[..., 3, 3] = 1.0
    tiled = np.broadcast_to(intrinsics, (*yaw.shape, 3, 3))
    return Camera(jnp.asarray(matrix, jnp.float32), jnp.asarray(tiled, jnp.float32), *size)
