"""What a run found: its headline numbers against its goals."""

import dataclasses
from typing import Any

METHODS = {  # key in report.json: (name, colour role, what it is)
    "teacher": ("Teacher", "teacher", "the parser as it came, on each photo alone"),
    "vote_plain": ("Plain vote", "plain", "the teacher's masks averaged on the 3D model, every view trusted alike"),
    "plain_sharpened": ("Plain vote, sharpened", "fair", "the plain vote, sharpened as the refined masks are"),
    "refined": ("Refined", "ours", "the teacher's masks fused on the 3D model by the robust vote, then rendered back"),
    "oracle": (
        "Oracle",
        "bound",
        "TRUE labels through the same 3D model and rendering: what a perfect vote would reach",
    ),
    "control": ("Control", "plain", "the teacher trained on for as long as the student, on its own old data alone"),
    "synthetic_student": (
        "Synthetic people",
        "plain",
        "trained as long on procedural people with exact labels, without captures",
    ),
    "self_student": (
        "Self-training",
        "plain",
        "trained as long on the teacher's own labels of photographs and renders",
    ),
    "plain_student": (
        "Plain-vote student",
        "plain",
        "trained as long on the plain vote's labels of photographs and renders",
    ),
    "photo_student": (
        "Student without variants",
        "ours",
        "trained as long on the refined labels of photographs and renders alone",
    ),
    "student": (
        "Student",
        "ours",
        "the teacher fine-tuned on the refined labels, and on variants and procedural people where there are any",
    ),
    "truth_student": (
        "Truth-student",
        "bound",
        "trained as long on TRUE labels of photographs and renders, without variants",
    ),
}
BASELINES = ("synthetic_student", "self_student", "plain_student", "photo_student")  # only where they are asked for
TEST = "test"
GROUPS = {"fitted": "Fitted people", "unseen": "Unseen people", TEST: "Test set"}
VOTED = ("fitted", "unseen")  # of whom there are refined masks
BINS = ("0-15", "15-45", "45-75", "75-105", ">105", "steep", "side", "all")
TEACHER_ROW, ORACLE_ROW = "teacher", "oracle, sharpened"  # of the ablation
SIDE = "side views (|yaw| at least 60°)"


@dataclasses.dataclass(frozen=True)
class Goals:
    """What a run is meant to reach; shares and F1 differences in [0, 1]. The last two are losses: upper limits.

    Attributes:
        gap_closed: (refined - teacher) / (oracle - teacher), F1 of side views, fitted people.
        over_plain: refined - plain vote, both sharpened, same views.
        student_gain: student - teacher, F1 of side views, unseen people.
        truth_gain_share: student's gain over the truth-student's gain.
        frontal_loss: teacher - student, F1 of the test set; without one at |yaw| <= 15 of unseen people.
        frontal_loss_core: the same over the core classes.
    """

    gap_closed: float = 0.65
    over_plain: float = 0.02
    student_gain: float = 0.12
    truth_gain_share: float = 0.85
    frontal_loss: float = 0.015
    frontal_loss_core: float = 0.005


DEFAULT_GOALS = Goals()
GOALS = {  # field of Goals: (what it is, unit once multiplied by 100, whether it is an upper limit)
    "gap_closed": ("gap closed", "%", False),
    "over_plain": ("above the plain vote, both sharpened", "points", False),
    "student_gain": ("student's gain from the side", "points", False),
    "truth_gain_share": ("share of the truth-student's gain", "%", False),
    "frontal_loss": ("frontal loss, all classes", "points", True),
    "frontal_loss_core": ("frontal loss, core classes", "points", True),
}


def findings(report: dict) -> dict[str, float | int | None]:
    """The numbers the goals are about, and `control_gain`; None where a part is missing or a ratio has no meaning."""

    def f1(method: str, group: str, bin_: str = "side", key: str = "f1") -> float | int | None:
        return get(report, method, group, "bins", bin_, key)

    teacher, refined, oracle = (f1(m, "fitted") for m in ("teacher", "refined", "oracle"))
    before, after, control, best = (f1(m, "unseen") for m in ("teacher", "student", "control", "truth_student"))
    group, bin_ = front(report)
    frontal = [f1(m, group, bin_, key) for key in ("f1", "f1_core") for m in ("teacher", "student")]
    return {
        "gap_closed": ratio(minus(refined, teacher), minus(oracle, teacher)),
        "over_plain": minus(refined, f1("plain_sharpened", "fitted")),
        "student_gain": minus(after, before),
        "truth_gain_share": ratio(minus(after, before), minus(best, before)),
        "frontal_loss": minus(frontal[0], frontal[1]),
        "frontal_loss_core": minus(frontal[2], frontal[3]),
        "control_gain": minus(control, before),
    }


def front(report: dict) -> tuple[str, str]:
    """The group and the pose bin that say what the student lost where the teacher was good."""
    return (TEST, "all") if get(report, "teacher", TEST) is not None else ("unseen", "0-15")


def get(data: object, *keys: str) -> Any:
    """The value under nested keys, or None where one is missing."""
    for key in keys:
        if not isinstance(data, dict) or data.get(key) is None:
            return None
        data = data[key]
    return data


def minus(a: float | int | None, b: float | int | None) -> float | int | None:
    """a - b, or None if one is unknown."""
    return None if a is None or b is None else a - b


def ratio(a: float | int | None, b: float | int | None) -> float | int | None:
    """a / b, or None if one is unknown or there was nothing to gain (b <= 0)."""
    return None if a is None or b is None or b <= 0 else a / b


def met(key: str, value: float | int, goals: Goals) -> bool:
    """Whether a finding reaches its goal."""
    goal = getattr(goals, key)
    return value <= goal if GOALS[key][2] else value >= goal


def percent(value: float | int | None, digits: int = 1) -> str:
    """A share as a number of percent; a dash where it is unknown."""
    return "—" if value is None else f"{round(100 * value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before 0


def goal_text(key: str, goals: Goals) -> str:
    """A goal in words, with the default where it is another one."""
    _, unit, limit = GOALS[key]
    goal, usual = getattr(goals, key), getattr(DEFAULT_GOALS, key)
    default = "" if goal == usual else f", where {100 * usual:.3g} is the default"
    return f"goal: {'at most' if limit else 'at least'} {100 * goal:.3g} {unit}{default}"


def of_people(data: dict, group: str, word: str) -> str:
    """A word for the people of a group whose scores are told ("people"), after their number where that is known."""
    count = get(data, "people", group, "scored")
    word = word.replace("people", "person") if count == 1 else word
    return word if count is None else f"{count} {word}"


def ablation_gaps(votes: dict) -> dict[str, float | int | None]:
    """Of each row of the ablation the part of the gap between its teacher's and its oracle's rows that it closes."""
    teacher, oracle = (get(votes, name, "f1_side") for name in (TEACHER_ROW, ORACLE_ROW))
    return {name: ratio(minus(get(votes, name, "f1_side"), teacher), minus(oracle, teacher)) for name in votes}
