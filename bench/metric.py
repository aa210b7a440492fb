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
        value: the median over rounds; None when the workload crashed or was skipped.
        direction: "lower" or "higher" is better.
        spread: interquartile range over the rounds, relative to the median.
        fastest: the best round, which a busy machine disturbs least.
        processor: as `value`, of the time that all threads of the process together spent on a processor.
        bound: what must hold (at most for "lower", at least for "higher"); None = nothing is promised.
        accuracy: how right the timed computation was.
        work: the workload's own numbers (gaussians, channels, edge, identities, ...), and what was computed.
        floor: bytes and operations that no implementation can do without, counted in the workload's own data.
        compile_seconds: before the first result, apart from the time of a call.
        memory_mb: growth of the resident set (CPU) or of the allocator's peak (GPU) in the first call.
        program_mb: arguments, results and temporaries as the compiler planned them.
        note: what a reader must know to compare.
        error: why there is no value: it crashed.
        skipped: why there is no value: it cannot run here.
    """

    name: str
    value: float | None
    unit: str
    direction: str
    spread: float = 0.0
    rounds: int = 0
    fastest: float | None = None
    bound: float | None = None
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    work: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    floor: Mapping[str, float] = dataclasses.field(default_factory=dict)
    compile_seconds: float | None = None
    memory_mb: float | None = None
    program_mb: float | None = None
    note: str | None = None
    error: str | None = None
    skipped: str | None = None
    processor: float | None = None

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

    What cannot run here (`skipped`) is no complaint unless the baseline has a value for it.

    Args:
        measured: lines of one run (`Metric.line`).
        baseline: name -> line of an earlier run of the same suites on the same kind of device.
    """
    found, now = [], {line["name"]: line for line in measured}
    found += [f"{name}: in the baseline, but not measured" for name in baseline if name not in now]
    for name, line in now.items():
        value, lower, old = line["value"], line["direction"] == "lower", baseline.get(name)
        if line.get("skipped"):
            found += [f"{name}: in the baseline, but {line['skipped']}"] if old is not None else []
            continue
        if value is None or not math.isfinite(value):
            found.append(f"{name}: no value ({line.get('error') or value})")
            continue
        bound = line.get("bound")
        if bound is not None and (value > bound if lower else value < bound):
            found.append(f"{name}: {value:.4g} {line['unit']}, wanted at {'most' if lower else 'least'} {bound:.4g}")
        if old is None:
            continue
        worse = value / old["value"] if lower else old["value"] / value
        allowed = 1 + max(MARGIN, SPREADS * (line["spread"] + old["spread"]))
        if worse > allowed:
            comparison = f"{worse:.2f} times worse, noise explains {allowed:.2f}"
            found.append(f"{name}: {value:.4g} {line['unit']}, was {old['value']:.4g}: {comparison}")
    return found
