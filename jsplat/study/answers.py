"""The files that raters send back, read as what they are: something a stranger wrote."""

import dataclasses
import math
import re
from pathlib import Path

from jsplat.captures.capture import read_json
from jsplat.errors import InputError

MOST_BYTES = 4_000_000
CHOICES = ("left", "right", "same")
SCALE = (1, 2, 3, 4, 5)
"""Bad, poor, fair, good, excellent: the absolute category rating of ITU-T P.910."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """One rater's answers to all items of a study.

    Attributes:
        rater: a random name that the page made.
        given: item id -> one of CHOICES, or of SCALE for a rating.
        seconds: item id -> how long the rater looked.
    """

    rater: str
    given: dict[str, str | int]
    seconds: dict[str, float]


def read_key(path: Path) -> dict:
    """key.json of a study.

    Raises:
        InputError: another kind of file.
    """
    key = read_json(path)
    items = key.get("items")
    parts = isinstance(key.get("study"), str) and isinstance(key.get("comparisons"), list)
    parts = parts and isinstance(key.get("config"), dict) and type(key["config"].get("forgiven")) is int
    if not parts or not isinstance(items, dict) or not items:
        wanted = "the key of a study (study, comparisons, config, items)"
        hint = "`jsplat study` wrote it as OUT/key.json"
        raise InputError(str(path), wanted=wanted, got=", ".join(sorted(key)) or "nothing", hint=hint)
    for item, about in items.items():
        kind = about.get("kind") if isinstance(about, dict) else None
        fields = {"pair": ("left", "right", "yaw"), "rating": ("method",), "check": ("answer",)}
        if kind not in fields or any(field not in about for field in fields[kind]):
            raise InputError(f"{path.name}: items.{item}", wanted="a pair, rating or check", got=repr(about)[:80])
    return key


def read_answers(path: Path, key: dict) -> Answers:
    """One file of answers, complete and of this study.

    Raises:
        InputError: naming the item at fault: an id the study lacks, an item without answer, an answer that is none.
    """
    where = path.name
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise InputError(where, wanted=f"at most {MOST_BYTES} bytes", got=path.stat().st_size)
    data = read_json(path)
    if data.get("study") != key["study"]:
        hint = "sort the answers of several studies by this field, and give each study its own"
        raise InputError(f"{where}: study", wanted=key["study"], got=repr(data.get("study"))[:80], hint=hint)
    rater, answers = data.get("rater"), data.get("answers")
    if not isinstance(rater, str) or not re.fullmatch(r"[0-9a-f]{8,64}", rater):
        raise InputError(f"{where}: rater", wanted="8 to 64 hexadecimal digits", got=repr(rater)[:80])
    if not isinstance(answers, dict):
        raise InputError(f"{where}: answers", wanted="an answer per item", got=type(answers).__name__)
    strange = sorted(set(answers) - set(key["items"]))
    if strange:
        raise InputError(
            f"{where}: answers", wanted="items of this study", got=f"{len(strange)} others: {strange[0]!r:.80}"
        )
    missing = [item for item in key["items"] if item not in answers]
    if missing:
        raise InputError(f"{where}: answers", wanted=f"all {len(key['items'])} items", got=f"{len(missing)} missing")
    given, seconds = {}, {}
    for item, about in key["items"].items():
        given[item], seconds[item] = _answer(answers[item], about["kind"], f"{where}: answers.{item}")
    return Answers(rater, given, seconds)


def _answer(entry: object, kind: str, where: str) -> tuple[str | int, float]:
    if not isinstance(entry, dict) or set(entry) != {"answer", "seconds"}:
        raise InputError(where, wanted="answer and seconds", got=repr(entry)[:80])
    answer, seconds = entry["answer"], entry["seconds"]
    allowed = SCALE if kind == "rating" else CHOICES
    # True == 1 in Python, and 1.0 too.
    if type(answer) is not type(allowed[0]) or answer not in allowed:
        raise InputError(f"{where}.answer", wanted=f"one of {allowed}", got=repr(answer)[:80])
    if type(seconds) not in (int, float) or not math.isfinite(seconds) or not 0 <= seconds < 1e7:
        raise InputError(f"{where}.seconds", wanted="seconds", got=repr(seconds)[:80])
    return answer, float(seconds)
