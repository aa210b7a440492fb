"""Perceptual studies of a finished run: its masks into a page for raters, their answers into results."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jsplat.captures.capture import read_capture, read_json
from jsplat.captures.pictures import read_labels
from jsplat.edit import EditConfig
from jsplat.errors import InputError
from jsplat.files.atomic import ADVICE, as_json
from jsplat.files.foreign import some_of
from jsplat.files.ownership import ABOUT, check_untouched, write_kept
from jsplat.parser import enlarged, load_parser, predict_labels
from jsplat.pipeline.editing import Run, open_run
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.out import begin, claim
from jsplat.pipeline.work_folder import load_arrays
from jsplat.study import Photograph, StudyConfig, page, plan, read_answers, read_key, results

RESULT = "study.json"
KEPT = (ABOUT, "key.json", "study.html")
PLAIN = ("plain_sharpened", "vote_plain")  # what refined masks stand beside: the first that the run has


def make_study(
    run_path: Path,
    out: Path,
    config: StudyConfig,
    seed: int,
    *,
    captures: Path | None = None,
    against: Path | None = None,
) -> dict:
    """Writes study.html, for raters, and key.json, not for raters.

    Compared are teacher and student on photographs of people the student was not trained on, refined masks and the
    plain vote (sharpened like them, where the run made that) on those of fitted people, and refined masks with those of
    another program where some are given.

    Args:
        captures: the run's captures; beside it if None.
        against: folder of masks as `jsplat label` writes them: IDENTITY/labels/NNN.png, one per view.

    Returns:
        the key.

    Raises:
        InputError: nothing to compare, too few photographs, or a different study lies in `out`.
    """
    claim(out, "study", run_path, captures, against)
    check_untouched(out, KEPT)
    run = open_run(run_path, captures, EditConfig())
    photographs = _photographs(run, against)
    wanted = [("student", "teacher"), *(("refined", plain) for plain in PLAIN), ("refined", "theirs")]
    comparisons = [pair for pair in wanted if any(set(pair) <= set(p.masks) for p in photographs)]
    if against is not None and wanted[-1] not in comparisons:
        who = some_of(list(run.captures))
        raise InputError(str(against), wanted=f"masks of {who} (IDENTITY/labels/000.png)", got="none")
    made = plan(photographs, comparisons, run.settings.labelset, config, seed)
    key = {**made.key, "masks": made_of(run.path)}
    if (out / "key.json").exists() and read_json(out / "key.json").get("study") != made.study:
        got = "another study, which may have been answered"
        raise InputError(str(out), wanted="a new folder", got=got, hint=ADVICE)
    begin(out, "study", {"config": dataclasses.asdict(config)}, seed)
    write_kept(out / "key.json", as_json(key))
    write_kept(out / "study.html", page(made, run.settings.labelset).encode())
    return key


def made_of(run: Path) -> dict:
    """Fingerprints of the stages whose masks a study shows: another run's study is not this run's."""
    found = {name: run / name / "run.json" for name in ("parse", "label", "student")}
    return {name: read_json(p).get("fingerprint") for name, p in found.items() if p.is_file()}


def _trained_on(run: Run) -> set[str]:
    path = run.path / "render" / "student" / "samples.jsonl"
    return {json.loads(line)["identity"] for line in path.read_text().splitlines()} if path.is_file() else set()


def _photographs(run: Run, against: Path | None) -> list[Photograph]:
    trained, found = _trained_on(run), []
    has_student = (run.path / "student" / "parser").is_dir()
    student = load_parser(run.path / "student" / "parser", run.settings.labelset) if has_student else None
    looks = read_json(run.path / "parse" / "run.json").get("config", {})
    flip = bool(looks.get("flip", False))
    for name, folder in run.captures.items():
        capture, known = read_capture(folder, run.size), load_arrays(run.path / "label" / f"{name}.npz")
        plain = next(name for name in PLAIN if name in known)
        masks = {"refined": known["refined"], plain: known[plain]}
        if student is not None and name not in trained:
            # Both parsers look in the same way: mirrored and enlarged, where the first labels were made so.
            looking = enlarged(student, looks.get("enlarge", 1.0))
            masks["student"] = predict_labels(looking, capture.images, flip=flip)
            masks["teacher"] = first_labels(run.path / "parse", capture).labels()
        theirs: dict[int, np.ndarray] = {}
        if against is not None and (against / name).is_dir():
            size = (capture.cameras.width, capture.cameras.height)
            for view in range(len(capture.images)):
                path = against / name / "labels" / f"{view:03d}.png"
                if path.is_file():
                    theirs[view] = read_labels(path, f"{name}/labels/{path.name}", run.settings.labelset, size)
        for view, (photo, yaw) in enumerate(zip(capture.images, capture.yaw)):
            own = {method: of[view] for method, of in masks.items()}
            own |= {"theirs": theirs[view]} if view in theirs else {}
            found.append(Photograph(name, view, float(yaw), photo, own))
    return found


def study_results(folder: Path, answers: Sequence[Path], run: Path | None = None) -> dict:
    """Reads raters' files and writes study.json beside the key; with `run` also there, for its report.

    Raises:
        InputError: files that are no answers to this study, nobody who passes the checks, or another run's study.
    """
    for place in [folder, *([] if run is None else [run])]:
        check_untouched(place, [RESULT])
    key = read_key(folder / "key.json")
    found = results(key, [read_answers(path, key) for path in answers])
    found["masks"] = key.get("masks", {})
    if run is not None and found["masks"] != made_of(run):
        hint = "without `--run` the results stay beside the study"
        wanted = "the run this study was made of, unchanged"
        raise InputError(str(run), wanted=wanted, got="other masks", hint=hint)
    write_kept(folder / RESULT, as_json(found))
    if run is not None:
        write_kept(run / RESULT, as_json(found))
    return found


def study_of(run: Path) -> dict | None:
    """What raters said of a run's present masks, for report.json under "study"; None where nobody was asked."""
    path = run / RESULT
    found = read_json(path) if path.is_file() else None
    return found if found is not None and found.get("masks") == made_of(run) else None
