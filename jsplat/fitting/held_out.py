"""How well fitted scenes show the views that were held out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.fitting.config import FitConfig
from jsplat.fitting.photos import Photos, held_out
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Scene
from jsplat.raster.similarity import ssim_map
from jsplat.raster.spherical_harmonics import sh_colors


def score(
    scene: Scene, photos: Photos, captures: list[Capture], config: FitConfig, shared: SharedCapacity
) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and SSIM per identity, mean over the held-out views (over all where none is held out).

    Args:
        scene, photos: on the host, where taking parts of them compiles nothing; leading axis: identities; rows beyond
            the captures are padding.
        room: for tile hits.
    """
    found = []
    for i, capture in enumerate(captures):
        views = held_out(len(capture.images), config.hold_out)
        views = views if len(views) else np.arange(len(capture.images))
        own = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), scene)
        shown = (photos.cameras, photos.background, photos.images, photos.valid)
        shown = jax.tree.map(lambda x, i=i, v=views: x[i][v], shown)
        capacity = shared.for_views(own.gaussians, shown[0])
        # View by view: captures have different numbers of them, and all shall share one compiled program.
        each = [_view(own, *jax.tree.map(lambda x, k=k: x[k], shown), capacity=capacity) for k in range(len(views))]
        found.append(np.mean(jax.device_get(each), 0))
    psnr, similarity = np.stack(found, -1)
    return psnr, similarity


@functools.partial(jax.jit, static_argnames="capacity")
def _view(scene: Scene, camera: Camera, background, photo, valid, *, capacity: int):
    rgb = sh_colors(scene.attributes.sh, scene.gaussians.means, camera)
    shown = rasterize(scene.gaussians, rgb, camera, background=background, capacity=capacity).channels
    photo = jnp.where(valid[..., None], photo.astype(jnp.float32) / 255, shown)
    error = jnp.mean((jnp.clip(shown, 0, 1) - photo) ** 2, where=valid[..., None])
    return -10 * jnp.log10(error), ssim_map(shown, photo).mean(where=valid[..., None])
