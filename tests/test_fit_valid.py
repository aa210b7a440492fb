"""Pixels that say nothing teach the fit nothing."""

import dataclasses

import numpy as np

from jsplat.fitting import FitConfig, fit
from tests import ball

SHORT = FitConfig(gaussians=200, steps=16, steps_per_call=8, relocate_every=8, hold_out=0, voxels=24)


def fitted(paint: int, marked: bool):
    """The ball with a painted block in the middle of some views, fitted; the mean error on the other pixels."""
    clean = ball.capture()
    images, valid = clean.images.copy(), np.ones(clean.images.shape[:3], bool)
    images[::2, 12:20, 12:20] = paint
    valid[::2, 12:20, 12:20] = False
    return fit([dataclasses.replace(clean, images=images, valid=valid if marked else None)], SHORT)


def test_invalid_pixels_teach_nothing():
    black, white = fitted(0, True), fitted(255, True)
    assert black.psnr == white.psnr
    assert fitted(0, False).psnr[0] < black.psnr[0] - 1
