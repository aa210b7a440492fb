"""How long XLA took to give programs, compiled or found in the cache on disk."""

import functools
import threading

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
