"""The check of GPU kernels: its readers on short texts, and what it finds wrong. Nothing is compiled for a GPU here."""

import copy
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from bench.aot.check import BASELINE, baseline_text, table
from bench.aot.compare import faults, part, regressions
from bench.aot.compile import mosaic_shared, triton_shared
from bench.aot.entries import ARCHITECTURES, CHANNELS, entries, pairs
from bench.aot.kernels import kernels_in
from bench.aot.ptx import Usage, threads_of, usage_of
from bench.aot.sass import Loop, hot_loop, kernels_of, loops
from bench.aot.sorts import Sorts, sorts_of
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
    assert threads_of(PTX) == {"plain": 128, "full": 256, "silent": 0}


LISTING = """	.section	.text.blend,"ax",@progbits
blend:
.text.blend:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3] ;
        /*0020*/              @!P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDS.128 R4, [R2] ;
.L_x_2:
        /*0040*/                   FFMA R8, R4, R5, R6 ;
        /*0050*/                   MUFU.EX2 R8, R8 ;
        /*0060*/                   MUFU.EX2 R9, R9 ;
        /*0070*/                   FMUL R9, R9, R8 ;
        /*0080*/              @!P1 BRA P3, `(.L_x_2) ;
.L_x_3:
        /*0090*/                   MUFU.EX2 R8, R8 ;
        /*00a0*/                   MUFU.RCP R8, R8 ;
        /*00b0*/                   FMUL R9, R9, R8 ;
        /*00c0*/               @P1 BRA `(.L_x_3) ;
.L_x_4:
        /*00d0*/                   HGMMA.64x32x16.F32.BF16 R24, R4, gdesc[UR4] ;
        /*00e0*/                   IADD3 R0, R0, 0x1, RZ ;
        /*00f0*/                   ISETP.GE.AND P2, PT, R0, R1, PT ;
        /*0100*/                   NOP ;
        /*0110*/                   NOP ;
        /*0120*/              @!P2 BRA `(.L_x_4) ;
        /*0130*/              @!P0 BRA `(.L_x_1) ;
        /*0140*/                   EXIT ;
.L_x_5:
        /*0150*/                   BRA `(.L_x_5);
	.section	.nv.info.blend,"",@"SHT_CUDA_INFO"
        /*0000*/ 	.byte	0x04, 0x2f
	.section	.text.copy,"ax",@progbits
        /*0000*/                   EXIT ;
"""


def test_kernels_are_told_apart_in_machine_code():
    found = kernels_of(LISTING)
    assert list(found) == ["blend", "copy"]
    assert loops(found["copy"]) == {}
    assert hot_loop(found["copy"]) is None


def test_loops_are_found():
    found = loops(kernels_of(LISTING)["blend"])
    assert sorted((min(body), loop.instructions, loop.exponentials) for body, loop in found.items()) == [
        (1, 2, 0),
        (3, 17, 3),
        (4, 5, 2),
        (9, 4, 1),
        (13, 6, 0),
    ]


OUT_OF_LINE = """	.section	.text.blend,"ax",@progbits
        /*0000*/                   MOV R1, R2 ;
.L_x_0:
        /*0010*/                   FADD R1, R1, R2 ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   MUFU.EX2 R8, R8 ;
        /*0040*/               @P1 BRA `(.L_x_0) ;
        /*0050*/                   STG.E [R2], R1 ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   MUFU.RCP R9, R9 ;
        /*0080*/                   FMUL R8, R8, R9 ;
        /*0090*/                   BRA `(.L_x_1) ;
"""


def test_a_block_that_was_moved_out_of_line_counts_where_it_belongs():
    found = loops(kernels_of(OUT_OF_LINE)["blend"])
    assert found == {frozenset({1, 2, 3, 4, 7, 8, 9}): Loop(7, 1)}  # not the store and the exit between


def test_the_hot_loop_is_the_innermost_with_most_exponentials():
    lines = kernels_of(LISTING)["blend"]
    assert hot_loop(lines) == Loop(5, 2)
    assert hot_loop([line for line in lines if "EX2" not in line]) == Loop(6, 0)  # without any: the longest innermost


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


def test_sorts_are_counted():
    cub = (
        '%s = (u32[9]{0}, u8[1]{0}) custom-call(%k), custom_call_target="xla.gpu.ext.cub_sort_unassigned_scratch_size"'
    )
    slow = '%s.1 = (s32[4,9]{1,0}, s32[4,9]{1,0}) sort(%k, %v), dimensions={1}, metadata={op_name="jit(f)/sort"}'
    other = '%c = u32[9]{0} custom-call(%k), custom_call_target="mosaic_gpu_v2", metadata={op_name="sort"}'
    assert sorts_of(f"{cub}\n{slow}\n{other}\n{cub}") == Sorts(2, 1)
    assert sorts_of("") == Sorts(0, 0)


# How many blocks fit.


def test_blocks_follow_the_occupancy_rules():
    hopper = TARGETS["sm_90a"]
    assert hopper.blocks_by_registers(32, 128) == 16  # 64 warps of 1024 registers
    assert hopper.blocks_by_registers(102, 128) == 4  # 104 registers a thread: 19.7 warps, in fours
    assert hopper.blocks_by_registers(255, 384) == 0  # 8 warps fit, 12 are wanted
    assert hopper.blocks_by_shared(58_392) == 3
    assert hopper.blocks_by_shared(0) == hopper.blocks
    assert TARGETS["sm_80"].blocks_by_shared(58_392) == 2


@pytest.mark.parametrize("architecture", TARGETS)
def test_a_target_describes_itself(architecture):
    target = TARGETS[architecture]
    text = target.config(cub=True)
    assert f"{{ major: {target.major} minor: {target.minor} }}" in text
    assert text.count("{") == text.count("}")
    assert set(text.splitlines()) - set(target.config(cub=False).splitlines()) == {'  cub_version: "3.1.2"'}


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
        assert len(entries([name])) == (2 * len(CHANNELS) + 1) * len(ARCHITECTURES[name])
    with pytest.raises(KeyError, match="cuda"):
        entries(["cuda"])


def test_entries_have_names_of_their_own():
    every = entries([name for name in BACKENDS if ARCHITECTURES[name]])
    assert len({entry.name for entry in every}) == len(every)


def test_pairs_of_a_turn_are_what_the_implementation_says(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsplat.kernels.blend.triton", types.SimpleNamespace(CHUNK=16, PIXELS=64))
    assert pairs("mosaic_gpu", threads=128, exponentials=4) == 4
    assert pairs("mosaic_gpu", threads=128, exponentials=0) == 0
    assert pairs("triton", threads=64, exponentials=48) == 16  # 16 hits a turn, one pixel a thread
    assert pairs("triton", threads=128, exponentials=0) == 0


# What may not pass.

KERNEL = {
    "threads": 128,
    "registers": 102,
    "stack": 0,
    "spill_stores": 0,
    "spill_loads": 0,
    "shared": 58_393,
    "blocks_by_registers": 4,
    "blocks_by_shared": 3,
    "loop": 136,
    "exponentials": 4,
    "pairs": 2.0,
}
ENTRY = "mosaic_gpu backward 22 sm_90a"
GOOD = {"kernels": {ENTRY: {"blend": KERNEL}}, "sorts": {"bin_tiles sm_90a": {"cub": 2, "generic": 0}}}


def changed(section="kernels", entry=ENTRY, kernel="blend", **numbers):
    run = copy.deepcopy(GOOD)
    found = run[section].setdefault(entry, {})
    (found.setdefault(kernel, dict(KERNEL)) if section == "kernels" else found).update(numbers)
    return run


def test_a_run_like_the_baseline_passes():
    assert list(faults(GOOD)) == []
    assert list(regressions(GOOD, GOOD)) == []
    assert list(regressions(changed(registers=90, loop=120, shared=0), GOOD)) == []
    assert list(regressions(changed(loop=250, pairs=4), GOOD)) == []  # unrolled: less for each pair


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (changed(spill_stores=8, spill_loads=12), "blend: 8 bytes of spill_stores, 12 bytes of spill_loads"),
        (changed(stack=16), "blend: 16 bytes of stack"),
        (changed(blocks_by_registers=2), "blend: 2 blocks a multiprocessor, wanted 3 (102 registers, 58393 bytes"),
        (changed(blocks_by_shared=2), "blend: 2 blocks a multiprocessor, wanted 3"),
        (changed(pairs=0), "no kernel with a loop over Gaussians was found"),
        ({**GOOD, "kernels": {ENTRY: {"error": "RuntimeError: no"}}}, f"{ENTRY}: RuntimeError: no"),
        (changed("sorts", "bin_tiles sm_90a", generic=1), "sorts of bin_tiles sm_90a: 2 by CUB and 1 by XLA's slow"),
        (changed("sorts", "bin_tiles sm_90a", cub=0), "0 by CUB and 0 by XLA's slow one, wanted all by CUB"),
        (changed("sorts", "bin_tiles sm_90a", error="E: no"), "sorts of bin_tiles sm_90a: E: no"),
    ],
)
def test_a_fault_is_found_without_a_baseline(run, complaint):
    (found,) = faults(run)
    assert complaint in found


def test_one_implementation_is_compared_with_its_own_part():
    assert part(GOOD, None) == GOOD
    assert part(GOOD, "mosaic_gpu") == {**GOOD, "sorts": {}}
    assert part(GOOD, "triton") == {"kernels": {}, "sorts": {}}


def test_few_blocks_are_no_fault_elsewhere():
    run = changed(entry="mosaic_gpu forward 64 sm_90a", blocks_by_registers=2)
    assert list(faults(run)) == []


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (changed(registers=103), f"{ENTRY}: blend: 103 registers, was 102"),
        (changed(shared=58_394), f"{ENTRY}: blend: 58394 bytes of shared memory, was 58393"),
        (changed(loop=137), f"{ENTRY}: blend: 68.5 instructions of the hot loop, was 68"),
        (changed(kernel="second"), f"{ENTRY}: second: a new kernel; add it with --write"),
        ({**GOOD, "kernels": {ENTRY: {}}}, f"{ENTRY}: blend: the kernel is gone"),
        ({**GOOD, "kernels": {}}, f"{ENTRY}: in the baseline's kernels, but was not checked"),
        ({**GOOD, "sorts": {}}, "bin_tiles sm_90a: in the baseline's sorts, but was not checked"),
        (changed(entry="new forward 1 sm_80"), "new forward 1 sm_80: not in the baseline's kernels; add it with"),
        (changed("sorts", "new", cub=1, generic=0), "new: not in the baseline's sorts; add it with --write"),
        (changed("sorts", "bin_tiles sm_90a", cub=3), "bin_tiles sm_90a: 3 sorts by CUB, was 2"),
    ],
)
def test_a_regression_is_found(run, complaint):
    (found,) = regressions(run, GOOD)
    assert found.startswith(complaint)


def test_the_table_shows_numbers_and_errors():
    lines = table({**GOOD, "kernels": GOOD["kernels"] | {"triton forward 3 sm_80": {"error": "E: no"}}}).splitlines()
    assert lines[0].split()[:7] == ["entry", "kernel", "registers", "spills", "shared", "blocks", "threads"]
    assert lines[1].split() == [*ENTRY.split(), "blend", "102", "0", "58393", "3", "128", "68"]
    assert lines[2].split() == ["triton", "forward", "3", "sm_80", "E:", "no"]
    assert lines[3] == "sorts of bin_tiles sm_90a: 2 by CUB, 0 generic"


def test_the_baseline_has_a_line_for_each_entry():
    text = baseline_text({"0.10": GOOD, "0.11": {"kernels": {}, "sorts": {}}})
    assert json.loads(text) == {"0.10": GOOD, "0.11": {"kernels": {}, "sorts": {}}}
    assert [line.strip() for line in text.splitlines() if ENTRY in line] == [
        json.dumps({ENTRY: {"blend": KERNEL}}, sort_keys=True)[1:-1]
    ]
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


@pytest.mark.parametrize(("given", "why"), [("", "nvidia-smi lists none"), ("false", "the JAX of false runs on: ")])
def test_the_check_on_a_gpu_wants_a_gpu(tmp_path, given, why):
    for name in ("dirname", "grep", "false"):  # no nvidia-smi, on whatever machine
        (tmp_path / name).symlink_to(next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists()))
    bash = next(str(p) for p in (Path("/usr/bin/bash"), Path("/bin/bash")) if p.exists())
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHON": given, "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [bash, str(ROOT / "scripts" / "gpu_check.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"gpu_check: no GPU: {why}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
