"""PTX through the assembler of the installed wheels: registers, spills, shared memory, and the machine code."""

import dataclasses
import importlib.util
import re
import subprocess
from pathlib import Path

_BLOCK = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?")
_ENTRY = re.compile(r"\.entry\s+([\w$.]+)\s*\(")
_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)
_REPORT = re.compile(
    r"Compiling entry function '(?P<name>[^']+)' for '\w+'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the assembler says about one kernel: registers of a thread; bytes of stack, spills and static shared."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared: int


def usage_of(report: str) -> dict[str, Usage]:
    """Kernel -> usage, from the text that `ptxas -v` prints."""
    found = {}
    for match in _REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        registers, stack, stores, loads = (int(match[key]) for key in ("registers", "stack", "stores", "loads"))
        found[match["name"]] = Usage(registers, stack, stores, loads, int(shared.group(1)) if shared else 0)
    return found


def threads_of(ptx: str) -> dict[str, int]:
    """Kernel -> threads of a block, from PTX; 0 where it does not say."""
    entries = list(_ENTRY.finditer(ptx))
    ends = [entry.start() for entry in entries[1:]] + [len(ptx)]
    found = {}
    for entry, end in zip(entries, ends):
        block = _BLOCK.search(ptx, entry.end(), end)
        x, y, z = (int(n or 1) for n in block.groups()) if block else (0, 0, 0)
        found[entry.group(1)] = x * y * z
    return found


def tool(name: str) -> Path:
    """A program of the CUDA wheels; never one of a toolkit that this machine happens to have.

    Raises:
        FileNotFoundError: the wheels of requirements-kernels.lock are not on the path.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob(f"cu*/bin/{name}")):
            return path.resolve()
    raise FileNotFoundError(f"{name}: wanted the wheels of requirements-kernels.lock (make check-kernels), found none")


def assemble(ptx: Path) -> tuple[str, str]:
    """The assembler's report and the machine code of a PTX file, whose own target it is assembled for."""
    cubin, target = ptx.with_suffix(".cubin"), _TARGET.search(ptx.read_text())
    if target is None:
        raise ValueError(f"{ptx.name}: no .target line")
    done = _run(tool("ptxas"), "-v", "-O3", f"-arch={target.group(1)}", "-o", cubin, ptx)
    return done.stdout + done.stderr, _run(tool("nvdisasm"), "-c", cubin).stdout


def _run(*command: str | Path) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()}")
    return done
