"""One process's share of the check: `python -m bench.aot.unit IMPLEMENTATION|sorts ARCHITECTURE OUT.json`.

A share is a mapping from what was compiled to its numbers, or to {"error": why there are none}.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from bench.aot.compile import Measured, measure
from bench.aot.entries import Entry, call, entries, pairs
from bench.aot.kernels import kernels_in
from bench.aot.sorts import binning, controls, sorts_in
from jsplat.kernels.blend import BACKENDS

SORTED_CHANNELS = 22  # the sorts do not depend on them


def kernels_share(implementation: str, architecture: str) -> dict[str, Any]:
    """Entry -> kernel -> numbers: `Measured`, and the Gaussian-pixel pairs of a thread in one turn of the loop."""
    measured: dict[str, dict[str, Measured]] = {}
    return {
        entry.name: _attempt(_kernels_in_x64 if entry.of == "x64" else _kernels, entry, measured)
        for entry in entries([implementation])
        if entry.architecture == architecture
    }


def _kernels(entry: Entry, measured: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    """A kernel that was met before is not compiled again: Mosaic would not even leave a dump."""
    function, args = call(entry)
    found: dict[str, Measured] = {}
    for kernel in kernels_in(function, *args):
        text = str(jax.make_jaxpr(kernel.run)(*kernel.args))
        if text not in measured:
            measured[text] = measure(entry.architecture, kernel)
        for name, numbers in measured[text].items():
            others = sum(other.split()[0] == name for other in found)
            found[f"{name} {others + 1}" if others else name] = numbers
    if not found:
        raise RuntimeError("calls no kernel")
    return {name: dataclasses.asdict(numbers) | {"pairs": _pairs(entry, numbers)} for name, numbers in found.items()}


def _kernels_in_x64(entry: Entry, measured: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    with jax.enable_x64(True):
        return _kernels(entry, measured)


def _pairs(entry: Entry, numbers: Measured) -> float:
    return pairs(entry.implementation, threads=numbers.threads, exponentials=numbers.exponentials)


def sorts_share(architecture: str) -> dict[str, Any]:
    """What sorts -> how many of its sorts CUB does, and how many it does not."""
    sorting = {"bin_tiles": binning()} | {
        f"{entry.implementation} {entry.of}": call(entry)
        for entry in entries(BACKENDS)
        if entry.architecture == architecture and entry.channels == SORTED_CHANNELS
    }

    wrong = controls(architecture)
    if wrong:
        return {f"{name} {architecture}": {"error": "; ".join(wrong)} for name in sorting}

    def counts(function, args):
        return dataclasses.asdict(sorts_in(architecture, function, *args))

    return {f"{name} {architecture}": _attempt(counts, *what) for name, what in sorting.items()}


def _attempt(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    try:
        return function(*args)
    except Exception as error:  # whatever it is, the other entries are still worth compiling
        lines = [line for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {lines[0].strip() if lines else ''}"}


def main(arguments: Sequence[str]) -> None:
    """Writes the share to the file that is named last."""
    what, architecture, path = arguments
    share = sorts_share(architecture) if what == "sorts" else kernels_share(what, architecture)
    Path(path).write_text(json.dumps(share), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
