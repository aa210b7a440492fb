"""The last step of a run: everybody's masks scored against the truth, person by person, into report.json and .html."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.errors import Stopped
from jsplat.labels import METHODS
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Parser, load_parser, predict_labels
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import VOTERS, others_in, others_named
from jsplat.pipeline.packing import load_labelled
from jsplat.pipeline.scoring import Counts, picture_rows
from jsplat.pipeline.seeds import mean_over_seeds, spread_over_seeds
from jsplat.pipeline.students import VARIANTS, by_student
from jsplat.pipeline.studies import study_of
from jsplat.pipeline.work_folder import load_arrays
from jsplat.report.findings import ORACLE_ROW, TEACHER_ROW, TEST, VOTED
from jsplat.report.gallery import PictureRow, Pictures, Turntable
from jsplat.report.headline import edits_text, headline
from jsplat.report.page import write_report
from jsplat.runtime.programs import compile_totals
from jsplat.runtime.progress import Progress, log
from jsplat.runtime.provenance import provenance
from jsplat.runtime.stop import STOP
from jsplat.training_sets.auxiliary import AuxiliarySet
from jsplat.training_sets.reading import spread

MASKS = ("vote_plain", "plain_sharpened", "refined", "oracle")  # scored as they lie in the stage "label"
EDITS = "edits.json"  # in the stage "simulation"
PICTURED = ("student", "truth_student", "control")  # of the students
SHOWN = 2  # so many people of each group are shown
LOOKED_AT = 50  # so many of each group without true labels are asked how far views agree and what the vote changed
TURNTABLE_STEP = 3  # every so many novel views, by yaw, go into the turntable strip


def report(
    out: Path,
    groups: dict[str, list[Listed]],
    teacher: Parser,
    seconds: dict[str, float],
    failed: dict[str, str],
    config: RunConfig,
    notes: Sequence[str] = (),
    test: AuxiliarySet | None = None,
) -> None:
    """Scores a run whose stages are done, writes its report and prints the findings.

    Args:
        out: the run's folder.
        groups: who was trained on ("fitted") and who was not ("unseen").
        seconds: of each stage.
        failed: who was left out, and why.
        notes: what was done otherwise than usual, for the page.
        test: pictures that nobody learnt from.
    """
    taught = by_student([*seconds])
    students = {n: load_parser(out / n / "parser", teacher.labelset) for of in taught.values() for n in of}
    # The teacher is scored like the students, in one look, though its first labels may be flip-averaged.
    votes = _votes(config) if config.ablation else {}
    parsers = {"teacher": teacher, **students}
    counts, rows = count(out, groups, parsers, tuple(votes.values()))
    people = {g: {"all": len(of), "scored": counts.with_truth.get(g, 0)} for g, of in groups.items()}
    if test is not None:
        counts.add_test_set(test, parsers)
        people[TEST] = dict.fromkeys(("all", "scored"), counts.with_truth[TEST])
    each_seed = counts.scores()
    scores = mean_over_seeds(each_seed, taught, counts.intervals(taught))
    fitted = json.loads((out / "fit" / "fit.json").read_text())
    found = {
        "stages": seconds,
        "taken_over": _taken_over(out, seconds),
        "views": {"left_out": json.loads((out / "render" / "left_out.json").read_text())},
        "fit": {key: fitted[key] for key in ("psnr", "ssim", "identities")},
        "failed": failed,
        "notes": notes,
        "people": people,
        **scores,
        "seeds": spread_over_seeds(each_seed, taught),
        "differences": counts.differences(_pairs(taught), taught),
        "vote": counts.changes.found(),
        "config": to_json(config),
        **provenance(config.seed),
    }
    if (voters := voters_of(out, groups, teacher.labelset)) is not None:
        found["voters"] = voters
    if votes and any(group in counts.with_truth for group in VOTED):
        found["ablation"] = counts.ablation(votes)
    if "simulation" in seconds:
        found["edits"] = json.loads((out / "simulation" / EDITS).read_text())
    if (study := study_of(out)) is not None:
        found["study"] = study
    curves = {"Fit": fitted["curve"]}
    for name in taught:
        history = json.loads((out / name / "history.json").read_text())
        curves[f"Fine-tuning: {name}"] = {"step": history["steps"], "loss": history["loss"]}
    names = [one.identity for listed in groups.values() for one in listed]
    turns = [_turntable(out / "render", name) for name in dict.fromkeys(names[:SHOWN] + names[-1:])]
    pictures = Pictures(teacher.labelset, rows, turns, _variants(out / "student"))
    write_report(out, found, pictures, curves, config.goals)
    log("run ends", report=str(out / "report.html"), compiling=compile_totals())
    told = json.loads((out / "report.json").read_text())
    print(*headline(told, config.goals), *filter(None, [edits_text(told)]), sep="\n")


def _pairs(students: Iterable[str]) -> list[tuple[str, str]]:
    """Which methods are compared on the same people: the student with all parsers, refined masks with what they came
    from and with the plain vote."""
    others = ("teacher", *(name for name in students if name != "student"))
    votes = ("teacher", "plain_sharpened", "vote_plain")
    return [*(("student", name) for name in others), *(("refined", name) for name in votes)]


def _told_voters(out: Path) -> list[dict]:
    """What `parse` says of who voted, the first voter first; older first labels say nothing, and have one."""
    told = out / "parse" / VOTERS
    return json.loads(told.read_text()) if told.is_file() else []


def voters_of(out: Path, groups: dict[str, list[Listed]], classes: LabelSet) -> list[dict] | None:
    """Who voted, and how often each says what it ought to where the consensus is a class, mean over people; None: one
    voter alone."""
    listed = _told_voters(out)
    if len(listed) < 2:
        return None
    beliefs: dict[str, list[np.ndarray]] = {}
    for one in (one for people in groups.values() for one in people):
        others = others_named(out / "parse", one.identity)
        known = load_arrays(out / "label" / f"{one.identity}.npz", "belief")["belief"] if others else np.zeros((0, 0))
        for name, belief in zip((listed[0]["name"], *others), known):
            beliefs.setdefault(name, []).append(belief)
    for voter in listed:
        seen = np.stack(beliefs.get(voter["name"], [np.full(len(classes), np.nan)]))
        pairs = zip(classes.names, seen.T)
        voter["believed"] = {n: float(np.nanmean(of)) for n, of in pairs if np.isfinite(of).any()}
    return listed


def _taken_over(out: Path, stages: Iterable[str]) -> dict[str, list[int]]:
    """Of how many identities each stage took over what an earlier run had made, and of how many it has results."""
    known = {name: json.loads((out / name / "run.json").read_text()) for name in stages}
    counts = {name: (about["taken_over"], about["made"]) for name, about in known.items() if "taken_over" in about}
    return {name: [taken, taken + made] for name, (taken, made) in counts.items()}


def _votes(config: RunConfig) -> dict[str, str]:
    """The rows of the ablation: what each is called -> whose masks it scores."""
    named = {TEACHER_ROW: "teacher"} | {method: method for method in METHODS} | {"plain": "vote_plain"}
    named |= {"plain, sharpened": "plain_sharpened", "trained in the fit": "trained"}
    named |= {"palette, k-means (ours)": "palette", f"{config.vote.method}, sharpened (refined)": "refined"}
    return named | {ORACLE_ROW: "oracle"}


def count(
    out: Path, groups: dict[str, list[Listed]], parsers: Mapping[str, Parser], more: tuple[str, ...]
) -> tuple[Counts, list[PictureRow]]:
    """Everybody's masks against the truth, one person in memory at a time, and the pictures of the first of each group.

    Of those without true labels LOOKED_AT of each group, spread evenly, are looked at.

    Args:
        parsers: by the name of their masks, the teacher's first.
        more: further masks of the stage "label" to be counted, where it has them.

    Raises:
        Stopped: the process was asked to end.
    """
    teacher, *students = parsers
    methods = (teacher, *MASKS, *students)
    pictured = [name for name in methods if name in (teacher, *MASKS, *PICTURED)]
    counts, rows = Counts(parsers[teacher].labelset, methods), []
    chosen = []
    for group, people in groups.items():
        some = spread([listed for listed in people if listed.labelset is None], LOOKED_AT)
        some = {one.identity for one in (*some, *people[:SHOWN])}
        chosen += [
            (group, one, i < SHOWN) for i, one in enumerate(people) if one.labelset is not None or one.identity in some
        ]
    progress = Progress("report", len(chosen))

    def one(group: str, listed: Listed, shown: bool) -> None:
        capture, known = listed.read(), load_labelled(out / "label", listed.identity)
        masks = {name: known[name] for name in (*MASKS, *more) if name in known}
        masks |= {name: predict_labels(parser, capture.images) for name, parser in parsers.items()}
        counts.add(group, capture, masks, known["depth"], known["confidence"])
        if shown:
            others = others_in(out / "parse", capture) if len(_told_voters(out)) > 1 else []
            voters = {other.name: other.masks() for other in others}
            rows.extend(picture_rows(group, capture, {name: masks[name] for name in pictured if name in masks}, voters))

    for group, listed, shown in chosen:
        if STOP.is_set():
            raise Stopped(f"stopped in the report, at {listed.identity}")
        one(group, listed, shown)  # a function, so that nothing of a person is left when the next one is read
        progress.advance()
    return counts, rows


def _variants(student: Path) -> list[Turntable]:
    """Some of the variants that a student saw; none if it saw none."""
    if not (student / VARIANTS).is_file():
        return []
    known = load_arrays(student / VARIANTS)
    return [Turntable("variants", known["images"], known["labels"])]


def _turntable(rendered: Path, identity: str) -> Turntable:
    novel = load_arrays(rendered / f"{identity}.npz", "yaw", "images", "labels_student")
    order = np.argsort(novel["yaw"])[::TURNTABLE_STEP]
    return Turntable(f"{identity}: novel views", novel["images"][order], novel["labels_student"][order])
