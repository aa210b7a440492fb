"""What XLA is told before it compiles, and its cache on disk, as several processes share it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jsplat.runtime import programs
from tests import processes

ROOT = Path(__file__).resolve().parent.parent
OFF, CUBLAS = f"{programs.YNNPACK}=", f"{programs.TRITON_GEMM}=false"

PROCESS = """
import sys, jax
from jax._src import distributed
from jsplat.runtime import programs
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
distributed.global_state.process_id = 1  # what `jax.distributed.initialize` would say to a second process
jax.process_index = lambda: 1
if sys.argv[2] == "kept":
    programs.keep_in_every_process()
programs.count_compiles()
print(jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(3.0)), programs.compile_totals()["found"])
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


@pytest.mark.parametrize(
    ("version", "flags", "want"),
    [
        ("0.10.2", None, f"{OFF} {CUBLAS}"),
        ("0.10.2", "--xla_dump_to=x", f"--xla_dump_to=x {OFF} {CUBLAS}"),
        ("0.10.2", f"{OFF}LIBRARY_FUSION_TYPE_DOT", f"{OFF}LIBRARY_FUSION_TYPE_DOT {CUBLAS}"),
        ("0.10.2", f"{OFF} {programs.TRITON_GEMM}=true", f"{OFF} {programs.TRITON_GEMM}=true"),
        ("0.11.0", "--xla_dump_to=x", "--xla_dump_to=x"),
        ("0.11.0", None, None),
    ],
)
def test_wrong_fusions_are_off_where_they_are_wrong_unless_somebody_set_them(version, flags, want, monkeypatch):
    told = {}
    monkeypatch.setattr("importlib.metadata.version", {"jaxlib": version}.__getitem__)
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.setenv("XLA_FLAGS", flags or "")  # so that what is set is taken back
    if flags is None:
        monkeypatch.delenv("XLA_FLAGS")
    programs.configure_xla()
    assert os.environ.get("XLA_FLAGS") == want
    assert told == {"jax_enable_x64": False}


def run_here(*arguments: str, status: int = 0, **environment: str) -> str:
    """stderr of a Python program, started where `tests` is found."""
    names = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)} | environment, "text": True}
    with processes.programs() as start:
        process = start([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **names)
        return processes.finish(process, status=status)[0]


def test_a_platform_that_is_not_here_is_one_line(tmp_path):
    output = run_here("-m", "jsplat", "heads", str(tmp_path / "heads"), "--people", "1", status=1, JAX_PLATFORMS="cuda")
    *_, last = output.strip().splitlines()
    assert last.startswith(
        "Error: JAX_PLATFORMS: wanted a platform that is here, or nothing for the best one, got cuda; "
    )
    assert "Traceback" not in output


def test_every_verb_works_in_a_program_with_64_bits(tmp_path):
    told = tmp_path / "told"
    run_here("-W", "ignore", "tests/program_in_64_bits.py", str(told), **processes.QUICK)
    verbs = "fit lift paint predict predict_labels rasterize sharpen train_parser vote"
    assert told.read_text() == verbs


def test_kernels_and_labels_are_right_without_the_fusion(request):
    """One test each of the lift, sharpening, projection and blend; with --thorough all of them."""
    if not programs.has_fusion_bug():
        pytest.skip("this jaxlib may not know the flag that switches fusion into YNNPACK off")
    files = ("tests/test_lift.py", "tests/kernels/test_needles.py", "tests/kernels/test_blend.py")
    chosen = "dense_sum or every_round or roots_of_needles or (references and xla-random)"
    if request.config.getoption("--thorough"):
        chosen = "test_lift or needles or (references and xla)"
    run_here("-m", "pytest", *files, "-k", chosen, "-q", "-x", XLA_FLAGS=OFF)
