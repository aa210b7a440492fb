"""The clock: jobs in interleaved rounds, ratios round by round, and the memory of a call."""

import dataclasses
import gc
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.metric import Metric, paired_ratio, summary

TURN = 0.3  # seconds: a shorter job is repeated within its turn, so that all meet the same disturbances


class CannotRunError(Exception):
    """Why a workload cannot run on this machine: a package or a device that is not there."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Something ready to be timed: `call` returns when the work is done; the other fields are those of `Metric`.

    Attributes:
        warm: False for a job of many seconds that has nothing to warm up.
    """

    call: Callable[[], Any]
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    work: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    floor: Mapping[str, float] = dataclasses.field(default_factory=dict)
    compile_seconds: float | None = None
    program_mb: float | None = None
    note: str | None = None
    warm: bool = True


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of one workload over that of another, measured side by side; of several modes the fastest is taken."""

    name: str
    over: str | tuple[str, ...]
    under: str | tuple[str, ...]
    direction: str
    bound: float | None = None


@dataclasses.dataclass(frozen=True)
class Suite:
    """Workloads measured in interleaved rounds, and the ratios among them."""

    workloads: tuple[Any, ...]
    ratios: tuple[Ratio, ...] = ()
    rounds: int = 7


def chosen(suite: Suite, pattern: str) -> Suite:
    """The workloads in whose name the regular expression is found, and the ratios that still have both sides."""
    works = tuple(work for work in suite.workloads if re.search(pattern, work.name))
    names = {work.name for work in works}

    def left(side: str | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in _names(side) if name in names)

    ratios = (dataclasses.replace(r, over=left(r.over), under=left(r.under)) for r in suite.ratios)
    return Suite(works, tuple(r for r in ratios if r.over and r.under), suite.rounds)


def measure(suite: Suite, prepare: Callable[[Any], Job], rounds: int | None = None) -> list[Metric]:
    """Every workload once per round, in turn, after a warm-up; then the ratios, round by round.

    A workload that crashes or cannot run becomes a metric without a value, and so do its ratios.

    Args:
        prepare: makes a job of a workload, its accuracy already checked; raises `CannotRunError` where it cannot run.
    """
    rounds = rounds or suite.rounds
    jobs: dict[str, tuple[Job, int, float | None]] = {}
    why: dict[str, dict[str, str]] = {}
    for work in suite.workloads:
        try:
            job, repeats, grown = prepare(work), 1, None
            if job.warm:
                grown = grown_by(job.call)
                repeats = max(1, math.ceil(TURN / _seconds(job.call, 1)))
            jobs[work.name] = (job, repeats, grown)
        except CannotRunError as reason:
            why[work.name] = {"skipped": str(reason)}
        except Exception as error:  # whatever it is, the other workloads are still worth measuring
            why[work.name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    busy: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (job, repeats, _) in list(jobs.items()):
            try:
                begin = time.process_time()
                seconds[name].append(_seconds(job.call, repeats))
                busy[name].append((time.process_time() - begin) / repeats)
            except Exception as error:  # as above
                why[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
                del jobs[name], seconds[name]
    found = [
        _metric(work.name, seconds[work.name], busy[work.name], *jobs[work.name][::2])
        if work.name in jobs
        else Metric(work.name, None, "ms", "lower", **why[work.name])
        for work in suite.workloads
    ]
    return found + [_ratio(ratio, seconds, busy, jobs, why) for ratio in suite.ratios]


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Mean wall time of one call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def _metric(name: str, seconds: list[float], busy: list[float], job: Job, grown: float | None) -> Metric:
    value, spread = summary(seconds)
    kept = {f.name: getattr(job, f.name) for f in dataclasses.fields(Job) if f.name not in ("call", "warm")}
    return Metric(
        name,
        1e3 * value,
        "ms",
        "lower",
        spread,
        len(seconds),
        1e3 * min(seconds),
        memory_mb=grown,
        processor=1e3 * float(np.median(busy)),
        **kept,
    )


def _names(one_or_more: str | tuple[str, ...]) -> tuple[str, ...]:
    return (one_or_more,) if isinstance(one_or_more, str) else one_or_more


def _ratio(
    ratio: Ratio, seconds: dict[str, list[float]], busy: dict[str, list[float]], jobs, why: dict[str, dict[str, str]]
) -> Metric:
    best_modes = []
    for names in (_names(ratio.over), _names(ratio.under)):
        measured = [name for name in names if name in seconds]
        if not measured:
            reason = why[names[0]]
            kind = "skipped" if "skipped" in reason else "error"
            said = reason["skipped"] if kind == "skipped" else f"{names[0]} crashed"
            return Metric(ratio.name, None, "x", ratio.direction, bound=ratio.bound, **{kind: said})
        best_modes.append(min(measured, key=lambda name: summary(seconds[name])[0]))
    over, under = best_modes
    value, spread = paired_ratio(seconds[over], seconds[under])
    best = min(min(seconds[n]) for n in _names(ratio.over) if n in seconds) / min(
        min(seconds[n]) for n in _names(ratio.under) if n in seconds
    )
    both = {f"{n}.{key}": x for n in (over, under) for key, x in jobs[n][0].accuracy.items()}
    return Metric(
        ratio.name, value, "x", ratio.direction, spread, len(seconds[over]), best, ratio.bound, both,
        note=f"{over} over {under}", processor=float(np.median(busy[over]) / max(np.median(busy[under]), 1e-9)),
    )  # fmt: skip


def _status(key: str) -> float | None:
    """A line of /proc/self/status in MB, where there is such a file."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    kilobytes = next((row.split()[1] for row in path.read_text().splitlines() if row.startswith(key)), None)
    return None if kilobytes is None else int(kilobytes) / 1024


def grown_by(call: Callable[[], Any]) -> float | None:
    """By how many MB the peak of the resident set rises above what was resident before, in one call; None if unknown.

    Memory that the allocator kept from earlier calls hides growth, so this is a lower bound.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        call()
        return None
    before = _status("VmRSS")
    call()
    peak = _status("VmHWM")
    return None if before is None or peak is None else max(0.0, peak - before)
