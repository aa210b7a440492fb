"""Scaling laws, plots and tables from made-up histories."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from bench.captures_drawn import charts, images, tables
from bench.history import latest
from bench.metric import Metric
from bench.profile import parts_of, section
from bench.scaling import axis_points, cost, exponent, laws
from bench.tables import drawings, goals, limits, performance, scaling, times
from jsplat.report.figures import line_file

ABOUT = {"commit": "abc", "versions": {"jax": "1"}, "load": 0.5, "when": "2026-01-02T00:00:00+00:00", "device": "d"}


def raster(implementation="jsplat", milliseconds=1.0, **changes) -> dict:
    work = {
        "implementation": implementation,
        "gaussians": 8000,
        "edge": 128,
        "channels": 22,
        "identities": 1,
        **changes,
    }
    name = f"scaling {implementation} {changes}"
    metric = Metric(
        name, 1.1 * milliseconds, "ms", "lower", 0.1, 5, milliseconds, work=work, program_mb=8 * milliseconds
    )
    return metric.line(suite="cpu-scaling", **ABOUT)


def fit_line(implementation: str, seconds: float, psnr: float) -> dict:
    work = {"kind": "fit", "implementation": implementation, "steps": 50, "identities": 8, "gaussians": 10, "edge": 64}
    name = f"fit {implementation} {seconds}"
    metric = Metric(name, 1e3 * seconds, "ms", "lower", 0, 1, 1e3 * seconds, accuracy={"psnr": psnr}, work=work)
    return metric.line(suite="cpu-fit", **ABOUT)


def test_an_exponent_is_the_slope_in_logarithms():
    assert exponent([1, 4, 16], [3, 24, 192]) == pytest.approx(1.5)
    assert exponent([1, 10, 100], [2, 20, 200]) == pytest.approx(1)
    for x, y in (([1, 1], [1, 2]), ([0, 1], [1, 2])):
        with pytest.raises(ValueError, match="wanted positive numbers at 2 or more places"):
            exponent(x, y)


def test_laws_are_found_along_each_axis_and_an_edge_counts_as_pixels():
    lines = [raster(milliseconds=n / 8000, gaussians=n) for n in (2000, 8000, 32000)]
    lines += [raster(milliseconds=(e / 128) ** 3, edge=e) for e in (64, 256)]  # with the centre three: 3 / 2 in pixels
    lines += [raster(milliseconds=5.0, channels=3), raster("torch", 9.0, gaussians=2000)]
    found = laws(lines, "jsplat")
    assert set(found) == {"gaussians", "edge"}  # two points are no law
    assert found["gaussians"] == {"points": 3, "time": pytest.approx(1), "memory": pytest.approx(1)}
    assert found["edge"]["time"] == pytest.approx(1.5)
    assert laws(lines, "torch") == {}
    assert [p["work"]["edge"] for p in axis_points(lines, "edge", "jsplat")] == [64, 128, 256]


def test_cost_is_linear_in_batches():
    line = fit_line("jsplat", 36.0, 30.0)
    assert cost(line, 1000) == pytest.approx(1.25)  # 125 batches of 8
    assert cost(line, 1) == pytest.approx(0.01)


def test_a_plot_is_xml_that_shows_every_point():
    text = line_file("a < b", "x", {"one": [(1, 2), (10, 20), (100, 50)], "two": [(10, 5)]}, ["#000", "#111"], log=True)
    root = ElementTree.fromstring(text)
    one, two = (line.get("points").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert (len(one), len(two)) == (3, 1)
    places = [tuple(map(float, point.split(","))) for point in one]
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)  # decades
    assert places[0][1] > places[1][1] > places[2][1]  # up the page
    (chart,) = (inner for inner in root if inner.tag.endswith("svg"))  # drawn at its own size, or it would be centred
    assert float(chart.get("y")) + float(chart.get("height")) < float(root.get("height"))
    ElementTree.fromstring(line_file("flat", "x", {"one": [(1, 30.0), (2, 30.0)]}, ["#000"]))
    with pytest.raises(ValueError, match="two or more x"):
        line_file("t", "x", {"one": [(1, 1)]}, ["#000"])


def test_a_limit_is_judged_by_its_own_share_of_the_time():
    step = {"value": 32.0, "floor": {}}
    raster = {"value": 1.0, "floor": {"operations": 0.2 * 67e9, "bytes": 0.05 * 4.8e9}}
    text = limits({"d": {"gpu step, 32 identities/jsplat": step, "gpu own 22, 32 identities": raster}})
    assert "| training step of 32 identities, ms each | d | 1 | 0.8 | **no** |" in text
    assert "| share of the floor, 32 identities | d | 0.2 | 0.1 | yes |" in text
    assert "| forward + backward, one view, ms | GPU | not measured | 0.6 | - |" in text


def test_what_nobody_measured_is_said():
    text = performance({}, "plots")
    assert "| gpu train 22: gsplat over jsplat | GPU | not measured | - | 2.5 |" in text
    assert "GPU: not measured." in text
    assert scaling({}) == "GPU and cluster: not measured."
    assert drawings({}) == {}


def _ratio(value: float, fastest: float, **more) -> dict:
    name = "cpu train 22: torch over jsplat"
    return Metric(name, value, "x", "higher", 0.1, 5, fastest, 3.0, **more).line(suite="cpu-raster", **ABOUT)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (_ratio(3.5, 3.2), "| d | 3.5 (3.2) | - | 3 | yes | 10% | - |"),
        (_ratio(5.0, 2.0), "| d | 5 (2) | - | 3 | **no** | 10% | - |"),  # a busy machine slowed the peer
        (_ratio(2.0, 2.0), "| d | 2 (2) | - | 3 | **no** | 10% | - |"),
        (
            _ratio(None, None, skipped="torch is not installed"),
            "not measured: torch is not installed | - | 3 | - | - | - |",
        ),
        (_ratio(None, None, error="ValueError: x"), "failed: ValueError: x"),
    ],
)
def test_a_goal_is_met_only_by_the_median_and_the_best_rounds(line, shown):
    assert shown in goals({"d": {line["name"]: line}})


def test_nothing_is_judged_on_a_busy_machine():
    line = _ratio(5.0, 5.0, processor=2.0) | {"load": 4.0, "cores": 2}
    assert "| d | 5 (5) | 2 | 3 | not judged: busy machine | 10% | - |" in goals({"d": {line["name"]: line}})


def test_the_table_of_times_shows_rates_and_floors():
    work = {"kind": "network", "images": 4}
    floor = {"operations": 2e9, "bytes": 3e6}
    lines = {
        "net": Metric("net", 200.0, "ms", "lower", 0.1, 5, 100.0, work=work).line(suite="cpu-parser", **ABOUT),
        "train": Metric("train", 10.0, "ms", "lower", 0.1, 5, 9.0, floor=floor).line(suite="cpu-raster", **ABOUT),
        "cuda": Metric("cuda", None, "ms", "lower", skipped="needs CUDA").line(suite="gpu-raster", **ABOUT),
    }
    text = times(lines)
    assert "| net | 200 | 100 | 10% | 20 |" in text  # 4 images in 200 ms
    assert "2 Gop, 3 MB |" in text
    assert "| cuda | not measured: needs CUDA |" in text


def test_quality_against_time_is_drawn_and_priced():
    lines = [fit_line("jsplat", 36.0, 30.0), fit_line("two_models", 360.0, 29.0)]
    devices = {"d": {line["name"]: line for line in lines}}
    assert list(drawings(devices)) == ["d-psnr.svg"]
    assert "10 Gaussians, 64 px, 30.0 dB | 800 | 1.2 | 125.0 | 0.5 |" in scaling(devices)  # 1.25 rounds to even


def test_the_latest_line_with_a_value_counts(tmp_path):
    def line(name, value):
        return Metric(name, value, "ms", "lower", error=None if value else "crashed").line(suite="s", **ABOUT)

    history, baseline = tmp_path / "history", tmp_path / "baseline"
    history.mkdir()
    baseline.mkdir()
    rows = [line("a", 1.0), line("a", 2.0), line("a", None), line("b", None)]
    (history / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (baseline / "d.json").write_text(json.dumps({"a": line("a", 9.0), "c": line("c", 3.0)}))
    (baseline / "other.json").write_text(json.dumps({"kernels": {"spills": 0}}))
    found = latest(history, baseline)
    assert {name: row["value"] for name, row in found["d"].items()} == {"a": 2.0, "c": 3.0, "b": None}
    assert list(found) == ["d"]


def test_a_step_is_the_sum_of_its_parts_and_the_rest():
    times = {
        "the whole step": 40.0,
        "binning, forward": 2.0,
        "blend, forward": 5.0,
        "blend, forward and backward": 12.0,
    }
    times |= {"photo loss, forward": 1.0, "photo loss, forward and backward": 4.0, "optimizer, forward": 3.0}
    parts = parts_of(times)
    assert parts["blend"] == {"forward": 3.0, "backward": 5.0}  # 7 of the gradient alone, of which 2 bin again
    assert parts["binning"] == {"forward": 2.0, "backward": 2.0}
    assert parts["photo loss"] == {"forward": 1.0, "backward": 3.0}
    assert parts["rest"] == {"forward": 40.0 - (3 + 5 + 2 + 2 + 1 + 3 + 3), "backward": None}
    sizes = {"identities": 1, "gaussians": 8000, "edge": 128, "channels": 22, "unit": "core-ms"}
    text = section(ABOUT | sizes | {"step": 40.0, "parts": parts})
    assert "| blend | 3.00 | 5.00 | 20% |" in text
    assert "| optimizer | 3.00 | - | 8% |" in text


def test_what_captures_are_needed_is_drawn_and_told():
    views = [
        {"views": n, "refined fitted": f, "refined unseen": 0.6, "oracle unseen": 0.8}
        for n, f in ((14, 0.5), (56, 0.75))
    ]
    people = [{"people": n, "student unseen": f} for n, f in ((2, 0.4), (8, 0.55))]
    edits = [{"edits": n, "miou": f, "each": [f]} for n, f in ((0, 0.61), (8, 0.7))]
    about = {"device": "a machine", "commit": "abc", "counts": {"fitted": 5, "unseen": 3}}
    measured = about | {"views": views, "people": people, "edits": edits}
    report = {
        name: {"unseen": {"bins": {"side": {"f1": f1}}}} for name, f1 in (("teacher", 0.3), ("synthetic_student", 0.5))
    }
    found = charts(measured, report)
    assert "teacher, 3 unseen people" in found["needed_people.svg"]
    assert all(name in images("plots") for name in found)
    assert "refined, 5 people who taught" in found["needed_views.svg"]
    assert "oracle, 3 unseen people" in found["needed_views.svg"]
    told = tables(measured)
    assert "| 14 | 50.0 | 60.0 | 80.0 |" in told
    assert "| 8 | 55.0 |" in told
    assert "| 0 | 61.0 |" in told
