"""Captures in, scenes out: 3D Gaussians fitted to any number of identities."""

from jsplat.fitting.batches import PendingIdentity
from jsplat.fitting.config import FitConfig
from jsplat.fitting.result import FailedIdentity, FitResult, mean_curve
from jsplat.fitting.start import starting_scene
from jsplat.fitting.train import fit, fit_batches, step_seconds

__all__ = [
    "FailedIdentity",
    "FitConfig",
    "FitResult",
    "PendingIdentity",
    "fit",
    "fit_batches",
    "mean_curve",
    "starting_scene",
    "step_seconds",
]
