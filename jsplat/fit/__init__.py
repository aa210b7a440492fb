"""Captures in, scenes out: 3D Gaussians fitted to all identities at once."""

from jsplat.fit.config import FitConfig
from jsplat.fit.start import starting_scene
from jsplat.fit.train import FitResult, fit

__all__ = ["FitConfig", "FitResult", "fit", "starting_scene"]
