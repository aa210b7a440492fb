"""How long a run will take, and what memory of its devices, from what a picture, a step or a view costs."""

import datetime
import math
from collections.abc import Mapping

import jax

from jsplat.errors import InputError
from jsplat.fitting.batches import SHARE, memory_of
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.estimate import duration, gigabytes
from jsplat.pipeline.reporting import LOOKED_AT
from jsplat.pipeline.settling import Settled
from jsplat.pipeline.stages.own import AT_ONCE
from jsplat.pipeline.students import STUDENTS, is_student, student_of
from jsplat.pipeline.trying import Measured
from jsplat.runtime.cost import Cost
from jsplat.runtime.devices import cores, host_memory

UNITS = {
    "parse": "a picture",
    "fit": "a step",
    "label": "a picture",
    "masks": "a picture",
    "overlays": "a picture",
    "render": "a view",
    **dict.fromkeys(STUDENTS, "a step"),
    "report": "a look at a picture",
}


def at_once(people: int) -> tuple[int, int]:
    """How many people this host works on at once, and its processor cores if they do the work, else 0."""
    if jax.local_devices()[0].platform == "cpu":
        return max(min(people, cores()), 1), cores()
    return jax.local_device_count(), 0


def seconds(settled: Settled, costs: Mapping[str, Cost]) -> dict[str, float]:
    """Of each planned stage whose cost is known, on this host.

    Args:
        costs: as of `jsplat.pipeline.trying.Measured`, as far as they are known.
    """
    config, hosts, planned = settled.config, jax.process_count(), settled.plan
    people = math.ceil(len(settled.listed) / hosts)
    pictures = math.ceil(sum(one.shape[0] for one in settled.listed) / hosts)
    side_by_side, busy = at_once(people)
    found = {}
    if "parse" in costs:
        found["parse"] = costs["parse"].of_many(pictures, side_by_side, busy)
    if "fit" in costs:
        fits = min(jax.local_device_count(), people)
        found["fit"] = costs["fit"].of_many(config.fit.steps * people, fits, busy)
        found["fit"] += people * costs.get("start", Cost()).seconds
    if "label" in costs:
        found["label"] = costs["label"].of_many(pictures, side_by_side, busy)
    if "render" in costs:
        found["render"] = costs["render"].of_many(people * config.views.wanted, side_by_side, busy)
    if "masks" in costs:
        found["masks"] = costs["masks"].of_many(pictures, min(cores(), AT_ONCE), cores())
    if "overlays" in costs:
        found["overlays"] = costs["overlays"].seconds * pictures
    students = [name for name in planned.stages if is_student(name)]
    if "student" in costs:
        found |= dict.fromkeys(students, costs["student"].seconds * config.finetune.steps)
    if "look" in costs:
        found["report"] = costs["look"].seconds * _looked_at(settled) * (1 + len(students))
    return {name: found[name] for name in planned.stages if name in found}


def _looked_at(settled: Settled) -> int:
    """Pictures that the report scores, or asks how far views agree."""
    true = [one.shape[0] for one in settled.listed if one.labelset is not None]
    others = [one.shape[0] for one in settled.listed if one.labelset is None]
    return sum(true) + sum(others[:LOOKED_AT])


def lines(settled: Settled, measured: Measured) -> list[str]:
    """For people: a short table of times, and memory of the devices.

    Raises:
        InputError: a device cannot hold what a stage needs; says what would fit.
    """
    found = seconds(settled, measured.costs)
    device = jax.local_devices()[0]
    limit = memory_of(device) or host_memory()
    needed = _together(measured.memory, len(settled.listed))
    check_device(needed, limit, settled.config)
    told = [f"time, from a few steps with {measured.person} on {jax.local_device_count()} x {device.device_kind}:"]
    for name, all_of_it in found.items():
        kind = student_of(name)[0] if is_student(name) else name
        of = {"report": "look", **dict.fromkeys(STUDENTS, "student")}.get(kind, kind)
        told.append(f"  {name:<14}{duration(all_of_it):>8}  {_short(measured.costs[of].seconds)} {UNITS[kind]}")
    whole = sum(found.values())
    ends = (datetime.datetime.now() + datetime.timedelta(seconds=whole)).strftime("%a %H:%M")
    left_out = [name for name in settled.plan.stages if name not in found]
    unmeasured = "".join(f", {name}" for name in left_out)
    told.append(f"  {'all of it':<14}{duration(whole):>8}  begun now, until {ends}; without compiling{unmeasured}")
    parts = ", ".join(f"{name} {gigabytes(of)}" for name, of in needed.items())
    return [
        *told,
        f"memory of {'this host' if memory_of(device) is None else 'a device'}: {parts}; of {gigabytes(limit)}",
    ]


def _together(memory: Mapping[str, int], people: int) -> dict[str, int]:
    """Bytes that a device holds at the same time; the cores of a processor share one memory."""
    side_by_side, busy = at_once(people)
    many = {"fit": min(jax.local_device_count(), people), "label": side_by_side} if busy else {}
    return {name: of * many.get(name, 1) for name, of in memory.items()}


def check_device(needed: Mapping[str, int], limit: int, config: RunConfig) -> None:
    """InputError, naming what would fit, where a device cannot hold what a stage needs.

    Args:
        needed: bytes by stage: "fit", "label", "student".
        limit: bytes of the device.
    """
    for name, of in needed.items():
        scale = SHARE * limit / of
        if scale >= 1:
            continue
        fits = (
            f"`--set size={int(config.size * scale**0.5)}` or `--set fit.gaussians={int(config.fit.gaussians * scale)}`"
        )
        if name == "student":
            fits = (
                f"`--set finetune.batch={max(int(config.finetune.batch * scale), 1)}` or a smaller finetune.label_size"
            )
        wanted = f"at most {SHARE:.0%} of its {gigabytes(limit)}"
        raise InputError(f"{name}: memory of the device", wanted=wanted, got=gigabytes(of), hint=f"{fits} should fit")


def _short(of: float) -> str:
    """Seconds of something small."""
    return f"{1000 * of:.3g} ms" if of < 1 else f"{of:.3g} s"
