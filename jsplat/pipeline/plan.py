"""What a run will do, decided before any work from what the headers of its captures say."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from jsplat.captures.index import Listed
from jsplat.errors import InputError
from jsplat.files.foreign import some_of
from jsplat.files.ownership import ABOUT
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.status import REPORT, STAGES
from jsplat.pipeline.students import PROCEDURAL_VIEWS, RECIPES, stage_names
from jsplat.training_sets.reading import spread

_WITH_LABEL = ("masks", "overlays")  # stages that follow at once: they hand over what it found
UNTIL = tuple(name for name in STAGES[: STAGES.index("student") + 1] if name not in _WITH_LABEL)  # where it may end
USUALLY_UNSEEN = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which stages a run has, and who takes part in what.

    Attributes:
        stages: in their order; "report" is the last one of a whole run.
        students: whom a whole run trains, be it that this one ends before: their training sets are made all the same.
        unseen: who is fitted and scored, but never taught.
        student_identities: whom the students learn from.
        notes: what is done otherwise than where there is truth of everybody and old training data, in sentences.
    """

    stages: tuple[str, ...]
    students: tuple[str, ...]
    unseen: frozenset[str]
    student_identities: frozenset[str]
    notes: tuple[str, ...]

    def ends_with(self, stage: str) -> bool:
        """Whether nothing is to be done after a stage, but what follows it at once."""
        return [name for name in self.stages if name not in _WITH_LABEL][-1] == stage


def plan(
    listed: Sequence[Listed], config: RunConfig, until: str | None, replay: Path | None, why_no_replay: str
) -> Plan:
    """The plan of a run.

    Args:
        listed: its captures; they have a label set where their labels are to be used.
        until: the last stage, one of UNTIL; None for all of it.
        replay: what the parser was trained on.
        why_no_replay: why there is none, for people.

    Raises:
        InputError: `unseen` leaves nobody to learn from, `student_people` is negative, or memory will not do for whom
            the students learn from.
    """
    true = [one.identity for one in listed if one.labelset is not None]
    unseen = _unseen(listed, config)
    rest = [one for one in listed if one.identity not in unseen]
    teaches = until in (None, "student")
    students = _student_captures(rest, config) if teaches else rest
    parts = {
        "truth_student": all(one.labelset is not None for one in students),
        "control": bool(true) and replay is not None,
        "simulation": config.ablation and any(one.labelset is not None for one in rest),
        **_baselines(config, [one for one in listed if one.labelset is not None]),
    }
    stages = [name for name in STAGES if parts.get(name, True)] + [REPORT]
    whole = tuple(name for name in stages if name in RECIPES)
    if until is None:
        stages = _with_seeds(stages, config.student_seeds)
    stages = stages if until is None else stages[: stages.index(_WITH_LABEL[-1] if until == "label" else until) + 1]
    notes = [_about_truth(listed, true, unseen)] if until is None and len(true) < len(listed) else []
    if teaches and replay is None:
        notes.append(
            "WITHOUT REPLAY the student learns, and may lose what its parser knew, as on frontal faces:"
            f" {why_no_replay}."
            " `--replay FRONTAL`, a labelled set like the parser's own, mixes such pictures into every batch."
        )
    return Plan(tuple(stages), whole, frozenset(unseen), frozenset(one.identity for one in students), tuple(notes))


def _baselines(config: RunConfig, true: Sequence[Listed]) -> dict[str, bool]:
    """Which students are trained only to be compared with: where they can be scored, and differ from the others."""
    asked = {f"{name}_student" for name in config.baselines if true}
    wanted = {name: name in asked for name, recipe in RECIPES.items() if recipe.baseline}
    wanted["photo_student"] &= config.variants.fraction > 0 or config.procedural_people > 0
    wanted["synthetic_student"] &= all(one.labelset == CELEBAMASK_HQ for one in true)
    return wanted


def _with_seeds(stages: Sequence[str], seeds: int) -> list[str]:
    """The stages with those of further seeds: all students with the first, then with each other one the main three."""
    taught = [name for name in stages if name in RECIPES]
    each = [stage_names(name, seeds)[1:] for name in taught if not RECIPES[name].baseline]
    after = stages.index(taught[-1]) + 1 if taught else 0
    return [*stages[:after], *(stage for of_seed in zip(*each) for stage in of_seed), *stages[after:]]


def _unseen(listed: Sequence[Listed], config: RunConfig) -> list[str]:
    """Who is held back: the last by name, those with truth first, for only they can be scored."""
    true = [one.identity for one in listed if one.labelset is not None]
    count = min(USUALLY_UNSEEN, len(true) // 2) if config.unseen is None else config.unseen
    if not 0 <= count < len(listed):
        hint = "`--set unseen=0` teaches all of them"
        raise InputError("unseen", wanted=f"0 or more, fewer than the {len(listed)} captures", got=count, hint=hint)
    order = [one.identity for one in listed if one.labelset is None] + true
    return order[len(order) - count :]


def _student_captures(known: Sequence[Listed], config: RunConfig) -> Sequence[Listed]:
    """Whom the students learn from; InputError, before anything was done, where memory will not do for them."""
    if config.student_people < 0:
        raise InputError("student_people", wanted="0 (all people) or more", got=config.student_people)
    chosen = spread(known, config.student_people)
    pictures = sum(one.shape[0] + config.views.wanted for one in chosen) + config.procedural_people * PROCEDURAL_VIEWS
    need, most = pictures * 4 * config.size**2 / 1e9, config.dataset.max_gigabytes
    if need > most:
        what = f"the students' {pictures} pictures"
        hint = "`--set student_people=N` takes fewer people, a smaller `--set size=PIXELS` needs less"
        hint += ", `--set dataset.max_gigabytes=N` allows more"
        raise InputError(what, wanted=f"at most {most} GB", got=f"{need:.3g} GB", hint=hint)
    return chosen


def _about_truth(listed: Sequence[Listed], true: Sequence[str], unseen: Sequence[str]) -> str:
    held = f"held back from teaching: {some_of(sorted(unseen))}" if unseen else "nobody is held back from teaching"
    if not true:
        return f"No truth: no scores, ablation, control, truth-student and simulated edits; {held}."
    return (
        f"Truth of {len(true)} of {len(listed)} people ({some_of(true)}): scores are of them alone, and {held}."
        " There is no truth-student unless all whom it learns from have true labels."
    )


def trained_on(parser: Path) -> tuple[Path | None, str]:
    """What the parser of a `train-parser` folder was trained on, where its run.json names that and it is still there.

    Returns:
        the folder; or None and why.
    """
    try:
        named = json.loads((parser / ABOUT).read_text())["config"]["data"]
    except (OSError, KeyError, TypeError, ValueError):
        return None, f"{parser.name} does not say what it was trained on"
    found = Path(str(named))
    return (found, "") if found.exists() else (None, f"{parser.name} was trained on {found}, which is not there")
