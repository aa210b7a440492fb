"""Labels onto the geometry in closed form, and back into any view.

A render is linear in what is painted on the Gaussians, so the blend weight each Gaussian has in each pixel is the
render's Jacobian, and the weighted sum of a picture over a Gaussian's pixels is one vector-Jacobian product, for which
`splat_sums` needs neither image nor features (Marrie et al. 2025, "LUDVIG"; Shen et al. 2024, "FlashSplat").
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.labels.opinions import Opinions, pixels
from jsplat.raster.camera import Camera
from jsplat.raster.projection import rotation_matrices
from jsplat.raster.rasterizer import rasterize, splat_sums
from jsplat.raster.scene import Gaussians, Render
from jsplat.raster.vectors import components, dot, unit
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.programs import planned_bytes
from jsplat.runtime.view_blocks import Devices, by_view, each_block, over_views, to_blocks

EVIDENCE = 2**28  # bytes in memory of what one voter says: 60 views of 50,000 Gaussians, 19 classes


@in_32_bits
def lift(
    gaussians: Gaussians,
    cameras: Camera,
    pictures: Opinions | Float[Array | np.ndarray, "v h w k"],
    *,
    capacity: int,
    devices: Devices = (),
) -> tuple[Float[Array, "v n k"], Float[Array, "v n"]]:
    """What each view says about each Gaussian of one head: one backward pass per view, no optimiser.

    Args:
        gaussians, cameras: of the head; one camera per picture.
        pictures: class probabilities (or any channels) per pixel, or what makes them, one view at a time.
        capacity: tile hits a view may need (`capacity_for`); the result is NaN where it is too small.
        devices: share the views; where the arrays lie if none.

    Returns:
        evidence: sum over pixels of blend weight times picture; weight: sum of the blend weight.
    """
    return by_view(functools.partial(_lift, capacity=capacity), gaussians, (cameras, pictures), devices)


@in_32_bits
def lift_kept(
    gaussians: Gaussians,
    cameras: Camera,
    pictures: Opinions | Float[Array | np.ndarray, "v h w k"],
    *,
    capacity: int,
    devices: Devices = (),
) -> tuple[KeptViews, KeptViews]:
    """`lift`, of which `EVIDENCE` bytes stay in memory, the rest on disk."""
    evidence, weight = KeptViews(EVIDENCE), KeptViews(EVIDENCE)
    program = functools.partial(_lift, capacity=capacity)
    for _, part in each_block(program, gaussians, (cameras, pictures), devices):
        said, seen = jax.device_put(part, devices[0]) if devices else part
        evidence.append(said)
        weight.append(seen)
    return evidence, weight


@in_32_bits
def bytes_of_lift(
    gaussians: Gaussians, cameras: Camera, pictures: Opinions | Float[Array | np.ndarray, "v h w k"], *, capacity: int
) -> int:
    """What a device needs for a block of views in `lift`."""
    block = to_blocks((cameras, pictures))[0]
    return planned_bytes(_lift.lower(gaussians, block, capacity=capacity).compile())


@functools.partial(jax.jit, static_argnames="capacity")
def _lift(
    gaussians: Gaussians, seen: tuple[Camera, Opinions | Array], *, capacity: int
) -> tuple[Float[Array, "v n k"], Float[Array, "v n"]]:
    def one(item):
        camera, picture = item
        picture = pixels(picture)
        picture = jnp.concatenate([picture, jnp.ones((*picture.shape[:2], 1))], -1)
        sums = splat_sums(gaussians, camera, picture, capacity=capacity)
        return sums[..., :-1], sums[..., -1]

    return over_views(one, seen)


def paint(
    gaussians: Gaussians,
    features: Float[Array, "n c"],
    cameras: Camera,
    *,
    capacity: int,
    devices: Devices = (),
) -> Render:
    """Any channels per Gaussian of one head, seen by many cameras; `devices` share the views."""
    program = functools.partial(_paint, capacity=capacity)
    return by_view(program, (gaussians, jnp.asarray(features)), cameras, devices)


def paint_blocks(
    gaussians: Gaussians,
    features: Float[Array | np.ndarray, "n c"],
    cameras: Camera,
    *,
    capacity: int,
    devices: Devices = (),
) -> Iterator[tuple[slice, Render]]:
    """`paint`, a block of views at a time: which views, and their render."""
    program = functools.partial(_paint, capacity=capacity)
    return each_block(program, (gaussians, jnp.asarray(features)), cameras, devices)


@functools.partial(jax.jit, static_argnames="capacity")
def _paint(painted: tuple[Gaussians, Array], cameras: Camera, *, capacity: int) -> Render:
    gaussians, features = painted
    return over_views(lambda camera: rasterize(gaussians, features, camera, capacity=capacity), cameras)


@jax.jit
def facing(gaussians: Gaussians, cameras: Camera) -> Float[Array, "v n"]:
    """Cosine of each viewing ray with the surface normal (the shortest axis of a Gaussian), in [0, 1]."""
    rotation = rotation_matrices(gaussians.quats)
    shortest = jnp.argmin(gaussians.log_scales, -1)
    normals = jnp.take_along_axis(rotation, shortest[:, None, None], -1)[..., 0]
    rays = components(gaussians.means - cameras.centers[:, None, :])
    return jnp.abs(dot(unit(rays, (0.0, 0.0, 1.0)), components(normals)))
