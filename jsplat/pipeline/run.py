"""All stages in one command: captures and a parser in, a fine-tuned parser and a report out."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.files.atomic import write_json
from jsplat.files.lock import NAME, ONE_RUN
from jsplat.pipeline import editing, forecast, reporting
from jsplat.pipeline.ahead import Ahead, of_run
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.fingerprints import edits_of, of_fit, of_label, of_masks, of_parse, of_render, own_pictures
from jsplat.pipeline.out import claim_run
from jsplat.pipeline.settling import Request, settle
from jsplat.pipeline.stages.fit import fit_captures
from jsplat.pipeline.stages.label import label_captures, label_settings
from jsplat.pipeline.stages.own import layers_in, write_overlays, write_own_masks
from jsplat.pipeline.stages.parse import parse_captures
from jsplat.pipeline.students import is_student
from jsplat.pipeline.teaching import baselines_of, known_of, procedural_of, sets_of, teach, write_sets
from jsplat.pipeline.trying import try_stages
from jsplat.pipeline.work import Work, begin_work
from jsplat.pipeline.work_folder import exclusive, fingerprint
from jsplat.runtime.devices import broadcast_from_first, is_first_host, wait_for_hosts
from jsplat.runtime.progress import watched
from jsplat.training_sets.elsewhere import folder_in


def run(
    request: Request,
    out: Path,
    config: RunConfig,
    begun: Callable[[], object] = lambda: None,
    ahead: Ahead | None = None,
) -> dict:
    """The whole loop; what is done already is skipped, a killed fine-tuning goes on where it was.

    Args:
        begun: called when `out` may be written to, before the work.
        ahead: who compiles for the stages, if somebody does already.

    Returns:
        what report.json holds; where it ends before, only "stages" (seconds) and "failed" (who was left out, and why).

    Raises:
        InputError: bad input, or another run or editor works in `out`.
    """
    claim_run(out, request.captures, request.parser, request.replay, request.test, *map(folder_in, request.labels))
    with exclusive(out / NAME, ONE_RUN):
        work = begin_work(settle(request, out, config), begun)
        with watched(work.outlook.watch), ahead or of_run(work.settled) as compiling:
            for name in work.settled.plan.stages:
                compiling.needed(name)
                if is_student(name):
                    teach(work, name)
                else:
                    _STAGES[name](work)
        return work.so_far() if request.last_stage else json.loads((out / "report.json").read_text())


def foretell(request: Request, out: Path, config: RunConfig) -> list[str]:
    """Lines for people: what `run` would do and take, from a few measured steps of each stage; `out` is not touched.

    Captures of other programs are imported into a folder that is removed.

    Raises:
        InputError: as of `run`, or a device has too little memory.
    """
    with tempfile.TemporaryDirectory() as place:
        settled = settle(request, out, config, Path(place))
        return [*settled.told, *forecast.lines(settled, try_stages(settled))]


def _parse(work: Work) -> None:
    settled, config, held = work.settled, work.settled.config, work.held
    listed = settled.listed
    each = {o.identity: of_parse(held.captures[o.identity], held.voters[o.identity], config) for o in listed}
    work.do_each("parse", config.looks, each, lambda f: parse_captures(listed, settled.voters, f, config.flip))


def _fit(work: Work) -> None:
    config, parsed, first = work.settled.config, work.succeeded_after("parse"), work.folder("parse")
    seen, held = work.made_from["parse"], work.held.captures
    each = {o.identity: of_fit(held[o.identity], seen[o.identity], config) for o in parsed}
    work.do_each("fit", config.fit, each, lambda f: fit_captures(parsed, first, work.settled.classes, config, f))


def _label(work: Work) -> None:
    config, classes, held = work.settled.config, work.settled.classes, work.held.captures
    listed, first, fitted = work.succeeded_after("parse", "fit"), work.folder("parse"), work.folder("fit")
    seen, shape = work.made_from["parse"], work.made_from["fit"]
    each = {n: of_label(held[n], seen[n], shape[n], config) for n in (one.identity for one in listed)}
    how = label_settings(config)
    work.do_each("label", how, each, lambda f: label_captures(listed, fitted, first, classes, config, f))
    editing.vote_again(work.settled.out, _labelled(work), classes, config)


def _labelled(work: Work) -> list[Listed]:
    return work.succeeded_after("parse", "fit", "label")


def _masks(work: Work) -> None:
    config, classes, out = work.settled.config, work.settled.classes, work.settled.out
    listed, held, made_from = _labelled(work), work.held.captures, work.made_from
    names = [one.identity for one in listed]
    edits = broadcast_from_first(lambda: {name: edits_of(out, name, work.digests) for name in names})
    pictures = {one.identity: own_pictures(one, work.digests) for one in listed}
    work.digests.save()
    shape, refined = made_from["fit"], made_from["label"]
    each = {n: of_masks(held[n], shape[n], refined[n], edits[n], pictures[n], config) for n in names}
    made_from["edits"] = edits

    def fill(folder: Path) -> None:
        drawn = layers_in(out, classes)
        write_own_masks(listed, work.folder("fit"), lambda n: known_of(work, n), drawn, classes, config, folder)

    work.do_each("masks", {"edits": edits}, each, fill)


def _overlays(work: Work) -> None:
    listed = work.succeeded_after("parse", "fit", "label", "masks")
    each, masks = {o.identity: work.made_from["masks"][o.identity] for o in listed}, work.folder("masks")
    work.do_each("overlays", None, each, lambda f: write_overlays(listed, masks, work.settled.classes, f))


def _render(work: Work) -> None:
    config, listed, held, made_from = work.settled.config, _labelled(work), work.held.captures, work.made_from
    taught = [one for one in listed if one.identity in work.settled.plan.student_identities]
    shape, refined, edits = made_from["fit"], made_from["label"], made_from["edits"]
    each = {n: of_render(held[n], shape[n], refined[n], edits[n], config) for n in edits}
    how = [to_json(config.views), config.unseen, config.student_people, list(config.baselines)]
    who = [[one.identity, one.labelset is not None] for one in taught]
    more = [sets_of(work), *baselines_of(work), *procedural_of(work)]
    work.do_each("render", how, each, lambda f: write_sets(work, listed, taught, f), who, *more)


def _groups(work: Work) -> dict[str, list[Listed]]:
    """Who was taught or might have been, and who was held back."""
    succeeded_ones, unseen = work.succeeded_after("parse", "fit", "label", "render"), work.settled.plan.unseen
    held_back = [one for one in succeeded_ones if one.identity in unseen]
    return {"fitted": [one for one in succeeded_ones if one.identity not in unseen], "unseen": held_back}


def _simulation(work: Work) -> None:
    """What a person's edits would bring to those who were fitted and whose truth is known."""
    config = work.settled.config
    names = [one.identity for one in _groups(work)["fitted"] if one.labelset is not None]
    if not names:
        return
    part = [to_json(config.edit), to_json(config.simulation), names]
    wanted = fingerprint(part, [work.made_from["label"][name] for name in names])

    def fill(folder: Path) -> None:
        if is_first_host():
            opened = editing.open_run(work.settled.out, work.settled.read["captures"], config.edit)
            write_json(folder / reporting.EDITS, editing.edits_of(opened, names, config.simulation))

    work.do("simulation", part, wanted, fill)


def _report(work: Work) -> None:
    settled, teacher = work.settled, work.settled.teacher
    assert teacher is not None  # without a parser nothing is planned after the renders
    failed = work.so_far()["failed"]
    if is_first_host():
        notes = settled.plan.notes
        reporting.report(settled.out, _groups(work), teacher, work.seconds, failed, settled.config, notes, work.test)
    wait_for_hosts(f"{settled.out}: reported")


_STAGES: dict[str, Callable[[Work], None]] = {
    "parse": _parse,
    "fit": _fit,
    "label": _label,
    "masks": _masks,
    "overlays": _overlays,
    "render": _render,
    "simulation": _simulation,
    "report": _report,
}
