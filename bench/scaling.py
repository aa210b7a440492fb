"""Scaling laws: exponents fitted to what was measured, and what many identities cost by them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

AXES = {"gaussians": "Gaussians", "edge": "pixels", "channels": "channels", "identities": "identities"}
FEWEST = 3  # points of a law


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of the least-squares line y = a x^p in logarithms.

    Raises:
        ValueError: fewer than 2 different x, or a number that is not positive.
    """
    if min(*x, *y) <= 0 or len(set(x)) < 2:
        raise ValueError(f"exponent: wanted positive numbers at 2 or more places, got {x}, {y}")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def axis_points(lines: Iterable[dict], axis: str, implementation: str) -> list[dict]:
    """Rasterizer measurements (forward and backward, head-like) that differ in one axis alone, smallest first.

    They run through the centre: the workload that the most measurements share all other numbers with.
    """
    lines = [x for x in lines if x["value"] is not None and x["suite"].endswith("-scaling")]
    rows = [x for x in lines if x["work"].get("implementation") == implementation]
    others = [name for name in AXES if name != axis]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row["work"][name] for name in others), []).append(row)
    best = max(groups.values(), key=len, default=[])
    unique = {row["work"][axis]: row for row in best}
    return [unique[key] for key in sorted(unique)]


def laws(lines: Sequence[dict], implementation: str) -> dict[str, dict[str, float]]:
    """Axis -> exponents of "time" (fastest round) and "memory" (what the compiler planned, else resident growth)."""
    found: dict[str, dict[str, float]] = {}
    for axis in AXES:
        points = axis_points(lines, axis, implementation)
        if len(points) < FEWEST:
            continue
        x = [p["work"][axis] ** (2 if axis == "edge" else 1) for p in points]  # an edge counts as its square of pixels
        found[axis] = {"points": len(points), "time": exponent(x, [p["fastest"] for p in points])}
        memory = [p["program_mb"] or p["memory_mb"] for p in points]
        if all(m and m > 1 for m in memory):
            found[axis]["memory"] = exponent(x, memory)
    return found


def cost(line: dict, identities: int) -> float:
    """Hours that so many identities take on one device, by a measured batched fit.

    Batches follow one another and identities do not talk, so the time is linear in batches; on d devices it is
    divided by d.
    """
    return math.ceil(identities / line["work"]["identities"]) * line["value"] / 1e3 / 3600
