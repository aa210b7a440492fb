"""Labels on the geometry and back: evidence from views, the vote, masks, and a palette after the paper's idea."""

from jsplat.labels.lift import bytes_of_lift, facing, lift, paint
from jsplat.labels.masks import MaskConfig, clean, to_masks
from jsplat.labels.palette import PaletteConfig, from_colors, to_colors
from jsplat.labels.rendered import Rendered, render_masks
from jsplat.labels.sharpen import SharpenConfig, VoterLabels, sharpen
from jsplat.labels.together import Means, VoterEvidence, knows_all, vote_together
from jsplat.labels.votes import METHODS, VoteConfig, confidence, pose_prior, vote

__all__ = [
    "METHODS",
    "MaskConfig",
    "Means",
    "PaletteConfig",
    "Rendered",
    "SharpenConfig",
    "VoteConfig",
    "VoterEvidence",
    "VoterLabels",
    "bytes_of_lift",
    "clean",
    "confidence",
    "facing",
    "from_colors",
    "knows_all",
    "lift",
    "paint",
    "pose_prior",
    "render_masks",
    "sharpen",
    "to_colors",
    "to_masks",
    "vote",
    "vote_together",
]
