"""What painted Gaussians show in many views: masks, and what they lie on, a block of views in memory at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Array, Float, UInt8

from jsplat.labels.lift import paint_blocks
from jsplat.labels.masks import MaskConfig, clean, to_masks
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.camera import Camera
from jsplat.raster.scene import Gaussians
from jsplat.runtime.view_blocks import Devices, view_count


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Cleaned masks of all views, their confidence in [0, 1], and the render's alpha and depth."""

    labels: UInt8[np.ndarray, "v h w"]
    confidence: Float[np.ndarray, "v h w"]
    alpha: Float[np.ndarray, "v h w"]
    depth: Float[np.ndarray, "v h w"]


def mask_blocks(
    gaussians: Gaussians,
    probabilities: Float[Array | np.ndarray, "n k"],
    cameras: Camera,
    labelset: LabelSet,
    config: MaskConfig,
    *,
    capacity: int,
    devices: Devices = (),
) -> Iterator[tuple[slice, Rendered]]:
    """`render_masks`, a block of views at a time: which views, and what they show."""
    for where, render in paint_blocks(gaussians, probabilities, cameras, capacity=capacity, devices=devices):
        alpha = np.asarray(render.alpha)
        labels, sure = to_masks(np.asarray(render.channels), alpha, labelset, config)
        yield where, Rendered(clean(labels, sure, labelset, config), sure, alpha, np.asarray(render.depth))


def render_masks(
    gaussians: Gaussians,
    probabilities: Float[Array | np.ndarray, "n k"],
    cameras: Camera,
    labelset: LabelSet,
    config: MaskConfig,
    *,
    capacity: int,
    devices: Devices = (),
) -> Rendered:
    """Masks of one head from class probabilities per Gaussian; what a view gives depends on no other view.

    Args:
        capacity: tile hits a view may need (`capacity_for`).
        devices: share the views; where the arrays lie if none.
    """
    shape = (view_count(cameras), cameras.height, cameras.width)
    out = Rendered(np.empty(shape, np.uint8), *(np.empty(shape, np.float32) for _ in range(3)))
    for where, shown in mask_blocks(
        gaussians, probabilities, cameras, labelset, config, capacity=capacity, devices=devices
    ):
        for field in dataclasses.fields(out):
            getattr(out, field.name)[where] = getattr(shown, field.name)
    return out
