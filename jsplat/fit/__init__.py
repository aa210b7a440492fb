"""Captures in, scenes out: 3D Gaussians fitted to any number of identities."""

from jsplat.fit.batches import Waiting
from jsplat.fit.config import FitConfig
from jsplat.fit.start import starting_scene
from jsplat.fit.train import FitResult, Refused, fit, fit_batches, mean_curve

__all__ = ["FitConfig", "FitResult", "Refused", "Waiting", "fit", "fit_batches", "mean_curve", "starting_scene"]
