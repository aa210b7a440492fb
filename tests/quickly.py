"""Programs of the tests' own processes, compiled in half the time; those that are about compiled code ask for more.

Nearly all of the time of the tests went to the compiler, for programs that run once or twice. XLA optimises the graph
as ever; it fuses in an older way and writes plainer machine code. `@pytest.mark.as_users` compiles a test's programs as
users do, `@pytest.mark.as_users("fusion")` only fuses as there. With --thorough all are compiled so.
"""

import jax
import pytest
from jax._src import compiler

from bench.gpu.processes import older_fusion

# The same for processes that tests start: `tests.processes.QUICK`. JAX 0.11 has one way to fuse on processors alone.
FUSION: dict[str, bool | str | int] = {"xla_cpu_use_fusion_emitters": False} if older_fusion() else {}
MACHINE_CODE = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
MACHINE_CODE |= {
    "xla_cpu_parallel_codegen_split_count": 1
}  # small programs: parts for more threads cost more than they save

_options: dict[str, bool | str | int] = {}


def install() -> None:
    """From now on programs get the options that `choose` chose; JAX has no setting for those of all programs."""
    first = compiler.get_compile_options

    def options(*args, env_options_overrides=None, **more):
        return first(*args, env_options_overrides={**_options, **(env_options_overrides or {})}, **more)

    compiler.get_compile_options = options


def choose(item: pytest.Item) -> None:
    """Compiles what a test needs as it asks; programs that were compiled otherwise are not used again."""
    mark = item.get_closest_marker("as_users")
    wanted = FUSION | MACHINE_CODE if mark is None else MACHINE_CODE if mark.args else {}
    if wanted != _options:
        jax.clear_caches()
        _options.clear()
        _options.update(wanted)
