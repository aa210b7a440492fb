"""How long XLA took to give programs, compiled or found in the cache on disk, and who writes that cache."""

import functools
import threading
import warnings

import jax

COMPILE = "/jax/core/compile/backend_compile_duration"  # also where the program comes from the cache
FOUND = "/jax/compilation_cache/cache_hits"

_lock = threading.Lock()
_spent = {"programs": 0, "seconds": 0.0, "found": 0}


@functools.cache
def watch() -> None:
    """Counts from now on."""
    jax.monitoring.register_event_duration_secs_listener(_took)
    jax.monitoring.register_event_listener(_happened)


@functools.cache
def keep_in_every_process() -> None:
    """Lets every process write its programs for processors into the cache on disk; JAX lets only the first.

    On processors a program is kept under the number of its device, which another process has not: without this all
    but the first compile everything anew in every run. On GPUs what the first one writes serves all.
    """
    from jax._src import compilation_cache, compiler

    first = compiler._cache_write

    def write(key, seconds, name, backend, executable, *callbacks):
        if backend.platform != "cpu" or jax.process_index() == 0 or any(callbacks):
            first(key, seconds, name, backend, executable, *callbacks)
            return
        try:
            compilation_cache.put_executable_and_time(key, name, executable, backend, int(seconds))
        except OSError as error:
            warnings.warn(f"{name} is not kept: {error}", stacklevel=1)

    compiler._cache_write = write


def spent() -> dict[str, int | float]:
    """Programs asked for, the seconds they took (of all threads together), and how many the cache had."""
    with _lock:
        return {**_spent, "seconds": round(_spent["seconds"], 2)}


def _took(event: str, duration_secs: float, **_: str | int) -> None:
    if event == COMPILE:
        with _lock:
            _spent["programs"] += 1
            _spent["seconds"] += duration_secs


def _happened(event: str, **_: str | int) -> None:
    if event == FOUND:
        with _lock:
            _spent["found"] += 1
