"""Labels on the geometry and back: evidence from views, the vote, masks, and a palette after the paper's idea."""

from jsplat.labels.lift import EVIDENCE, bytes_of_lift, facing, lift, lift_kept, paint, paint_blocks
from jsplat.labels.masks import MaskConfig, clean, to_masks
from jsplat.labels.palette import PaletteConfig, from_colors, to_colors
from jsplat.labels.poll import METHODS, VoteConfig
from jsplat.labels.rendered import Rendered, mask_blocks, render_masks
from jsplat.labels.sharpen import SharpenConfig, VoterLabels, sharpen
from jsplat.labels.together import Means, VoterEvidence, knows_all, vote_together
from jsplat.labels.votes import confidence, near_views, pose_prior, vote

__all__ = [
    "EVIDENCE",
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
    "lift_kept",
    "mask_blocks",
    "near_views",
    "paint",
    "paint_blocks",
    "pose_prior",
    "render_masks",
    "sharpen",
    "to_colors",
    "to_masks",
    "vote",
    "vote_together",
]
