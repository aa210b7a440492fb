"""All stages in one command: captures and a parser in, a fine-tuned parser and a report out."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jsplat.captures.capture import Capture, write_capture
from jsplat.captures.index import Listed, list_captures, tell_resized
from jsplat.config import to_json
from jsplat.errors import InputError, Stopped
from jsplat.files.atomic import write_json
from jsplat.files.lock import NAME, ONE_RUN
from jsplat.files.ownership import DIGESTS, check_untouched
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Parser, ParserConfig, load_parser
from jsplat.pipeline import editing, estimate, reporting
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import Digests, digests_in
from jsplat.pipeline.elsewhere import gather
from jsplat.pipeline.fingerprints import (
    contents,
    edits_of,
    of_everybody,
    of_fit,
    of_label,
    of_masks,
    of_parse,
    of_render,
    of_set,
    own_pictures,
)
from jsplat.pipeline.importing import FOLDER, bring_all, foreign
from jsplat.pipeline.out import begin, claim, claim_run, claim_whole
from jsplat.pipeline.plan import Plan, plan, trained_on
from jsplat.pipeline.stages.fit import fit_captures
from jsplat.pipeline.stages.label import label_captures, label_settings, labels_of
from jsplat.pipeline.stages.own import layers_in, write_overlays, write_own_masks
from jsplat.pipeline.stages.parse import parse_captures
from jsplat.pipeline.stages.render import render_novel_views
from jsplat.pipeline.stages.shares import succeeded
from jsplat.pipeline.stages.train import train_student, write_set
from jsplat.pipeline.work_folder import alone, fingerprint, finished, refused, stage
from jsplat.runtime.devices import broadcast_from_first, is_first_host, wait_for_hosts
from jsplat.runtime.progress import Progress, log, log_name, log_to
from jsplat.runtime.provenance import provenance
from jsplat.runtime.stop import STOP
from jsplat.synthetic import render_captures
from jsplat.training_sets.auxiliary import read_auxiliary
from jsplat.training_sets.elsewhere import folder_in
from jsplat.training_sets.reading import longer_side, read_training_set


def run(
    captures_path: Path,
    parser_path: Path | None,
    out: Path,
    config: RunConfig,
    *,
    replay_path: Path | None,
    labels: Sequence[str] = (),
    truth: bool = True,
    until: str | None = None,
    dry: bool = False,
    begun: Callable[[], object] = lambda: None,
) -> dict:
    """The whole loop; what is done already is skipped, a killed fine-tuning goes on where it was.

    Args:
        captures_path: folder of captures, whose labels are used to score only; or what `import` knows, or a folder of
            such: imported into OUT/captures, again only where its files changed.
        parser_path: the weak parser (a folder of `train-parser` or `convert`); None: `labels` take its place, and the
            run ends with its renders, for nobody is there to be taught.
        labels: further voters, FOLDER or FOLDER=TABLE (see `jsplat.pipeline.elsewhere.gather`).
        replay_path: its training data; the folder that the parser's run.json names if None, and where that is gone, the
            student is trained without.
        truth: whether to use labels for scoring at all.
        until: the stage after which to stop (one of `jsplat.pipeline.plan.UNTIL`); None: the report.
        dry: only say what would be done and what it would take, with a few measured steps; nothing is written.
        begun: called when `out` may be written to, before the work.

    Returns:
        what report.json holds; with `until` only "stages" (seconds) and "failed" (who was left out, and why); with
        `dry` only "lines", for people.

    Raises:
        InputError: bad input, or another run or editor works in `out`.
    """
    if parser_path is None and (dry or until == "student"):
        asked = "--dry-run" if dry else "--until student"
        raise InputError(asked, wanted="a --parser, to be measured or taught", got="none")
    if dry:
        return _run(captures_path, parser_path, out, config, replay_path, labels, truth, until, begun, dry=True)
    claim_run(out, captures_path, parser_path, replay_path, *map(folder_in, labels))
    with alone(out / NAME, ONE_RUN):
        return _run(captures_path, parser_path, out, config, replay_path, labels, truth, until, begun)


def _run(
    captures_path: Path,
    parser_path: Path | None,
    out: Path,
    config: RunConfig,
    replay_path: Path | None,
    labels: Sequence[str],
    truth: bool,
    until: str | None,
    begun: Callable[[], object],
    dry: bool = False,
) -> dict:
    bad: dict[str, str] = {}
    sources = broadcast_from_first(lambda: _strings(foreign(captures_path)))
    teacher = None if parser_path is None else open_parser(parser_path)
    read: dict[str, Path] = {"captures": captures_path} | ({} if parser_path is None else {"parser": parser_path})
    brought = None
    if sources and dry:
        hint = "`jsplat import` brings each of them, and the run of what it wrote says what it will take"
        raise InputError(f"--dry-run: {captures_path}", wanted="captures of jsplat", got="another layout", hint=hint)
    if sources:
        # Says whose OUT is before anything lies in it.
        begin(out, "run", {name: str(path.resolve()) for name, path in read.items()}, config.seed)
        log_to(out / log_name(jax.process_index()))
        brought = bring_all({name: Path(path) for name, path in sources.items()}, out, config, bad)
        read |= {"captures": out / FOLDER, "imported_from": captures_path}
    listed = list_captures(brought or captures_path, config.size, labels=truth, refused=bad)
    tell_resized(listed)
    config = config.for_side(max(max(one.shape[1:]) for one in listed))
    voters = gather(teacher, labels, listed)
    if parser_path is None:
        old_path, lost, until = None, "", until or "render"
    else:
        old_path, lost = (replay_path, "") if replay_path is not None else trained_on(parser_path)
    planned, classes = plan(listed, config, until, old_path, lost), voters.classes
    if teacher is not None:
        config = config.for_side(config.size, teacher.architecture.input_size)
    for one in listed:
        if one.labelset is not None and one.labelset.names != classes.names:
            wanted = f"those that are voted on (`--truth none` passes over the captures' labels), {classes.names}"
            raise InputError(f"capture {one.identity}: classes", wanted=wanted, got=one.labelset.names)
    editing.check_drawn(out, listed, classes)
    learners = len(planned.taught) if "student" in planned.stages else 0
    input_size = None if teacher is None else teacher.architecture.input_size
    need = estimate.needs([one.shape for one in listed], len(classes), config, learners, input_size)
    free, memory = estimate.room_for(out)
    estimate.check_room(need, free, memory, config.size)
    lines = estimate.describe(listed, planned.stages, config, need, free)
    if dry:
        assert teacher is not None
        return {"lines": [*lines, *planned.notes, *estimate.measured(listed, teacher, config)]}
    replay = None
    if old_path is not None and "student" in planned.stages:
        replay = read_training_set(old_path, config.size, config.dataset)
    about: dict = {name: str(path.resolve()) for name, path in read.items()}
    about |= {"replay": None if old_path is None else str(old_path.resolve())}
    about |= {"labels": list(labels), "truth": truth, "stages": planned.stages, "notes": planned.notes}
    begin(out, "run", about | {"config": to_json(config)}, config.seed)
    begun()
    log_to(out / log_name(jax.process_index()))
    log("run begins", captures=[one.identity for one in listed], stages=planned.stages, **provenance(config.seed))
    _tell(planned, lines)
    for name, why in bad.items():
        log("identity failed", identity=name, stage="list", why=why)
    digests = Digests(out / DIGESTS)
    try:
        held = contents(listed, digests)
        weak = "" if parser_path is None else broadcast_from_first(lambda: digests.path(parser_folder(parser_path)))
        voices = broadcast_from_first(lambda: voters.fingerprints(weak, listed, digests))
        old = None if replay is None or old_path is None else broadcast_from_first(lambda: digests.path(old_path))
    finally:
        digests.save()
    seconds: dict[str, float] = {}

    def do(
        name: str, part: object, wanted: str, fill: Callable[[Path], None], each: dict[str, str] | None = None
    ) -> Path:
        if finished(out / name, wanted) is None:
            with stage(out / name, wanted, part, config.seed, command=f"run {name}", each=each) as folder:
                fill(folder)
        done = finished(out / name, wanted)
        seconds[name] = done if done is not None else 0.0
        return out / name

    def do_each(name: str, part: object, each: dict[str, str], fill: Callable[[Path], None], *more: object) -> Path:
        return do(name, part, of_everybody(each, *more), fill, each)

    def so_far() -> dict:
        stages = [name for name in ("parse", "fit", "label", "masks", "render") if name in seconds]
        return {"stages": seconds, "failed": bad | {n: why for s in stages for n, why in refused(out / s).items()}}

    seen = {one.identity: of_parse(held[one.identity], voices[one.identity], config) for one in listed}
    first = do_each("parse", {"flip": config.flip}, seen, lambda f: parse_captures(listed, voters, f, config.flip))
    if planned.ends_with("parse"):
        return so_far()
    parsed = succeeded(listed, first)
    shape = {one.identity: of_fit(held[one.identity], seen[one.identity], config) for one in parsed}
    fitted = do_each("fit", config.fit, shape, lambda f: fit_captures(parsed, first, classes, config, f))
    if planned.ends_with("fit"):
        return so_far()
    with_scenes = succeeded(parsed, fitted)
    refined = {n: of_label(held[n], seen[n], shape[n], config) for n in (one.identity for one in with_scenes)}
    labelled = do_each(
        "label",
        label_settings(config),
        refined,
        lambda f: label_captures(with_scenes, fitted, first, classes, config, f),
    )
    editing.vote_again(out, succeeded(with_scenes, labelled), classes, config)
    with_labels = succeeded(with_scenes, labelled)
    train = [one for one in with_labels if one.identity in planned.taught]
    edits = broadcast_from_first(lambda: {one.identity: edits_of(out, one.identity, digests) for one in with_labels})
    pictures = {one.identity: own_pictures(one, digests) for one in with_labels}
    own = {n: of_masks(held[n], shape[n], refined[n], edits[n], pictures[n], config) for n in edits}
    masks = do_each(
        "masks",
        {"edits": edits},
        own,
        lambda f: write_own_masks(
            with_labels,
            fitted,
            lambda name: labels_of(labelled, name, classes),
            layers_in(out, classes),
            classes,
            config,
            f,
        ),
    )
    with_masks = succeeded(with_labels, masks)
    seen_on = {one.identity: own[one.identity] for one in with_masks}
    do_each("overlays", None, seen_on, lambda f: write_overlays(with_masks, masks, classes, f))
    if planned.ends_with("label"):
        digests.save()
        return so_far()
    novel = {n: of_render(held[n], shape[n], refined[n], edits[n], config) for n in edits}
    rendered = do_each(
        "render",
        [to_json(config.views), config.unseen, config.taught],
        novel,
        lambda f: _render(with_labels, train, out, classes, config, f),
        [[one.identity, one.labelset is not None] for one in train],
    )
    if planned.ends_with("render"):
        digests.save()
        return so_far()
    assert teacher is not None  # without a parser nothing is planned after the renders
    left = succeeded(with_labels, rendered)
    groups = {
        "fitted": [o for o in left if o.identity not in planned.unseen],
        "unseen": [o for o in left if o.identity in planned.unseen],
    }
    sets = {name: rendered / name for name in reporting.STUDENTS if (rendered / name).is_dir()}
    data = broadcast_from_first(lambda: {name: digests.path(path) for name, path in sets.items()})
    digests.save()
    practice = None if old is None else of_set(old, config)
    for name in reporting.STUDENTS:
        if name not in planned.stages or (name == "truth_student" and name not in sets):
            continue
        # What it learns from counts, not how that was made: the same set again trains nobody again.
        wanted = fingerprint(weak, practice, data.get(name), config.finetune, config.seed)
        part = {"finetune": to_json(config.finetune), "data": data.get(name), "replay": old}

        def teach(folder: Path, name: str = name) -> None:
            own = None if name == "control" else replay
            pictures = replay if name == "control" and replay is not None else read_auxiliary(sets[name])
            train_student(folder, pictures, config.finetune, config.seed, start=teacher, replay=own)

        do(name, part, wanted, teach)
    if planned.ends_with("student"):
        return so_far()
    names = [one.identity for one in groups["fitted"] if one.labelset is not None]
    if "simulation" in planned.stages and names:
        part = [to_json(config.edit), to_json(config.simulation), names]
        wanted = fingerprint(part, [refined[name] for name in names])
        do("simulation", part, wanted, lambda f: _simulate(f, out, read["captures"], names, config))
    if is_first_host():
        reporting.report(out, groups, teacher, seconds, so_far()["failed"], config, planned.notes)
    wait_for_hosts(f"{out}: reported")
    return json.loads((out / "report.json").read_text())


def _strings(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}


def _tell(planned: Plan, lines: list[str]) -> None:
    """Says what will be done, and what of it otherwise than usual, before it is done."""
    for note in (*lines, *planned.notes):
        log("run is told", note=note)
        if is_first_host():
            print(f"run: {note}", file=sys.stderr, flush=True)


def parser_folder(path: Path) -> Path:
    """Where the parser of a `train-parser` folder lies, or a bare checkpoint folder itself."""
    return path / "parser" if (path / "parser").is_dir() else path


def open_parser(path: Path) -> Parser:
    """The parser of a `train-parser` folder, or of a bare checkpoint folder."""
    return load_parser(parser_folder(path))


def _render(
    listed: list[Listed], train: list[Listed], out: Path, classes: LabelSet, config: RunConfig, folder: Path
) -> None:
    """Novel views of everyone, and what the students learn from of those in `train`."""

    def known(identity: str) -> dict[str, np.ndarray]:
        return labels_of(out / "label", identity, classes)

    render_novel_views(listed, out / "fit", known, classes, config, folder)
    if not is_first_host():
        return
    train = succeeded(train, folder)
    if not train:
        wanted = "somebody to train on (a smaller `unseen`, a lower `views.support`, or what is said of each)"
        raise InputError("render", wanted=wanted, got=f"none left: {refused(folder)}")

    def truth(capture: Capture) -> np.ndarray:
        assert capture.labels is not None  # truth is asked for only where everybody's header names labels
        return capture.labels

    masks = {"student": lambda capture: known(capture.identity)["refined"]}
    if all(one.labelset is not None for one in train):
        masks["truth_student"] = truth
    for name, mask_of in masks.items():
        write_set(folder / name, train, folder, mask_of, name, classes)


def _simulate(folder: Path, out: Path, captures_path: Path, names: list[str], config: RunConfig) -> None:
    """What a person's edits would bring to the people `names`, whose truth is known."""
    if not is_first_host():
        return
    opened = editing.open_run(out, captures_path, config.edit)
    write_json(folder / reporting.EDITS, editing.edits_of(opened, names, config.simulation))


def train_teacher(data_path: Path, out: Path, config: RunConfig, settings: ParserConfig, **options) -> Parser:
    """Trains a parser into a folder (or fine-tunes one); skipped when it is already there.

    Args:
        options: `start` (folder of a parser), `replay` and `validation` (folders), as in `train_parser`.
    """
    paths = {name: path for name, path in options.items() if path is not None}
    claim_whole(out, "train-parser", data_path, *paths.values())
    read = {"data": data_path, **paths, **({"start": parser_folder(paths["start"])} if "start" in paths else {})}
    start = open_parser(paths["start"]) if "start" in paths else None
    input_size = (settings.architecture if start is None else start.architecture).input_size
    pixels = config.size or longer_side(data_path, config.dataset)
    config, settings = dataclasses.replace(config, size=pixels), settings.for_side(pixels, input_size)
    with digests_in(out) as digests:
        held = broadcast_from_first(lambda: {name: of_set(digests.path(path), config) for name, path in read.items()})
        wanted = fingerprint(settings, config.seed, held)
        if finished(out, wanted) is None:
            sets = {n: read_training_set(p, config.size, config.dataset) for n, p in paths.items() if n != "start"}
            data = read_training_set(data_path, config.size, config.dataset)
            about = to_json(settings) | {"data": str(data_path.resolve()), "size": pixels}
            with stage(out, wanted, about, config.seed, command="train-parser") as folder:
                train_student(folder, data, settings, config.seed, start=start, **sets)
    return load_parser(out / "parser")


def write_people(out: Path, people: range, views: int, rig: str, config: RunConfig) -> None:
    """Procedural people as captures on disk; skipped when they are already there, all or those that a kill left."""
    claim_whole(out, "heads")
    wanted = fingerprint(config.heads, config.seed, [people.start, people.stop], views, rig)
    if finished(out, wanted) is None:
        with stage(out, wanted, config.heads, config.seed, command="heads") as folder:
            progress = Progress("heads", len(people))
            for identity in people:
                if STOP.is_set():
                    raise Stopped(f"stopped at person {identity}")
                # What `render_captures` calls them; a capture that is there is whole.
                if not (folder / f"head{identity:04d}").is_dir():
                    (capture,) = render_captures([identity], views, config.heads, config.seed, rig)
                    write_capture(folder / capture.identity, capture)
                progress.advance()


def demo(out: Path, config: RunConfig) -> dict:
    """The whole loop on procedural people: frontal training set, teacher, captures, run."""
    claim(out, "demo")
    for name, command in (("frontal", "heads"), ("captures", "heads"), ("teacher", "train-parser")):
        claim_whole(out / name, command)
        check_untouched(out / name)
    claim_run(out / "run")
    with alone(out / NAME, ONE_RUN):
        begin(out, "demo", {"config": to_json(config)}, config.seed)
        return _demo(out, config)


def _demo(out: Path, config: RunConfig) -> dict:
    sizes = config.demo
    write_people(out / "frontal", range(1000, 1000 + sizes.teacher_people), sizes.teacher_views, "frontal", config)
    write_people(out / "captures", range(sizes.people), sizes.views, "capture", config)
    train_teacher(out / "frontal", out / "teacher", config, config.teacher)
    return run(out / "captures", out / "teacher", out / "run", config, replay_path=out / "frontal")
