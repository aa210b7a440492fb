"""The report's numbers, words and page, from small made-up results."""

import base64
import dataclasses
import json
import re
import weakref
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from jsplat.captures.capture import write_capture
from jsplat.captures.index import Listed, list_captures
from jsplat.errors import InputError, Stopped
from jsplat.labelsets.labelset import CELEBAMASK_HQ as LABELS
from jsplat.labelsets.labelset import IGNORE, IGNORE_COLOR
from jsplat.metrics import statistics
from jsplat.metrics.agreement import agreement
from jsplat.metrics.masks import BINS as EVALUATED_BINS
from jsplat.metrics.masks import score
from jsplat.parser import Architecture, new_parser
from jsplat.pipeline import reporting
from jsplat.pipeline.work_folder import save_arrays
from jsplat.report.figures import heatmap, lines
from jsplat.report.findings import BASELINES, BINS, GROUPS, METHODS, Goals, findings
from jsplat.report.gallery import PictureRow, Pictures, Turntable, overlay
from jsplat.report.headline import edits_text, headline
from jsplat.report.page import write_report
from tests import ball

SIZE = 16


def scores(seed, wrong):
    """What `evaluate.score` gives for random masks of two people, a share of the pixels being wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 19, (6, SIZE, SIZE)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < wrong, 0, truth).astype(np.uint8)
    yaw, pitch = np.asarray([0, 30, 60, 90, -110, 10.0]), np.asarray([0, 0, 0, 0, 0, 40.0])
    return score(predicted, truth, yaw, pitch, tuple("aabbab"), LABELS) | {"agreement": 0.5}


@pytest.fixture(scope="module")
def full():
    wrong = {"teacher": 0.7, "vote_plain": 0.5, "plain_sharpened": 0.4, "refined": 0.2, "oracle": 0.05}
    wrong |= {"control": 0.7, "student": 0.4, "truth_student": 0.35}
    report = {m: {g: scores(i, w) for g in GROUPS} for i, (m, w) in enumerate(wrong.items())}
    report |= {"stages": {"fit": 12.0, "label": 3.5}, "fit": {"psnr": np.float32(31.5), "ssim": 0.9}}
    report |= {"taken_over": {"fit": [2, 3], "label": [0, 3]}}
    report |= {"ablation": {"plain": {"f1_side": 0.5}, "robust": {"f1_side": 0.7}}, "config": {"fit": {"steps": 3}}}
    return report | {"commit": "abc", "device": "cpu", "versions": {"jax": "0"}, "seed": 7}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    mask = rng.integers(0, 19, (SIZE, SIZE)).astype(np.uint8)
    rows = [
        PictureRow("id01, fitted, yaw 0", photo, {"truth": mask, "teacher": np.zeros_like(mask), "refined": mask}),
        PictureRow("id02, unseen, yaw 60", photo, {"truth": mask, "student": mask}, {"bodies <1>": mask}),
    ]
    return Pictures(LABELS, rows, [Turntable("id01", np.stack([photo] * 3), np.stack([mask] * 3))])


CURVES = {
    "Fit: loss": {"step": [0, 10, 20], "a": [1.0, 0.1, 0.01], "b": [1.0, 0.2, 0.05]},
    "no steps": {"loss": [3, 2]},
}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what the page points at."""

    OPEN_END = frozenset(["meta", "img", "br", "p", "tr", "td", "th", "li", "dt", "dd", "thead", "tbody"])

    def __init__(self, text):
        super().__init__()
        self.stack, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href") or (v and "url(" in v)]
        if tag not in self.OPEN_END:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in self.OPEN_END:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(folder):
    page = Page((folder / "report.html").read_text())
    assert page.stack == []
    return page, " ".join(" ".join(page.words).split())


def test_people_are_counted_where_their_scores_are_told(tmp_path, full, pictures):
    people = {"fitted": {"all": 3, "scored": 1}, "unseen": {"all": 2, "scored": 2}}
    report = full | {"people": people}
    text = " ".join(headline(report | {"findings": findings(report)}, Goals()))
    assert "On side views (|yaw| at least 60°) of the 1 fitted person the refined" in text
    assert "On 2 people never seen before the student" in text
    assert "of these 2 people the student" in text
    write_report(tmp_path, report, pictures, CURVES)
    assert "Unseen people: 2" in page_of(tmp_path)[1]


def test_masks_of_further_voters_are_shown(tmp_path, full, pictures):
    write_report(tmp_path, full, pictures, {})
    page = (tmp_path / "report.html").read_text()
    assert "<th>Voter: bodies &lt;1&gt;" in page
    assert "a label that means several classes is shown as the first of them" in page


def test_bins_are_those_of_evaluate():
    assert BINS == EVALUATED_BINS


def test_full_report(tmp_path, full, pictures):
    write_report(tmp_path, full, pictures, CURVES)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".written.json", "report.html", "report.json"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["teacher"]["unseen"]["bins"] == full["teacher"]["unseen"]["bins"]
    assert data["fit"] == {"psnr": 31.5, "ssim": 0.9}
    assert data["goals"]["gap_closed"] == 0.65
    assert data["findings"] == findings(full)
    assert set(full) | {"goals", "findings"} == set(data)

    _, text = page_of(tmp_path)
    for name, _, meaning in (METHODS[key] for key in METHODS if key not in BASELINES):
        assert name in text
        assert meaning in text
    for part in ("31.50 dB", "0.900", "abc", "robust", "id02, unseen, yaw 60", "100 % right", "0 % right", "12.0 s"):
        assert part in text, part
    assert f"{100 * full['refined']['fitted']['bins']['side']['f1']:.1f}" in text
    assert "What is missing" not in text
    assert "nan" not in text.lower().replace("nanmean", "")


def test_the_page_needs_no_network_and_no_script(tmp_path, full, pictures):
    write_report(tmp_path, full, pictures, CURVES)
    page, text = page_of(tmp_path)
    assert "0.3 minutes in all. Taken over from earlier runs, people: fit 2 of 3." in text
    assert len(page.links) == 1 + 3 + 1 + 2 + 1 + 1  # two photos, three and two masks, a voter's, a turntable
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    raw = (tmp_path / "report.html").read_text()
    assert not re.search(r"<script|https?://|@import", raw)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(page.links[-1].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (2 * SIZE, 3 * SIZE, 3)


def test_no_truth(tmp_path):
    write_report(tmp_path, {"teacher": {"fitted": {"agreement": 0.71}}}, Pictures(LABELS), {})
    _, text = page_of(tmp_path)
    assert "Nothing was scored against a goal." in text
    assert "Goals that could not be scored: gap closed; above the plain vote, both sharpened; student's gain" in text
    assert "No scores: the run had no true labels to compare with." in text
    assert (
        "Not in this report: pictures of masks, turntable, curves, ablation of votes, PSNR and SSIM of the fit" in text
    )
    assert "71.0" in text  # agreement needs no truth


def test_no_unseen_people(tmp_path, full, pictures):
    report = {k: {"fitted": v["fitted"]} if k in METHODS else v for k, v in full.items()}
    del report["control"]
    write_report(tmp_path, report, pictures, CURVES)
    _, text = page_of(tmp_path)
    assert "No scores on unseen people." in text
    assert "Not scored: Control." in text
    assert "All 2 goals that could be scored are met; 4 could not be scored." in text


def test_an_empty_report_is_still_a_page(tmp_path):
    write_report(tmp_path, {}, Pictures(LABELS), {})
    page_of(tmp_path)


def test_names_are_escaped(tmp_path):
    report = {"commit": "<script>x</script>", "stages": {"a<b": 1.0}, "ablation": {"<i>": {"f1_side": 0.5}}}
    write_report(tmp_path, report, Pictures(LABELS), {"<u>": {"<s>": [1, 2]}})
    raw = (tmp_path / "report.html").read_text()
    assert not re.search(r"<script|<i>|<u>|<s>|a<b", raw)


def test_a_number_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match=r"report\.fit\.psnr: wanted a finite number, text, list or dict, got inf"):
        write_report(tmp_path, {"fit": {"psnr": float("inf")}}, Pictures(LABELS), {})
    assert list(tmp_path.iterdir()) == []


def test_overlay_leaves_the_background_and_marks_what_is_ignored():
    photo = np.full((1, 3, 3), 100, np.uint8)
    mixed = overlay(photo, np.asarray([[0, 1, IGNORE]], np.uint8), LABELS)
    assert mixed[0, 0].tolist() == [100, 100, 100]
    assert mixed[0, 1].tolist() == [round(35 + 0.65 * c) for c in LABELS.colors[1]]
    assert mixed[0, 2].tolist() == [round(35 + 0.65 * c) for c in IGNORE_COLOR]
    with pytest.raises(InputError, match=r"overlay: mask: wanted the photo's size \(1, 3\), got \(1, 2\)"):
        overlay(photo, np.zeros((1, 2), np.uint8), LABELS)


def test_an_unknown_column_is_named():
    with pytest.raises(InputError, match=r"PictureRow id01: masks: wanted columns among .*, got \['pupil'\]"):
        PictureRow("id01", np.zeros((2, 2, 3), np.uint8), {"pupil": np.zeros((2, 2), np.uint8)})


def test_curves_go_logarithmic_only_when_they_must():
    assert ">0.01<" in lines("t", [0, 1], {"a": [1.0, 0.01]}, ["red"])
    assert ">0.01<" not in lines("t", [0, 1], {"a": [1.0, 0.5]}, ["red"])
    assert "polyline" in lines("t", [0, 1], {"a": [2.0, 2.0]}, ["red"])  # a flat line has no range to divide by
    assert "Fewer than two" in lines("t", [0, 1], {"a": [float("nan")] * 2}, ["red"])


def test_heatmap_cells():
    chart = heatmap("t", ["a", "b"], [[0.75, 0.25], [None, None]])
    assert chart.count("<rect") == 2
    assert "true a, predicted b: 25.0 %" in chart


def test_views_left_out_are_named_with_their_pose(tmp_path):
    report = {"views": {"left_out": {"ada & co": [[80.2, -30.0], [85.0, 0.0]], "bob": []}}}
    write_report(tmp_path, report, Pictures(LABELS), {})
    text = (tmp_path / "report.html").read_text()
    assert "<dt>ada &amp; co<dd>80° / -30°, 85° / 0°" in text
    assert "<dt>bob" not in text
    write_report(tmp_path, {"views": {"left_out": {"bob": []}}}, Pictures(LABELS), {})
    assert "Left out" not in (tmp_path / "report.html").read_text()


def test_simulated_edits_are_told_with_what_they_harmed(tmp_path):
    each = [{"corrected": c, "harmed": h, "pixels": n} for c, h, n in ((12, 0, 70), (9, 4, 66), (15, 5, 80))]
    edits = {"revealed": 3, "masks": 90, "median_corrected": 12.0, "margin": 0.005, "side_before": 0.5, "edits": each}
    edits |= {"side_after": 0.625, "side_after_others": 0.6}
    write_report(tmp_path, {"edits": edits}, Pictures(LABELS), {})
    text = (tmp_path / "report.html").read_text()
    assert "every wrong pixel (66 to 80 of them). Each corrected 12 other views" in text
    assert "and harmed 4 (median; down by as much); together 36 corrected and 9 harmed." in text
    assert edits_text({}) is None
    assert "went from 50.0 to 62.5 %, to 60.0 % without" in text


# Everybody scored, one person in memory at a time


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """A run of five people as far as it has labels: its groups, the captures, what each method says of each person."""
    rng, captures, masks = np.random.default_rng(0), [], {}
    for i, views in enumerate((8, 3, 5, 8, 6)):
        capture = ball.capture(f"p{i}", np.arange(views) * 45.0 - 90, turn=0.3 * i)
        captures.append(capture)
        write_capture(tmp_path / "captures" / capture.identity, capture)
        names = ("vote_plain", "refined", "oracle", "pose", "teacher", "student")
        wrong = {name: rng.random(capture.labels.shape) < 0.1 * j for j, name in enumerate(names)}
        masks[capture.identity] = {name: np.where(w, 2, capture.labels).astype(np.uint8) for name, w in wrong.items()}
        depth = np.where(capture.labels > 0, ball.DISTANCE - ball.RADIUS, 0).astype(np.float32)
        kept = {name: masks[capture.identity][name] for name in names[:3] + ("pose",) * (i != 1)}
        kept |= {"depth": depth, "confidence": np.full(depth.shape, 0.5 + 0.1 * i, np.float32)}
        save_arrays(tmp_path / "label" / f"{capture.identity}.npz", **kept)
        masks[capture.identity]["depth"] = depth
    parsers = {name: new_parser(Architecture(18, 0.05, 32), ball.SIDES, seed=0) for name in ("teacher", "student")}

    def predict(parser, images):
        name = next(name for name, known in parsers.items() if known is parser)
        (person,) = (c.identity for c in captures if np.array_equal(c.images, images))
        return masks[person][name]

    monkeypatch.setattr(reporting, "predict_labels", predict)
    listed = list_captures(tmp_path / "captures", None)
    return tmp_path, {"fitted": listed[:3], "unseen": listed[3:]}, parsers, captures, masks


def together(captures, masks, method):
    """The scores of all pictures of some people in one call."""
    depth = [agreement(masks[c.identity][method], masks[c.identity]["depth"], c.cameras) for c in captures]
    return score(
        np.concatenate([masks[c.identity][method] for c in captures]),
        np.concatenate([c.labels for c in captures]),
        np.concatenate([c.yaw for c in captures]),
        np.concatenate([c.pitch for c in captures]),
        tuple(c.identity for c in captures for _ in c.images),
        ball.SIDES,
    ) | {"agreement": float(np.mean(depth))}


def test_people_scored_one_by_one_score_as_all_pictures_together(scored):
    out, groups, parsers, captures, masks = scored
    counts, rows = reporting.count(out, groups, parsers, ("refined", "pose"))
    got = counts.scores()
    members = {"fitted": captures[:3], "unseen": captures[3:]}
    want = {m: {g: together(of, masks, m) for g, of in members.items()} for m in got}
    assert list(got) == ["teacher", "vote_plain", "refined", "oracle", "student"]
    assert got == want
    assert len({json.dumps(of) for of in got.values()}) == 5
    assert got["student"]["unseen"]["ci"]["all"] is None, "two people are too few for an interval"
    found = counts.differences([("student", "refined"), ("pose", "teacher")], {"student": ("student", "teacher")})
    of = [[(row["group"], row["bin"]) for row in found if row["a"] == a] for a in ("student", "pose")]
    assert of == [
        [(g, b) for g in members for b in ("side", "0-15", "all")],
        [("unseen", b) for b in ("side", "0-15", "all")],
    ]
    seeds = [got[name]["unseen"]["bins"]["side"]["f1"] for name in ("student", "teacher", "refined")]
    (row,) = (r for r in found if (r["a"], r["group"], r["bin"]) == ("student", "unseen", "side"))
    assert row["difference"] == pytest.approx(np.mean(seeds[:2]) - seeds[2], abs=1e-12)
    assert (row["people"], row["interval"]) == (2, None)
    bins = together(captures, masks, "refined")["bins"]
    wanted = {"f1_frontal": bins["0-15"]["f1"], "f1_45_75": bins["45-75"]["f1"], "f1_75_105": bins["75-105"]["f1"]}
    wanted |= {"f1_side": bins["side"]["f1"], "f1_core_side": bins["side"]["f1_core"]}
    ablation = counts.ablation({"ours": "refined", "not of p1": "pose", "of nobody": "trained"})
    assert ablation == {"ours": wanted}
    shown = [
        f"{name}, {group}" for group, names in (("fitted", ("p0", "p1")), ("unseen", ("p3", "p4"))) for name in names
    ]
    assert [", ".join(row.title.split(", ")[:2]) for row in rows] == [name for name in shown for _ in range(4)]
    assert set(rows[0].masks) == {"truth", *got}
    view = int(np.argmin(np.abs(captures[0].yaw - 0.0) + np.abs(captures[0].pitch)))
    np.testing.assert_array_equal(rows[0].masks["student"], masks["p0"]["student"][view])
    np.testing.assert_array_equal(rows[0].photo, captures[0].images[view])


def test_an_interval_over_seeds_is_of_their_mean(scored, monkeypatch):
    out, groups, parsers, *_ = scored
    monkeypatch.setattr(statistics, "FEWEST", 2)
    counts, _ = reporting.count(out, groups, parsers, ("refined", "pose"))
    got = {name: of["fitted"]["ci"] for name, of in counts.scores().items()}
    runs = {
        "student": ("student", "teacher"),
        "same": ("student", "student"),
        "one": ("refined",),
        "lacks": ("pose",) * 2,
    }
    found = counts.intervals(runs)
    assert found.keys() == {"student", "same", "lacks"}
    assert found["lacks"].keys() == {"unseen"}, "one of the fitted has no such masks"
    for name, of in found["same"]["fitted"].items():
        assert of == pytest.approx(got["student"][name])
        assert found["student"]["fitted"][name] != pytest.approx(
            np.mean([got["student"][name], got["teacher"][name]], 0)
        )


def test_nothing_of_a_person_is_in_memory_when_the_next_is_read(scored, monkeypatch):
    out, groups, parsers, *_ = scored
    alive, read, load = [], Listed.read, reporting.load_labelled

    def watched(things):
        alive.extend(map(weakref.ref, things))

    def reading(listed):
        assert [thing() for thing in alive if thing() is not None] == []
        capture = read(listed)
        watched([capture, capture.images, capture.labels])
        return capture

    def loading(*args):
        arrays = load(*args)
        watched(arrays.values())
        return arrays

    monkeypatch.setattr(Listed, "read", reading)
    monkeypatch.setattr(reporting, "load_labelled", loading)
    reporting.count(out, groups, parsers, ("pose",))
    assert len(alive) == 5 * (3 + 6) - 1


def test_people_without_labels_are_shown_and_not_scored(scored, monkeypatch):
    out, groups, parsers, captures, masks = scored
    blind = {name: [dataclasses.replace(one, labelset=None) for one in of] for name, of in groups.items()}
    counts, rows = reporting.count(out, blind, parsers, ())
    scores = counts.scores()
    assert {len(of) for method in scores.values() for of in method.values()} == {1}, "nothing but agreement"
    assert scores["refined"]["unseen"] == {"agreement": together(captures[3:], masks, "refined")["agreement"]}
    assert counts.ablation({"ours": "refined"}) == {}
    assert counts.changes.found()["people"] == 5
    assert "truth" not in rows[0].masks
    assert len(rows) == 16
    monkeypatch.setattr(reporting, "SHOWN", 1)
    monkeypatch.setattr(reporting, "LOOKED_AT", 2)
    counts, rows = reporting.count(out, blind, parsers, ())
    assert (counts.changes.people, len(rows)) == (4, 8), "the first two of three, and two of two"


def test_who_has_no_truth_costs_the_others_no_scores(scored):
    out, groups, parsers, captures, masks = scored
    some = {"fitted": [dataclasses.replace(groups["fitted"][0], labelset=None), *groups["fitted"][1:]]}
    counts, _ = reporting.count(out, some, parsers, ())
    assert counts.with_truth == {"fitted": 2}
    found, across = counts.scores()["refined"]["fitted"], together(captures[:3], masks, "refined")["agreement"]
    assert found == together(captures[1:3], masks, "refined") | {"agreement": across}


def test_scoring_ends_when_asked_to(scored, monkeypatch):
    out, groups, parsers, *_ = scored
    asked = iter([False, False, True])
    monkeypatch.setattr(reporting.STOP, "is_set", lambda: next(asked))
    with pytest.raises(Stopped, match="stopped in the report, at p2"):
        reporting.count(out, groups, parsers, ())
