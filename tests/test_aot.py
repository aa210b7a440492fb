"""The check of GPU kernels: its readers on short texts, and what it finds wrong. Nothing is compiled for a GPU here."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from bench.aot.check import BASELINE, baseline_text, faults, regressions, table
from bench.aot.compile import mosaic_shared, triton_shared
from bench.aot.entries import ARCHITECTURES, CHANNELS, entries
from bench.aot.kernels import kernels_in
from bench.aot.ptx import Usage, apart_in, barriers_of, bodies_of, threads_of, usage_of
from bench.aot.target import TARGETS
from jsplat.kernels.blend import BACKENDS

ROOT = Path(__file__).resolve().parent.parent

# What the tools print.

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'plain' for 'sm_90a'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 102 registers, used 2 barriers, 64 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 58.119 ms
ptxas info    : Compiling entry function 'full' for 'sm_90a'
ptxas info    : Function properties for full
    392 bytes stack frame, 396 bytes spill stores, 400 bytes spill loads
ptxas info    : Used 255 registers
"""

PTX = """.version 9.0
.target sm_90a
.visible .entry plain(
\t.param .u64 .ptr .align 16 plain_param_0
)
.maxntid 128, 1, 1
{ }
.visible .entry full(.param .u64 x)
.reqntid 64, 4
{ }
.visible .entry silent() { }
"""


def test_the_assemblers_report_is_read():
    assert usage_of(REPORT) == {"plain": Usage(102, 0, 0, 0, 64), "full": Usage(255, 392, 396, 400, 0)}
    assert usage_of("ptxas fatal   : nothing") == {}


def test_threads_are_read_from_ptx():
    assert {name: threads_of(body) for name, body in bodies_of(PTX).items()} == {"plain": 128, "full": 256, "silent": 0}


MEETING = """(.param .u64 bar.sync_param_0)
{
\t.reg .b32 %bar.x;
\tbar.sync 0;
\t@%p1 barrier.cta.red.popc.aligned.u32 %r1, 0, %p2;  // and no bar.sync here
\t{ bar.arrive 1, 64; bar.warp.sync 0xffffffff; }
\tmbarrier.arrive.shared.b64 %rd1, [%r2];
\tmov.u32 %r3, rebar.sync;
}
"""


def test_barriers_are_counted_in_ptx():
    assert barriers_of(MEETING.replace("bar.sync_param_0", "param_0")) == 5
    assert barriers_of(bodies_of(PTX)["plain"]) == 0


MACHINE_CODE = """
.text.meets:
        /*0000*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0010*/               @P0 BRA `(.L_x_1) ;
        /*0020*/               @P1 STS [R28+0x20], R30 ;
.L_x_1:
        /*0030*/                   BSYNC.RECONVERGENT B0 ;
        /*0040*/                   FADD R1, R2, R3 ;
        /*0050*/                   BAR.RED.OR.DEFER_BLOCKING 0x2, 0x80, P3 ;
        /*0060*/              @!P3 BRA `(.L_x_2) ;
.L_x_2:
        /*0070*/                   WARPSYNC.ALL ;
        /*0080*/               @UP0 UBRA `(.L_x_2) ;
        /*0090*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.text.comes_apart:
        /*0000*/              @!P0 BRA `(.L_x_3) ;
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_3:
"""


def test_barriers_behind_a_branch_are_found_in_machine_code():
    assert apart_in(MACHINE_CODE) == {"meets": 0, "comes_apart": 1}
    assert apart_in("") == {}


def test_shared_memory_is_read_from_what_the_compilers_leave(tmp_path):
    assert mosaic_shared(tmp_path) == {}
    (tmp_path / "body_0.ptx").write_text(PTX.split(".visible .entry full")[0])
    log = tmp_path / "body_0.mlir-passes.log"
    log.write_text("%c7 = arith.constant 7 : i32\n%c58_i32 = arith.constant 58 : i32\nlaunch")
    with pytest.raises(RuntimeError, match=r"body_0\.mlir-passes\.log: no size of the dynamic shared memory"):
        mosaic_shared(tmp_path)
    log.write_text(log.read_text() + " threads(%a) dynamic_shared_memory_size %c58_i32 {")
    assert mosaic_shared(tmp_path) == {"plain": 58}

    launches = (
        "001: kCustomKernel [source | sink] body grid: [1, 256, 1] threads: [128, 1, 1]  shared_memory: 1024 bytes"
    )
    other = "002: kKernel [sink] loop_fusion grid: [1, 1, 1] threads: [128, 1, 1]  shared_memory: 0 bytes"
    (tmp_path / "module_0001.jit_f.thunk_sequence.txt").write_text(f"{launches}\n{other}\n")
    assert triton_shared(tmp_path) == {"body": 1024}


@pytest.mark.parametrize("architecture", TARGETS)
def test_a_target_describes_itself(architecture):
    target = TARGETS[architecture]
    assert f"{{ major: {target.major} minor: {target.minor} }}" in target.config
    assert target.config.count("{") == target.config.count("}")


# Which kernels there are.


def double(interpret):
    def body(x_ref, o_ref):
        o_ref[...] = 2 * x_ref[...]

    return pl.pallas_call(body, out_shape=jax.ShapeDtypeStruct((8,), jnp.float32), interpret=interpret)


def test_kernels_are_found_wherever_they_are_called():
    def function(x):
        x = jnp.sin(double(False)(x))
        return jax.lax.fori_loop(0, 3, lambda _, x: jax.jit(double(False))(x + 1), double(True)(x))

    shape = jax.ShapeDtypeStruct((8,), jnp.float32)
    found = kernels_in(function, shape)
    assert [list(kernel.args) for kernel in found] == [[shape]] * 2
    alone = jax.make_jaxpr(found[1].run)(shape)
    assert [equation.primitive.name for equation in alone.eqns] == ["pallas_call"]
    assert kernels_in(double(True), shape) == []  # an interpreted one is no kernel of the device


def test_every_implementation_has_its_entries():
    assert set(BACKENDS) <= set(ARCHITECTURES)
    for name in BACKENDS:
        own = (2 * len(CHANNELS) + 1) + 2 * (name == "mosaic_gpu")  # the photo loss, and lists
        assert len(entries([name])) == own * len(ARCHITECTURES[name])
    with pytest.raises(KeyError, match="cuda"):
        entries(["cuda"])


def test_entries_have_names_of_their_own():
    every = entries([name for name in BACKENDS if ARCHITECTURES[name]])
    assert len({entry.name for entry in every}) == len(every)


# What may not pass.

KERNEL = {
    "threads": 128,
    "registers": 102,
    "barriers": 6,
    "apart": 1,
    "stack": 0,
    "spill_stores": 0,
    "spill_loads": 0,
    "shared": 58_393,
}
ENTRY = "mosaic_gpu backward 22 sm_90a"
GOOD = {ENTRY: {"blend": KERNEL}}


def changed(entry=ENTRY, kernel="blend", **numbers):
    run = copy.deepcopy(GOOD)
    run.setdefault(entry, {}).setdefault(kernel, dict(KERNEL)).update(numbers)
    return run


def test_a_run_like_the_baseline_passes():
    assert list(faults(GOOD)) == []
    assert list(regressions(GOOD, GOOD)) == []
    assert list(regressions(changed(registers=90, shared=0), GOOD)) == []


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (changed(spill_stores=8, spill_loads=12), "blend: 8 bytes of spill_stores, 12 bytes of spill_loads"),
        (changed(stack=16), "blend: 16 bytes of stack"),
        ({ENTRY: {"error": "RuntimeError: no"}}, f"{ENTRY}: RuntimeError: no"),
    ],
)
def test_a_fault_is_found_without_a_baseline(run, complaint):
    (found,) = faults(run)
    assert complaint in found


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (changed(registers=103), f"{ENTRY}: blend: 103 registers, was 102"),
        (changed(shared=58_394), f"{ENTRY}: blend: 58394 bytes of shared memory, was 58393"),
        (changed(barriers=7), f"{ENTRY}: blend: 7 barriers, was 6"),
        (changed(barriers=5), f"{ENTRY}: blend: 5 barriers, was 6"),  # fewer is no better: one was lost
        (changed(apart=2), f"{ENTRY}: blend: 2 barriers behind a branch, was 1"),
        (changed(kernel="second"), f"{ENTRY}: second: a new kernel; add it with --write"),
        ({ENTRY: {}}, f"{ENTRY}: blend: the kernel is gone"),
        ({}, f"{ENTRY}: in the baseline, but was not checked"),
        (changed(entry="new forward 1 sm_80"), "new forward 1 sm_80: not in the baseline; add it with --write"),
    ],
)
def test_a_regression_is_found(run, complaint):
    (found,) = regressions(run, GOOD)
    assert found.startswith(complaint)


def test_the_table_shows_numbers_and_errors():
    lines = table(GOOD | {"triton forward 3 sm_80": {"error": "E: no"}}).splitlines()
    assert lines[0].split() == ["entry", "kernel", "registers", "spills", "shared", "threads", "barriers", "apart"]
    assert lines[1].split() == [*ENTRY.split(), "blend", "102", "0", "58393", "128", "6", "1"]
    assert lines[2].split() == ["triton", "forward", "3", "sm_80", "E:", "no"]


def test_the_baseline_has_a_line_for_each_entry():
    text = baseline_text({"0.10": GOOD, "0.11": GOOD | {"a": {}}})
    assert json.loads(text) == {"0.10": GOOD, "0.11": GOOD | {"a": {}}}
    assert [line.strip(" ,") for line in text.splitlines() if ENTRY in line] == [
        json.dumps(GOOD, sort_keys=True)[1:-1]
    ] * 2
    if BASELINE.is_file():
        assert baseline_text(json.loads(BASELINE.read_text())) == BASELINE.read_text()


# The files around it.


def pins(name):
    """Package -> its pins with their conditions."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        pin = re.fullmatch(r"([a-z0-9.-]+)==(\S+)(.*) \\", line)
        if pin:
            found.setdefault(pin[1], []).append(pin[2] + pin[3])
    return found


def test_the_compilers_are_locked_to_the_locked_jax():
    locked = pins("requirements-kernels.lock")
    assert set(locked) == {
        *(f"jax-cuda13-{part}" for part in ("pjrt", "plugin")),
        *(f"nvidia-{part}" for part in ("cuda-nvcc", "cuda-nvdisasm", "nvvm")),
    }
    assert locked["jax-cuda13-pjrt"] == locked["jax-cuda13-plugin"] == pins("requirements.lock")["jax"]
    hashes = [line for line in (ROOT / "requirements-kernels.lock").read_text().splitlines() if line.startswith(" ")]
    assert len(hashes) >= 2 * len(locked)
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)


@pytest.mark.parametrize(
    ("given", "why"), [("", "no GPU: nvidia-smi lists none"), ("false", "false lacks jsplat: false -m pip install")]
)
def test_the_check_on_a_gpu_wants_a_gpu(tmp_path, given, why):
    for name in ("dirname", "grep", "false"):  # no nvidia-smi, on whatever machine
        (tmp_path / name).symlink_to(next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists()))
    bash = next(str(p) for p in (Path("/usr/bin/bash"), Path("/bin/bash")) if p.exists())
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHON": given, "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [bash, str(ROOT / "scripts" / "gpu_check.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"gpu_check: {why}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
