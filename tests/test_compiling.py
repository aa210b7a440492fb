"""The cache of compiled programs on disk, as several processes share it."""

import subprocess
import sys

PROCESS = """
import sys, jax
from jax._src import distributed
from jsplat import compiling
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
distributed.global_state.process_id = 1  # what `jax.distributed.initialize` would say to a second process
jax.process_index = lambda: 1
if sys.argv[2] == "kept":
    compiling.keep_in_every_process()
compiling.watch()
print(jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(3.0)), compiling.spent()["found"])
"""


def process(cache, how: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROCESS, cache, how], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_second_process_finds_what_it_compiled_before(tmp_path):
    """JAX alone does not: should it one day, then what we add to it can go."""
    assert [process(tmp_path / "a", "plain") for _ in range(2)] == ["[1. 4. 7.] 0"] * 2
    assert not list((tmp_path / "a").glob("*"))
    assert process(tmp_path / "b", "kept").endswith(" 0")
    assert not process(tmp_path / "b", "kept").endswith(" 0")
