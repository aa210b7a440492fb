"""What answers say: who is preferred, how good single masks are, and how sure that is."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from jsplat.errors import InputError
from jsplat.metrics.statistics import CONFIDENCE, wilson
from jsplat.study.answers import Answers
from jsplat.study.plan import SIDE_YAW


def mean_interval(values: Sequence[float | int]) -> tuple[float, float] | None:
    """Student's interval of a mean, at 95 %: mean +- t(n - 1) s / sqrt(n); None for fewer than two values.

    The values count as independent; the ends may lie beyond the scale's.
    """
    n = len(values)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def results(key: dict, answers: Sequence[Answers]) -> dict:
    """The study's outcome, JSON-ready, from the answers of raters who passed the attention checks.

    Args:
        key: from `read_key`.
        answers: from `read_answers`, one per rater.

    Returns:
        "pairs": per comparison (a, b) and for "all", "side" (|yaw| at least 60 degrees) and "rest": how many
        preferred a, preferred b, saw no difference; "share" of a among those who preferred one, and its Wilson
        "interval". "ratings": per method "n", "mean" (mean opinion score, 1 to 5) and its "interval".
        "raters" counted, and "dropped" with their failed checks.

    Raises:
        InputError: no answers, a rater twice, or nobody who passed.
    """
    names = [a.rater for a in answers]
    if not answers:
        raise InputError("answers", wanted="at least one file", got="none")
    if len(set(names)) < len(names):
        got, hint = f"{max(names, key=names.count)} twice", "name the later one of the two files alone"
        raise InputError("answers", wanted="one file per rater", got=got, hint=hint)
    checks = {item: about["answer"] for item, about in key["items"].items() if about["kind"] == "check"}
    failed = {a.rater: sum(a.given[item] != right for item, right in checks.items()) for a in answers}
    forgiven = key["config"]["forgiven"]
    kept = [a for a in answers if failed[a.rater] <= forgiven]
    if not kept:
        wanted = f"a rater who fails at most {forgiven} of {len(checks)} attention checks"
        raise InputError("answers", wanted=wanted, got=f"none of {len(answers)}")
    ratings: dict[str, list[int]] = {}
    for item, about in key["items"].items():
        if about["kind"] == "rating":
            ratings.setdefault(about["method"], []).extend(int(a.given[item]) for a in kept)
    return {
        "study": key["study"],
        "confidence": CONFIDENCE,
        "raters": len(kept),
        "dropped": [{"rater": r, "failed": n} for r, n in failed.items() if n > forgiven],
        "checks": len(checks),
        "forgiven": forgiven,
        "seconds": float(np.median([s for a in kept for s in a.seconds.values()])),
        "pairs": [_preference(key, kept, a, b) for a, b in key["comparisons"]],
        "ratings": {
            m: {"n": len(v), "mean": float(np.mean(v)), "interval": mean_interval(v)} for m, v in ratings.items()
        },
    }


def _preference(key: dict, kept: list[Answers], a: str, b: str) -> dict:
    asked = {i: x for i, x in key["items"].items() if x["kind"] == "pair" and {x["left"], x["right"]} == {a, b}}
    side = {i for i, x in asked.items() if abs(x["yaw"]) >= SIDE_YAW}
    out: dict = {"a": a, "b": b}
    for name, items in (("all", set(asked)), ("side", side), ("rest", set(asked) - side)):
        choices = [asked[i].get(r.given[i], "same") for r in kept for i in items]
        wins, losses = choices.count(a), choices.count(b)
        fraction = wins / (wins + losses) if wins + losses else None
        interval = wilson(wins, wins + losses)
        out[name] = {"a": wins, "b": losses, "same": choices.count("same"), "share": fraction, "interval": interval}
    return out
