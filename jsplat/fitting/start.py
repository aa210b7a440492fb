"""Starting points: the visual hull of silhouettes, by quorum because masks are noisy."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jsplat.captures.capture import Capture
from jsplat.errors import InputError
from jsplat.fitting.config import FitConfig
from jsplat.labelsets.labelset import IGNORE
from jsplat.raster.camera import Camera, meeting_point
from jsplat.raster.scene import Attributes, Gaussians, Scene, rgb_to_sh
from jsplat.runtime.precision import einsum, in_32_bits, matmul

LABELS_OR_BACKGROUND = "`jsplat parse` makes labels (`--labels`), and `background` in transforms.json says its colour"

START_OPACITY = 0.6
FACING = 0.3  # cosine above which a view may colour a point
SEEN_BY = 3  # views that must see a voxel
SITES = 8192  # places on the hull are looked at in multiples of so many


def scene_sphere(cameras: Camera) -> tuple[np.ndarray, float]:
    """The point nearest to all optical axes, and the radius around it that every picture holds, in world units."""
    matrices = np.asarray(cameras.camera_from_world, np.float64)
    axes, centers = matrices[:, 2, :3], np.asarray(cameras.centers, np.float64)
    center = meeting_point(cameras)
    depth = np.einsum("vi,vi->v", axes, center - centers)
    if np.any(depth <= 0):
        raise InputError(
            "cameras",
            wanted="all looking towards one head",
            got=f"view {int(np.argmin(depth))} looks away",
            hint="leave the view out, or check which way the axes of its pose point",
        )
    focal = np.asarray(cameras.intrinsics, np.float64)[:, [0, 1], [0, 1]]
    reach = depth[:, None] * np.array([cameras.width, cameras.height]) / (2 * focal)
    return center, float(np.median(reach.min(1)))


def silhouettes(capture: Capture, tolerance: float) -> Bool[np.ndarray, "v h w"]:
    """Where the head is: what differs from a known flat background, else what the labels call foreground."""
    if capture.background is not None:
        difference = np.abs(capture.images.astype(np.int16) - np.asarray(capture.background, np.int16)).max(-1)
        return difference > tolerance
    if capture.labels is None:
        raise InputError(
            f"capture {capture.identity}",
            wanted="labels or a known background to start from",
            got="neither",
            hint=LABELS_OR_BACKGROUND,
        )
    return (capture.labels > 0) & (capture.labels != IGNORE)


@in_32_bits
def starting_scene(capture: Capture, config: FitConfig, key: jax.Array, classes: int) -> Scene:
    """Flat Gaussians on the surface of the visual hull, with the mean colour of the views that face them.

    Raises:
        InputError: when no voxel finds its quorum.
    """
    center, radius = scene_sphere(capture.cameras)
    masks = jnp.asarray(silhouettes(capture, config.background_tolerance))
    grid = config.voxels
    axis = (np.arange(grid) + 0.5) / grid * 2 - 1
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) * radius * 1.1 + center
    known = jnp.asarray(np.ones(masks.shape, bool) if capture.valid is None else capture.valid)
    inside, seen = _hull_votes(jnp.asarray(points, jnp.float32), masks, known, capture.cameras)
    full = (seen >= SEEN_BY) & (inside >= config.quorum * seen)
    full = np.asarray(full).reshape(grid, grid, grid)
    surface, normals = _surface(full)
    if not surface.any():
        raise InputError(
            f"capture {capture.identity}: silhouettes",
            wanted=f"a hull: points that {config.quorum:.0%} of the views see as the head",
            got="none",
            hint="check the poses, and the labels or `background`; a lower `--set fit.quorum=SHARE` is more lenient",
        )
    voxel = 2 * radius * 1.1 / grid
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = np.flatnonzero(surface.ravel())
    # Heads have different numbers of sites: filled up, many share one compiled program.
    filled = np.resize(rows, -(-rows.size // SITES) * SITES)
    sites, directions = (jnp.asarray(x.reshape(-1, 3)[filled], jnp.float32) for x in (points, normals))
    changes = jnp.asarray(_detail(capture.images, np.asarray(known)))
    detail = np.asarray(_seen_from(sites, directions, changes, known, capture.cameras), np.float64)[: rows.size, 0]
    density = (1 - config.detail_fraction) / rows.size + config.detail_fraction * detail / detail.sum()
    drawn = rng.choice(rows.size, config.gaussians, p=density / density.sum())
    chosen = rows[drawn]
    jitter = rng.uniform(-0.5, 0.5, (config.gaussians, 3)) * voxel
    means = (points[chosen] + jitter).astype(np.float32)
    normal = normals.reshape(-1, 3)[chosen].astype(np.float32)
    colors = (
        _seen_from(jnp.asarray(means), jnp.asarray(normal), jnp.asarray(capture.images), known, capture.cameras) / 255
    )
    spacing = voxel / np.sqrt(config.gaussians * density[drawn])
    log_scales = np.log(spacing[:, None] * config.initial_width * np.array([1, 1, config.initial_flatness]))
    gaussians = Gaussians(
        jnp.asarray(means),
        _quats_to(jnp.asarray(normal)),
        jnp.asarray(log_scales, jnp.float32),
        jnp.full(config.gaussians, np.log(START_OPACITY / (1 - START_OPACITY)), jnp.float32),
    )
    logits = jnp.zeros((config.gaussians, classes), jnp.float32)
    return Scene(gaussians, Attributes(rgb_to_sh(colors, config.sh_degree), logits))


def _pixels(points: Float[Array, "n 3"], camera: Camera) -> tuple[jax.Array, jax.Array]:
    """Pixel indices (x, y) and whether the point lies in the picture."""
    local = matmul(points, camera.camera_from_world[:3, :3].T) + camera.camera_from_world[:3, 3]
    image = matmul(local, camera.intrinsics.T)
    xy = jnp.floor(image[:, :2] / jnp.maximum(image[:, 2:], 1e-6)).astype(jnp.int32)
    limit = jnp.asarray([camera.width, camera.height])
    valid = (local[:, 2] > 0) & (xy >= 0).all(-1) & (xy < limit).all(-1)
    return jnp.clip(xy, 0, limit - 1), valid


@jax.jit
def _hull_votes(points, masks, known, cameras):
    def view(totals, item):
        mask, says, camera = item
        xy, valid = _pixels(points, camera)
        valid &= says[xy[:, 1], xy[:, 0]]
        return (totals[0] + (valid & mask[xy[:, 1], xy[:, 0]]), totals[1] + valid), None

    zeros = jnp.zeros(points.shape[0], jnp.int32)
    return jax.lax.scan(view, (zeros, zeros), (masks, known, cameras))[0]


def _detail(images: UInt8[np.ndarray, "v h w 3"], known: Bool[np.ndarray, "v h w"]) -> UInt8[np.ndarray, "v h w 1"]:
    """How much a picture changes around each pixel: where small things are, more Gaussians should start."""
    gray = images.astype(np.float32).mean(-1)
    gray = np.where(known, gray, np.nan)  # a difference with what is not known is none
    down, across = (np.nan_to_num(np.gradient(gray, axis=axis)) for axis in (1, 2))
    return np.clip(np.hypot(down, across), 0, 64).astype(np.uint8)[..., None]


@jax.jit
def _seen_from(points, normals, images, known, cameras):
    """Mean over the views that face a point of what they show there."""

    def view(totals, item):
        image, says, camera = item
        xy, valid = _pixels(points, camera)
        valid &= says[xy[:, 1], xy[:, 0]]
        toward = camera.centers - points
        facing = einsum("ni,ni->n", toward, normals) / jnp.linalg.norm(toward, axis=-1)
        weight = jnp.where(valid, jnp.where(facing > FACING, facing, 1e-4), 0.0)
        color = image[xy[:, 1], xy[:, 0]].astype(jnp.float32)
        return (totals[0] + weight[:, None] * color, totals[1] + weight), None

    start = (jnp.zeros((points.shape[0], images.shape[-1])), jnp.zeros(points.shape[0]))
    total, weight = jax.lax.scan(view, start, (images, known, cameras))[0]
    return total / jnp.maximum(weight, 1e-6)[:, None]


def _surface(full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the hull that have an empty neighbour, and outward unit normals of all voxels."""
    padded = np.pad(full, 1)
    core = (slice(1, -1),) * 3
    buried = np.ones_like(full)
    for axis in range(3):
        for shift in (-1, 1):
            buried &= np.roll(padded, shift, axis)[core]
    smooth = padded.astype(np.float32)
    for axis in range(3):
        smooth = (np.roll(smooth, 1, axis) + smooth + np.roll(smooth, -1, axis)) / 3
        smooth = (np.roll(smooth, 1, axis) + smooth + np.roll(smooth, -1, axis)) / 3
    gradient = -np.stack([np.gradient(smooth, axis=axis) for axis in range(3)], -1)[core]
    return full & ~buried, gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-9)


def _quats_to(normals: Float[Array, "n 3"]) -> Float[Array, "n 4"]:
    """Shortest rotations that turn +z into each normal."""
    x, y, z = jnp.moveaxis(normals, -1, 0)
    quats = jnp.stack([1 + z, -y, x, jnp.zeros_like(z)], -1)
    flipped = jnp.asarray([0.0, 1.0, 0.0, 0.0])  # half a turn about x where the normal is -z
    length = jnp.linalg.norm(quats, axis=-1, keepdims=True)
    return jnp.where(length > 1e-3, quats / jnp.maximum(length, 1e-3), flipped)
