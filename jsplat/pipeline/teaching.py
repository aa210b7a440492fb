"""What the students of a run learn from, and their training."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.errors import InputError
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.parser import predict_labels
from jsplat.parser.fresh import Source
from jsplat.pipeline.fingerprints import of_set
from jsplat.pipeline.stages.identities import succeeded
from jsplat.pipeline.stages.label import labels_of
from jsplat.pipeline.stages.render import render_novel_views
from jsplat.pipeline.stages.train import train_student, write_procedural, write_set
from jsplat.pipeline.students import (
    PROCEDURAL,
    PROCEDURAL_FIRST,
    PROCEDURAL_VIEWS,
    RECIPES,
    VARIANTS,
    Recipe,
    student_of,
)
from jsplat.pipeline.work import Work
from jsplat.pipeline.work_folder import fingerprint, save_arrays, whys
from jsplat.runtime.devices import broadcast_from_first, is_first_host
from jsplat.training_sets.auxiliary import AuxiliarySet, concatenate, read_auxiliary, squared
from jsplat.variants import Person, Variants

SHOWN = 12  # so many variants are shown in the report
Arrays = Mapping[str, np.ndarray]


def known_of(work: Work, identity: str) -> dict[str, np.ndarray]:
    """What the label stage knows of an identity, with what people corrected."""
    return labels_of(work.folder("label"), identity, work.settled.classes)


def baselines_of(work: Work) -> list[object]:
    """What the training sets of the baselines depend on, besides what those of the students do."""
    planned, config = work.settled.plan.students, work.settled.config
    if not config.baselines:
        return []
    sets = [name for name, recipe in RECIPES.items() if recipe.baseline and name in planned]
    return [sets, work.held.parser, to_json(config.heads) if "synthetic_student" in sets else None]


def procedural_of(work: Work) -> list[object]:
    """What the pictures of procedural people depend on; nothing where there are none."""
    config = work.settled.config
    return [config.procedural_people, to_json(config.heads)] if config.procedural_people else []


def sets_of(work: Work) -> list[str]:
    """The training sets of those whom a whole run trains: one that ended before goes on with them."""
    named = {recipe.set for name, recipe in RECIPES.items() if recipe.set and name in work.settled.plan.students}
    return sorted(named if work.settled.teacher is not None else named - {"self_student"})


def write_sets(work: Work, listed: list[Listed], taught: list[Listed], folder: Path) -> None:
    """Novel views of everyone, and what the students learn from of those who are `taught`.

    Raises:
        InputError: nobody is left to learn from.
    """
    classes, config = work.settled.classes, work.settled.config
    render_novel_views(listed, work.folder("fit"), lambda n: known_of(work, n), classes, config, folder)
    if not is_first_host():
        return
    taught = succeeded(taught, folder)
    if not taught:
        hint = "a smaller `--set unseen=N` or a lower `--set views.min_coverage=SHARE` leaves more people to learn from"
        raise InputError("render", wanted="somebody to train on", got=f"nobody ({whys(folder)})", hint=hint)
    sources, wanted = _masks(work), set(sets_of(work))
    if not all(one.labelset is not None for one in taught):
        wanted -= {"truth_student"}
    for name in sorted(wanted & sources.keys()):
        write_set(folder / name, taught, folder, *sources[name], classes)
    # The baseline's are those that the student sees too; where it sees none, as many as were captured, as often.
    procedural = range(PROCEDURAL_FIRST, PROCEDURAL_FIRST + config.procedural_people), PROCEDURAL_VIEWS
    instead = range(PROCEDURAL_FIRST, PROCEDURAL_FIRST + len(taught)), max(one.shape[0] for one in taught)
    if "synthetic_student" in wanted:
        write_procedural(folder / "synthetic_student", *(procedural if config.procedural_people else instead), config)
    if config.procedural_people:
        write_procedural(folder / PROCEDURAL, *procedural, config)


def _masks(work: Work) -> dict[str, tuple[Callable[[Capture], np.ndarray], Callable[[Arrays], np.ndarray]]]:
    """Of each training set: the masks of photographs, and those of novel views."""

    def kept(name: str) -> Callable[[Capture], np.ndarray]:
        return lambda capture: known_of(work, capture.identity)[name]

    def truth(capture: Capture) -> np.ndarray:
        assert capture.labels is not None  # truth is asked for only where everybody's header names labels
        return capture.labels

    def painted(name: str) -> Callable[[Arrays], np.ndarray]:
        return lambda novel: novel[f"labels_{name}"]

    def parsed(images: np.ndarray) -> np.ndarray:
        assert work.settled.teacher is not None
        return predict_labels(work.settled.teacher, images)

    return {
        "student": (kept("refined"), painted("student")),
        "truth_student": (truth, painted("truth_student")),
        "plain_student": (kept("vote_plain"), painted("plain_student")),
        "self_student": (lambda capture: parsed(capture.images), lambda novel: parsed(novel["images"])),
    }


def teach(work: Work, stage: str) -> None:
    """Trains a parser into its stage: on its own set and the old data, or, for control, on its old data alone."""
    name, number = student_of(stage)
    recipe, config, replay = RECIPES[name], work.settled.config, work.replay
    path = None if recipe.set is None else work.folder("render") / recipe.set
    own = broadcast_from_first(lambda: work.digests.path(path) if path is not None and path.is_dir() else None)
    work.digests.save()
    if path is not None and own is None:  # there is no truth of somebody who is left
        return
    # What it learns from counts, not how that was made: the same set again trains nobody again.
    practice = None if work.held.replay is None else of_set(work.held.replay, config)
    seed = config.seed + number
    part = {"finetune": to_json(config.finetune), "data": own, "replay": work.held.replay}
    made_from = _variants_of(work, recipe, seed)
    more = [] if made_from is None else [made_from]
    part |= {"variants": to_json(config.variants)} if more else {}
    if recipe.variants and config.procedural_people:
        beside_them = work.folder("render") / PROCEDURAL
        more.append(broadcast_from_first(lambda: work.digests.path(beside_them)))
        part |= {"procedural_people": config.procedural_people}
    wanted = fingerprint(work.held.parser, practice, own, config.finetune, seed, *more)

    def fill(folder: Path) -> None:
        pictures, beside = (replay, None) if path is None else (_pictures(work, recipe, path), replay)
        assert pictures is not None  # no control is planned without old data
        fresh = None if made_from is None else _variants(work, recipe, seed, made_from)
        start = work.settled.teacher
        if fresh is not None and is_first_host():
            images, labels = some_variants(fresh)
            save_arrays(folder / VARIANTS, images=images, labels=labels)
        train_student(folder, pictures, config.finetune, seed, start=start, replay=beside, fresh=fresh)

    work.do(stage, part, wanted, fill)


def _pictures(work: Work, recipe: Recipe, path: Path) -> AuxiliarySet:
    """A student's own set, and what else it sees."""
    own = read_auxiliary(path)
    if not (recipe.variants and work.settled.config.procedural_people):
        return own
    return concatenate([squared(own), read_auxiliary(work.folder("render") / PROCEDURAL)])


def some_variants(fresh: Source) -> tuple[UInt8[np.ndarray, "n s s 3"], UInt8[np.ndarray, "n s s"]]:
    """A picture of each of the first ones, with its labels, as squares: people may have pictures of other shapes."""
    some = [squared(fresh.piece(number)) for number in range(SHOWN)]
    return np.stack([of.images[0] for of in some]), np.stack([of.labels[0] for of in some])


def _taught(work: Work) -> list[Listed]:
    left = work.succeeded_after("parse", "fit", "label", "masks", "render")
    return [one for one in left if one.identity in work.settled.plan.student_identities]


def _variants_of(work: Work, recipe: Recipe, seed: int) -> str | None:
    """The fingerprint of what variants are made from; None where a student sees none."""
    config = work.settled.config
    if not (recipe.variants and config.variants.fraction > 0):
        return None
    each = [[work.made_from[stage][one.identity] for stage in ("fit", "label", "edits")] for one in _taught(work)]
    return fingerprint(each, config.variants, config.views, config.mask.alpha_gate, seed)


def _variants(work: Work, recipe: Recipe, seed: int, made_from: str) -> Source:
    config, scenes, people = work.settled.config, saved_scenes(work.folder("fit")), []
    for one in _taught(work):
        known = known_of(work, one.identity)
        scene = scene_in(scenes, one.identity)
        people.append(Person.of(one.unlabelled().read(), scene, known[str(recipe.rows)], known["seen"]))
    gate = config.mask.alpha_gate
    return Variants(people, work.settled.classes, config.variants, config.views, gate, seed, made_from)
