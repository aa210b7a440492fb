"""When a run of the check may not pass. Pure functions on its JSON; nothing here compiles.

A run, and the baseline, is {"kernels": {entry: {kernel: numbers}}, "sorts": {what: {"cub", "generic"}}}, where
{"error": text} stands for what could not be had.
"""

from collections.abc import Iterator, Mapping
from typing import Any

LEAST_BLOCKS = 3  # on a multiprocessor, for the pass that the training step waits for
WATCHED = ("registers", "shared")
UNITS = {"registers": "registers", "shared": "bytes of shared memory", "loop": "instructions of the hot loop"}

Run = Mapping[str, Mapping[str, Mapping[str, Any]]]


def blocks(kernel: Mapping[str, Any]) -> int:
    """Blocks that a multiprocessor holds at once."""
    return min(kernel["blocks_by_registers"], kernel["blocks_by_shared"])


def turn(kernel: Mapping[str, Any]) -> float:
    """Instructions of the hot loop, for each Gaussian-pixel pair where the loop blends."""
    return kernel["loop"] / (kernel["pairs"] or 1)


def faults(run: Run) -> Iterator[str]:
    """What is wrong whatever the baseline says."""
    for entry, kernels in run["kernels"].items():
        if "error" in kernels:
            yield f"{entry}: {kernels['error']}"
            continue
        for name, kernel in kernels.items():
            spilled = {key: kernel[key] for key in ("spill_stores", "spill_loads", "stack") if kernel[key]}
            if spilled:
                yield f"{entry}: {name}: " + ", ".join(f"{value} bytes of {key}" for key, value in spilled.items())
        if _must_be_small(entry):
            blending = {name: kernel for name, kernel in kernels.items() if kernel["pairs"]}
            if not blending:
                yield f"{entry}: no kernel with a loop over Gaussians was found"
            for name, kernel in blending.items():
                if blocks(kernel) < LEAST_BLOCKS:
                    yield (
                        f"{entry}: {name}: {blocks(kernel)} blocks a multiprocessor, wanted {LEAST_BLOCKS} "
                        f"({kernel['registers']} registers, {kernel['shared']} bytes of shared memory)"
                    )
    for what, sorts in run["sorts"].items():
        if "error" in sorts:
            yield f"sorts of {what}: {sorts['error']}"
        elif sorts["generic"] or not sorts["cub"]:
            yield f"sorts of {what}: {sorts['cub']} by CUB and {sorts['generic']} by XLA's slow one, wanted all by CUB"


def _must_be_small(entry: str) -> bool:
    return entry.split()[1:] == ["backward", "22", "sm_90a"]


def part(baseline: Run, only: str | None) -> Run:
    """What a run of one implementation alone is compared with; None = all."""
    if only is None:
        return baseline
    kept = {entry: kernels for entry, kernels in baseline["kernels"].items() if entry.split()[0] == only}
    return {"kernels": kept, "sorts": {}}


def regressions(run: Run, baseline: Run) -> Iterator[str]:
    """What is missing, new, or worse than the baseline."""
    for section in ("kernels", "sorts"):
        for entry in baseline[section].keys() - run[section].keys():
            yield f"{entry}: in the baseline's {section}, but was not checked"
        for entry, found in run[section].items():
            old = baseline[section].get(entry)
            if "error" in found:
                continue
            if old is None:
                yield f"{entry}: not in the baseline's {section}; add it with --write"
            elif section == "sorts":
                yield from _worse(entry, "sorts by CUB", found["cub"], old["cub"])
            else:
                yield from _worse_kernels(entry, found, old)


def _worse_kernels(entry: str, found: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() ^ found.keys()):
        yield f"{entry}: {name}: {'a new kernel; add it with --write' if name in found else 'the kernel is gone'}"
    for name in sorted(old.keys() & found.keys()):
        for key in WATCHED:
            yield from _worse(f"{entry}: {name}", UNITS[key], found[name][key], old[name][key])
        yield from _worse(f"{entry}: {name}", UNITS["loop"], turn(found[name]), turn(old[name]))


def _worse(where: str, what: str, now: float, before: float) -> Iterator[str]:
    if now > before:
        yield f"{where}: {now:g} {what}, was {before:g}"
