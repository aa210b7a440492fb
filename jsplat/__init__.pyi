from .captures.capture import Capture, read_capture, write_capture
from .errors import InputError
from .exchange.ply import SplatLabels, read_ply, write_label_ply, write_ply
from .fitting import FitConfig, FitResult, fit
from .kernels.blend import blend
from .kernels.select import use_backend
from .labels import MaskConfig, SharpenConfig, VoteConfig, clean, facing, lift, paint, sharpen, to_masks, vote
from .labelsets.labelset import LabelSet
from .parser import Parser, enlarged, load_parser, predict, predict_labels
from .raster.camera import Camera
from .raster.capacity import capacity_for
from .raster.projection import Projection, project
from .raster.rasterizer import rasterize, render_scene
from .raster.scene import Attributes, Gaussians, Render, Scene
from .raster.similarity import photo_loss, ssim
from .raster.spherical_harmonics import sh_colors

__version__: str
__all__ = [
    "Attributes",
    "Camera",
    "Capture",
    "FitConfig",
    "FitResult",
    "Gaussians",
    "InputError",
    "LabelSet",
    "MaskConfig",
    "Parser",
    "Projection",
    "Render",
    "Scene",
    "SharpenConfig",
    "SplatLabels",
    "VoteConfig",
    "blend",
    "capacity_for",
    "clean",
    "enlarged",
    "facing",
    "fit",
    "lift",
    "load_parser",
    "paint",
    "photo_loss",
    "predict",
    "predict_labels",
    "project",
    "rasterize",
    "read_capture",
    "read_ply",
    "render_scene",
    "sh_colors",
    "sharpen",
    "ssim",
    "to_masks",
    "use_backend",
    "vote",
    "write_capture",
    "write_label_ply",
    "write_ply",
]
