"""What a fit gives."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from jsplat.errors import InputError
from jsplat.raster.scene import Scene

Losses = list[tuple[int, float]]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Fitted scenes (leading axis: identities) and how well they show the held-out views.

    Attributes:
        identities: whose scenes these are.
        psnr, ssim: per identity, over the held-out views (all views when none is held out).
        losses: mean loss after each call, with its step.
        capacity: tile hits per view that were enough.
        failed: identities that diverged twice; their scene is the last sound one.
    """

    identities: tuple[str, ...]
    scene: Scene
    psnr: Float[np.ndarray, " b"]
    ssim: Float[np.ndarray, " b"]
    losses: Losses
    capacity: int
    failed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FailedIdentity:
    """An identity that was not fitted, because its capture could not be read or started from."""

    identity: str
    error: InputError


def mean_curve(curves: Iterable[tuple[Losses, int]]) -> Losses:
    """The mean at each step of curves that each speak for so many identities."""
    at: dict[int, list[float]] = {}
    for curve, identities in curves:
        for step, value in curve:
            at.setdefault(step, []).extend([value] * identities)
    return [(step, float(np.mean(values))) for step, values in sorted(at.items()) if values]
