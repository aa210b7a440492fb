"""What one measurement is, and when it is worse than the one before. Pure functions; nothing here runs a clock."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MARGIN = 0.15  # worsening that is never called a regression: other clock rates, another layout in memory
SPREADS = 3.0  # times the spread of both runs that may be noise


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number and how far to trust it.

    Attributes:
        value: the median over rounds; None when the workload crashed.
        direction: "lower" or "higher" is better.
        spread: interquartile range over the rounds, relative to the median.
        bound: what must hold (at most for "lower", at least for "higher"); None = nothing is promised.
        accuracy: how right the timed computation was.
        error: why there is no value.
    """

    name: str
    value: float | None
    unit: str
    direction: str
    spread: float = 0.0
    rounds: int = 0
    bound: float | None = None
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str | None = None

    def line(self, **about: Any) -> dict[str, Any]:
        """A JSON-able record; `about` says where it was measured."""
        return {**dataclasses.asdict(self), **about}


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Median, and interquartile range relative to it."""
    low, middle, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return float(middle), float((high - low) / middle)


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float]:
    """Median and spread of the ratios round by round, so that what slows a whole round cancels."""
    return summary([a / b for a, b in zip(over, under, strict=True)])


def slug(device: str) -> str:
    """A device's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def complaints(measured: Sequence[Mapping[str, Any]], baseline: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why a run may not pass: crashed, not measured, beyond a bound, or worse than the baseline beyond the noise.

    Args:
        measured: lines of one run (`Metric.line`).
        baseline: name -> line of an earlier run on the same kind of device.
    """
    found, now = [], {line["name"]: line for line in measured}
    found += [f"{name}: in the baseline, but not measured" for name in baseline if name not in now]
    for name, line in now.items():
        value, lower = line["value"], line["direction"] == "lower"
        if value is None or not math.isfinite(value):
            found.append(f"{name}: no value ({line.get('error') or value})")
            continue
        bound = line.get("bound")
        if bound is not None and (value > bound if lower else value < bound):
            found.append(f"{name}: {value:.4g} {line['unit']}, wanted at {'most' if lower else 'least'} {bound:.4g}")
        old = baseline.get(name)
        if old is None:
            continue
        worse = value / old["value"] if lower else old["value"] / value
        allowed = 1 + max(MARGIN, SPREADS * (line["spread"] + old["spread"]))
        if worse > allowed:
            found.append(
                f"{name}: {value:.4g} {line['unit']}, was {old['value']:.4g}: "
                f"{worse:.2f} times worse, noise explains {allowed:.2f}"
            )
    return found
