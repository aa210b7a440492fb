"""Named inputs of `blend`, as data: the same ones feed the tests and the benchmarks.

All named cases share one shape, so that one compilation serves them; unused rows are hidden Gaussians. The values are
rounded to float32 once, so that float32 and float64 code starts from the same numbers.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jsplat.kernels.blend.splats import Splats
from jsplat.kernels.blend.xla import CHUNK

VISIBLE = 64  # Gaussians of most cases
COUNT = 72  # filled up to with hidden Gaussians
CHANNELS = 3
SIZE = (37, 29)  # no multiple of any tile edge
CAPACITY = VISIBLE * 5 * 4  # every one of them in every tile of 8 x 8
LOW_PASS = 0.3  # pixel^2; what the projection adds to every covariance


def conic_root(long: np.ndarray, short: np.ndarray, angle: np.ndarray) -> Float[np.ndarray, "*b 3"]:
    """(u, v, w) of standard deviations in pixels, the long one turned by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = np.square(long) + LOW_PASS, np.square(short) + LOW_PASS
    xy, yy = cos * sin * (along - across), sin * sin * along + cos * cos * across
    u = np.sqrt(yy / (along * across))
    return np.stack([u, -u * xy / yy, 1 / np.sqrt(yy)], -1)


def splats(means2d, conic_roots, opacities, depths, features) -> Splats:
    """One image from rows, rounded to float32 and filled up to COUNT with hidden Gaussians."""
    rest = COUNT - len(means2d)
    rows = (means2d, conic_roots, opacities, depths, features)
    fill = (
        np.ones((rest, 2)),
        np.ones((rest, 3)) * [1, 0, 1],
        np.ones(rest),
        np.full(rest, np.inf),
        np.ones((rest, 3)),
    )
    joined = (np.concatenate([np.asarray(a, np.float64).reshape(-1, *b.shape[1:]), b]) for a, b in zip(rows, fill))
    return Splats(*(x.astype(np.float32).astype(np.float64)[None] for x in joined))


def _random(count: int = VISIBLE, seed: int = 0, **changes) -> Splats:
    """Gaussians of a few pixels all over the image; `changes` replace rows."""
    random = np.random.default_rng(seed)
    rows = {
        "means2d": random.uniform(-2, 2 + np.asarray(SIZE), (count, 2)),
        "conic_roots": conic_root(
            random.uniform(0.5, 5, count), random.uniform(0.5, 5, count), random.uniform(0, np.pi, count)
        ),
        "opacities": random.uniform(0.02, 0.98, count),
        "depths": random.uniform(1, 2, count),
        "features": random.uniform(0, 1, (count, CHANNELS)),
    }
    return splats(**{**rows, **changes})


def _one(long: float, short: float, angle: float = 0.4, opacity: float = 0.7, mean=(17.3, 12.8)) -> Splats:
    return _random(
        1,
        means2d=[mean],
        conic_roots=conic_root(np.array([long]), np.array([short]), np.array([angle])),
        opacities=[opacity],
    )


def _needles(length: float, count: int = 12) -> Splats:
    """Needles of so many pixels that cross the image, their means within 500 pixels of it."""
    random = np.random.default_rng(3)
    angle, along = random.uniform(0, np.pi, count), random.uniform(-500, 500, (count, 1))
    crossing = random.uniform(0, 1, (count, 2)) * SIZE
    return _random(
        count,
        means2d=crossing + along * np.stack([np.cos(angle), np.sin(angle)], -1),
        conic_roots=conic_root(np.full(count, length), np.zeros(count), angle),
    )


def _layers(opacity: float) -> Splats:
    """Each of them over most of the image."""
    roots = conic_root(np.full(VISIBLE, 30.0), np.full(VISIBLE, 20.0), np.zeros(VISIBLE))
    return _random(conic_roots=roots, opacities=np.full(VISIBLE, opacity))


def _over_one_tile(count: int) -> Splats:
    """`count` Gaussians that all lie inside one tile, so that its list is exactly that long."""
    random = np.random.default_rng(count)
    small = np.full(count, 0.05)
    return _random(count, means2d=random.uniform(11.5, 12.5, (count, 2)), conic_roots=conic_root(small, small, small))


# Name -> how to make it.
CASES: dict[str, Callable[[], Splats]] = {
    "random": _random,
    "nothing_visible": lambda: _random(0),
    "all_behind": lambda: _random(depths=np.full(VISIBLE, np.inf)),
    "all_outside": lambda: _random(means2d=np.full((VISIBLE, 2), -500.0)),
    "one": lambda: _one(3.0, 2.0),
    "one_at_the_corner": lambda: _one(3.0, 2.0, mean=(0.0, 0.0)),
    "needle": lambda: _one(25.0, 1e-4, angle=0.7),
    "needles_of_5000": lambda: _needles(5_000.0),
    "needles_of_20000": lambda: _needles(20_000.0),
    "huge": lambda: _one(1e4, 1e3),
    "point": lambda: _one(0.0, 0.0),
    "opacity_zero": lambda: _random(opacities=np.zeros(VISIBLE)),
    "opacity_one": lambda: _random(opacities=np.ones(VISIBLE)),
    "just_below_the_floor": lambda: _random(opacities=np.full(VISIBLE, 0.999 / 255)),
    "one_chunk": lambda: _over_one_tile(CHUNK),
    "one_chunk_and_one": lambda: _over_one_tile(CHUNK + 1),
    "two_chunks": lambda: _over_one_tile(2 * CHUNK),
    "two_chunks_and_one": lambda: _over_one_tile(2 * CHUNK + 1),
    "opaque_layers": lambda: _layers(0.6),
    "nearly_opaque_layers": lambda: _layers(0.9985),
    "equal_depths": lambda: _random(depths=np.full(VISIBLE, 1.5)),
    "far_apart_depths": lambda: _random(depths=np.geomspace(1e-6, 1e30, VISIBLE)[::-1]),
}


def headlike(images: int, count: int, edge: int, channels: int, seed: int = 0) -> Splats:
    """Gaussians on an ellipsoid that fills two thirds of square images of `edge` pixels, as a fitted head would."""
    random = np.random.default_rng(seed)
    normal = random.normal(size=(images, count, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    point = normal * np.array([0.3, 0.375, 0.35]) * edge
    spacing = 0.7 * np.sqrt(4 * np.pi * (0.34 * edge) ** 2 / count)
    along, across = spacing * np.exp(0.3 * random.normal(size=(2, images, count)))
    across = across * np.maximum(0.25, np.abs(normal[..., 2]))  # seen from the side towards the outline
    return Splats(
        point[..., :2] + edge / 2,
        conic_root(along, across, np.arctan2(normal[..., 1], normal[..., 0]) + np.pi / 2),
        random.uniform(0.02, 0.98, (images, count)),
        4 * edge + point[..., 2],
        random.uniform(0, 1, (images, count, channels)),
    )
