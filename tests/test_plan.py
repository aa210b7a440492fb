"""What a run will do, as the headers of its captures and its options decide."""

import dataclasses
import json
from pathlib import Path

import pytest

from jsplat.captures.index import Listed
from jsplat.cli.loop import UNTIL as OFFERED
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.pipeline import RunConfig
from jsplat.pipeline.plan import UNTIL, plan, trained_on
from jsplat.pipeline.status import STAGES
from jsplat.pipeline.students import RECIPES, by_student, further_seeds, student_of
from jsplat.variants import VariantsConfig
from tests import ball

REPLAY = Path("frontal")

USUAL = tuple(name for name in STAGES if name not in RECIPES or not RECIPES[name].baseline)
ALWAYS = ("parse", "fit", "label", "masks", "overlays", "render", "student")


def people(true: str, blind: str = "") -> list[Listed]:
    names = {name: ball.SIDES if name in true else None for name in sorted(true + blind)}
    return [Listed(Path(name), name, (5, 32, 32), labelset, 32, (32, 32)) for name, labelset in names.items()]


def planned(listed, until=None, replay: Path | None = REPLAY, **settings):
    return plan(listed, RunConfig(size=32, **settings), until, replay, "teacher says nothing")


def test_with_truth_and_old_data_nothing_is_left_out():
    found = planned(people("abcd"))
    assert found.stages == (*USUAL, "report")
    assert (found.unseen, found.student_identities, found.notes) == ({"c", "d"}, {"a", "b"}, ())


def test_baselines_are_trained_where_they_can_be_scored_and_differ_from_the_others():
    of_faces = [dataclasses.replace(one, labelset=CELEBAMASK_HQ) for one in people("abcd")]
    every = ("photo", "plain", "self", "synthetic")
    varied = {"baselines": every, "variants": VariantsConfig(fraction=0.5)}
    assert planned(of_faces, **varied).stages == (*STAGES, "report")
    plain = {"baselines": every, "variants": VariantsConfig(fraction=0.0)}
    assert set(STAGES) - set(planned(people("abcd"), **plain).stages) == {"photo_student", "synthetic_student"}
    assert set(planned(people("", "ab"), **varied).stages) == {*ALWAYS, "report"}
    one = planned(of_faces, baselines=("self",)).stages
    assert [name for name in one if name not in USUAL] == ["self_student", "report"]


def test_students_are_trained_with_a_seed_before_one_with_the_next_and_baselines_once():
    found = planned(people("abcd"), student_seeds=3, baselines=("self",)).stages
    names = ("student", "truth_student", "control")
    taught = [*names, "self_student", *(f"{name}-{seed}" for seed in (2, 3) for name in names)]
    assert found == (*STAGES[: STAGES.index("student")], *taught, "simulation", "report")
    once = {"self_student": ["self_student"]}
    assert by_student(found) == {name: [name, f"{name}-2", f"{name}-3"] for name in names} | once
    assert [student_of(stage) for stage in ("control", "control-3")] == [("control", 0), ("control", 2)]
    assert further_seeds(["student", "student-2", "student-old", "control-10", "fit-2"]) == ["student-2", "control-10"]
    assert planned(people("abcd"), "student", student_seeds=3).stages == STAGES[: STAGES.index("student") + 1]


@pytest.mark.parametrize(("true", "unseen"), [("a", ""), ("ab", "b"), ("abc", "c"), ("abcde", "de")])
def test_half_of_the_people_are_held_back_and_no_more_than_two(true, unseen):
    assert planned(people(true)).unseen == set(unseen)


def test_without_truth_nobody_is_held_back_and_nothing_waits_to_be_scored():
    found = planned(people("", "ab"))
    assert found.stages == (*ALWAYS, "report")
    assert (found.unseen, found.student_identities) == (set(), {"a", "b"})
    assert found.notes == (
        "No truth: no scores, ablation, control, truth-student and simulated edits; nobody is held back from teaching.",
    )
    assert planned(people("", "ab"), unseen=1).unseen == {"b"}, "somebody asked for it"


def test_those_with_truth_are_held_back_first():
    found = planned(people("ab", "cd"))
    assert (found.unseen, found.student_identities) == ({"b"}, {"a", "c", "d"})
    assert found.stages == (*ALWAYS, "control", "simulation", "report")
    assert found.notes[0].startswith("Truth of 2 of 4 people (a, b): scores are of them alone, and held back")
    assert planned(people("ab", "cd"), unseen=3).unseen == {"d", "a", "b"}


def test_without_old_data_the_student_is_trained_and_a_loud_line_says_so():
    found = planned(people("ab"), replay=None)
    assert found.stages == (*ALWAYS, "truth_student", "simulation", "report")
    (note,) = found.notes
    assert note.startswith("WITHOUT REPLAY the student learns")
    assert "teacher says nothing. `--replay FRONTAL`" in note
    assert planned(people("ab"), "label", None).notes == (), "no student, nothing to lose"


def test_a_run_may_end_after_a_stage():
    assert OFFERED == UNTIL == ("parse", "fit", "label", "render", "student")
    ends = dict(zip(UNTIL, UNTIL)) | {"label": "overlays"}  # masks are handed over as soon as they are there
    for until in UNTIL:
        found = planned(people("abcd"), until)
        assert found.stages == USUAL[: USUAL.index(ends[until]) + 1]
        assert [name for name in UNTIL if found.ends_with(name)] == [until]
    assert planned(people("", "ab"), "fit").notes == ()


def test_nobody_left_to_learn_from_is_refused():
    with pytest.raises(
        InputError, match=r"unseen: wanted 0 or more, fewer than the 2 captures, got 2; `--set unseen=0`"
    ):
        planned(people("ab"), unseen=2)
    with pytest.raises(InputError, match=r"unseen: .*got -1"):
        planned(people("ab"), unseen=-1)


def test_the_parser_says_what_it_was_trained_on(tmp_path):
    assert trained_on(tmp_path) == (None, f"{tmp_path.name} does not say what it was trained on")
    about = tmp_path / "run.json"
    about.write_text(json.dumps({"config": {"weights": "79999_iter.pth"}}))
    assert trained_on(tmp_path)[0] is None
    about.write_text(json.dumps({"config": {"data": str(tmp_path / "frontal")}}))
    assert trained_on(tmp_path) == (None, f"{tmp_path.name} was trained on {tmp_path / 'frontal'}, which is not there")
    (tmp_path / "frontal").mkdir()
    assert trained_on(tmp_path) == (tmp_path / "frontal", "")
