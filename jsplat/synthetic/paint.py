"""What a point of the surface is called and what it looks like: functions of the 3D point, never of the picture."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.synthetic import shape
from jsplat.synthetic.person import Person
from jsplat.synthetic.shape import Point

Channel = jax.Array | float
Channels = tuple[Channel, Channel, Channel]
ID = {name: i for i, name in enumerate(CELEBAMASK_HQ.names)}
WAVELENGTHS = (0.045, 0.018, 0.008)  # of the noise, metres


def label(p: Point, s: Person) -> jax.Array:
    """Class ids (`CELEBAMASK_HQ`) of points on the surface."""
    distances = jnp.stack(shape.parts(p, s))
    part = jnp.argmin(distances, axis=0)
    k = s["scale"]
    q = (p[0] / k, p[1] / k, p[2] / k)
    left = q[0] > 0
    by_part = {
        "neck": ID["neck"],
        "ear": jnp.where(left, ID["l_ear"], ID["r_ear"]),
        "hair": ID["hair"],
        "cloth": jnp.where(_bare(q, s), ID["neck"], ID["cloth"]),
        "hat": ID["hat"],
        "glasses": ID["eye_g"],
        "earring": ID["ear_r"],
        "necklace": ID["neck_l"],
    }
    ids = _face(q, s, left)
    for name, value in by_part.items():
        ids = jnp.where(part == shape.PARTS.index(name), value, ids)
    return ids.astype(jnp.uint8)


def _face(q: Point, s: Person, left: jax.Array) -> jax.Array:
    x, y, z = q
    ids = jnp.where((y < s["ear_y"] - s["ear_h"]) & (z < s["ear_z"]), ID["neck"], ID["skin"])
    front = z > 0.045
    ids = jnp.where(front & (jnp.abs(_brow(q, s)) < 1.0), jnp.where(left, ID["l_brow"], ID["r_brow"]), ids)
    ids = jnp.where(front & (_lid(q, s) < 1.0), jnp.where(left, ID["l_eye"], ID["r_eye"]), ids)
    ids = jnp.where(front & (shape.nose(q, s) < 0.0022), ID["nose"], ids)
    u = jnp.clip(x / s["mouth_w"], -1.0, 1.0)
    above = y - s["mouth_curve"] * x * x - s["mouth_y"]  # of the line where the upper lip ends
    gap = 2.0 * s["mouth_open"] * jnp.sqrt(jnp.maximum(1.0 - (u / 0.86) ** 2, 0.0))
    bow = 1.0 - s["bow"] * jnp.exp(-((x / 0.0035) ** 2))
    upper = (above >= 0.0) & (above < s["upper_h"] * (1.0 - u * u) * bow)
    lower = (above < 0.0) & (above > -gap - s["lower_h"] * jnp.sqrt(1.0 - u * u)) & (jnp.abs(u) < 1.0)
    ids = jnp.where(front & upper, ID["u_lip"], ids)
    ids = jnp.where(front & lower, ID["l_lip"], ids)
    inside = (shape.mouth_hole(q, s) < 0.0012) & (s["mouth_open"] > 0.001)
    return jnp.where(front & inside, ID["mouth"], ids)


def _brow(q: Point, s: Person) -> jax.Array:
    """Signed height above the brow's middle line in units of its half height; large beyond its ends."""
    u = (jnp.abs(q[0]) - s["eye_x"] - 0.001) / s["brow_w"]
    middle = s["brow_y"] + s["brow_tilt"] * u * s["brow_w"] + s["brow_arch"] * (1.0 - u * u)
    half = s["brow_h"] * jnp.maximum(jnp.minimum(1.0 - 0.75 * u * jnp.abs(u), 6.0 * (1.0 - jnp.abs(u))), 1e-4)
    return (q[1] - middle) / half


def _lid(q: Point, s: Person) -> jax.Array:
    """Height of a point over the eye's middle line in units of the lid opening: below 1 the eyeball shows."""
    u = jnp.abs(q[0]) - s["eye_x"]
    v = q[1] - s["eye_y"] - s["eye_tilt"] * u
    opening = s["eye_h"] * jnp.maximum(1.0 - (u / s["eye_w"]) ** 2, 1e-3)
    return jnp.where(v > 0, v, -1.25 * v) / opening


def _bare(q: Point, s: Person) -> jax.Array:
    """Whether the collar leaves this point of the chest bare."""
    x, z = q[0], q[2] - s["neck_z"] - 0.010
    r = jnp.sqrt(x * x + z * z) + 1e-6
    front = jnp.maximum(z / r, 0.0)
    return r < s["collar"] + s["collar_v"] * front**6


def noise(p: Point, s: Person) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Three octaves of smooth noise in about [-1, 1]: sums of plane waves, each bent by the octave before."""
    octaves, bend = [], jnp.zeros_like(p[0])
    for i, wavelength in enumerate(WAVELENGTHS):
        total = jnp.zeros_like(p[0])
        for j in range(s["waves"].shape[1]):
            kx, ky, kz = (s["waves"][i, j, a] / wavelength for a in range(3))
            total = total + shape.wave(kx * p[0] + ky * p[1] + kz * p[2] + s["phases"][i, j] + 0.25 * bend)
        bend = total * 0.4
        octaves.append(bend)
    return octaves[0], octaves[1], octaves[2]


def colour(p: Point, normal: Point, toward: Point, ids: jax.Array, s: Person) -> Channels:
    """Lit sRGB in [0, 1] of surface points; `toward` points at the camera, `ids` comes from `label`."""
    k = s["scale"]
    q = (p[0] / k, p[1] / k, p[2] / k)
    low, mid, high = noise(q, s)
    base = _skin(q, ids, low, mid, high, s)
    base = _where(_is(ids, "hair", "l_brow", "r_brow"), _hair(q, ids, low, mid, s), base)
    base = _where(_is(ids, "l_eye", "r_eye"), _eye(q, s), base)
    base = _where(_is(ids, "cloth"), _cloth(q, mid, high, s), base)
    base = _where(_is(ids, "hat"), _scaled(_rgb(s["hat"]), 1.0 + 0.22 * mid + 0.18 * high), base)
    base = _where(_is(ids, "eye_g"), _rgb(s["frame"]), base)
    base = _where(_is(ids, "ear_r", "neck_l"), _scaled(_rgb(s["metal"]), 1.0 + 0.2 * high), base)
    lx, ly, lz = (s["light"][a] for a in range(3))
    facing = normal[0] * lx + normal[1] * ly + normal[2] * lz
    shade = s["ambient"] * (0.85 + 0.15 * normal[1]) + s["diffuse"] * jnp.maximum(0.75 * facing + 0.25, 0.0)
    half = [a + b for a, b in zip((lx, ly, lz), toward)]
    length = jnp.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2) + 1e-6
    gloss = jnp.maximum(sum(n * h for n, h in zip(normal, half)) / length, 0.0)
    matt = _is(ids, "cloth", "hat", "mouth")
    shine = jnp.where(matt, 0.0, s["shine"]) * gloss**24
    return _map(lambda c: jnp.clip(c * shade + shine, 0.0, 1.0), base)


def _skin(q: Point, ids: jax.Array, low: jax.Array, mid: jax.Array, high: jax.Array, s: Person) -> Channels:
    x, y, z = q
    mottle = 1.0 + s["mottle"] * (0.6 * low + 0.8 * mid + 0.6 * high)
    spots = jnp.maximum(s["freckles"], 0.0) * jax.nn.sigmoid(14.0 * (high * mid - 0.35))
    beard = jax.nn.sigmoid(220.0 * (-0.048 - y)) * jax.nn.sigmoid(160.0 * (z - 0.01)) * (0.7 + 0.5 * high)
    mottle = mottle * (1.0 - spots) * (1.0 - 0.8 * jnp.maximum(s["stubble"], 0.0) * beard)
    cheek = jnp.exp(-((jnp.abs(x) - 0.045) ** 2 + (y + 0.028) ** 2 + (z - 0.06) ** 2) / 0.022**2)
    red = s["blush"] * cheek + jnp.where(_is(ids, "nose", "l_ear", "r_ear"), 0.06, 0.0)
    lash = jnp.where(z > 0.045, jnp.exp(-((_lid(q, s) - 1.25) ** 2) * 6.0) * (y > s["eye_y"]), 0.0)
    nostril_x = (jnp.abs(x) - 0.006) ** 2 + (z - s["nose_z"] + 0.014) ** 2
    nostril = jnp.where(_is(ids, "nose"), jnp.exp(-(nostril_x + (y - s["nose_y"] + 0.012) ** 2) / 0.0045**2), 0.0)
    shade = mottle * (1.0 - 0.65 * lash) * (1.0 - 0.7 * nostril)
    r, g, b = _rgb(s["skin"])
    skin = (r * shade, g * shade * (1.0 - red), b * shade * (1.0 - red))
    lip_line = jnp.abs(y - s["mouth_curve"] * x * x - s["mouth_y"]) < jnp.where(s["mouth_open"] > 0.001, 0.0, 0.0009)
    lip_shade = jnp.where(lip_line, 0.45, 1.0 + 0.12 * high + 0.10 * mid)
    skin = _where(_is(ids, "u_lip", "l_lip"), _scaled(_rgb(s["lips"]), lip_shade), skin)
    teeth = (y - s["mouth_curve"] * x * x > s["mouth_y"] - 0.55 * s["mouth_open"]) & (jnp.abs(x) < s["mouth_w"] * 0.7)
    inside = _where(teeth, (0.88, 0.86, 0.80), (0.28, 0.08, 0.08))
    return _where(_is(ids, "mouth"), inside, skin)


def _hair(q: Point, ids: jax.Array, low: jax.Array, mid: jax.Array, s: Person) -> Channels:
    x, y, z = q
    run = jnp.zeros_like(x)  # strands: waves that hardly change along the direction the hair falls
    for j in range(s["waves"].shape[1]):
        kx, ky, kz = (s["waves"][2, j, a] / 0.007 for a in range(3))
        run = run + shape.wave(kx * x + 0.06 * ky * y + kz * z + 0.25 * low)
    tone = 1.0 + s["strands"] * (0.40 * run + 0.30 * mid)
    brow = _is(ids, "l_brow", "r_brow")
    return _scaled(_where(brow, _rgb(s["brow"]), _rgb(s["hair"])), tone)


def _eye(q: Point, s: Person) -> Channels:
    side = jnp.where(q[0] > 0, 1.0, -1.0)
    dx, dy = q[0] - side * s["eye_x"] - s["gaze_x"], q[1] - s["eye_y"] - s["gaze_y"]
    r = jnp.sqrt(dx * dx + dy * dy)
    base = _where(r < s["iris_r"], _scaled(_rgb(s["iris"]), 0.75 + 0.5 * r / s["iris_r"]), (0.93, 0.92, 0.90))
    base = _where(r < 0.45 * s["iris_r"], (0.03, 0.03, 0.03), base)
    return _where((dx - 0.0020) ** 2 + (dy - 0.0020) ** 2 < 0.0011**2, (1.0, 1.0, 1.0), base)


def _cloth(q: Point, mid: jax.Array, high: jax.Array, s: Person) -> Channels:
    x, y, z = q
    wave = shape.wave(s["stripe_k"] * (y + s["stripe_lean"] * x + 0.3 * z) + 0.15 * mid)
    striped = (wave > 0.2) & (s["stripes"] > -0.2)
    base = _where(striped, _rgb(s["cloth2"]), _rgb(s["cloth"]))
    hem = jnp.abs(jnp.sqrt(x * x + (z - s["neck_z"] - 0.01) ** 2) - s["collar"] - 0.006) < 0.004
    base = _where(hem & (s["stripes"] < 0.4), _rgb(s["cloth2"]), base)
    return _scaled(base, 1.0 + 0.14 * mid + 0.14 * high)


def _is(ids: jax.Array, *names: str) -> jax.Array:
    found = ids == ID[names[0]]
    for name in names[1:]:
        found = found | (ids == ID[name])
    return found


def _rgb(colours: jax.Array) -> Channels:
    return colours[0], colours[1], colours[2]


def _map(f: Callable[..., Channel], *colours: Channels) -> Channels:
    r, g, b = (f(*channel) for channel in zip(*colours))
    return r, g, b


def _scaled(colours: Channels, factor: jax.Array) -> Channels:
    return _map(lambda c: c * factor, colours)


def _where(condition: jax.Array, yes: Channels, no: Channels) -> Channels:
    return _map(lambda a, b: jnp.where(condition, a, b), yes, no)
