"""The fit's losses in PyTorch, equal to `jsplat.fitting.loss` (tests compare them)."""

import numpy as np

from bench.peers import F, torch
from jsplat.labelsets.labelset import IGNORE

_WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()


def ssim(a, b):
    """Structural similarity of pictures `b h w c` in [0, 1], mean over pixels and channels: `b`."""
    stacked = torch.cat([a, b, a * a, b * b, a * b], -1).permute(0, 3, 1, 2)
    channels = stacked.shape[1]
    window = torch.as_tensor(_WINDOW, dtype=a.dtype, device=a.device).expand(channels, 1, -1)
    blurred = F.conv2d(stacked, window[:, :, :, None], padding=(5, 0), groups=channels)
    blurred = F.conv2d(blurred, window[:, :, None, :], padding=(0, 5), groups=channels)
    mean_a, mean_b, aa, bb, ab = blurred.chunk(5, 1)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return score.mean((1, 2, 3))


def photo_loss(render, photo, ssim_weight: float = 0.2):
    """(1 - s) L1 + s (1 - SSIM) / 2 of pictures `b h w 3`: `b`."""
    return (1 - ssim_weight) * (render - photo).abs().mean((1, 2, 3)) + ssim_weight * (1 - ssim(render, photo)) / 2


def label_loss(probabilities, labels):
    """Mean cross-entropy of class mixtures `b h w k` at labels `b h w`; `IGNORE` does not count: `b`."""
    valid = labels != IGNORE
    chosen = probabilities.gather(-1, torch.where(valid, labels, 0)[..., None])[..., 0]
    losses = -torch.log(chosen.clamp(min=1e-4)) * valid
    return losses.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
