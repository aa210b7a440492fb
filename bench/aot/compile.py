"""Compiles for a GPU that is not there, and reads what came out. A process serves one architecture:
Mosaic keeps compiled kernels by their text, in which the architecture does not appear.
"""

import contextlib
import dataclasses
import functools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from bench.aot.kernels import Kernel
from bench.aot.ptx import assemble, threads_of, usage_of
from bench.aot.sass import hot_loop, kernels_of
from bench.aot.target import TARGETS, lowering_for

_MOSAIC_SHARED = re.compile(r"dynamic_shared_memory_size (%[\w$.]+)")
_CUSTOM_KERNEL = re.compile(r"kCustomKernel\b.*?(?P<name>[\w$.]+) grid: .*?shared_memory: (?P<shared>\d+) bytes")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One kernel.

    Attributes:
        threads: of a block.
        registers: of a thread.
        stack, spill_stores, spill_loads, shared: bytes.
        blocks_by_registers, blocks_by_shared: how many fit on a multiprocessor.
        loop: instructions of the hot loop (see `bench.aot.sass.hot_loop`), 0 without a loop.
        exponentials: how many of them are exponentials.
    """

    threads: int
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    blocks_by_registers: int
    blocks_by_shared: int
    loop: int
    exponentials: int


@functools.cache
def device(architecture: str, *, cub: bool = False) -> SingleDeviceSharding:
    """A device of this architecture to compile for."""
    config = TARGETS[architecture].config(cub=cub)
    topology = topologies.get_topology_desc("x", "cuda", topology="1x1x1", target_config=config)
    return SingleDeviceSharding(topology.devices[0])


def compile_for(
    where: SingleDeviceSharding, function: Callable[..., Any], args: Sequence[jax.ShapeDtypeStruct], dump: Path
) -> None:
    """Compiles; XLA's texts (HLO, PTX, the list of launches) go to `dump`, also when it fails on the way.

    Raises:
        what XLA raises when it cannot.
    """
    (there,) = where.device_set
    with lowering_for(there.device_kind):
        lowered = jax.jit(function, in_shardings=where, out_shardings=where).trace(*args).lower()
    # Newer versions of XLA leave the PTX of Triton kernels only when asked.
    lowered.compile(compiler_options={"xla_dump_to": str(dump), "xla_dump_emitter_re": "ptx"})


def measure(architecture: str, kernel: Kernel) -> dict[str, Measured]:
    """Name in the machine code -> what a kernel costs.

    Raises:
        RuntimeError: compiled, but the compiler left no PTX, or not the shared memory, where it is looked for.
        what XLA raises when the kernel cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        xla, mosaic = Path(folder, "xla"), Path(folder, "mosaic")
        mosaic.mkdir()
        with _environment("MOSAIC_GPU_DUMP_TO", str(mosaic)), _overheard(Path(folder, "said")):
            compile_for(device(architecture), kernel.run, kernel.args, xla)
        shared = mosaic_shared(mosaic) or triton_shared(xla)
        found = {}
        for path in sorted([*mosaic.glob("*.ptx"), *xla.glob("*.ptx")]):
            if path.stat().st_size:
                found |= _costs(architecture, path, shared)
    if not found:
        raise RuntimeError(f"{kernel.name}: compiled, but no PTX of it was found")
    return found


def _costs(architecture: str, path: Path, dynamic: dict[str, int]) -> dict[str, Measured]:
    """The kernels of one PTX file of which `dynamic` knows the shared memory; the others are XLA's own."""
    report, listing = assemble(path)
    target, threads, code = TARGETS[architecture], threads_of(path.read_text()), kernels_of(listing)
    found = {}
    for name, usage in usage_of(report).items():
        if name not in dynamic:
            continue
        shared = dynamic[name] + usage.static_shared
        loop = hot_loop(code[name])
        found[name] = Measured(
            threads[name],
            usage.registers,
            usage.stack,
            usage.spill_stores,
            usage.spill_loads,
            shared,
            target.blocks_by_registers(usage.registers, threads[name]),
            target.blocks_by_shared(shared),
            loop.instructions if loop else 0,
            loop.exponentials if loop else 0,
        )
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
            found |= dict.fromkeys(threads_of(ptx.read_text()), int(value.group(1)))
    return found


def triton_shared(folder: Path) -> dict[str, int]:
    """Kernel -> dynamic shared memory in bytes, from XLA's list of launches."""
    texts = [path.read_text() for path in folder.glob("*.thunk_sequence.txt")]
    return {match["name"]: int(match["shared"]) for text in texts for match in _CUSTOM_KERNEL.finditer(text)}


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _overheard(path: Path) -> Iterator[None]:
    """Compilers write past Python to the process's own output: kept from the terminal, and an error is named."""
    kept = [os.dup(stream) for stream in (1, 2)]
    with path.open("w") as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
    try:
        yield
    except Exception as error:
        said = [line.strip() for line in path.read_text(errors="replace").splitlines() if "error:" in line.lower()]
        if said:
            raise RuntimeError(f"{str(error).splitlines()[0]}: {said[0]}") from error
        raise
    finally:
        for stream, copy in zip((1, 2), kept):
            os.dup2(copy, stream)
            os.close(copy)
