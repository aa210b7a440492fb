"""From Gaussians and a camera to a picture: projection, then the blending kernels.

The only module that imports `jsplat.kernels`.
"""

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jsplat.errors import InputError
from jsplat.kernels.blend import BACKENDS, Blended, blend
from jsplat.kernels.tiling import tile_grid
from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree
from jsplat.raster.scene import Gaussians, Render, Scene
from jsplat.raster.spherical_harmonics import is_direction, sh_colors, unit
from jsplat.runtime.precision import by_own_rules
from jsplat.runtime.view_blocks import VIEWS, by_view

NEAR = 0.01  # world units; nearer Gaussians are hidden
LOW_PASS = 0.3  # pixel^2 added to the projected covariance (Kerbl et al. 2023)
HITS_PER_GAUSSIAN = 8  # default capacity: a splat of a fitted head touches 3 to 4 tiles
HITS_PER_TILE = 64  # default capacity: a thousand splats of 12 pixels lie 35 deep
SMALLEST_TILE = (8, 8)  # of any backend
FARTHEST = 1e30  # world units: what float32 can still multiply by a focal length
FRUSTUM_MARGIN = 0.15  # of the image size beyond which the projection's Jacobian is held fixed, as gsplat does

Background = Float[Array | np.ndarray, "*v c"] | Float[Array | np.ndarray, "*v h w c"] | list | tuple | float

_einsum = functools.partial(jnp.einsum, precision="highest")  # GPUs would else round the factors to 10 bits


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
    sound = _sound(gaussians)
    means, log_scales = (jnp.where(sound[..., None], x, 0.0) for x in (gaussians.means, gaussians.log_scales))
    rotation, translation = camera.camera_from_world[..., None, :3, :3], camera.camera_from_world[..., None, :3, 3]
    place = _einsum("...ij,...j->...i", rotation, means) + translation
    visible = sound & (place[..., 2] > NEAR) & (jnp.abs(place) < FARTHEST).all(-1)
    x, y, z = jnp.moveaxis(jnp.where(visible[..., None], place, jnp.asarray([0.0, 0.0, 1.0], place.dtype)), -1, 0)
    intrinsics = camera.intrinsics[..., None, :, :]
    fx, fy, skew, center = intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 1], intrinsics[..., :2, 2]
    offset = jnp.stack([(fx * x + skew * y) / z, fy * y / z], -1)

    size = jnp.asarray([camera.width, camera.height], z.dtype)
    held = jnp.clip(offset, -FRUSTUM_MARGIN * size - center, (1 + FRUSTUM_MARGIN) * size - center)
    zero = jnp.zeros_like(z)
    row_x = jnp.stack([fx / z + zero, skew / z + zero, -held[..., 0] / z], -1)
    row_y = jnp.stack([zero, fy / z + zero, -held[..., 1] / z], -1)
    axes = rotation_matrices(gaussians.quats) * jnp.exp(log_scales)[..., None, :]
    # Rows into the world's frame: two products with a vector each instead of one of matrices.
    u, v = (_einsum("...i,...ij->...j", _einsum("...ij,...i->...j", rotation, row), axes) for row in (row_x, row_y))
    visible &= (jnp.maximum(jnp.abs(u), jnp.abs(v)) < jnp.finfo(z.dtype).max ** 0.24).all(-1)  # fourth powers follow
    u, v = (jnp.where(visible[..., None], stretch, 0.0) for stretch in (u, v))
    xx, xy, yy = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    # Lagrange's identity: what is xx yy - xy^2 on paper is a difference of large numbers for a needle.
    bare = (jnp.cross(u, v) ** 2).sum(-1)
    determinant = bare + LOW_PASS * (xx + yy + LOW_PASS)
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    root = jnp.sqrt(yy / determinant)
    conic_roots = jnp.stack([root, -root * (xy / yy), 1 / jnp.sqrt(yy)], -1)
    opacities = jax.nn.sigmoid(jnp.where(visible, gaussians.logit_opacities, -jnp.inf))
    if antialiased:
        opacities = opacities * jnp.sqrt(jnp.maximum(bare / determinant, 1e-12))
    return Projection(offset + center, conic_roots, opacities, jnp.where(visible, z, jnp.inf))


def _sound(gaussians: Gaussians) -> Bool[Array, "*b n"]:
    """Which of them are Gaussians, of a size that can be squared."""
    largest = 0.5 * jnp.log(jnp.finfo(gaussians.log_scales.dtype).max)
    near, flat = (jnp.abs(gaussians.means) < FARTHEST).all(-1), (gaussians.log_scales < largest).all(-1)
    return near & flat & is_direction(gaussians.quats) & ~jnp.isnan(gaussians.logit_opacities)


@by_own_rules
def rasterize(
    gaussians: Gaussians,
    features: Float[Array, "*b n c"],
    camera: Camera,
    *,
    background: Background | None = None,
    capacity: int | None = None,
    shape_channels: int | None = None,
    antialiased: bool = False,
    backend: str | None = None,
) -> Render:
    """Renders any number of channels in one pass; differentiable in everything but the order of blending.

    Computes in float64 where any of the arrays has it, else in float32; a gradient has the dtype of its array.

    Args:
        gaussians, features, camera: leading axes broadcast: Gaussians `(b, 1)` and cameras `(b, v)` give `(b, v)`.
        background: what shows where alpha is below 1: a number, `*v c`, or a picture `*v h w c`; zeros if None.
        capacity: tile hits a view may need. If None, what the views need where their numbers are at hand; under
            `jit` and `vmap` 8 per Gaussian or 64 per tile of 8 x 8 pixels, whichever is more. See `capacity_for`.
        shape_channels: only the first so many channels send gradients to the geometry; all if None.
        antialiased: see `project`.
        backend: a name in `jsplat.kernels.blend.BACKENDS`; the best that works here if None.

    Raises:
        InputError: an argument does not fit, by name; or a view needed more than the capacity that was asked for.
            Under `jit` or `vmap` such a view and its gradients are NaN.
    """
    lead = _leading_axes(gaussians, features, camera)
    if backend is not None and backend not in BACKENDS:
        raise InputError("rasterize: backend", wanted=f"one of {BACKENDS} or None", got=repr(backend))
    count, channels = features.shape[-2:]
    shaping = channels if shape_channels is None else shape_channels
    if not 0 <= shaping <= channels:
        raise InputError("rasterize: shape_channels", wanted=f"0 to {channels}", got=shape_channels)
    size = (camera.width, camera.height)
    gaussians, features, camera, paper = _in_one_dtype(gaussians, features, camera, background)
    behind = None if paper is None else _behind(paper, lead, (*size[::-1], channels))
    view = project(gaussians, camera, antialiased=antialiased)

    def draw(capacity: int) -> Blended:
        places = 2**31 - 1  # what an int32 can number
        if not 1 <= capacity <= places // max(math.prod(lead), 1):
            most = places // max(math.prod(lead), 1)
            raise InputError("rasterize: capacity", wanted=f"1 to {most} tile hits for views {lead}", got=capacity)
        return blend(
            *(jnp.broadcast_to(x, (*lead, *x.shape[view.opacities.ndim - 1 :])) for x in jax.tree.leaves(view)),
            features,
            size=size,
            capacity=capacity,
            shape_channels=shaping,
            backend=backend,
        )

    at_first = default_capacity(count, size, math.prod(lead)) if capacity is None else capacity
    blended = draw(at_first)
    if (most := _most(blended.needed)) > at_first:
        if capacity is not None:
            raise InputError("rasterize: capacity", wanted=f"at least {most} tile hits a view", got=capacity)
        blended = draw(rounded_capacity(most))
    shown, alpha, depth, needed = blended
    if behind is not None:
        through = jnp.broadcast_to(1 - alpha[..., None], shown.shape)
        # A background shows through the geometry: it may move it as little as the features may.
        through = jnp.where(jnp.arange(channels) < shaping, through, jax.lax.stop_gradient(through))
        shown = shown + through * behind
    depth = jnp.where(alpha > 0, depth / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return Render(shown, alpha, depth, needed)


def _leading_axes(gaussians: Gaussians, features, camera: Camera) -> tuple[int, ...]:
    """Those of the views, once all shapes were found to be what they should be."""
    rows = jnp.shape(gaussians.means)[:-1]
    wanted = {"means": 3, "quats": 4, "log_scales": 3, "logit_opacities": None}
    for name, width in wanted.items():
        shape = (*rows, width) if width else rows
        if not rows or jnp.shape(getattr(gaussians, name)) != shape:
            got = jnp.shape(getattr(gaussians, name))
            raise InputError(f"rasterize: gaussians.{name}", wanted=f"shape {shape}" if rows else "*b n 3", got=got)
    if jnp.ndim(features) < 2 or features.shape[-2] != rows[-1]:
        raise InputError("rasterize: features", wanted=f"{rows[-1]} rows of channels (*b n c)", got=jnp.shape(features))
    for name, edge in (("camera_from_world", 4), ("intrinsics", 3)):
        if (got := jnp.shape(getattr(camera, name)))[-2:] != (edge, edge):
            raise InputError(f"rasterize: camera.{name}", wanted=f"*b {edge} {edge}", got=got)
    lens = jax.lax.stop_gradient(jnp.asarray(camera.intrinsics))
    if not isinstance(lens, Tracer) and not bool((lens[..., [1, 2, 2, 2], [0, 0, 1, 2]] == jnp.eye(4)[3]).all()):
        raise InputError("rasterize: camera.intrinsics", wanted="rows (fx, skew, cx), (0, fy, cy), (0, 0, 1)", got=lens)
    axes = {
        "gaussians": rows[:-1],
        "features": features.shape[:-2],
        "camera.camera_from_world": camera.camera_from_world.shape[:-2],
        "camera.intrinsics": camera.intrinsics.shape[:-2],
    }
    try:
        return np.broadcast_shapes(*axes.values())
    except ValueError as error:
        raise InputError("rasterize", wanted="leading axes that broadcast", got=axes) from error


def _in_one_dtype(*arrays: Any) -> list[Any]:
    """Trees and arrays in float64 if any is, else in float32; a number, a list or a tuple follows."""
    kinds = [jax.dtypes.canonicalize_dtype(x.dtype) for x in jax.tree.leaves(arrays) if hasattr(x, "dtype")]
    dtype = jnp.float64 if jnp.float64 in kinds else jnp.float32
    plain = [jnp.asarray(x) if isinstance(x, list | tuple) else x for x in arrays]
    return [jax.tree.map(lambda x: jnp.asarray(x, dtype), x) for x in plain]


def _behind(background: Array, lead: tuple[int, ...], picture: tuple[int, ...]) -> Array:
    """A background as something that broadcasts to pictures `h w c` with these leading axes."""
    shape = background.shape
    if not shape:
        return background
    if shape[-1] == picture[-1] and _broadcasts(shape[:-1], lead):
        return background[..., None, None, :]
    if shape[-3:] == picture and _broadcasts(shape[:-3], lead):
        return background
    wanted = f"a number, {picture[-1]} channels or {picture}, with leading axes that broadcast to {lead}"
    raise InputError("rasterize: background", wanted=wanted, got=shape)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1]))


def _most(needed: Array) -> int:
    """The most tile hits of any view, 0 where that is not known yet; a gradient that is being taken hides nothing."""
    needed = jax.lax.stop_gradient(needed)
    return int(needed.max()) if needed.size and not isinstance(needed, Tracer) else 0


def default_capacity(count: int, size: tuple[int, int], views: int = 1) -> int:
    """Tile hits a view may need if nobody says how many: 8 for each Gaussian, or 64 for each tile.

    No view of 64 Gaussians or fewer needs more. Where there are many views the lists stay below 4 million hits, unless
    8 for each Gaussian are more.
    """
    across, down = tile_grid(size, SMALLEST_TILE)
    crowded = min(min(count, HITS_PER_TILE) * across * down, 2**22 // max(views, 1))
    return max(HITS_PER_GAUSSIAN * count, crowded, 1)


def capacity_for(gaussians: Gaussians, cameras: Camera) -> int:
    """The most tile hits that any of these views needs, rounded up so that similar scenes share compiled programs."""
    return rounded_capacity(_most_needed(gaussians, cameras))


def _most_needed(gaussians: Gaussians, cameras: Camera) -> int:
    return max(int(by_view(_needed, gaussians, cameras).max()), 1)  # also where no view shows anything


class Room:
    """One capacity for the views of many heads, one after the other; another one is another program to compile.

    It grows when a head needs more, with something to spare for the next ones. What is rendered does not depend on it.
    """

    SPARE = 1.15  # heads differ by about as much

    def __init__(self):
        self._capacity, self._lock = 0, threading.Lock()

    def for_views(self, gaussians: Gaussians, cameras: Camera) -> int:
        """Tile hits that suffice for all of these views; see `capacity_for`."""
        most = _most_needed(gaussians, cameras)
        with self._lock:
            if most > self._capacity:
                self._capacity = rounded_capacity(round(self.SPARE * most))
            return self._capacity


def rounded_capacity(most: int) -> int:
    """The next of few capacities, each at most a quarter above the one before or 4096 more."""
    steps = max(math.ceil(math.log(most / 4096, 1.25)), 0)
    return -(-max(most, round(4096 * 1.25**steps)) // 4096) * 4096


@jax.jit
def _needed(gaussians: Gaussians, cameras: Camera) -> jax.Array:
    # A capacity of 1 leaves every list empty, so that only the count is paid for.
    blank = jnp.zeros((*gaussians.logit_opacities.shape, 1))
    return over_views(lambda camera: rasterize(gaussians, blank, camera, capacity=1).needed, cameras)


def over_views(function: Callable[..., Any], views: Any) -> Any:
    """`function` of each view (leading axis of every array), in one compiled loop.

    On a CPU one view keeps every core busy, and memory stays small; a GPU takes several at once.
    """
    return jax.lax.map(function, views, batch_size=None if jax.default_backend() == "cpu" else VIEWS)


@by_own_rules
def render_scene(
    scene: Scene,
    camera: Camera,
    *,
    background: Background | None = None,
    capacity: int | None = None,
    labels_shape: bool = True,
    backend: str | None = None,
) -> tuple[Render, Float[Array, "*b h w 3"], Float[Array, "*b h w k"]]:
    """RGB and class probabilities of a scene in one pass.

    Args:
        background: the colour behind the head, as `rasterize` takes it; black if None.
        labels_shape: whether gradients of the probabilities reach the geometry.

    Returns:
        the render, its RGB, and its class probabilities (class 0 takes what shows through, so they sum to 1).
    """
    rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
    classes = jax.nn.softmax(scene.attributes.label_logits, -1)
    classes = jnp.broadcast_to(classes, (*rgb.shape[:-1], classes.shape[-1]))
    render = rasterize(
        scene.gaussians,
        jnp.concatenate([rgb, classes], -1),
        camera,
        capacity=capacity,
        shape_channels=None if labels_shape else 3,
        backend=backend,
    )
    through = 1 - render.alpha
    image = render.channels[..., :3]
    if background is not None:
        behind = _behind(jnp.asarray(background, image.dtype), through.shape[:-2], image.shape[-3:])
        image = image + through[..., None] * behind
    behind = through if labels_shape else jax.lax.stop_gradient(through)
    return render, image, render.channels[..., 3:].at[..., 0].add(behind)
