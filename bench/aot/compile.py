"""Compiles for a GPU that is not there, and reads what came out.

`python -m bench.aot.compile IMPLEMENTATION ARCHITECTURE OUT.json` writes entry -> kernel -> numbers, or
{"error": why there are none}. A process serves one architecture: Mosaic keeps compiled kernels by their text, in which
the architecture does not appear.
"""

import dataclasses
import functools
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from bench.aot.entries import Entry, call, entries
from bench.aot.kernels import Kernel, kernels_in
from bench.aot.ptx import apart_in, assemble, barriers_of, bodies_of, threads_of, usage_of
from bench.aot.target import TARGETS, lowering_for

_MOSAIC_SHARED = re.compile(r"dynamic_shared_memory_size (%[\w$.]+)")
_CUSTOM_KERNEL = re.compile(r"kCustomKernel\b.*?(?P<name>[\w$.]+) grid: .*?shared_memory: (?P<shared>\d+) bytes")

# A kernel's threads of a block, registers of a thread, barriers in its PTX, those of its machine code to which threads
# may come apart; else bytes.
Costs = dict[str, int]


@functools.cache
def device(architecture: str) -> SingleDeviceSharding:
    """A device of this architecture to compile for."""
    config = TARGETS[architecture].config
    topology = topologies.get_topology_desc("x", "cuda", topology="1x1x1", target_config=config)
    return SingleDeviceSharding(topology.devices[0])


def compile_for(where: SingleDeviceSharding, function: Callable[..., Any], args: Sequence[Any], dump: Path) -> None:
    """Compiles; XLA's texts (PTX, the list of launches) go to `dump`, also when XLA raises on the way."""
    (there,) = where.device_set
    with lowering_for(there.device_kind):
        lowered = jax.jit(function, in_shardings=where, out_shardings=where).trace(*args).lower()
    # Newer versions of XLA leave the PTX of Triton kernels only when asked.
    lowered.compile(compiler_options={"xla_dump_to": str(dump), "xla_dump_emitter_re": "ptx"})


def measure(architecture: str, kernel: Kernel) -> dict[str, Costs]:
    """Name in the machine code -> what a kernel costs.

    Raises:
        RuntimeError: compiled, but the compiler left no PTX, or not the shared memory, where it is looked for.
        what XLA raises when the kernel cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        xla, mosaic = Path(folder, "xla"), Path(folder, "mosaic")
        mosaic.mkdir()
        with mock.patch.dict(os.environ, MOSAIC_GPU_DUMP_TO=str(mosaic)):
            compile_for(device(architecture), kernel.run, kernel.args, xla)
        dynamic = mosaic_shared(mosaic) or triton_shared(xla)
        found = {}
        for path in sorted([*mosaic.glob("*.ptx"), *xla.glob("*.ptx")]):
            if not path.stat().st_size:
                continue
            bodies = bodies_of(path.read_text())
            report, machine_code = assemble(path)
            apart = apart_in(machine_code)
            for name, usage in usage_of(report).items():
                if name in dynamic:  # the others are XLA's own
                    counted = {"threads": threads_of(bodies[name]), "barriers": barriers_of(bodies[name])}
                    counted |= {"apart": apart[name], "shared": dynamic[name] + usage.shared}
                    found[name] = dataclasses.asdict(usage) | counted
    if not found:
        raise RuntimeError(f"{kernel.name}: compiled, but no PTX of it was found")
    return found


def mosaic_shared(folder: Path) -> dict[str, int]:
    """Kernel -> dynamic shared memory in bytes, from what Mosaic writes down of its passes; one kernel a folder."""
    found = {}
    for log in folder.glob("*.mlir-passes.log"):
        text = log.read_text(errors="replace")
        size = _MOSAIC_SHARED.search(text)
        value = size and re.search(rf"{re.escape(size.group(1))} = arith\.constant (\d+) : i32", text)
        if not value:
            raise RuntimeError(f"{log.name}: no size of the dynamic shared memory")
        for ptx in folder.glob("*.ptx"):
            found |= dict.fromkeys(bodies_of(ptx.read_text()), int(value.group(1)))
    return found


def triton_shared(folder: Path) -> dict[str, int]:
    """Kernel -> dynamic shared memory in bytes, from XLA's list of launches."""
    texts = [path.read_text() for path in folder.glob("*.thunk_sequence.txt")]
    return {match["name"]: int(match["shared"]) for text in texts for match in _CUSTOM_KERNEL.finditer(text)}


def _kernels(entry: Entry, measured: dict[str, dict[str, Costs]]) -> dict[str, Any]:
    """A kernel that was met before is not compiled again: Mosaic would not even leave a dump."""
    function, args = call(entry)
    found: dict[str, Any] = {}
    for kernel in kernels_in(function, *args):
        text = str(jax.make_jaxpr(kernel.run)(*kernel.args))
        if text not in measured:
            measured[text] = measure(entry.architecture, kernel)
        for name, numbers in measured[text].items():
            others = sum(other.split()[0] == name for other in found)
            found[f"{name} {others + 1}" if others else name] = numbers
    if not found:
        raise RuntimeError("calls no kernel")
    return found


def main(arguments: Sequence[str]) -> None:
    """Writes the numbers of one implementation on one architecture."""
    implementation, architecture, path = arguments
    found, measured = {}, {}
    for entry in entries([implementation]):
        if entry.architecture != architecture:
            continue
        try:
            with jax.enable_x64(entry.of == "x64"):
                found[entry.name] = _kernels(entry, measured)
        except Exception as error:  # whatever it is, the other entries are still worth compiling
            found[entry.name] = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    Path(path).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
