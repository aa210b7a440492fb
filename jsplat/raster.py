"""From Gaussians and a camera to a picture: projection, spherical harmonics, then the blending kernels.

The only module that imports `jsplat.kernels`.
"""

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from jsplat.blocks import VIEWS, by_view
from jsplat.camera import Camera
from jsplat.errors import InputError
from jsplat.kernels.blend import BACKENDS, blend
from jsplat.pytree import pytree
from jsplat.scene import SH_C0, Gaussians, Render, Scene

NEAR = 0.01  # world units; nearer Gaussians are hidden
LOW_PASS = 0.3  # pixel^2 added to the projected covariance (Kerbl et al. 2023)
HITS_PER_GAUSSIAN = 8  # default capacity: a splat of a fitted head touches 3 to 4 tiles
FRUSTUM_MARGIN = 0.15  # of the image size beyond which the projection's Jacobian is held fixed, as gsplat does

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
    """Rotation matrices of wxyz quaternions of any non-zero length."""
    w, x, y, z = jnp.moveaxis(quats / jnp.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def project(gaussians: Gaussians, camera: Camera, *, antialiased: bool = False) -> Projection:
    """EWA splatting (Zwicker et al. 2001) with a low-pass of 0.3 pixel^2.

    Args:
        gaussians, camera: leading axes broadcast against each other.
        antialiased: scale opacities by sqrt(det / det with low-pass), so that thin splats do not grow brighter
            (Mip-Splatting, Yu et al. 2024).
    """
    rotation = camera.camera_from_world[..., None, :3, :3]
    center = _matvec(rotation, gaussians.means) + camera.camera_from_world[..., None, :3, 3]
    x, y, z = jnp.moveaxis(center, -1, 0)
    visible = z > NEAR
    z = jnp.where(visible, z, 1.0)
    intrinsics = camera.intrinsics[..., None, :, :]
    fx, fy, cx, cy = intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 2], intrinsics[..., 1, 2]
    means2d = jnp.stack([fx * x / z + cx, fy * y / z + cy], -1)

    margin_x, margin_y = FRUSTUM_MARGIN * camera.width, FRUSTUM_MARGIN * camera.height
    slope_x = jnp.clip(x / z, (-margin_x - cx) / fx, (camera.width + margin_x - cx) / fx)
    slope_y = jnp.clip(y / z, (-margin_y - cy) / fy, (camera.height + margin_y - cy) / fy)
    zero = jnp.zeros_like(z)
    row_x = jnp.stack([fx / z + zero, zero, -fx * slope_x / z], -1)
    row_y = jnp.stack([zero, fy / z + zero, -fy * slope_y / z], -1)
    axes = rotation_matrices(gaussians.quats) * jnp.exp(gaussians.log_scales)[..., None, :]
    u = _einsum("...i,...ij->...j", _matvec(jnp.swapaxes(rotation, -1, -2), row_x), axes)
    v = _einsum("...i,...ij->...j", _matvec(jnp.swapaxes(rotation, -1, -2), row_y), axes)
    xx, xy, yy = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    # Lagrange's identity: what is xx yy - xy^2 on paper is a difference of large numbers for a needle.
    bare = (jnp.cross(u, v) ** 2).sum(-1)
    determinant = bare + LOW_PASS * (xx + yy + LOW_PASS)
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    root = jnp.sqrt(yy / determinant)
    conic_roots = jnp.stack([root, -root * (xy / yy), 1 / jnp.sqrt(yy)], -1)
    opacities = jnp.broadcast_to(jax.nn.sigmoid(gaussians.logit_opacities), z.shape)
    if antialiased:
        opacities = opacities * jnp.sqrt(jnp.maximum(bare / determinant, 1e-12))
    return Projection(means2d, conic_roots, opacities, jnp.where(visible, z, jnp.inf))


def _matvec(matrix, vector):
    return _einsum("...ij,...j->...i", matrix, vector)


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
    direction = means - camera.centers[..., None, :]
    x, y, z = jnp.moveaxis(direction / jnp.linalg.norm(direction, axis=-1, keepdims=True), -1, 0)
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
    return jnp.maximum(_einsum("...ns,...nsc->...nc", jnp.stack(basis, -1), sh) + 0.5, 0.0)


def rasterize(
    gaussians: Gaussians,
    features: Float[Array, "*b n c"],
    camera: Camera,
    *,
    background: Float[Array, "*v c"] | None = None,
    capacity: int | None = None,
    shape_channels: int | None = None,
    antialiased: bool = False,
    backend: str | None = None,
) -> Render:
    """Renders any number of channels in one pass; differentiable in everything but the order of blending.

    Args:
        gaussians, features, camera: leading axes broadcast: Gaussians `(b, 1)` and cameras `(b, v)` give `(b, v)`.
        background: what shows where alpha is below 1; zeros if None.
        capacity: tile hits a view may need; 8 per Gaussian if None. See `Render.needed`.
        shape_channels: only the first so many channels send gradients to the geometry; all if None.
        antialiased: see `project`.
        backend: a name in `jsplat.kernels.blend.BACKENDS`; the best that works here if None.

    Raises:
        InputError: when a view needed more than the capacity; under `jit`, `grad` or `vmap` such a view is NaN.
    """
    if features.shape[-2] != gaussians.means.shape[-2]:
        raise InputError("rasterize: features", wanted=f"{gaussians.means.shape[-2]} rows", got=features.shape)
    if backend is not None and backend not in BACKENDS:
        raise InputError("rasterize: backend", wanted=f"one of {BACKENDS} or None", got=repr(backend))
    capacity = HITS_PER_GAUSSIAN * features.shape[-2] if capacity is None else capacity
    view = project(gaussians, camera, antialiased=antialiased)
    lead = jnp.broadcast_shapes(view.opacities.shape[:-1], features.shape[:-2])
    channels, alpha, depth, needed = blend(
        *(jnp.broadcast_to(x, (*lead, *x.shape[view.opacities.ndim - 1 :])) for x in jax.tree.leaves(view)),
        features,
        size=(camera.width, camera.height),
        capacity=capacity,
        shape_channels=shape_channels,
        backend=backend,
    )
    _check_capacity(needed, capacity)
    if background is not None:
        channels = channels + (1 - alpha)[..., None] * background[..., None, None, :]
    depth = jnp.where(alpha > 0, depth / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return Render(channels, alpha, depth, needed)


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


def _check_capacity(needed, capacity: int) -> None:
    if isinstance(needed, Tracer):
        return
    most = int(needed.max()) if needed.size else 0
    if most > capacity:
        raise InputError("rasterize: capacity", wanted=f"at least {most} tile hits a view", got=capacity)


def render_scene(
    scene: Scene,
    camera: Camera,
    *,
    background: Float[Array, "*b 3"] | None = None,
    capacity: int | None = None,
    labels_shape: bool = True,
    backend: str | None = None,
) -> tuple[Render, Float[Array, "*b h w 3"], Float[Array, "*b h w k"]]:
    """RGB and class probabilities of a scene in one pass.

    Args:
        background: the colour behind the head; black if None.
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
        image = image + through[..., None] * background[..., None, None, :]
    behind = through if labels_shape else jax.lax.stop_gradient(through)
    return render, image, render.channels[..., 3:].at[..., 0].add(behind)
