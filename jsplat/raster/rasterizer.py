"""From Gaussians and a camera to a picture: projection, then the blending kernels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jsplat.errors import InputError
from jsplat.kernels import select
from jsplat.kernels.blend import BACKENDS, IMPLEMENTATIONS, Blended, blend, sums
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import backend_tile, default_capacity, rounded_capacity
from jsplat.raster.projection import project
from jsplat.raster.scene import Gaussians, Render, Scene
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.precision import by_own_rules

Background = Float[Array | np.ndarray, "*v c"] | Float[Array | np.ndarray, "*v h w c"] | list | tuple | float


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
            `jit` and `vmap` 8 per Gaussian (6 where tiles are 16 x 8 pixels) or 64 per tile, whichever is more. See
            `capacity_for`.
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
    gaussians, features, camera, given = _in_one_dtype(gaussians, features, camera, background)
    backdrop = None if given is None else _backdrop(given, lead, (*size[::-1], channels))
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

    at_first = capacity
    if at_first is None:
        tile = backend_tile(channels, features.dtype, x=view.means2d, backend=backend)
        at_first = default_capacity(count, size, tile, math.prod(lead))
    blended = draw(at_first)
    if (most := _most_hits(blended.needed)) > at_first:
        if capacity is not None:
            hint = "leave capacity out, or take what `capacity_for` says"
            raise InputError("rasterize: capacity", wanted=f"at least {most} tile hits a view", got=capacity, hint=hint)
        blended = draw(rounded_capacity(most))
    shown, alpha, depth, needed = blended
    if backdrop is not None:
        transmittance = jnp.broadcast_to(1 - alpha[..., None], shown.shape)
        # A background shows through the geometry: it may move it as little as the features may.
        transmittance = jnp.where(jnp.arange(channels) < shaping, transmittance, jax.lax.stop_gradient(transmittance))
        shown = shown + transmittance * backdrop
    depth = jnp.where(alpha > 0, depth / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return Render(shown, alpha, depth, needed)


@by_own_rules
def splat_sums(
    gaussians: Gaussians,
    camera: Camera,
    pictures: Float[Array, "*b h w c"],
    *,
    capacity: int,
    backend: str | None = None,
) -> Float[Array, "*b n c"]:
    """Of each Gaussian the sum over a view's pixels of its blending weight times a picture; it has no derivative.

    Args:
        gaussians, camera, pictures: with the same leading axes.
        capacity: tile hits a view may need; the sums are NaN where it is too small.
        backend: see `rasterize`.
    """
    view = jax.tree.leaves(project(gaussians, camera))
    return sums.splat_sums(*view, pictures, capacity=capacity, backend=backend)[0]


def default_backend() -> str:
    """What `rasterize` takes for float32 arrays by itself; where that is XLA, with the reason."""
    facts = select.Facts(select.default_device(), np.dtype(np.float32), 3)
    name = select.choose("blend", IMPLEMENTATIONS, None, facts)
    best = {"cpu": "cpu", "gpu": "mosaic_gpu"}.get(facts.device.platform)
    if name != BACKENDS[-1] or best is None:
        return name
    return f"{name} ({best}: {IMPLEMENTATIONS[best].declines(facts)})"


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


def _backdrop(background: Array, lead: tuple[int, ...], picture: tuple[int, ...]) -> Array:
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


def _most_hits(needed: Array) -> int:
    """The most tile hits of any view, 0 where that is not known yet; a gradient that is being taken hides nothing."""
    needed = jax.lax.stop_gradient(needed)
    return int(needed.max()) if needed.size and not isinstance(needed, Tracer) else 0


@by_own_rules
def render_scene(
    scene: Scene,
    camera: Camera,
    *,
    background: Background | None = None,
    capacity: int | None = None,
    labels_move_geometry: bool = True,
    backend: str | None = None,
) -> tuple[Render, Float[Array, "*b h w 3"], Float[Array, "*b h w k"]]:
    """RGB and class probabilities of a scene in one pass.

    Args:
        background: the colour behind the head, as `rasterize` takes it; black if None.
        labels_move_geometry: whether gradients of the probabilities reach the geometry.

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
        shape_channels=None if labels_move_geometry else 3,
        backend=backend,
    )
    transmittance = 1 - render.alpha
    image = render.channels[..., :3]
    if background is not None:
        backdrop = _backdrop(jnp.asarray(background, image.dtype), transmittance.shape[:-2], image.shape[-3:])
        image = image + transmittance[..., None] * backdrop
    backdrop = transmittance if labels_move_geometry else jax.lax.stop_gradient(transmittance)
    first = np.arange(classes.shape[-1]) == 0
    behind = backdrop[..., None] * first  # not `at[0].add`, which on GPUs is kernels of its own
    return render, image, render.channels[..., 3:] + behind
