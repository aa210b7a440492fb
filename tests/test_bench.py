"""The gate's logic on made-up numbers, and one tiny suite end to end."""

import json
import math

import pytest

from bench import run as command
from bench.metric import Metric, complaints, paired_ratio, slug, summary
from bench.workloads import SUITES, Ratio, Suite, Workload


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
        (None, line(), "forward: in the baseline, but not measured"),
        (line(), None, None),
    ],
)
def test_the_gate_complains_of_what_is_worse_and_of_nothing_else(now, before, complaint):
    found = complaints([now] if now else [], {"forward": before} if before else {})
    assert len(found) == (complaint is not None)
    if complaint:
        assert complaint in found[0]


def test_suites_name_workloads_that_exist_once():
    for suite in SUITES.values():
        names = [w.name for w in suite.workloads] + [r.name for r in suite.ratios]
        assert len(set(names)) == len(names)
        assert {n for r in suite.ratios for n in (r.over, r.under)} <= {w.name for w in suite.workloads}


def test_the_goals_are_bounds():
    bounds = {r.name: (r.direction, r.bound) for r in SUITES["cpu-small"].ratios}
    assert bounds == {
        "channels_22_over_3": ("lower", 2.0),
        "identities_8_over_1": ("lower", 8.5),
        "dense_over_xla": ("higher", 20.0),
    }


def test_a_tiny_suite_end_to_end(tmp_path, capsys):
    out, baseline = tmp_path / "deep" / "history.jsonl", tmp_path / "baseline.json"
    arguments = ["--suite", "tiny", "--rounds", "5", "--out", str(out), "--baseline", str(baseline)]
    assert command.main([*arguments, "--save-baseline"]) == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert lines == [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [x["name"] for x in lines] == ["train_rgb", "dense", "dense_over_xla"]
    for x in lines:
        assert x["value"] > 0
        assert x["rounds"] == 5
        assert {"unit", "direction", "device", "commit", "versions", "spread", "suite", "when"} <= set(x)
    for x in lines[:2]:
        assert x["accuracy"]["image_error"] < 1e-4  # float32, see tests/close.py
        assert x["accuracy"]["gradient_error"] < 5e-3
    stored = json.loads(baseline.read_text())
    assert set(stored) == {"train_rgb", "dense", "dense_over_xla"}


def test_a_crash_is_a_metric_without_a_value_and_does_not_stop_the_others(monkeypatch):
    def broken(work):
        raise RuntimeError(f"no {work.name}\nand a long trace")

    monkeypatch.setattr(command, "runner", broken)
    suite = Suite((Workload("a"), Workload("b")), (Ratio("a_over_b", "a", "b", "lower", 2.0),))
    found = [metric.line() for metric in command.measure(suite, 5)]
    assert [(x["name"], x["value"], x["error"]) for x in found] == [
        ("a", None, "RuntimeError: no a"),
        ("b", None, "RuntimeError: no b"),
        ("a_over_b", None, "a crashed"),
    ]
    assert len(complaints(found, {})) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--gate"], "--gate: no baseline for this device"), (["--rounds", "4"], "--rounds: wanted at least 5, got 4")],
)
def test_bad_arguments_stop_before_anything_is_measured(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([*arguments, "--baseline", str(tmp_path / "none.json")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
