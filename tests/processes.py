"""Programs that tests start: waited for as long as they work, however busy the machine; none outlives its test."""

import concurrent.futures
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil

from bench.gpu.processes import older_fusion

# Environment of programs of which no test asks how fast or how rounded they compute: XLA divides and fuses as ever, and
# writes the machine code in a third of the time. Both sides of a comparison to the bit get it, or neither.
QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": f"{older_fusion()} --xla_cpu_parallel_codegen_split_count=1".strip(),
}

STILL = 180  # seconds in which none of them used the processor: they wait for what never comes


@contextlib.contextmanager
def programs() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts programs as `subprocess.Popen` does, and ends those that are left."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options) -> subprocess.Popen:
            process = stack.enter_context(subprocess.Popen(*arguments, **options))
            stack.callback(process.kill)
            return process

        yield start


def processor_time(process: subprocess.Popen) -> float:
    """Seconds of processor time that it used so far; 0 when it has ended."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def finish(*processes: subprocess.Popen, status: int = 0) -> list[str]:
    """Waits until all have ended with this status; what each said on stderr, where that is a pipe.

    Raises:
        AssertionError: another status, or none of them works any more; then all are killed.
    """
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        outputs = [pool.submit(process.communicate) for process in processes]
        worked, since = -1.0, time.monotonic()
        while concurrent.futures.wait(outputs, 1).not_done:
            now = sum(map(processor_time, processes))
            if now != worked:
                worked, since = now, time.monotonic()
            elif time.monotonic() - since > STILL:
                for process in processes:
                    process.kill()
    errors = [future.result()[1] or "" for future in outputs]
    for process, error in zip(processes, errors):
        assert process.returncode == status, f"ended with {process.returncode}: {error[-3000:]}"
    return errors


def work(process: subprocess.Popen, seconds: float) -> None:
    """Returns when it has used that much processor time, or has ended."""
    while process.poll() is None and processor_time(process) < seconds:
        time.sleep(0.01)
