"""What a run found: its headline numbers against its goals, and the same in words."""

import dataclasses
from typing import Any

METHODS = {  # key in report.json: (name, colour role, what it is)
    "teacher": ("Teacher", "teacher", "the parser as it came, on each photo alone"),
    "vote_plain": ("Plain vote", "plain", "the teacher's masks averaged on the 3D model, every view trusted alike"),
    "refined": ("Refined", "ours", "the teacher's masks fused on the 3D model by the robust vote, then rendered back"),
    "oracle": (
        "Oracle",
        "bound",
        "TRUE labels through the same 3D model and rendering: what a perfect vote would reach",
    ),
    "control": ("Control", "plain", "the teacher trained on for as long, but on its own old data alone"),
    "student": ("Student", "ours", "the teacher fine-tuned on the refined labels"),
    "truth_student": ("Truth-student", "bound", "trained like the student, but on true labels of the same pictures"),
}
GROUPS = {"fitted": "Fitted people", "unseen": "Unseen people"}
BINS = ("0-15", "15-45", "45-75", "75-105", ">105", "steep", "side", "all")
SIDE = "side views (|yaw| at least 60°)"


@dataclasses.dataclass(frozen=True)
class Goals:
    """What a run is meant to reach; shares and F1 differences in [0, 1]. The last two are losses: upper limits.

    Attributes:
        gap_closed: (refined - teacher) / (oracle - teacher), F1 of side views, fitted people.
        over_plain: refined - plain vote, same views.
        student_gain: student - teacher, F1 of side views, unseen people.
        truth_gain_share: student's gain over the truth-student's gain.
        frontal_loss: teacher - student, F1 at |yaw| <= 15, unseen people.
        frontal_loss_core: the same over the core classes.
    """

    gap_closed: float = 0.65
    over_plain: float = 0.05
    student_gain: float = 0.12
    truth_gain_share: float = 0.85
    frontal_loss: float = 0.015
    frontal_loss_core: float = 0.005


DEFAULT_GOALS = Goals()
GOALS = {  # field of Goals: (what it is, unit once multiplied by 100, whether it is an upper limit)
    "gap_closed": ("gap closed", "%", False),
    "over_plain": ("above the plain vote", "points", False),
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
    frontal = [f1(m, "unseen", "0-15", key) for key in ("f1", "f1_core") for m in ("teacher", "student")]
    return {
        "gap_closed": ratio(minus(refined, teacher), minus(oracle, teacher)),
        "over_plain": minus(refined, f1("vote_plain", "fitted")),
        "student_gain": minus(after, before),
        "truth_gain_share": ratio(minus(after, before), minus(best, before)),
        "frontal_loss": minus(frontal[0], frontal[1]),
        "frontal_loss_core": minus(frontal[2], frontal[3]),
        "control_gain": minus(control, before),
    }


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
    return "—" if value is None else f"{100 * value:.{digits}f}"


def goal_text(key: str, goals: Goals) -> str:
    """A goal in words."""
    _, unit, limit = GOALS[key]
    return f"goal: {'at most' if limit else 'at least'} {100 * getattr(goals, key):.3g} {unit}"


def headline(data: dict, goals: Goals) -> list[str]:
    """What was found, in sentences; the first one is the verdict. `data` holds "findings"."""
    found = data["findings"]

    def side(method: str, group: str) -> str:
        return percent(get(data, method, group, "bins", "side", "f1"))

    def versus(key: str) -> str:
        return "" if met(key, found[key], goals) else f" ({goal_text(key, goals)}, missed)"

    def people(group: str) -> str:
        return of_people(data, group, "fitted people" if group == "fitted" else "people")

    text = []
    if found["gap_closed"] is not None:
        text.append(
            f"On {SIDE} of the {people('fitted')} the refined labels reach an F1 of"
            f" {side('refined', 'fitted')} %, where the teacher has {side('teacher', 'fitted')} % and the oracle"
            f" {side('oracle', 'fitted')} %: refinement closes {percent(found['gap_closed'])} % of the"
            f" gap{versus('gap_closed')}."
        )
    if found["over_plain"] is not None:
        word = "above" if found["over_plain"] >= 0 else "below"
        points = percent(abs(found["over_plain"]))
        text.append(f"They stand {points} points {word} the plain vote{versus('over_plain')}.")
    if found["student_gain"] is not None:
        text.append(
            f"On {people('unseen')} never seen before the student scores {side('student', 'unseen')} % from the side,"
            f" the teacher {side('teacher', 'unseen')} %: {100 * found['student_gain']:+.1f}"
            f" points{versus('student_gain')}."
        )
    if found["truth_gain_share"] is not None:
        gain = percent(found["truth_gain_share"])
        text.append(f"That is {gain} % of what true labels would have given{versus('truth_gain_share')}.")
    frontal = []
    for key, classes in (("frontal_loss", "all classes"), ("frontal_loss_core", "the core classes")):
        if found[key] is not None:
            word = "loses" if found[key] >= 0 else "gains"
            frontal.append(f"{word} {percent(abs(found[key]))} points on {classes}{versus(key)}")
    if frontal:
        text.append(f"From the front (|yaw| at most 15°) the student {' and '.join(frontal)}.")
    if found["control_gain"] is not None:
        change = f"{100 * found['control_gain']:+.1f} points"
        text.append(f"Training the teacher on without new labels (the control) changes it by {change}.")
    known = [key for key in GOALS if found[key] is not None]
    missed = [GOALS[key][0] for key in known if not met(key, found[key], goals)]
    text += [] if found["gap_closed"] is not None else _without_truth(data)
    absent = [GOALS[key][0] for key in GOALS if key not in known]
    text += [f"Goals that could not be scored: {'; '.join(absent)}."] if absent else []
    verdict = f"All {len(known)} goals that could be scored are met."
    if not known:
        verdict = "Nothing was scored against a goal."
    elif missed:
        verdict = f"{len(missed)} of {len(known)} goals missed: {', '.join(missed)}."
    elif all(GOALS[key][2] for key in known):
        verdict = "No gain could be scored: it is only known that the student's losses are small enough."
    return [verdict, *text]


def of_people(data: dict, group: str, word: str) -> str:
    """A word for the people of a group whose scores are told ("people"), after their number where that is known."""
    count = get(data, "people", group, "scored")
    word = word.replace("people", "person") if count == 1 else word
    return word if count is None else f"{count} {word}"


def _without_truth(data: dict) -> list[str]:
    """What can be said of the refined masks all the same; it never says that they are right."""
    text = []
    before, after = (get(data, method, "fitted", "agreement") for method in ("teacher", "refined"))
    if before is not None and after is not None:
        text.append(
            f"Where two neighbouring views see one point, the teacher's masks agree on {percent(before)} %, the refined"
            f" ones on {percent(after)} %. That views agree does not say that they are right: look at the pictures."
        )
    bins = {name: get(data, "vote", "bins", name, "changed") for name in ("all", "side")}
    if bins["all"] is not None:
        side = "" if bins["side"] is None else f", {percent(bins['side'])} % from the side"
        text.append(f"The vote changed {percent(bins['all'])} % of the foreground{side}.")
    return text
