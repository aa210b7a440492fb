"""The parsers that a run trains, and what each learns from."""

import dataclasses
from collections.abc import Iterable, Sequence

PROCEDURAL = "procedural"  # in the stage "render": the pictures of procedural people that a student sees
PROCEDURAL_FIRST = 5000  # the number of the first of them: none of the demo's
PROCEDURAL_VIEWS = 14  # pictures of each
VARIANTS = "seen_variants.npz"  # in the stage of a student: some of those that it saw
SEED = "-"  # what stands between the name of a student and the number of a further seed


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a student learns from, beside the parser's old training data.

    Attributes:
        set: the folder of its training set, in the stage "render"; None: nothing.
        rows: which table of the stage "label" paints its novel views; None: the set is made otherwise.
        variants: whether it sees variants of the captured people too, labelled by that table, and procedural people.
        baseline: whether it is only trained to be compared with.
    """

    set: str | None
    rows: str | None = None
    variants: bool = False
    baseline: bool = False


RECIPES = {
    "student": Recipe("student", "rows_refined", variants=True),
    "truth_student": Recipe("truth_student", "rows_oracle"),
    "control": Recipe(None),
    "photo_student": Recipe("student", baseline=True),
    "plain_student": Recipe("plain_student", "rows_plain", baseline=True),
    "self_student": Recipe("self_student", baseline=True),
    "synthetic_student": Recipe("synthetic_student", baseline=True),
}
STUDENTS = tuple(RECIPES)


def stage_names(name: str, seeds: int) -> list[str]:
    """The stages of a student that is trained with so many seeds; the first bears its name alone."""
    return [name, *(f"{name}{SEED}{i}" for i in range(2, seeds + 1))]


def student_of(stage: str) -> tuple[str, int]:
    """The student that a stage trains, and which of its seeds: 0, 1, ..."""
    name, _, number = stage.partition(SEED)
    return name, int(number) - 1 if number else 0


def is_student(stage: str) -> bool:
    """Whether a stage trains a student."""
    name, seed, number = stage.partition(SEED)
    return name in RECIPES and (not seed or number.isdigit())


def further_seeds(names: Iterable[str]) -> list[str]:
    """Those of the names that are stages of a student with another seed than its first."""
    return [name for name in names if SEED in name and is_student(name)]


def by_student(stages: Sequence[str]) -> dict[str, list[str]]:
    """The stages of each student, in the order of its seeds."""
    found: dict[str, list[str]] = {}
    for stage in filter(is_student, stages):
        found.setdefault(student_of(stage)[0], []).append(stage)
    return found
