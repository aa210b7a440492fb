"""Novel cameras around a head, and whether the capture supports what they would show."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jsplat.captures.capture import Capture
from jsplat.errors import InputError
from jsplat.raster.camera import Camera, meeting_point, orbit
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Render, Scene
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.view_blocks import Devices, by_view, over_views


@dataclasses.dataclass(frozen=True)
class ViewsConfig:
    """Where novel cameras stand, in degrees around the head frame.

    Attributes:
        layout: "random" draws `count` views from the ranges; "grid" takes `grid` (yaws, pitches) evenly spaced ones.
        count: views of an identity, if random.
        grid: numbers of yaws and pitches, if a grid.
        yaw, pitch, roll: ranges.
        distance: range, as a multiple of the capture's own median distance.
        min_coverage: least share of what a view shows that an input camera has seen; other views are left out.
        seen_weight: blend weight (pixels, summed over input views) from which a Gaussian counts as seen.
    """

    layout: Literal["random", "grid"] = "random"
    count: int = 24
    grid: tuple[int, int] = (9, 3)
    yaw: tuple[float, float] = (-110.0, 110.0)
    pitch: tuple[float, float] = (-40.0, 50.0)
    roll: tuple[float, float] = (-10.0, 10.0)
    distance: tuple[float, float] = (0.95, 1.15)
    min_coverage: float = 0.9
    seen_weight: float = 0.5

    def __post_init__(self):
        for name in ("yaw", "pitch", "roll", "distance"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"ViewsConfig.{name}", wanted="(low, high)", got=(low, high))

    @property
    def wanted(self) -> int:
        """Views of an identity, of which some may be left out."""
        return self.count if self.layout == "random" else self.grid[0] * self.grid[1]


def novel_cameras(capture: Capture, config: ViewsConfig, seed: int) -> Camera:
    """Cameras with the capture's own intrinsics, looking where its cameras look."""
    if config.layout == "grid":
        yaw, pitch = (np.linspace(*span, n) for span, n in zip((config.yaw, config.pitch), config.grid))
        yaw, pitch = (a.ravel() for a in np.meshgrid(yaw, pitch, indexing="ij"))
        roll, far = np.full(yaw.shape, np.mean(config.roll)), np.full(yaw.shape, np.mean(config.distance))
    else:
        rng = np.random.default_rng(seed)
        spans = (config.yaw, config.pitch, config.roll, config.distance)
        yaw, pitch, roll, far = (rng.uniform(*span, config.count) for span in spans)
    return cameras_around(capture.cameras, capture.head_from_world, yaw, pitch, roll, far)


def cameras_around(
    cameras: Camera,
    head_from_world: Float[np.ndarray, "4 4"],
    yaw: Float[np.ndarray, " v"],
    pitch: Float[np.ndarray, " v"],
    roll: Float[np.ndarray, " v"],
    far: Float[np.ndarray, " v"],
) -> Camera:
    """Cameras like a capture's own, at given angles (degrees) and multiples `far` of its median distance."""
    world_from_head = np.linalg.inv(head_from_world)
    centers = np.asarray(cameras.centers, np.float64)
    target = meeting_point(cameras)
    distance = float(np.median(np.linalg.norm(centers - target, axis=-1)))
    head_target = head_from_world[:3, :3] @ target + head_from_world[:3, 3]
    size = (cameras.width, cameras.height)
    intrinsics = np.asarray(cameras.intrinsics[0])
    around = orbit(yaw, pitch, roll, far * distance, intrinsics, size, target=head_target)
    camera_from_head = np.asarray(around.camera_from_world, np.float64)
    moved = camera_from_head @ np.linalg.inv(world_from_head)
    return Camera(jnp.asarray(moved, jnp.float32), around.intrinsics, *size)


def photographs(
    scene: Scene,
    seen: Bool[Array, " n"],
    cameras: Camera,
    behind: Float[np.ndarray, " 3"],
    *,
    capacity: int,
    devices: Devices = (),
) -> tuple[UInt8[np.ndarray, "v h w 3"], Float[np.ndarray, " v"]]:
    """What cameras would photograph of one head, and how much of that is known.

    Args:
        seen: Gaussians that the input cameras have seen.
        behind: colour in [0, 1] where nothing is.
        capacity: tile hits a view may need; refused when too small.
        devices: share the views; where the arrays lie if none.

    Returns:
        sRGB pictures; support: the share of each view's visible surface that belongs to seen Gaussians, in [0, 1], 0
        where nothing shows.
    """
    program = functools.partial(_photographs, capacity=capacity)
    images, support, needed = by_view(program, (scene, seen, np.asarray(behind, np.float32)), cameras, devices)
    if (most := int(needed.max())) > capacity:
        raise InputError("photographs: capacity", wanted=f"at least {most} tile hits a view", got=capacity)
    return np.asarray(images), np.asarray(support)


@functools.partial(jax.jit, static_argnames="capacity")
def _photographs(shown: tuple[Scene, Array, Array], cameras: Camera, *, capacity: int):
    scene, seen, behind = shown

    def one(camera: Camera):
        image, render = look(scene, seen[:, None], camera, behind, capacity=capacity)
        support = render.channels[..., 3].sum() / jnp.maximum(render.alpha.sum(), 1e-6)
        return image, support, render.needed

    return over_views(one, cameras)


def look(
    scene: Scene, features: Float[Array, "n c"] | Bool[Array, "n c"], camera: Camera, behind: Array, *, capacity: int
) -> tuple[UInt8[Array, "h w 3"], Render]:
    """The picture that one camera takes, sRGB over the colour `behind`, and the render: colours, then `features`."""
    colors = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
    render = rasterize(scene.gaussians, jnp.concatenate([colors, features], -1), camera, capacity=capacity)
    image = render.channels[..., :3] + (1 - render.alpha)[..., None] * behind
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8), render
