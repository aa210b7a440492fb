"""Runs parts, each in a process group of its own; ends what hangs with a stack of where, and keeps to the deadline."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu.parts import Part
from bench.gpu.record import Record, is_bad

WIDTH = 4  # parts that measure no time run so many at once
ENDING = 6.0  # seconds that are kept to end a part that hangs, and to write what came out
NOT_HERE = 77  # exit status of a part that cannot run here; it says why
LOG = 200_000  # characters kept of what a part printed
STACK = 60  # lines kept of where it hung


def older_fusion() -> str:
    """The flag with which a processor's programs compile in less time; empty from jaxlib 0.11 on, which knows none
    such and would end the process."""
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    return "--xla_cpu_use_fusion_emitters=false" if version < (0, 11) else ""


@dataclasses.dataclass
class Running:
    """A part that has begun."""

    part: Part
    process: subprocess.Popen
    begin: float
    limit: float
    log: Path
    values: Path
    read: float = 0.0

    def told(self) -> dict[str, Any]:
        """What it has written so far."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.values.read_text(encoding="utf-8"))
        return {}


class Runner:
    """Runs parts one after the other, and those that allow it side by side.

    Args:
        record: what comes out.
        seconds: for everything, from now on.
        folder: for files that nobody needs afterwards.
        rehearse: on a processor, with XLA in the kernels' place.
    """

    def __init__(self, record: Record, seconds: float, folder: Path, rehearse: bool):
        self._record, self._folder, self._rehearse = record, folder, rehearse
        self._begin, record.total = time.monotonic(), seconds
        self._running: list[Running] = []

    def run(self, parts: list[Part]) -> None:
        """All of them; none outlives the call."""
        waiting = list(parts)
        try:
            while waiting or self._running:
                while waiting and self._may_start(waiting[0]):
                    self._start(waiting.pop(0))
                for one in list(self._running):
                    self._look(one)
                time.sleep(0.05)
        finally:
            for one in list(self._running):
                self._finish(one, "hung", f"stopped from outside after {self._age(one):.0f} s")
            self._record.seconds = self._elapsed()
            self._record.save()

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _remaining(self) -> float:
        return self._record.total - self._elapsed() - ENDING

    def _age(self, one: Running) -> float:
        return time.monotonic() - one.begin

    def _may_start(self, part: Part) -> bool:
        alike = all(one.part.concurrent and one.part.step == part.step for one in self._running)
        return not self._running or (part.concurrent and alike and len(self._running) < WIDTH)

    def _start(self, part: Part) -> None:
        if why := self._not_now(part):
            self._record.keep(part.name, status="skipped", why=why)
            return
        values, log = (self._folder / f"{part.name}.{kind}" for kind in ("json", "txt"))
        limit = min(part.limit, self._remaining())
        command = [sys.executable, "-m", "bench.gpu.steps", part.run, *part.args, "--values", str(values)]
        command += ["--limit", f"{limit:.1f}", "--name", part.name, "--earlier", str(self._record.out / "summary.json")]
        command += ["--rehearse"] if self._rehearse else []
        tool = [word.format(out=self._record.out.resolve()) for word in part.tool.split()]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*tool, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                env=self._environment(part),
            )  # fmt: skip
        self._running.append(Running(part, process, time.monotonic(), limit, log, values))
        self._record.keep(part.name, status="running")

    def _not_now(self, part: Part) -> str:
        how, tool = self._record.broken().get(part.kernel), part.tool.split(" ")[0]
        # A kernel that is wrong still runs under the sanitizers, which say why; one that hangs does not.
        if how and (part.step != "c" or "hung" in how):
            return f"{part.kernel} is not used: {how}"
        if tool and shutil.which(tool) is None:
            return f"{tool} is not on the path"
        if self._remaining() < part.least:
            return f"needs {part.least:.0f} s, {max(self._remaining(), 0):.0f} s are left"
        return ""

    def _environment(self, part: Part) -> dict[str, str]:
        flags = os.environ.get("XLA_FLAGS", "")
        own = {
            "JAX_PLATFORMS": "cpu" if self._rehearse else "cuda,cpu",  # the first is the default
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "PYTHONUNBUFFERED": "1",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self._folder / "compiled")),
        }
        if self._rehearse:  # programs that run once: compiled in a third of the time
            own |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": f"{flags} {older_fusion()}".strip()}
        elif part.step == "d":  # every process compiles for itself
            own |= {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        elif part.tool:  # every allocation is seen, and every kernel is a launch of its own
            own |= {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}
            own |= {"XLA_FLAGS": f"{flags} --xla_gpu_enable_command_buffer="}
        return {**os.environ, **own}

    def _look(self, one: Running) -> None:
        status = one.process.poll()
        if status is not None:
            self._finish(one, *self._verdict(one, status))
        elif self._age(one) > one.limit:
            self._finish(one, "hung", f"not done after {one.limit:.0f} s")
        elif one.values.exists() and (changed := one.values.stat().st_mtime) != one.read:
            one.read = changed
            self._record.seconds = self._elapsed()
            self._record.keep(one.part.name, status="running", values=one.told())

    def _verdict(self, one: Running, status: int) -> tuple[str, str]:
        told = one.told()
        if status == 0:
            return "passed", ""
        if status == NOT_HERE:
            return "skipped", told.get("skipped", "")
        last = (one.log.read_text(errors="replace").strip().splitlines() or ["nothing was printed"])[-1]
        if status < 0:
            return "crashed", f"killed by {signal.Signals(-status).name}"
        return "failed", last[:300]

    def _finish(self, one: Running, status: str, why: str) -> None:
        self._running.remove(one)
        if one.process.poll() is None:
            self._end(one)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)  # what it started and left
        printed = one.log.read_text(errors="replace")
        result: dict[str, Any] = {"status": status, "seconds": round(self._age(one), 1), "values": one.told()}
        result |= {"why": why} if why else {}
        if is_bad(result) and (stack := stack_of(printed)):
            result["stack"] = stack
        self._record.seconds = self._elapsed()
        self._record.keep(one.part.name, printed[-LOG:], **result)
        print(f"{one.part.name:24} {status:8} {result['seconds']:6.1f} s  {why}", flush=True)

    def _end(self, one: Running) -> None:
        """Asks for its stack (Python's by SIGABRT, the GPU's by cuda-gdb if that is here), then kills the group."""
        debugger = shutil.which("cuda-gdb")
        if debugger and not self._rehearse and not one.part.tool and self._remaining() > 30:
            command = [debugger, "--batch", "-p", str(one.process.pid)]
            command += ["-ex", "info cuda kernels", "-ex", "bt", "-ex", "thread apply all bt 8"]
            with one.log.open("ab") as file, contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=15)
        for kind in (signal.SIGABRT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.process.pid, kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(1)
                return


def stack_of(printed: str) -> list[str]:
    """The last stack that Python printed, outermost call last; empty where there is none."""
    lines = printed.splitlines()
    begins = [k for k, line in enumerate(lines) if line.startswith(("Fatal Python error", "Timeout ("))]
    return [line.strip() for line in lines[begins[-1] :][:STACK] if line.strip()] if begins else []
