"""Label refinement for head images by Gaussian splatting, in JAX."""

from jsplat.errors import InputError
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import capacity_for
from jsplat.raster.rasterizer import rasterize, render_scene
from jsplat.raster.scene import Attributes, Gaussians, Render, Scene
from jsplat.runtime.provenance import VERSION

__version__ = VERSION
__all__ = [
    "Attributes",
    "Camera",
    "Gaussians",
    "InputError",
    "Render",
    "Scene",
    "capacity_for",
    "rasterize",
    "render_scene",
]
