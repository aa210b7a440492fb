"""The gate's logic on made-up numbers, the workloads as data, and one tiny suite end to end."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench import run as command
from bench import timing
from bench.fits import to_the_same_psnr
from bench.metric import Metric, complaints, paired_ratio, slug, summary
from bench.timing import CannotRunError, Job, Ratio, Suite, chosen, grown_by, measure
from bench.workloads import SUITES, TWO_MODELS, Raster


def line(name="forward", value=10.0, unit="ms", direction="lower", **more) -> dict:
    return Metric(name, value, unit, direction, **more).line()


def test_a_summary_is_the_median_and_the_relative_spread():
    assert summary([1, 2, 3, 4, 100]) == (3, 2 / 3)
    assert summary([5.0] * 5) == (5, 0)


def test_ratios_are_taken_round_by_round():
    slow_machine = [1, 2, 4, 8, 16]  # every round twice as slow as the one before
    assert paired_ratio([3 * x for x in slow_machine], slow_machine) == (3, 0)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1, 2], [1])


def test_a_device_becomes_a_file_name():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("Model(R) @ 2.20GHz 2 cores") == "model-r-2-20ghz-2-cores"


@pytest.mark.parametrize(
    ("now", "before", "complaint"),
    [
        (line(value=11.4), line(), None),  # within the margin of 15 %
        (line(value=5.0), line(), None),  # better
        (line(value=11.6), line(), "forward: 11.6 ms, was 10: 1.16 times worse, noise explains 1.15"),
        (line(value=11.6, spread=0.04), line(spread=0.04), None),  # 3 * 0.08 of noise
        (line(value=12.5, spread=0.04), line(spread=0.04), "1.25 times worse, noise explains 1.24"),
        (line(value=8.0, direction="higher"), line(direction="higher"), "1.25 times worse"),
        (line(value=12.0, direction="higher"), line(direction="higher"), None),
        (line(value=2.1, bound=2.0), None, "forward: 2.1 ms, wanted at most 2"),
        (line(value=2.0, bound=2.0), None, None),
        (line(value=19.0, direction="higher", bound=20.0), None, "wanted at least 20"),
        (line(value=None, error="ValueError: x"), line(), "forward: no value (ValueError: x)"),
        (line(value=math.nan), line(), "forward: no value (nan)"),
        (line(value=None, skipped="needs CUDA"), None, None),
        (line(value=None, skipped="needs CUDA"), line(), "forward: in the baseline, but needs CUDA"),
        (None, line(), "forward: in the baseline, but not measured"),
        (line(), None, None),
    ],
)
def test_the_gate_complains_of_what_is_worse_and_of_nothing_else(now, before, complaint):
    found = complaints([now] if now else [], {"forward": before} if before else {})
    assert len(found) == (complaint is not None)
    if complaint:
        assert complaint in found[0]


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_workloads_that_exist_once(name):
    suite = SUITES[name]
    works = [w.name for w in suite.workloads]
    names = works + [r.name for r in suite.ratios]
    assert len(set(names)) == len(names)
    wanted = [
        n for r in suite.ratios for side in (r.over, r.under) for n in ([side] if isinstance(side, str) else side)
    ]
    assert set(wanted) <= set(works)


def test_names_of_measurements_are_unique_over_all_suites():
    names = [w.name for key, suite in SUITES.items() if key not in ("tiny", "cpu-small") for w in suite.workloads]
    names = [n for n in names if not n.startswith("scaling")]  # the same axis on another kind of device
    assert len(set(names)) == len(names)


def test_the_goals_are_bounds():
    bounds = {r.name: (r.direction, r.bound) for suite in SUITES.values() for r in suite.ratios if r.bound}
    assert bounds == {
        "channels_22_over_3": ("lower", 2.0),
        "identities_8_over_1": ("lower", 8.5),
        "dense_over_xla": ("higher", 20.0),
        "cpu train 22: torch over jsplat": ("higher", 3.0),
        "kernel train 22: xla over cpu": ("higher", 3.5),
        "kernel train 22, 8 identities: xla over cpu": ("higher", 3.5),
        "kernel step: xla over cpu": ("higher", 2.0),
        "kernel step, 8 identities: xla over cpu": ("higher", 2.0),
        "kernel train 22: torch over cpu": ("higher", 10.0),
        "kernel: one core over two": ("higher", 1.8),
        "kernel fit of 8, 100 steps: xla over cpu": ("higher", 2.0),
        "bisenet inference 4x128: torch over jsplat": ("higher", 1.0),
        "bisenet training 2x512: torch over jsplat": ("higher", 1.0),
        "bisenet training 4x128: torch over jsplat": ("higher", 1.0),
        "gpu forward 3: gsplat over jsplat": ("higher", 1.3),
        "gpu forward 22: gsplat over jsplat": ("higher", 1.8),
        "gpu train 3: gsplat over jsplat": ("higher", 1.5),
        "gpu train 22: gsplat over jsplat": ("higher", 2.5),
        "gpu step, 1: gsplat over jsplat": ("higher", 2.0),
        "gpu 22 channels over 3": ("lower", 1.6),
        "gpu two passes over one": ("higher", 1.5),
        "gpu 32 identities over 1": ("lower", 16.0),
        "gpu deterministic over scatter": ("lower", 1.3),
        "gpu step, 8: gsplat over jsplat": ("higher", 2.0),
        "gpu step, 32: gsplat over jsplat": ("higher", 2.0),
        "bisenet inference 64x512: torch over jsplat": ("higher", 1.0),
        "bisenet inference 1x512: torch over jsplat": ("higher", 1.0),
        "bisenet training 64x512: torch over jsplat": ("higher", 1.0),
    }


def test_a_tiny_suite_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0.0)  # how long does not matter here
    out, baseline = tmp_path / "deep" / "history.jsonl", tmp_path / "baseline.json"
    arguments = ["--suite", "tiny", "--out", str(out), "--baseline", str(baseline)]
    assert command.main([*arguments, "--save-baseline"]) == 0
    lines = {x["name"]: x for x in map(json.loads, out.read_text().splitlines())}
    shown = capsys.readouterr().out.splitlines()
    assert [text.startswith(name) for name, text in zip(lines, shown, strict=True)] == [True] * len(lines)
    ours = ["train_rgb", "tiny two passes", "tiny scatter", "dense"]
    assert list(lines) == [*ours, "torch", "gsplat", "dense_over_xla"]
    for x in lines.values():
        assert {"unit", "direction", "device", "commit", "versions", "load", "spread", "suite", "when"} <= set(x)
    for name in ours:
        x = lines[name]
        assert x["value"] >= x["fastest"] > 0
        assert x["rounds"] == 5
        assert x["accuracy"]["image_error"] < 1e-4  # float32, see tests/close.py
        assert x["accuracy"]["gradient_error"] < 5e-3
        assert x["compile_seconds"] > 0
        assert x["program_mb"] > 0
        assert x["floor"]["operations"] > x["floor"]["hits"] > 0
    assert lines["gsplat"]["skipped"] in ("needs CUDA", "torch is not installed", "gsplat is not installed")
    assert lines["torch"]["value"] or lines["torch"]["skipped"] == "torch is not installed"
    assert {"train_rgb", "dense", "dense_over_xla"} <= set(json.loads(baseline.read_text()))


def _prepare(work):
    if work.name == "skipped":
        raise CannotRunError("needs CUDA")
    if work.name == "broken":
        raise RuntimeError("no luck\nand a long trace")
    return Job(lambda: None, {"psnr": 60.0}, warm=False)


def test_a_crash_or_a_missing_device_is_a_metric_without_a_value_and_does_not_stop_the_others():
    works = tuple(Raster(name) for name in ("good", "broken", "skipped", "also good"))
    ratios = (
        Ratio("a", "good", "broken", "lower", 2.0),
        Ratio("b", "skipped", "good", "higher"),
        Ratio("c", ("skipped", "good"), "also good", "higher"),  # of several modes those that ran count
    )
    found = [metric.line() for metric in measure(Suite(works, ratios, 5), _prepare)]
    outcomes = {x["name"]: (x["value"] is None, x["error"], x["skipped"]) for x in found}
    assert outcomes == {
        "good": (False, None, None),
        "broken": (True, "RuntimeError: no luck", None),
        "skipped": (True, None, "needs CUDA"),
        "also good": (False, None, None),
        "a": (True, "broken crashed", None),
        "b": (True, None, "needs CUDA"),
        "c": (False, None, None),
    }
    assert found[-1]["note"] == "good over also good"
    assert found[-1]["accuracy"] == {"good.psnr": 60.0, "also good.psnr": 60.0}
    assert len(complaints(found, {})) == 2  # the crash and its ratio


def test_a_ratio_takes_the_fastest_mode(monkeypatch):
    milliseconds, now = {"fast": 1, "slow": 5, "ours": 1}, [0.0]
    monkeypatch.setattr("bench.timing.time.perf_counter", lambda: now[0])

    def prepare(work):
        def call():
            now[0] += milliseconds[work.name] / 1e3

        return Job(call, warm=False)

    suite = Suite(tuple(map(Raster, milliseconds)), (Ratio("r", ("slow", "fast"), "ours", "higher"),), 5)
    assert measure(suite, prepare)[-1].note == "fast over ours"


def test_workloads_are_chosen_by_name_with_the_ratios_among_them():
    suite = chosen(SUITES["cpu-raster"], "train 22, 8")
    assert {w.name.partition("/")[0] for w in suite.workloads} == {"cpu train 22, 8 identities"}
    assert [r.name for r in suite.ratios] == ["cpu train 22, 8 identities: torch over jsplat"]
    (ratio,) = chosen(SUITES["cpu-small"], "train_22").ratios
    assert ratio.name == "identities_8_over_1"  # the others need what is not there
    (ratio,) = chosen(SUITES["cpu-raster"], "^cpu train 3(/.* 1 threads)?$").ratios
    assert ratio.over == ("cpu train 3/torch batched, 1 threads",)  # of the modes those that are left


def test_memory_of_a_call_is_the_growth_of_its_peak():
    kept = []
    grown = grown_by(lambda: kept.append(b"\x01" * (64 << 20)))
    assert grown is None or 60 < grown < 80  # MB; a few pages of the interpreter besides


def _fit(name, implementation, steps, milliseconds, psnr) -> Metric:
    work = {"kind": "fit", "implementation": implementation, "mode": TWO_MODELS, "steps": steps}
    return Metric(name, milliseconds, "ms", "lower", rounds=1, fastest=milliseconds, accuracy={"psnr": psnr}, work=work)


def test_the_peer_is_timed_to_our_psnr():
    loops = [_fit(f"loop {n}", "two_models", n, 100.0 * n, 20 + n / 50) for n in (50, 100, 150)]
    ours = [_fit("low", "jsplat", 50, 1000.0, 21.5), _fit("high", "jsplat", 100, 2000.0, 30.0)]
    low, high = to_the_same_psnr([*loops, *ours])
    assert (low.value, low.note) == (10.0, "22.00 dB in 100 steps against 21.50 dB")
    assert (high.value, high.note) == (
        7.5, "23.00 dB in 150 steps against 30.00 dB, which is not reached: more than this"
    )  # fmt: skip
    assert to_the_same_psnr(ours) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate"], "--gate: no baseline for this device"),
        (["--rounds", "4", "--gate"], "--rounds: wanted at least 5, got 4"),
        (["--device", "gpu"], "--device: wanted gpu, JAX has cpu"),
    ],
)
def test_bad_arguments_stop_before_anything_is_measured(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([*arguments, "--baseline", str(tmp_path / "none.json")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_list_shows_every_suite(capsys):
    assert command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in SUITES)


def test_bench_imports_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import bench.run, bench.peers.gsplat, bench.peers.torch_bisenet\n"
        "from bench.peers import torch_raster\nassert torch_raster.torch is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)


def test_workloads_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SUITES["tiny"].workloads[0].count = 3
