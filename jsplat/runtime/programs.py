"""How XLA compiles: so that numbers are right, for how long, and who writes the cache on disk."""

import functools
import importlib.metadata
import os
import threading
import warnings

import jax

YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
# Fuses products into Triton kernels; where that aborts (a BiSeNet's training step for sm_90a), cuBLAS multiplies.
TRITON_GEMM = "--xla_gpu_enable_triton_gemm"
WRONG_ROWS = ("0.10.2",)  # jaxlibs whose YNNPACK fusions give wrong rows beyond 32,768 (jax issue 39103)

COMPILE = "/jax/core/compile/backend_compile_duration"  # also where the program comes from the cache
FOUND = "/jax/compilation_cache/cache_hits"

_lock = threading.Lock()
_totals = {"programs": 0, "seconds": 0.0, "found": 0}


def has_fusion_bug() -> bool:
    """Whether this jaxlib is one of those."""
    return importlib.metadata.version("jaxlib") in WRONG_ROWS


def configure_xla() -> None:
    """Lets XLA give the right numbers; before a device is asked for, and for this process and those it starts.

    Switches fusion into YNNPACK off where it computes wrong rows, and products in Triton where they end the process,
    unless somebody set those flags: other versions may not know them, and XLA ends a process over an unknown flag. Our
    commands compute in 32 bits, whatever JAX_ENABLE_X64 says.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = {YNNPACK: "", TRITON_GEMM: "false"} if has_fusion_bug() else {}
    more = [f"{name}={value}" for name, value in wanted.items() if name not in flags]
    if more:
        os.environ["XLA_FLAGS"] = " ".join([flags, *more]).strip()
    jax.config.update("jax_enable_x64", False)


def missing_platform() -> str | None:
    """The platforms that JAX was told to take (JAX_PLATFORMS), if it finds none of them here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # the latter for an accelerator that is asked for and not there
        return jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]: defined at run time
    return None


@functools.cache
def count_compiles() -> None:
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


def compile_totals() -> dict[str, int | float]:
    """Programs asked for, the seconds they took (of all threads together), and how many the cache had."""
    with _lock:
        return {**_totals, "seconds": round(_totals["seconds"], 2)}


def _took(event: str, duration_secs: float, **_: str | int) -> None:
    if event == COMPILE:
        with _lock:
            _totals["programs"] += 1
            _totals["seconds"] += duration_secs


def _happened(event: str, **_: str | int) -> None:
    if event == FOUND:
        with _lock:
            _totals["found"] += 1


def planned_bytes(program: jax.stages.Compiled) -> int:
    """Memory of a device that a compiled program takes while it runs: arguments, results and temporaries."""
    plan = program.memory_analysis()
    assert plan is not None  # every device that says how much memory it has also plans with it
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
