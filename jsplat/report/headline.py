"""What a run found, in words."""

import statistics

from jsplat.metrics.statistics import FEWEST
from jsplat.report.findings import (
    DEFAULT_GOALS,
    GOALS,
    GROUPS,
    METHODS,
    SIDE,
    TEST,
    Goals,
    findings,
    front,
    get,
    goal_text,
    met,
    minus,
    of_people,
    percent,
)


def headline(data: dict, goals: Goals) -> list[str]:
    """What was found, in sentences; the first one is the verdict. `data` is report.json."""
    found = findings(data)
    text = [*_refined(data, found, goals), *_student(data, found, goals), *_front(data, found, goals)]
    if found["control_gain"] is not None:
        change = f"{100 * found['control_gain']:+.1f} points"
        text.append(f"Training the teacher on without new labels (the control) changes it by {change}.")
    few = {g for g in GROUPS for row in _rows(data) if row["group"] == g and row["people"] < FEWEST}
    named = " and ".join(of_people(data, group, f"{group} people") for group in GROUPS if group in few)
    text += [f"No intervals: {named}, fewer than {FEWEST}."] if few else []
    text += [] if found["gap_closed"] is not None else _without_truth(data)
    return [*_verdict(found, goals), *text]


def _verdict(found: dict, goals: Goals) -> list[str]:
    known = [key for key in GOALS if found[key] is not None]
    missed = [GOALS[key][0] for key in known if not met(key, found[key], goals)]
    absent = [GOALS[key][0] for key in GOALS if key not in known]
    rest = f"; {len(absent)} could not be scored" if absent else ""
    verdict = f"All {len(known)} goals that could be scored are met{rest}."
    if not known:
        verdict = "Nothing was scored against a goal."
    elif missed:
        verdict = f"{len(missed)} of {len(known)} goals missed: {', '.join(missed)}{rest}."
    elif all(GOALS[key][2] for key in known):
        verdict = "No gain could be scored: it is only known that the student's losses are small enough."
    changed = [key for key in known if getattr(goals, key) != getattr(DEFAULT_GOALS, key)]
    parts = [f"{GOALS[key][0]} {goal_text(key, goals).removeprefix('goal: ')}" for key in changed]
    text = [f"Goals other than the defaults: {'; '.join(parts)}."] if changed else []
    return [verdict, *text, *([f"Goals that could not be scored: {'; '.join(absent)}."] if absent else [])]


def _refined(data: dict, found: dict, goals: Goals) -> list[str]:
    people, text = of_people(data, "fitted", "fitted people"), []
    if found["gap_closed"] is not None:
        refined, teacher, oracle = (_side(data, name, "fitted") for name in ("refined", "teacher", "oracle"))
        sure = _interval(data, "refined", "teacher", "fitted")
        gain = f"; refined minus teacher: {sure}" if sure else ""
        text.append(
            f"On {SIDE} of the {people} the refined labels reach an F1 of {refined} %, where the teacher has"
            f" {teacher} % and the oracle {oracle} %: refinement closes {percent(found['gap_closed'])} % of the"
            f" gap{_missed(found, 'gap_closed', goals)}{gain}."
        )
    if found["over_plain"] is not None:
        word = "above" if found["over_plain"] >= 0 else "below"
        sure = _interval(data, "refined", "plain_sharpened", "fitted")
        text.append(
            f"They stand {percent(abs(found['over_plain']))} points {word} the plain vote sharpened like"
            f" them{f' ({sure})' if sure else ''}{_missed(found, 'over_plain', goals)}."
        )
    return text + _classes(data, "refined", "fitted")


def _student(data: dict, found: dict, goals: Goals) -> list[str]:
    text = []
    if found["student_gain"] is not None:
        student, teacher = (_side(data, name, "unseen") for name in ("student", "teacher"))
        sure = _interval(data, "student", "teacher", "unseen")
        text.append(
            f"On {of_people(data, 'unseen', 'people')} never seen before the student scores {student} % from the side,"
            f" the teacher {teacher} %: {100 * found['student_gain']:+.1f} points"
            f"{f' ({sure})' if sure else ''}{_missed(found, 'student_gain', goals)}."
        )
    if found["truth_gain_share"] is not None:
        gain, sure = percent(found["truth_gain_share"]), _interval(data, "student", "truth_student", "unseen")
        lead = f"; student minus truth-student: {sure}" if sure else ""
        missed = _missed(found, "truth_gain_share", goals)
        text.append(f"That is {gain} % of what true labels would have given{missed}{lead}.")
    return text + _classes(data, "student", "unseen")


def _front(data: dict, found: dict, goals: Goals) -> list[str]:
    text = []
    for group, bin_, about in (
        ("unseen", "0-15", "From the front (|yaw| at most 15°) of these {people} the student {losses}{sure}."),
        (TEST, "all", "On the test set, {people} whom no parser learnt from, the student {losses}{sure}."),
    ):
        losses = []
        for key, of, classes in (
            ("frontal_loss", "f1", "all classes"),
            ("frontal_loss_core", "f1_core", "the core classes"),
        ):
            before, after = (get(data, method, group, "bins", bin_, of) for method in ("teacher", "student"))
            if (loss := minus(before, after)) is not None:
                word = "loses" if loss >= 0 else "gains"
                missed = _missed(found, key, goals) if (group, bin_) == front(data) else ""
                losses.append(f"{word} {percent(abs(loss))} points on {classes}{missed}")
        if losses:
            interval = _interval(data, "student", "teacher", group, bin_)
            sure = f"; student minus teacher on all classes: {interval}" if interval else ""
            people = of_people(data, group, "people")
            text.append(about.format(people=people, losses=" and ".join(losses), sure=sure))
    return text


def _side(data: dict, method: str, group: str) -> str:
    return percent(get(data, method, group, "bins", "side", "f1"))


def _missed(found: dict, key: str, goals: Goals) -> str:
    return "" if met(key, found[key], goals) else f" ({goal_text(key, goals)}, missed)"


def _rows(data: dict) -> list[dict]:
    return data.get("differences") or []


def _interval(data: dict, a: str, b: str, group: str, bin_: str = "side") -> str:
    """The interval of a difference, empty where none is known."""
    place = (a, b, group, bin_)
    found = [row["interval"] for row in _rows(data) if (row["a"], row["b"], row["group"], row["bin"]) == place]
    return f"95 % interval {100 * found[0][0]:+.1f} to {100 * found[0][1]:+.1f} points" if found and found[0] else ""


def class_changes(data: dict, method: str, group: str) -> str | None:
    """Which class gains most against the teacher from the side, and which loses most; None where there are no two."""
    before, after = (get(data, name, group, "classes_side") or {} for name in ("teacher", method))
    changes = {}
    for name in [name for name in before if name != "background"]:
        pair = get(before, name, "f1"), get(after, name, "f1")
        if None not in pair:
            changes[name] = pair
    order = sorted(changes, key=lambda name: changes[name][1] - changes[name][0])
    if len(order) < 2:
        return None
    (was, now), (was_worst, now_worst) = changes[order[-1]], changes[order[0]]
    word, worst = "loses most" if now_worst < was_worst else "gains least", order[0]
    best = "gains most" if now > was else "loses least"
    return (
        f"{order[-1]} {best} ({percent(was)} to {percent(now)} %), {worst} {word}"
        f" ({percent(was_worst)} to {percent(now_worst)} %)"
    )


def _classes(data: dict, method: str, group: str) -> list[str]:
    changes = class_changes(data, method, group)
    people, name = of_people(data, group, f"{group} people"), METHODS[method][0].lower()
    return [] if changes is None else [f"By class, {name} against teacher from the side, {people}: {changes}."]


def edits_text(data: dict) -> str | None:
    """What the simulated edits did, for better and for worse; None where there were none."""
    found = data.get("edits")
    if not found:
        return None
    edits = found["edits"]
    corrected, harmed, pixels = ([edit[key] for edit in edits] for key in ("corrected", "harmed", "pixels"))
    text = (
        f"Simulated: the truth of {found['revealed']} of {found['masks']} masks of the"
        f" {of_people(data, 'fitted', 'fitted people')}, those the editor puts first, was given as a person's edits, on"
        f" every wrong pixel ({min(pixels)} to {max(pixels)} of them). Each corrected"
        f" {found['median_corrected']:g} other views (median; mIoU up by more than {found['margin']:g}) and harmed"
        f" {statistics.median(harmed):g} (median; down by as much); together {sum(corrected)}"
        f" corrected and {sum(harmed)} harmed."
    )
    if found["side_before"] is not None:
        text += (
            f" Refined mIoU at |yaw| of at least 60° went from {100 * found['side_before']:.1f} to"
            f" {100 * found['side_after']:.1f} %, to {100 * found['side_after_others']:.1f} % without what was said in"
            " the edited views themselves."
        )
    return text


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
