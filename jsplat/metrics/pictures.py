"""How near a picture is to another."""

import numpy as np
from jaxtyping import Float

from jsplat.errors import InputError


def _pair(a: np.ndarray, b: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim < 3:
        raise InputError(f"{what}: a, b", wanted="two pictures of one shape *b h w c", got=(a.shape, b.shape))
    for x in (a, b):
        if not (x.min() >= 0 and x.max() <= 1):
            raise InputError(f"{what}: a, b", wanted="values in [0, 1]", got=(float(x.min()), float(x.max())))
    return a, b


def psnr(a: Float[np.ndarray, "*b h w c"], b: Float[np.ndarray, "..."]) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean squared difference); inf for equal pictures.

    Args:
        a, b: in [0, 1]; with leading axes the mean over pictures of each picture's PSNR is returned.
    """
    a, b = _pair(a, b, "psnr")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(np.mean((a - b) ** 2, (-3, -2, -1)))))


def ssim(a: Float[np.ndarray, "*b h w c"], b: Float[np.ndarray, "..."]) -> float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03), data range 1.

    Only windows that lie wholly inside count, as in the authors' code; channels are scored alone, then averaged.

    Args:
        a, b: in [0, 1], at least 11 pixels each way; leading axes are averaged.
    """
    a, b = _pair(a, b, "ssim")
    if min(a.shape[-3:-1]) < 11:
        raise InputError("ssim: a", wanted="at least 11x11 pixels", got=a.shape)
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        for axis in (-3, -2):
            x = np.lib.stride_tricks.sliding_window_view(x, 11, axis) @ weights
        return x

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (var_a + var_b + c2)))
