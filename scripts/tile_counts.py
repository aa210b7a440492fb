"""What a shape of tiles costs: hits, pairs of Gaussian and pixel that are evaluated, and how many of them contribute.

python scripts/tile_counts.py [GARDEN.npz]   # prints a table in Markdown; minutes of one core

Scenes: `jsplat.kernels.blend.cases.headlike`, and, where the file is given, the points of gsplat's garden crop as
Gaussians as wide as their three nearest neighbours are far, seen by its first camera.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jsplat.kernels.blend.cases import headlike
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import bin_tiles, tile_grid
from jsplat.raster.camera import Camera
from jsplat.raster.projection import project
from jsplat.raster.scene import Gaussians

TILES = ((16, 16), (16, 8), (8, 16), (8, 8), (8, 4))
HEAD = ["scene", "tile", "hits", "longest list", "pairs listed", "evaluated", "contributing", "share"]


def head(count: int, edge: int = 512) -> tuple[tuple[int, int], list[np.ndarray]]:
    """Size, and rows of one image."""
    case = headlike(1, count, edge, 1)
    return (edge, edge), [np.asarray(x[0], np.float32) for x in case.arrays()[:4]]


def garden(path: str) -> tuple[tuple[int, int], list[np.ndarray]]:
    """Size, and rows of the first view."""
    data = np.load(path)
    points, random = data["means3d"], np.random.default_rng(0)
    apart = cKDTree(points).query(points, 4)[0][:, 1:].mean(1)
    count, size = len(points), (int(data["width"]), int(data["height"]))
    scene = Gaussians(
        jnp.asarray(points),
        jnp.tile(jnp.asarray([1.0, 0, 0, 0]), (count, 1)),
        jnp.log(jnp.asarray(apart, jnp.float32))[:, None] * jnp.ones(3),
        jnp.asarray(np.log(1 / (1 / random.uniform(0.02, 0.98, count) - 1)), jnp.float32),
    )
    view = project(scene, Camera(jnp.asarray(data["viewmats"][0]), jnp.asarray(data["Ks"][0]), *size))
    return size, [np.asarray(x) for x in jax.tree.leaves(view)]


def counts(size: tuple[int, int], rows: list[np.ndarray], tile: tuple[int, int]) -> dict[str, int]:
    """Of one image and shape of tiles; evaluated: up to the hit at which a tile's last pixel stops."""
    args = [jnp.asarray(x)[None] for x in rows]
    needed = int(bin_tiles(*args, size=size, tile=tile, capacity=1).needed[0])
    hits = bin_tiles(*args, size=size, tile=tile, capacity=needed)
    ids, offsets, across = np.asarray(hits.gaussian_ids), np.asarray(hits.tile_offsets), tile_grid(size, tile)[0]
    means2d, conic_roots, opacities, _ = rows
    y, x = np.divmod(np.arange(tile[0] * tile[1]), tile[0])
    evaluated = contributing = 0
    for index in np.flatnonzero(np.diff(offsets)):
        which = ids[offsets[index] : offsets[index + 1], None]
        px, py = index % across * tile[0] + x + 0.5, index // across * tile[1] + y + 0.5
        dx, dy = means2d[which, 0] - px, means2d[which, 1] - py
        u, v, w = (conic_roots[which, k] for k in range(3))
        alpha = opacities[which] * np.exp(-0.5 * ((u * dx + v * dy) ** 2 + (w * dy) ** 2))
        alpha = np.where((alpha >= ALPHA_FLOOR) & (px < size[0]) & (py < size[1]), np.minimum(alpha, ALPHA_CEILING), 0)
        after = np.cumprod(1 - alpha, 0)
        transmittance = np.concatenate([np.ones_like(after[:1]), after[:-1]])
        alive = transmittance >= TRANSMITTANCE_STOP
        evaluated += alive.any(1).sum() * len(x)
        contributing += ((alpha > 0) & alive).sum()
    total = int(offsets[-1])
    return {
        "hits": total,
        "longest": int(np.diff(offsets).max()),
        "listed": total * len(x),
        "evaluated": int(evaluated),
        "contributing": int(contributing),
    }


def main(paths: list[str]) -> None:
    """Prints the table."""
    scenes = {"head, 50k": head(50_000), "head, 150k": head(150_000)}
    if paths:
        scenes["garden"] = garden(paths[0])
    print("| " + " | ".join(HEAD) + " |\n| --- | --- |" + " ---: |" * (len(HEAD) - 2))
    for name, (size, rows) in scenes.items():
        for tile in TILES:
            n = counts(size, rows, tile)
            millions = " | ".join(f"{n[key] / 1e6:.2f} M" for key in ("listed", "evaluated", "contributing"))
            fraction = f"{n['contributing'] / n['evaluated']:.0%}"
            print(
                f"| {name} | {tile[0]} x {tile[1]} | {n['hits']} | {n['longest']} | {millions} | {fraction} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
