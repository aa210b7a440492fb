"""Heads to measure on: procedural people, and Gaussians that the project's own fit made of them, kept in out/bench."""

import functools
import os
from pathlib import Path

import jax
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.fitting import FitConfig, fit
from jsplat.kernels.blend.cases import Splats
from jsplat.raster.camera import Camera
from jsplat.raster.projection import project
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.synthetic import HeadsConfig, render_captures

CACHE = Path(__file__).resolve().parent.parent / "out/bench"
PEOPLE = 2  # more identities are these again, seen from elsewhere
VIEWS, SIZE, STEPS = 24, 96, 100  # of the fit that makes the scenes


@functools.lru_cache(maxsize=8)
def captures(identities: int, views: int, size: int) -> tuple[Capture, ...]:
    """Photographs of procedural people with exact labels."""
    return tuple(render_captures(range(identities), views, HeadsConfig(size=size)))


def dome(count: int, edge: int, stride: int = 5) -> Camera:
    """So many cameras around a head; a stride of 5 takes them from all over the dome."""
    return captures(1, VIEWS, SIZE)[0].cameras.resized(edge, edge)[np.arange(count) * stride % VIEWS]


@functools.lru_cache(maxsize=4)
def fitted(identities: int, gaussians: int) -> Scene:
    """Scenes of that many people (leading axis) with that many Gaussians each, fitted once and then read."""
    people = min(identities, PEOPLE)
    path = CACHE / f"heads_{people}x{gaussians}x{STEPS}.npz"
    if not path.is_file():
        config = FitConfig(gaussians=gaussians, steps=STEPS, voxels=80, label_weight=0.1)
        scene = fit(list(captures(people, VIEWS, SIZE)), config).scene
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        np.savez(temporary, *map(np.asarray, jax.tree.leaves(scene)))
        temporary.replace(path)
    with np.load(path) as stored:
        leaves = [jax.numpy.asarray(stored[name][np.arange(identities) % people]) for name in stored.files]
    return Scene(Gaussians(*leaves[:4]), Attributes(*leaves[4:]))


def one_of(scene: Scene, k: int) -> Scene:
    """The k-th person's scene, without the leading axis."""
    return jax.tree.map(lambda x: x[k], scene)


def fitted_splats(images: int, count: int, edge: int, channels: int) -> Splats:
    """Fitted heads as each of `images` cameras of the dome sees them, in random colours."""
    scene = fitted(images, count)
    view = project(scene.gaussians, dome(images, edge))
    rows = (np.asarray(x, np.float64) for x in (view.means2d, view.conic_roots, view.opacities, view.depths))
    features = np.random.default_rng(0).uniform(0, 1, (images, count, channels))
    return Splats(*rows, features)
