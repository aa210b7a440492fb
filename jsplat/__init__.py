"""Label refinement for head images by Gaussian splatting, in JAX."""

from jsplat.camera import Camera
from jsplat.errors import InputError
from jsplat.provenance import VERSION
from jsplat.raster import capacity_for, rasterize, render_scene
from jsplat.scene import Attributes, Gaussians, Render, Scene

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
