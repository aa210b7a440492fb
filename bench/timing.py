"""The clock: jobs in interleaved rounds, ratios round by round, and the memory of a call."""

import dataclasses
import gc
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.metric import Metric, paired_ratio, summary

TURN = 0.3  # seconds: a shorter job is repeated within its turn, so that all meet the same disturbances


class CannotRunError(Exception):
    """Why a workload cannot run on this machine: a package or a device that is not there."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Something ready to be timed: `call` returns when the work is done; the other fields are those of `Metric`.

    `warm` is False for a job of many seconds that has nothing to warm up.
    """

    call: Callable[[], Any]
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    work: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    floor: Mapping[str, float] = dataclasses.field(default_factory=dict)
    compile_seconds: float | None = None
    program_mb: float | None = None
    warm: bool = True


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of one workload (of several modes of it the fastest) over that of another, measured side by side."""

    name: str
    over: str | tuple[str, ...]
    under: str
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
    ratios = (dataclasses.replace(r, over=tuple(n for n in _names(r.over) if n in names)) for r in suite.ratios)
    return Suite(works, tuple(r for r in ratios if r.over and r.under in names), suite.rounds)


def seconds_of(call: Callable[[], Any], repeats: int = 1) -> float:
    """Mean wall time of one call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def compiled(function: Callable, *args: Any, **options: Any) -> tuple[Any, dict[str, float | None]]:
    """XLA's program for these arguments, and fields of a `Job`: the time it took and the memory it plans."""
    begin = time.perf_counter()
    program = jax.jit(function, **options).lower(*args).compile()
    took, plan = time.perf_counter() - begin, program.memory_analysis()
    parts = plan and (plan.argument_size_in_bytes, plan.output_size_in_bytes, plan.temp_size_in_bytes)
    return program, {"compile_seconds": took, "program_mb": sum(parts) / 2**20 if parts else None}


class _Run:
    """A workload in measurement: its job, what every round took, and why there is nothing to show."""

    def __init__(self, name: str) -> None:
        self.name, self.repeats, self.grown = name, 1, None
        self.seconds: list[float] = []
        self.busy: list[float] = []
        self.why: dict[str, str] = {}

    def attempt(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except CannotRunError as reason:
            self.why = {"skipped": str(reason)}
        except Exception as error:  # whatever it is, the other workloads are still worth measuring
            self.why = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}

    def warm_up(self, prepare: Callable[[Any], Job], work: Any) -> None:
        self.job = prepare(work)
        if self.job.warm:
            self.grown = grown_by(self.job.call)
            self.repeats = max(1, math.ceil(TURN / seconds_of(self.job.call)))

    def turn(self) -> None:
        begin = time.process_time()
        self.seconds.append(seconds_of(self.job.call, self.repeats))
        self.busy.append((time.process_time() - begin) / self.repeats)

    def metric(self) -> Metric:
        if self.why:
            return Metric(self.name, None, "ms", "lower", **self.why)
        value, spread = summary(self.seconds)
        kept = {f.name: getattr(self.job, f.name) for f in dataclasses.fields(Job) if f.name not in ("call", "warm")}
        kept |= {"memory_mb": self.grown, "processor": 1e3 * float(np.median(self.busy)), "rounds": len(self.seconds)}
        return Metric(self.name, 1e3 * value, "ms", "lower", spread, fastest=1e3 * min(self.seconds), **kept)


def measure(suite: Suite, prepare: Callable[[Any], Job], rounds: int | None = None) -> list[Metric]:
    """Every workload once per round, in turn, after a warm-up; then the ratios, round by round.

    A workload that crashes or cannot run becomes a metric without a value, and so do its ratios.

    Args:
        prepare: makes a job of a workload, its accuracy already checked; raises `CannotRunError` where it cannot run.
    """
    runs = {work.name: _Run(work.name) for work in suite.workloads}
    for work in suite.workloads:
        runs[work.name].attempt(runs[work.name].warm_up, prepare, work)
    for _ in range(rounds or suite.rounds):
        for run in runs.values():
            if not run.why:
                run.attempt(run.turn)
    return [run.metric() for run in runs.values()] + [_ratio(ratio, runs) for ratio in suite.ratios]


def _ratio(ratio: Ratio, runs: Mapping[str, _Run]) -> Metric:
    modes = [runs[name] for name in _names(ratio.over)]
    measured, under = [run for run in modes if not run.why], runs[ratio.under]
    if not measured or under.why:
        lacking = under if measured else modes[0]
        why = lacking.why if "skipped" in lacking.why else {"error": f"{lacking.name} crashed"}
        return Metric(ratio.name, None, "x", ratio.direction, bound=ratio.bound, **why)
    over = min(measured, key=lambda run: summary(run.seconds)[0])
    value, spread = paired_ratio(over.seconds, under.seconds)
    best = min(min(run.seconds) for run in measured) / min(under.seconds)
    both = {f"{run.name}.{key}": x for run in (over, under) for key, x in run.job.accuracy.items()}
    busy = float(np.median(over.busy) / max(np.median(under.busy), 1e-9))
    return Metric(
        ratio.name, value, "x", ratio.direction, spread, len(over.seconds), best, ratio.bound, both,
        note=f"{over.name} over {under.name}", processor=busy,
    )  # fmt: skip


def _names(one_or_more: str | tuple[str, ...]) -> tuple[str, ...]:
    return (one_or_more,) if isinstance(one_or_more, str) else one_or_more


def _resident(key: str) -> float:
    """A line of /proc/self/status in MB."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith(key))) / 1024


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
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)
