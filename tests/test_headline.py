"""A run's findings and what is said of them, from small made-up scores."""

import pytest

from jsplat.report import differences_section
from jsplat.report.findings import Goals, ablation_gaps, findings, percent
from jsplat.report.headline import class_changes, headline


def bins(side, frontal=0.8, core=0.85):
    return {"bins": {"side": {"f1": side}, "0-15": {"f1": frontal, "f1_core": core}}}


def simple():
    return {
        "teacher": {"fitted": bins(0.2), "unseen": bins(0.2)},
        "vote_plain": {"fitted": bins(0.3)},
        "plain_sharpened": {"fitted": bins(0.6)},
        "refined": {"fitted": bins(0.8)},
        "oracle": {"fitted": bins(0.9)},
        "control": {"unseen": bins(0.21)},
        "student": {"unseen": bins(0.5, 0.79, 0.86)},
        "truth_student": {"unseen": bins(0.6)},
    }


def test_a_share_of_nothing_has_no_sign():
    assert [percent(x) for x in (-1e-6, 0.0, -0.001, 1.0, None)] == ["0.0", "0.0", "-0.1", "100.0", "—"]
    assert percent(-0.004, 0) == "0"


def test_findings_are_the_definitions():
    found = findings(simple())
    expected = {
        "gap_closed": 0.6 / 0.7,
        "over_plain": 0.2,
        "student_gain": 0.3,
        "truth_gain_share": 0.75,
        "frontal_loss": 0.01,
        "frontal_loss_core": -0.01,
        "control_gain": 0.01,
    }
    assert found == pytest.approx(expected, abs=1e-12)  # one or two float operations


def test_findings_without_parts_or_without_a_gap():
    assert set(findings({}).values()) == {None}
    report = simple()
    report["oracle"]["fitted"] = bins(0.2)  # nothing to close
    del report["truth_student"]
    found = findings(report)
    assert found["gap_closed"] is None
    assert found["truth_gain_share"] is None
    assert found["student_gain"] == pytest.approx(0.3, abs=1e-12)


def test_headline_says_what_was_missed():
    report = simple()
    report["findings"] = findings(report)
    verdict, *sentences = headline(report, Goals())
    assert verdict == "1 of 6 goals missed: share of the truth-student's gain."
    text = " ".join(sentences)
    assert "refinement closes 85.7 % of the gap." in text
    assert "They stand 20.0 points above the plain vote sharpened like them." in text
    assert "75.0 % of what true labels would have given (goal: at least 85 %, missed)" in text
    assert "loses 1.0 points on all classes and gains 1.0 points on the core classes." in text
    assert headline(report, Goals(truth_gain_share=0.7))[0] == "All 6 goals that could be scored are met."
    assert "missed)" not in " ".join(headline(report, Goals(truth_gain_share=0.7)))
    report["refined"]["fitted"] = bins(0.5)
    report["findings"] = findings(report)
    worse = headline(report, Goals())
    assert worse[0].startswith("3 of 6 goals missed: gap closed, above the plain vote, both sharpened,")
    assert "10.0 points below the plain vote sharpened like them (goal: at least 2 points, missed)" in " ".join(worse)


def test_no_verdict_of_success_without_a_gain():
    report = {method: {"unseen": bins(None)} for method in ("teacher", "student")}
    report["findings"] = findings(report)
    verdict, absent, front = headline(report, Goals())
    assert verdict == "No gain could be scored: it is only known that the student's losses are small enough."
    assert front.startswith("From the front")
    assert absent.startswith("Goals that could not be scored: gap closed; above")


def test_frontal_losses_are_judged_on_the_test_set_where_there_is_one():
    report = simple() | {"people": {"unseen": {"scored": 2}, "test": {"scored": 16}}}
    for method, core in (("teacher", 0.7), ("student", 0.68)):
        report[method]["test"] = {"bins": {"all": {"f1": 0.6, "f1_core": core}, "0-15": {"f1": None}}}
    found = findings(report)
    assert found["frontal_loss"] == 0
    assert found["frontal_loss_core"] == pytest.approx(0.02, abs=1e-12)
    front, apart = headline(report, Goals())[-3:-1]
    assert apart == (
        "On the test set, 16 people whom no parser learnt from, the student loses 0.0 points on all classes and loses"
        " 2.0 points on the core classes (goal: at most 0.5 points, missed)."
    )
    assert front == (
        "From the front (|yaw| at most 15°) of these 2 people the student loses 1.0 points on all classes and"
        " gains 1.0 points on the core classes."
    )


def test_goals_other_than_the_defaults_are_told_with_both():
    report = simple()
    _, changed, *_ = headline(report, Goals(gap_closed=0.5, frontal_loss=0.02))
    assert changed == (
        "Goals other than the defaults: gap closed at least 50 %, where 65 is the default;"
        " frontal loss, all classes at most 2 points, where 1.5 is the default."
    )
    del report["oracle"]
    verdict, changed, *_ = headline(report, Goals(gap_closed=0.5))
    assert verdict == "1 of 5 goals missed: share of the truth-student's gain; 1 could not be scored."
    assert changed.startswith("Goals that could not be scored"), "a goal of nothing is none"


def row(a, b, group, interval, people=8, bin_="side"):
    about = {"a": a, "b": b, "group": group, "bin": bin_, "people": people}
    return about | {"difference": 0.2, "interval": interval}


def test_intervals_of_differences_stand_beside_what_they_are_of():
    rows = [row("refined", "plain_sharpened", "fitted", [0.1, 0.25]), row("student", "teacher", "unseen", [0.2, 0.4])]
    rows += [row("student", "truth_student", "unseen", [-0.15, 0.01])]
    rows += [row("student", "teacher", "unseen", [-0.02, 0.03], bin_="0-15")]
    text = " ".join(headline(simple() | {"differences": rows}, Goals()))
    assert (
        "They stand 20.0 points above the plain vote sharpened like them (95 % interval +10.0 to +25.0 points)." in text
    )
    assert "+30.0 points (95 % interval +20.0 to +40.0 points)." in text
    assert "; student minus truth-student: 95 % interval -15.0 to +1.0 points." in text
    assert "; student minus teacher on all classes: 95 % interval -2.0 to +3.0 points." in text
    assert "No intervals" not in text
    few = [row("student", "teacher", "unseen", None, 2)]
    text = " ".join(headline(simple() | {"differences": few, "people": {"unseen": {"scored": 2}}}, Goals()))
    assert "No intervals: 2 unseen people, fewer than 6." in text
    shown = differences_section.section({"differences": rows[:2] + few})
    cells = "<td>Refined minus Plain vote, sharpened<td>Fitted people: 8<td>+20.0<br><small>+10.0 to +25.0</small>"
    assert cells in shown
    assert shown.count("<tr>") == 1 + 2
    assert differences_section.section({}) == ""


def test_the_class_that_loses_most_stands_beside_the_one_that_gains_most():
    before, after = (
        {"background": b, "skin": s, "hat": h, "hair": 0.5, "neck_l": n}
        for b, s, h, n in ((0.2, 0.4, 0.7, None), (0.9, 0.6, 0.3, 0.4))
    )
    sides = [{"unseen": {"classes_side": {k: {"f1": v} for k, v in of.items()}}} for of in (before, after)]
    report = {"teacher": sides[0], "student": sides[1], "people": {"unseen": {"scored": 1}}}
    told = "skin gains most (40.0 to 60.0 %), hat loses most (70.0 to 30.0 %)"
    assert class_changes(report, "student", "unseen") == told
    assert f"By class, student against teacher from the side, 1 unseen person: {told}." in headline(report, Goals())
    report["student"]["unseen"]["classes_side"]["hat"]["f1"] = 0.8
    assert class_changes(report, "student", "unseen").endswith("hair gains least (50.0 to 50.0 %)")
    assert class_changes(report, "refined", "unseen") is None


def test_the_gap_of_the_ablation_is_that_of_its_own_people():
    votes = {name: {"f1_side": of} for name, of in (("teacher", 0.3), ("pose", 0.6), ("oracle, sharpened", 0.9))}
    assert ablation_gaps(votes) == pytest.approx({"teacher": 0.0, "pose": 0.5, "oracle, sharpened": 1.0}, abs=1e-12)
    assert set(ablation_gaps({"pose": votes["pose"]}).values()) == {None}
