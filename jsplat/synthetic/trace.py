"""Pictures, labels and depth of a head by sphere tracing (J. C. Hart, "Sphere tracing", 1996).

Cones of several pixels march first and stop where the surface could touch them; the ray through each pixel's centre
goes on from there and decides label and depth. Pixels on edges get more colour samples, which start beside the
centre's hit. Rays wait in numpy and march in blocks of one size, so that two compiled programs serve all people, rigs
and sizes, and rays that are done cost nothing.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jsplat.errors import InputError
from jsplat.raster.camera import Camera
from jsplat.synthetic import paint, shape
from jsplat.synthetic.person import Person

BLOCK = 4096  # rays per call of a compiled program
CONE = 4  # pixels per side
REACH = 0.42  # metres around the origin inside which everything visible lies
STEP = 0.9  # of the distance per step: the ellipsoid bound is not exact
HIT = 1e-4  # metres from the surface that count as on it: 1/25 of a pixel at 128 px
VIEWS_OF = 2**21  # pixels of the views that wait together
STEPS, ROUNDS = 6, 50  # steps per call, calls per ray: 300 steps are more than rays that graze a surface take


@dataclasses.dataclass(frozen=True)
class View:
    """What some cameras see of a head, on the host.

    Attributes:
        images: sRGB.
        labels: class ids of `CELEBAMASK_HQ` at the pixel centres.
        depth: z in the camera's frame of the surface at the pixel centres, metres; 0 where the background shows.
    """

    images: UInt8[np.ndarray, "v h w 3"]
    labels: UInt8[np.ndarray, "v h w"]
    depth: Float[np.ndarray, "v h w"]


def render_head(person: Person, cameras: Camera, samples: int = 2) -> View:
    """Renders one person.

    Args:
        person: from `make_head`.
        cameras: a batch of shape (v,), outside the head.
        samples: colour samples per pixel side on edges (2 means 2 x 2); labels and depth come from the pixel's centre.
    """
    if cameras.camera_from_world.ndim != 3:
        raise InputError("render_head: cameras", wanted="a batch (v,)", got=cameras.camera_from_world.shape)
    if samples < 1:
        raise InputError("render_head: samples", wanted="at least 1", got=samples)
    rays = _Rays(cameras)
    views, most = np.arange(len(rays.origin)), max(1, VIEWS_OF // (cameras.height * cameras.width))
    some = [_render(person, rays, views[i : i + most], samples) for i in range(0, len(views), most)]
    return View(*map(np.concatenate, zip(*some)))


class _Rays:
    """The rays of some cameras as `6 n` float32: origins above unit directions."""

    def __init__(self, cameras: Camera):
        world_from_camera = np.linalg.inv(np.asarray(cameras.camera_from_world, np.float64))
        self.rotation, self.origin = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
        self.intrinsics = np.asarray(cameras.intrinsics, np.float64)
        self.focal = float(self.intrinsics[:, [0, 1], [0, 1]].min())
        self.size = cameras.height, cameras.width

    def directions_at(self, view: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays through pixel positions `n`, and the z of their directions in the camera's frame."""
        k = self.intrinsics[view]
        way = np.stack([(u - k[:, 0, 2]) / k[:, 0, 0], (v - k[:, 1, 2]) / k[:, 1, 1], np.ones(len(u))])
        way /= np.linalg.norm(way, axis=0)
        world = np.einsum("nij,jn->in", self.rotation[view], way)
        return np.concatenate([self.origin[view].T, world]).astype(np.float32), way[2]


def _render(person: Person, rays: _Rays, views: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and depth of some of the views."""
    height, width = rays.size
    shape_ = len(views), height, width
    down, across = math.ceil(height / CONE), math.ceil(width / CONE)
    view, v, u = np.indices((len(views), down, across)).reshape(3, -1)
    lines, _ = rays.directions_at(views[view], (u + 0.5) * CONE, (v + 0.5) * CONE)
    start = _march(person, lines, _entry(lines), CONE * math.sqrt(0.5) / rays.focal)
    start = start.reshape(-1, down, across).repeat(CONE, 1).repeat(CONE, 2)[:, :height, :width].reshape(-1)

    view, v, u = np.indices(shape_).reshape(3, -1)
    lines, z = rays.directions_at(views[view], u + 0.5, v + 0.5)
    t = _march(person, lines, start, 0.0)
    rgb, ids = _shade(person, lines, t)
    depth = np.where(np.isfinite(t), t * z, 0.0).astype(np.float32).reshape(shape_)

    if samples > 1:
        near = -_widest(-t.reshape(shape_)) - 0.004  # half a pixel away nothing thicker than this is missed
        edge = np.flatnonzero(_edges(ids.reshape(shape_), depth))
        view, v, u, near = views[view[edge]], v[edge], u[edge], near.reshape(-1)[edge]
        ways = [((i + 0.5) / samples, (j + 0.5) / samples) for i, j in np.ndindex(samples, samples)]
        lines = np.concatenate([rays.directions_at(view, u + du, v + dv)[0] for du, dv in ways], axis=1)
        fine = _march(person, lines, np.tile(near, samples**2), 0.0)
        rgb[edge] = _shade(person, lines, fine)[0].reshape(samples**2, -1, 3).mean(0)
    images = np.round(rgb * 255.0).astype(np.uint8)
    return images.reshape(*shape_, 3), ids.reshape(shape_), depth


def _march(person: Person, lines: np.ndarray, t: np.ndarray, spread: float) -> np.ndarray:
    """Distances `n` along the rays to the surface, inf where they miss it.

    With `spread` > 0 the rays are cones that widen by it; they stop, still outside, where the surface may touch them.
    """
    t = t.astype(np.float32)
    todo = np.flatnonzero(np.isfinite(t))
    for _ in range(ROUNDS):
        going = []
        for at in _blocks(todo):
            moved, active = _advance(person, _padded(lines[:, at], 1.0), _padded(t[at], np.inf), jnp.float32(spread))
            t[at] = np.asarray(moved)[: at.size]
            going.append(at[np.asarray(active)[: at.size]])
        todo = np.concatenate(going) if going else todo[:0]
        if not todo.size:
            break
    t[todo] = np.inf
    return t


def _shade(person: Person, lines: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours `n 3` in [0, 1] and class ids `n`; the background where t is inf."""
    rgb = np.tile(np.asarray(person["background"], np.float32), (t.size, 1))
    ids = np.zeros(t.size, np.uint8)
    for at in _blocks(np.flatnonzero(np.isfinite(t))):
        colours, found = _surface(person, _padded(lines[:, at], 1.0), _padded(t[at], 1.0))
        rgb[at] = np.asarray(colours).T[: at.size]
        ids[at] = np.asarray(found)[: at.size]
    return rgb, ids


@jax.jit
def _advance(
    person: Person, lines: Float[jax.Array, "6 n"], t: Float[jax.Array, " n"], spread: Float[jax.Array, ""]
) -> tuple[Float[jax.Array, " n"], Bool[jax.Array, " n"]]:
    far = REACH - sum(lines[a] * lines[a + 3] for a in range(3))

    def step(_, state):
        t, active = state
        d = shape.distance(_point(lines, jnp.where(active, t, 1.0)), person) - spread * t
        active = active & (jnp.abs(d) > HIT) & ((spread == 0.0) | (d > 0.0))
        t = jnp.where(active, t + STEP * d, t)
        missed = t > far
        return jnp.where(missed, jnp.inf, t), active & ~missed

    return jax.lax.fori_loop(0, STEPS, step, (t, jnp.isfinite(t)))


@jax.jit
def _surface(person: Person, lines: Float[jax.Array, "6 n"], t: Float[jax.Array, " n"]):
    p = _point(lines, t)
    ids = paint.label(p, person)
    toward = (-lines[3], -lines[4], -lines[5])
    return jnp.stack(paint.colour(p, _normal(p, person), toward, ids, person)), ids


def _normal(p: shape.Point, person: Person) -> shape.Point:
    """Outward unit normals from four distances at the corners of a tetrahedron."""
    h = 4e-4
    corners = jnp.asarray([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], jnp.float32)

    def add(total, corner):
        d = shape.distance((p[0] + h * corner[0], p[1] + h * corner[1], p[2] + h * corner[2]), person)
        return tuple(n + corner[i] * d for i, n in enumerate(total)), None

    # A scan and not a sum: the distance is compiled once instead of four times.
    (x, y, z), _ = jax.lax.scan(add, tuple(jnp.zeros_like(a) for a in p), corners)
    length = jnp.sqrt(x * x + y * y + z * z) + 1e-12
    return x / length, y / length, z / length


def _point(lines: jax.Array, t: jax.Array) -> shape.Point:
    return lines[0] + lines[3] * t, lines[1] + lines[4] * t, lines[2] + lines[5] * t


def _entry(lines: np.ndarray) -> np.ndarray:
    """Where rays enter the ball of radius REACH around the origin; inf where they miss it."""
    along = -(lines[:3] * lines[3:]).sum(0)
    inside = REACH**2 - (lines[:3] ** 2).sum(0) + along**2
    return np.where(inside > 0, np.maximum(along - np.sqrt(np.maximum(inside, 0.0)), 0.0), np.inf)


def _edges(ids: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Pixels `v h w` beside another class or a jump in depth, where one colour sample would alias."""
    other = _widest(ids) != -_widest(-ids.astype(np.int16))
    return other | (_widest(depth) + _widest(-depth) > 0.008)


def _widest(image: np.ndarray) -> np.ndarray:
    """Maximum over 3x3 pixels of `v h w`."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return np.maximum(np.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def _blocks(at: np.ndarray) -> list[np.ndarray]:
    return [at[i : i + BLOCK] for i in range(0, at.size, BLOCK)]


def _padded(block: np.ndarray, fill: float) -> np.ndarray:
    missing = BLOCK - block.shape[-1]
    return np.pad(block, [(0, 0)] * (block.ndim - 1) + [(0, missing)], constant_values=fill)
