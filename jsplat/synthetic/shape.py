"""The geometry of a procedural head: signed distances to its parts, from smoothly joined ellipsoids.

Ellipsoid and smooth minimum follow Inigo Quilez's articles "ellipsoid - SDF" (the bound k0 (k0 - 1) / k1) and
"smooth minimum" (quadratic polynomial). Coordinates come as three arrays of one shape: that keeps the whole distance
one fused loop on a CPU.
"""

import jax
import jax.numpy as jnp

from jsplat.synthetic.person import Person

Point = tuple[jax.Array, jax.Array, jax.Array]

HAT_TILT, BRIM_DROOP = 0.10, 0.15  # how much lower hats sit in front, and brims at the sides: metres per metre
PARTS = ("head", "neck", "ear", "hair", "cloth", "hat", "glasses", "earring", "necklace")


def ellipsoid(p: Point, center: tuple, radii: tuple) -> jax.Array:
    """Distance bound to an axis-aligned ellipsoid, < 0 inside, world units."""
    q = [(a - c) / r for a, c, r in zip(p, center, radii)]
    k0 = _norm(*q)
    k1 = _norm(*(a / r for a, r in zip(q, radii)))
    return k0 * (k0 - 1.0) / jnp.maximum(k1, 1e-6)


def smooth_min(a: jax.Array, b: jax.Array, k: float) -> jax.Array:
    """Minimum whose seam is rounded over the length `k`."""
    h = jnp.maximum(k - jnp.abs(a - b), 0.0)
    return jnp.minimum(a, b) - h * h * (0.25 / k)


def smooth_max(a: jax.Array, b: jax.Array, k: float) -> jax.Array:
    """Maximum whose seam is rounded over the length `k`."""
    return -smooth_min(-a, -b, k)


def wave(turns: jax.Array) -> jax.Array:
    """A sine of whole turns made of two parabolas, in [-1, 1]: many times cheaper than `sin` on a CPU."""
    t = turns - jnp.round(turns)
    return 8.0 * t - 16.0 * t * jnp.abs(t)


def nose(p: Point, s: Person) -> jax.Array:
    """Distance to the nose alone: bridge, tip and wings."""
    x, y, z = p
    top_y, top_z = s["eye_y"] + 0.006, s["bridge_z"]
    dy, dz = s["nose_y"] - top_y, s["nose_z"] - s["nose_r"] - top_z
    along = jnp.clip(((y - top_y) * dy + (z - top_z) * dz) / (dy * dy + dz * dz), 0.0, 1.0)
    radius = s["bridge_r"] + (s["nose_r"] - s["bridge_r"]) * along
    bridge = _norm(x, y - top_y - along * dy, z - top_z - along * dz) - radius
    wings = ellipsoid(
        (jnp.abs(x), y, z), (s["nose_w"], s["nose_y"] - 0.004, s["nose_z"] - 0.021), (0.0075, 0.0075, 0.012)
    )
    return smooth_min(bridge, wings, 0.008)


def mouth_hole(p: Point, s: Person) -> jax.Array:
    """Distance to the cavity carved between the lips."""
    x, y, z = p
    return ellipsoid(
        (x, y - s["mouth_curve"] * x * x, z),
        (0.0, s["mouth_y"] - s["mouth_open"], 0.088),
        (s["mouth_w"] * 0.86, s["mouth_open"], 0.024),
    )


def skull(p: Point, s: Person) -> jax.Array:
    """Distance to braincase and upper jaw, the ground that features and hair grow on."""
    case = ellipsoid(p, (0.0, 0.030, -0.015), (s["skull_x"], s["skull_y"], s["skull_z"]))
    return smooth_min(case, ellipsoid(p, (0.0, -0.030, 0.012), (s["face_x"], s["face_y"], s["face_z"])), 0.030)


def head(p: Point, s: Person) -> jax.Array:
    """Distance to skull and face, without neck, ears and hair."""
    x, y, z = p
    q = (jnp.abs(x), y, z)
    drop = s["mouth_open"]  # an open mouth carries jaw, chin and lower lip down
    d = skull(p, s)
    d = smooth_min(
        d, ellipsoid(q, (s["jaw_x"] * 0.5, s["jaw_y"] - drop, 0.022), (s["jaw_x"] * 0.55, 0.022, 0.042)), 0.030
    )
    d = smooth_min(d, ellipsoid(p, (0.0, s["chin_y"] - drop, s["chin_z"]), (s["chin_x"], 0.014, 0.018)), 0.028)
    d = smooth_min(d, ellipsoid(q, (s["cheek_x"], s["cheek_y"], 0.046), (s["cheek_r"],) * 3), 0.030)
    ridge = ellipsoid(q, (s["eye_x"] * 0.8, s["brow_y"] - 0.002, 0.068), (0.030, 0.009, s["ridge"]))
    d = smooth_min(d, ridge, 0.022)
    socket = ellipsoid(q, (s["eye_x"], s["eye_y"], 0.094), (0.019, 0.0115, 0.018))
    d = smooth_max(d, -socket, 0.014)
    d = smooth_min(d, _norm(q[0] - s["eye_x"], y - s["eye_y"], z - 0.061) - 0.0145, 0.004)
    d = smooth_min(d, nose(p, s), 0.012)
    bend = y - s["mouth_curve"] * x * x
    upper = ellipsoid((x, bend, z), (0.0, s["mouth_y"] + 0.002, 0.074), (s["mouth_w"], s["upper_h"] + 0.001, 0.0155))
    lower_y = s["mouth_y"] - 0.003 - 2 * drop
    lower = ellipsoid((x, bend, z), (0.0, lower_y, 0.073), (s["mouth_w"] * 0.9, s["lower_h"], 0.0155))
    d = smooth_min(smooth_min(d, upper, 0.006), lower, 0.006)
    return smooth_max(d, -mouth_hole(p, s), 0.0015)


def neck(p: Point, s: Person) -> jax.Array:
    """Distance to the neck, a slanted capped cylinder that widens into the chest."""
    x, y, z = p
    axis_z = s["neck_z"] + 0.12 * (y + 0.10)
    radius = s["neck_r"] + 0.5 * jnp.maximum(-0.125 - y, 0.0)
    tube = jnp.maximum(0.85 * (_norm(x, z - axis_z) - radius), -0.200 - y)
    return smooth_max(tube, y + 0.055, 0.03)


def ear(p: Point, s: Person) -> jax.Array:
    """Distance to both ears: a leaning, flaring disc with a hollow."""
    x, y, z = p
    x, y, z = jnp.abs(x) - s["skull_x"] - 0.001, y - s["ear_y"], z - s["ear_z"]
    cos, sin = jnp.cos(s["ear_lean"]), jnp.sin(s["ear_lean"])
    y, z = cos * y - sin * z, sin * y + cos * z
    cos, sin = jnp.cos(s["ear_flare"]), jnp.sin(s["ear_flare"])
    x, z = cos * x + sin * z, -sin * x + cos * z
    disc = ellipsoid((x, y, z), (0.0, 0.0, 0.0), (0.008, s["ear_h"], s["ear_w"]))
    hollow = ellipsoid((x, y, z), (0.009, 0.002, 0.002), (0.008, s["ear_h"] * 0.66, s["ear_w"] * 0.62))
    return smooth_max(disc, -hollow, 0.004)


def hair(p: Point, s: Person) -> jax.Array:
    """Distance to the hair: a grown skull, hanging hair and a tail, with windows for face and ears cut out."""
    x, y, z = p
    q = (jnp.abs(x), y, z)
    bumps = wave(s["hair_k"] * x) * wave(s["hair_k"] * y + 0.2) * wave(s["hair_k"] * z)
    thick = s["hair_t"] * jnp.clip(0.35 + 9.0 * (y - s["nape"]), 0.35, 1.15)  # cut shorter towards the nape
    cap = jnp.maximum(skull(p, s) - thick, s["nape"] + 0.25 * (z + 0.1) - y)
    drape = ellipsoid(p, (0.0, -0.025, -0.022), (s["drape_x"], 0.26, s["drape_z"]))
    drape = smooth_max(drape, jnp.maximum(s["drape_end"] - y, z - s["drape_front"]), 0.012)
    drape = smooth_max(drape, y - 0.055, 0.05)
    tail = ellipsoid(p, (0.0, s["tail_y"], s["tail_z"]), (s["tail_r"], s["tail_ry"], s["tail_r"]))
    d = smooth_min(smooth_min(cap, drape, 0.012), tail, 0.006) + s["hair_amp"] * bumps
    face = ellipsoid((x - s["hair_part"], y, z), (0.0, -0.040, 0.105), (s["temple"], s["hairline"] + 0.012, 0.105))
    ears = ellipsoid(q, (0.080, s["ear_y"] - 0.010, s["ear_z"] + 0.010), (0.040, 0.036, 0.028))
    d = smooth_max(smooth_max(d, -face, 0.005), -ears - s["ear_cover"], 0.004)
    return jnp.maximum(
        d, y + HAT_TILT * z + BRIM_DROOP * q[0] - s["hair_top"]
    )  # what is under a hat must not poke through


def cloth(p: Point, s: Person) -> jax.Array:
    """Distance to shoulders and chest, bare skin inside the collar included."""
    body = ellipsoid(p, (0.0, s["body_y"], -0.040), (s["body_x"], 0.095, 0.100))
    slope = ellipsoid(p, (0.0, -0.185, -0.045), (0.105, 0.055, 0.062))
    return smooth_min(body, slope, 0.045)


def hat(p: Point, s: Person) -> jax.Array:
    """Distance to the hat: a crown above a brim; a short brim makes a cap."""
    x, y, z = p
    y = y + HAT_TILT * z - s["hat_y"]
    grow = s["hat_t"]
    radii = (s["skull_x"] + grow, s["hat_h"], s["skull_z"] + grow)
    crown = smooth_max(ellipsoid((x, y, z), (0.0, 0.0, -0.015), radii), -y, 0.004)
    rim = _norm(x / (s["skull_x"] + grow + 0.001), (z + 0.015) / (s["skull_z"] + grow + 0.001))
    reach = (rim - 1.0) * (s["skull_x"] + grow) * 0.85 - (s["brim"] - 0.08)
    brim = smooth_max(reach, jnp.abs(y - 0.004 + BRIM_DROOP * jnp.abs(x)) - 0.004, 0.004) * 0.9
    return smooth_min(crown, brim, 0.006) + s["hat_off"]


def glasses(p: Point, s: Person) -> jax.Array:
    """Distance to the glasses: two rims (filled for sunglasses), a bridge and two temples."""
    x, y, z = p
    ax, dy, front = jnp.abs(x), y - s["eye_y"], 0.093
    dz = z - front + 3.5 * ax * ax
    edge = _norm(ax - s["eye_x"] - 0.001, dy * 1.15) - s["glasses_r"]
    rim = jnp.where(s["lens"] > 0.5, jnp.maximum(edge, 0.0), edge)
    rims = _norm(rim, dz) - 0.0022
    bridge = jnp.maximum(_norm(dy - 0.003, dz) - 0.0022, ax - (s["eye_x"] - s["glasses_r"]))
    side = s["skull_x"] + 0.004
    temple = jnp.maximum(_norm(ax - side, dy - 0.006) - 0.0024, jnp.maximum(z - 0.070, s["ear_z"] - z))
    hinge = jnp.maximum(_norm(dy - 0.006, z - 0.070) - 0.0024, jnp.maximum(ax - side, 0.050 - ax))
    return jnp.minimum(jnp.minimum(rims, bridge), jnp.minimum(temple, hinge)) * 0.85 + s["glasses_off"]


def earring(p: Point, s: Person) -> jax.Array:
    """Distance to both earrings: a bead, or a hoop when its radius is larger than zero."""
    x, y, z = p
    dx = jnp.abs(x) - s["skull_x"] - 0.009
    dy = y - (s["ear_y"] - s["ear_h"] - s["earring_r"] + 0.001)
    return _norm(_norm(dy, z - s["ear_z"]) - s["earring_r"], dx) - s["earring_w"] + s["earring_off"]


def necklace(p: Point, s: Person) -> jax.Array:
    """Distance to the necklace: a ring around the neck that hangs lower in front."""
    x, y, z = p
    z = z - s["neck_z"] + 0.004
    ring = _norm(x, z) - s["neck_r"] - 0.010
    return 0.85 * _norm(ring, y + 0.135 + 0.25 * z) - 0.0036 + s["necklace_off"]


def parts(p: Point, s: Person) -> tuple[jax.Array, ...]:
    """Distances to every part, in the order of `PARTS`, world units."""
    k = s["scale"]
    p = (p[0] / k, p[1] / k, p[2] / k)
    found = (head, neck, ear, hair, cloth, hat, glasses, earring, necklace)
    return tuple(part(p, s) * k for part in found)


def distance(p: Point, s: Person) -> jax.Array:
    """Distance to the nearest surface, < 0 inside; chin and throat join smoothly."""
    first, second, *others = parts(p, s)
    d = smooth_min(first, second, 0.010)
    for other in others:
        d = jnp.minimum(d, other)
    return d


def _norm(*components: jax.Array) -> jax.Array:
    return jnp.sqrt(sum(c * c for c in components))  # type: ignore[arg-type]
