"""Labels on the geometry and back: evidence from views, the vote, masks, and the paper's palette."""

from jsplat.labels.lift import facing, lift, paint
from jsplat.labels.masks import MaskConfig, clean, to_masks
from jsplat.labels.palette import PaletteConfig, from_colors, to_colors
from jsplat.labels.sharpen import SharpenConfig, sharpen
from jsplat.labels.votes import METHODS, VoteConfig, confidence, pose_prior, vote

__all__ = [
    "METHODS",
    "MaskConfig",
    "PaletteConfig",
    "SharpenConfig",
    "VoteConfig",
    "clean",
    "confidence",
    "facing",
    "from_colors",
    "lift",
    "paint",
    "pose_prior",
    "sharpen",
    "to_colors",
    "to_masks",
    "vote",
]
