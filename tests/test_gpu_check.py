"""The script for a machine with a GPU, rehearsed on a processor: what hangs, what crashes, and what runs after them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench.gpu import processes
from bench.gpu.__main__ import no_gpu
from bench.gpu.parts import KERNELS, STEPS, Part, parts, rehearsed, wanted
from bench.gpu.processes import ENDING, Runner, stack_of
from bench.gpu.record import Record
from bench.gpu.steps import RUNS
from bench.gpu.traced import summed
from jsplat.kernels.blend import BACKENDS

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 400


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The whole script: its status, what it printed, its folder, its summary."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "scripts/gpu_check.sh"), "--rehearse", "--seconds", str(SECONDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    return done, out, json.loads((out / "summary.json").read_text())


def test_a_hang_and_a_crash_are_recorded_with_their_stacks_and_the_rest_still_runs(rehearsal):
    done, out, summary = rehearsal
    states = {name: part["status"] for name, part in summary["parts"].items()}
    assert states.pop("a.mosaic_gpu.forward") == "hung", done.stdout + done.stderr
    assert states.pop("b.crash") == "crashed"
    assert states.pop("c.synccheck.mosaic_gpu") == "skipped"
    assert len(states) == len(rehearsed()) - 3
    assert set(states.values()) == {"passed"}, (out / "log.txt").read_text()[-5000:]
    hung, crashed = (summary["parts"][name] for name in ("a.mosaic_gpu.forward", "b.crash"))
    assert (hung["why"], crashed["why"]) == ("not done after 6 s", "killed by SIGSEGV")
    assert [any("in " + way in line for line in part["stack"]) for part, way in ((hung, "hang"), (crashed, "crash"))]
    assert hung["values"] == crashed["values"] == {"begun": "yes"}  # what was told before
    assert done.returncode == 1


def test_a_kernel_that_hung_is_not_used_again_and_the_next_one_is(rehearsal):
    _, _, summary = rehearsal
    assert summary["broken"] == {"mosaic_gpu": "a.mosaic_gpu.forward: hung"}
    assert summary["parts"]["c.synccheck.mosaic_gpu"]["why"] == "mosaic_gpu is not used: a.mosaic_gpu.forward: hung"
    assert summary["parts"]["b.1_images"]["values"]["backend"] == "triton"


def test_what_came_out_is_there_to_read_and_to_commit(rehearsal):
    done, out, summary = rehearsal
    assert summary["ended"]
    assert summary["seconds"] < SECONDS
    assert {path.name for path in out.iterdir()} == {"summary.json", "summary.txt", "bench.jsonl", "log.txt"}
    text = (out / "summary.txt").read_text()
    assert done.stdout.endswith(text)
    assert all(f"\n  {name} " in text for name in summary["parts"])
    (line,) = [line for line in map(json.loads, (out / "bench.jsonl").read_text().splitlines()) if line["value"]]
    assert line["suite"] == "gpu-headline"
    assert line["accuracy"]["psnr"] > 60
    values = {name: part.get("values", {}) for name, part in summary["parts"].items()}
    assert values["a.xla"]["gradient_error"] < 1e-4
    assert values["c.synccheck.triton"]["stopped"] > 0
    assert values["d.first"]["digest"] == values["d.second"]["digest"]
    launches = [values["e.trace"][name]["launches"] for name in ("forward and backward", "forward")]
    assert launches[0] > launches[1] > 0
    assert 0 < values["f.fit"]["psnr"] < 60
    assert "not installed" in text or "needs CUDA" in text  # gsplat


def test_without_a_gpu_nothing_else_is_tried(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path)}
    command = [sys.executable, "-m", "bench.gpu", "a"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == f"gpu_check: no GPU: the JAX of {sys.executable} runs on: cpu\n"
    assert [*json.loads((tmp_path / "summary.json").read_text())["parts"]] == ["about"]
    assert no_gpu({"status": "passed", "values": {"platform": "cpu"}}) == "runs on: cpu"
    assert no_gpu({"status": "failed", "why": "RuntimeError: x"}) == "does not start: RuntimeError: x"
    assert no_gpu({"status": "hung"}) == no_gpu({"status": "passed", "values": {"platform": "gpu"}}) == ""


def test_parts_have_a_step_something_to_run_and_a_name_of_their_own():
    for every in (parts(), rehearsed()):
        names = [part.name for part in every]
        assert len(set(names)) == len(names)
    assert {part.run for part in parts() + rehearsed()} == set(RUNS)
    assert [*dict.fromkeys(part.step for part in parts())] == [*STEPS]
    assert tuple(name for name in BACKENDS if name not in ("cpu", "xla")) == KERNELS
    assert all(part.least <= part.limit for part in parts())


def test_steps_are_chosen_and_what_is_done_is_not_repeated():
    def names(*given, done=()):
        return [part.name for part in wanted(parts(), list(given), set(done))]

    assert names() == [part.name for part in parts()]
    assert names("d") == ["about", "d.first", "d.second"]
    assert names("d", done={"about", "d.first"}) == ["about", "d.second"]
    assert names("d.first", done={"d.first"}) == ["about", "d.first"]  # named in full
    assert "d.first" not in names(done={"d.first"})
    with pytest.raises(ValueError, match=r"wanted steps about, a, b.* got z"):
        names("z")


def test_the_deadline_holds_whatever_hangs(tmp_path, monkeypatch):
    """Each hangs for a minute; the second gets what the first leaves, and then nothing is left."""
    monkeypatch.setattr(processes, "ENDING", 1.0)
    record, begin = Record(tmp_path), time.monotonic()
    hanging = [Part(f"b.{k}", "hang", limit=limit, least=1) for k, limit in enumerate((1.2, 60, 60))]
    with tempfile.TemporaryDirectory() as folder:
        Runner(record, 5, Path(folder), True).run(hanging)
    assert time.monotonic() - begin < 5 + ENDING
    states = [part["status"] for part in record.parts.values()]
    assert states == ["hung", "hung", "skipped"]
    assert record.parts["b.2"]["why"].startswith("needs 1 s, 0 s are left")
    assert json.loads((tmp_path / "summary.json").read_text())["parts"] == record.parts


def test_an_earlier_call_says_what_is_done_and_what_is_broken(tmp_path):
    earlier = {
        "parts": {
            "a.triton.forward": {"status": "passed"},
            "a.triton.backward": {"status": "failed", "why": "ValueError: backward"},
            "b.1_images": {"status": "skipped", "why": "needs 15 s, 3 s are left"},
        }
    }
    record = Record(tmp_path, earlier)
    assert record.done() == {"a.triton.forward", "a.triton.backward"}
    assert record.broken() == {"triton": "a.triton.backward: failed"}
    assert "not used: triton (a.triton.backward: failed)" in record.text()


def test_a_program_that_is_not_there_is_why_a_part_is_skipped(tmp_path):
    record = Record(tmp_path)
    Runner(record, 60, tmp_path, True).run([Part("c.x", "hang", tool="no-such-sanitizer --tool x")])
    assert record.parts == {"c.x": {"status": "skipped", "why": "no-such-sanitizer is not on the path"}}


def test_a_tool_that_complains_is_a_failure_with_its_last_line(tmp_path, monkeypatch):
    tool = tmp_path / "sanitizer"
    tool.write_text('#!/bin/sh\necho "$1 ERROR SUMMARY: 3 errors"\nexit 9\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    record = Record(tmp_path / "out")
    Runner(record, 60, tmp_path, True).run([Part("c.x", "hang", tool="sanitizer {out}")])
    assert record.parts["c.x"]["status"] == "failed"
    assert record.parts["c.x"]["why"] == f"{tmp_path / 'out'} ERROR SUMMARY: 3 errors"


def test_the_last_stack_is_found_in_what_was_printed():
    printed = "x\nTimeout (0:00:01)!\nThread 1:\n  File a\nFatal Python error: Aborted\n\nThread 2:\n  File b\n"
    assert stack_of(printed) == ["Fatal Python error: Aborted", "Thread 2:", "File b"]
    assert stack_of("nothing") == []


def test_a_trace_is_summed_by_what_ran_on_the_gpu():
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "/host:CPU"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 5, "args": {"name": "Stream #5(Compute)"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 9, "args": {"name": "XLA Ops"}},
        {"ph": "X", "name": "sort", "pid": 1, "tid": 5, "dur": 3000},
        {"ph": "X", "name": "blend", "pid": 1, "tid": 5, "dur": 1000},
        {"ph": "X", "name": "sort", "pid": 1, "tid": 5, "dur": 3000},
        {"ph": "X", "name": "sort", "pid": 1, "tid": 9, "dur": 9000, "args": {"hlo_op": "sort"}},
        {"ph": "X", "name": "call", "pid": 2, "tid": 5, "dur": 9000, "args": {"hlo_op": "x"}},
    ]
    assert summed(events, 2) == {"ms": 3.5, "launches": 1.5, "kernels": {"sort": [3.0, 1.0], "blend": [0.5, 0.5]}}
    assert summed(events[-1:], 1) == {"ms": 9.0, "launches": 1.0, "kernels": {"call": [9.0, 1.0]}}
