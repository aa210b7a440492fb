"""A ball, photographed: the smallest head whose pictures, labels and outline are known in closed form."""

import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.fitting import FitConfig
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.camera import Camera, orbit
from jsplat.raster.scene import Gaussians

RADIUS = 0.1
DISTANCE = 1.0
ACROSS = 0.3  # what a picture spans at the ball, in world units
BEHIND = (40, 40, 40)
SIDES = LabelSet(
    ("background", "left", "right"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)), ("background", "right", "left")
)
# One for all tests that fit the ball: what is compiled for one serves the others.
FIT = FitConfig(
    gaussians=300,
    steps=24,
    steps_per_call=8,
    relocate_every=8,
    dead_opacity=0.5,  # in so few steps none would fall below the usual one
    hold_out=4,
    voxels=24,
    hits_per_gaussian=8.0,
)


def cameras(yaw, size: int = 32, pitch: float = 20.0) -> Camera:
    """Cameras that look at the ball's centre, by turns from above and from below."""
    yaw = np.asarray(yaw, float)
    focal = size * DISTANCE / ACROSS
    lens = np.asarray([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    tilt = np.where(np.arange(len(yaw)) % 2, -pitch, pitch)
    return orbit(yaw, tilt, np.zeros(len(yaw)), np.full(len(yaw), DISTANCE), lens, (size, size))


def capture(identity: str = "ball", yaw=None, size: int = 32, turn: float = 0.0) -> Capture:
    """The ball from all around: colour is its normal (turned by `turn` radians), its two halves are the two classes."""
    seen_by = cameras(np.arange(8) * 45.0 if yaw is None else yaw, size)
    centers = np.asarray(seen_by.centers, np.float64)[:, None, None]
    rotation = np.asarray(seen_by.camera_from_world, np.float64)[:, :3, :3]
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    focal = size * DISTANCE / ACROSS
    rays = np.stack([(x - size / 2) / focal, (y - size / 2) / focal, np.ones_like(x)], -1)
    rays = np.einsum("vji,hwj->vhwi", rotation, rays / np.linalg.norm(rays, axis=-1, keepdims=True))
    along = (rays * centers).sum(-1)
    under = along**2 - (centers**2).sum(-1) + RADIUS**2
    hit = under > 0
    normal = (centers + (-along - np.sqrt(np.maximum(under, 0)))[..., None] * rays) / RADIUS
    cos, sin = np.cos(turn), np.sin(turn)
    turned = normal @ np.asarray([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    images = np.where(hit[..., None], 128 + 100 * turned, BEHIND).round().astype(np.uint8)
    labels = np.where(hit, np.where(normal[..., 0] > 0, 1, 2), 0).astype(np.uint8)
    return Capture(identity, images, labels, seen_by, SIDES, np.eye(4), BEHIND)


def gaussians(count: int = 200, opacity: float = 0.97, flatness: float = 0.3) -> Gaussians:
    """Flat Gaussians evenly on the ball (Fibonacci lattice), one spacing wide, thin along the normal."""
    i = np.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    normal = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], -1)
    quats = np.stack([1 + z, -normal[:, 1], normal[:, 0], np.zeros(count)], -1)
    width = RADIUS * np.sqrt(4 * np.pi / count) * 0.7
    scales = np.broadcast_to(np.log(width * np.array([1, 1, flatness])), (count, 3))
    logits = np.full(count, np.log(opacity / (1 - opacity)))
    return Gaussians(*(jnp.asarray(a, jnp.float32) for a in (normal * RADIUS, quats, scales, logits)))
