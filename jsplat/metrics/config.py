"""What the scores depend on."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What the scores depend on.

    Attributes:
        boundary: width of the boundary band as a share of the picture's diagonal; 3 px at 512x512, since eyes and lips
            are thinner than the standard band.
        boundary_standard: the same for `boundary_iou_standard` (Cheng et al. 2021: 2 %).
        neighbors: views each view is compared with in `agreement`.
        depth_tolerance: share of the depth by which two views may differ and still see the same point.
    """

    boundary: float = 3 / math.hypot(512, 512)
    boundary_standard: float = 0.02
    neighbors: int = 4
    depth_tolerance: float = 0.01
