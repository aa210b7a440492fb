"""PTX, and what the tools of the installed wheels say about it: registers, spills, shared memory, barriers."""

import dataclasses
import importlib.util
import math
import re
import subprocess
from pathlib import Path

_BLOCK = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?")
_ENTRY = re.compile(r"\.entry\s+([\w$.]+)\s*\(")
_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)
_BARRIER = re.compile(r"(?<![\w.%$])(?:bar|barrier|mbarrier)\.\w")
_FUNCTION = re.compile(r"^\.text\.([\w$.]+):", re.MULTILINE)
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?(?P<predicate>U?P)\d+\s+)?(?P<name>[A-Z][\w.]*)")
_REPORT = re.compile(
    r"Compiling entry function '(?P<name>[^']+)' for '\w+'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*? (?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the assembler says about one kernel: registers of a thread; bytes of stack, spills and static shared."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


def usage_of(report: str) -> dict[str, Usage]:
    """Kernel -> usage, from the text that `ptxas -v` prints."""
    names = [field.name for field in dataclasses.fields(Usage)]
    return {m["name"]: Usage(*(int(m[name] or 0) for name in names)) for m in _REPORT.finditer(report)}


def bodies_of(ptx: str) -> dict[str, str]:
    """Kernel -> its PTX, from the name on."""
    entries = list(_ENTRY.finditer(ptx))
    ends = [entry.start() for entry in entries[1:]] + [len(ptx)]
    return {entry.group(1): ptx[entry.end() : end] for entry, end in zip(entries, ends)}


def threads_of(body: str) -> int:
    """Threads of a block; 0 where a kernel's PTX does not say."""
    block = _BLOCK.search(body)
    return math.prod(int(n or 1) for n in block.groups()) if block else 0


def barriers_of(body: str) -> int:
    """Instructions of the families bar, barrier and mbarrier in a kernel's PTX.

    Ours are inline assembly, which a compiler may copy or move because nothing tells it that threads meet there.
    """
    return sum(len(_BARRIER.findall(line.partition("//")[0])) for line in body.splitlines())


def apart_in(machine_code: str) -> dict[str, int]:
    """Kernel -> barriers before which nothing brings the threads of a warp together, from what `nvdisasm` prints.

    Backwards from a barrier the first of these decides: threads meet at BSYNC, WARPSYNC and another barrier, and part
    at a branch that each of them takes or leaves. A branch that all take alike counts, too: the code does not tell.
    """
    starts = list(_FUNCTION.finditer(machine_code))
    ends = [start.start() for start in starts[1:]] + [len(machine_code)]
    return {start[1]: _apart(machine_code[start.end() : end]) for start, end in zip(starts, ends)}


def _apart(body: str) -> int:
    count, together = 0, True
    for instruction in _INSTRUCTION.finditer(body):
        name = instruction["name"].partition(".")[0]
        if name == "BAR":
            count += not together
        if name in ("BAR", "BSYNC", "WARPSYNC"):
            together = True
        elif name in ("BRA", "BRX", "CALL") and instruction["predicate"] == "P":
            together = False
    return count


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
    """The assembler's report on a PTX file, whose own target it is assembled for, and the machine code as text."""
    target = _TARGET.search(ptx.read_text())
    if target is None:
        raise ValueError(f"{ptx.name}: no .target line")
    code = ptx.with_suffix(".cubin")
    report = _printed(tool("ptxas"), "-v", "-O3", f"-arch={target.group(1)}", "-o", code, ptx)
    return report, _printed(tool("nvdisasm"), code)


def _printed(program: Path, *words: str | Path) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program.name} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout + done.stderr
