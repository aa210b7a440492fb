"""Captures in, scenes out: 3D Gaussians fitted to any number of identities."""

from jsplat.fitting.batches import PendingIdentity
from jsplat.fitting.config import FitConfig
from jsplat.fitting.result import FailedIdentity, FitResult, mean_curve
from jsplat.fitting.start import starting_scene
from jsplat.fitting.train import Tried, compile_fit, fit, fit_batches, try_fit

__all__ = [
    "FailedIdentity",
    "FitConfig",
    "FitResult",
    "PendingIdentity",
    "Tried",
    "compile_fit",
    "fit",
    "fit_batches",
    "mean_curve",
    "starting_scene",
    "try_fit",
]
