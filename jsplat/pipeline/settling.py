"""What a run is asked for, and everything that is settled before its work."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from jsplat.captures.index import Listed, list_captures, log_resized
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet
from jsplat.parser import Parser, enlarged
from jsplat.pipeline import editing, estimate
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import Voters, gather
from jsplat.pipeline.importing import FOLDER, foreign, import_all
from jsplat.pipeline.out import begin
from jsplat.pipeline.parsers import open_parser
from jsplat.pipeline.plan import REPORT, Plan, plan, trained_on
from jsplat.runtime.devices import broadcast_from_first
from jsplat.runtime.progress import log_name, log_to


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Attributes:
        captures: folder of captures, whose labels are used to score only; or what `import` knows, or a folder of such:
            imported into OUT/captures, again only where its files changed.
        parser: the weak parser (a folder of `train-parser` or `convert`); None: `labels` take its place.
        labels: further voters, FOLDER or FOLDER=TABLE (see `jsplat.pipeline.elsewhere.gather`).
        replay: the parser's training data; the folder that the parser's run.json names if None, and where that is gone,
            the student is trained without.
        test: labelled pictures like those that the parser learnt from, of people from whom no parser learns: all
            parsers are scored on them.
        truth: whether to use labels for scoring at all.
        until: the stage after which to stop (one of `jsplat.pipeline.plan.UNTIL`); None: as far as it goes.

    Raises:
        InputError: a student is wanted, but there is no parser to be taught.
    """

    captures: Path
    parser: Path | None = None
    labels: Sequence[str] = ()
    replay: Path | None = None
    test: Path | None = None
    truth: bool = True
    until: str | None = None

    def __post_init__(self):
        if self.parser is None and self.until == "student":
            raise InputError("--until student", wanted="a --parser, to be taught", got="none")

    @property
    def last_stage(self) -> str | None:
        """Where the run ends; None: with its report. Without a parser nobody is there to be taught and scored."""
        return "render" if self.until is None and self.parser is None else self.until


@dataclasses.dataclass(frozen=True)
class Settled:
    """What a run will do, in whole.

    Attributes:
        out: where.
        config: its settings, nothing left open.
        listed: the captures, all of them usable as far as their headers say.
        refused: who is not among them, and why.
        read: what is read, by name.
        replay: the parser's old training data, if there is any.
        teacher: the parser, if there is one.
        voters: who gives first labels.
        plan: which stages it has, and who takes part in what.
        told: lines for people: what will be done and what it will take.
    """

    request: Request
    out: Path
    config: RunConfig
    listed: list[Listed]
    refused: dict[str, str]
    read: Mapping[str, Path]
    replay: Path | None
    teacher: Parser | None
    voters: Voters
    plan: Plan
    told: tuple[str, ...]

    @property
    def classes(self) -> LabelSet:
        """Those that are voted on."""
        return self.voters.classes


def settle(request: Request, out: Path, config: RunConfig, brought_to: Path | None = None) -> Settled:
    """Reads the headers of all that is asked for, imports what has to be, and decides what a run will do.

    Args:
        brought_to: where captures of other programs are imported to, and nothing is written into `out`; None:
            OUT/captures, and nothing else is written.

    Raises:
        InputError: bad input, or what disk or memory cannot hold.
    """
    sources = broadcast_from_first(lambda: {name: str(path) for name, path in foreign(request.captures).items()})
    teacher = None if request.parser is None else open_parser(request.parser)
    read = {"captures": request.captures} | ({} if request.parser is None else {"parser": request.parser})
    read |= {} if request.test is None else {"test": request.test}
    brought, refused = None, {}
    if sources:
        if brought_to is None:
            _begin_import(out, read, config)
        place = out / FOLDER if brought_to is None else brought_to
        brought = import_all({name: Path(path) for name, path in sources.items()}, place, config, refused)
        read |= {"captures": place, "imported_from": request.captures}
    listed = list_captures(brought or request.captures, config.size, labels=request.truth, refused=refused)
    log_resized(listed)
    config = config.for_side(max(max(one.shape[1:]) for one in listed))
    voters = gather(None if teacher is None else enlarged(teacher, config.enlarge), request.labels, listed)
    replay, why_none = _replay(request)
    planned = plan(listed, config, request.last_stage, replay, why_none)
    if teacher is not None:
        config = config.for_side(config.size, teacher.architecture.input_size)
    _check_classes(listed, voters.classes)
    if config.procedural_people and "student" in planned.stages and voters.classes != CELEBAMASK_HQ:
        wanted, got = "0, where classes are not those of procedural people", config.procedural_people
        raise InputError(
            "procedural_people", wanted=wanted, got=got, hint=f"theirs are {', '.join(CELEBAMASK_HQ.names)}"
        )
    editing.check_drawn(out, listed, voters.classes)
    told = [*_resources(listed, planned, voters, out, config), *planned.notes]
    if request.test is not None and REPORT not in planned.stages:
        told.append(
            f"--test {request.test.name} is not looked at: parsers are scored with the report, after the last stage"
        )
    return Settled(request, out, config, listed, refused, read, replay, teacher, voters, planned, tuple(told))


def _begin_import(out: Path, read: Mapping[str, Path], config: RunConfig) -> None:
    """Says whose OUT is before anything lies in it."""
    begin(out, "run", {name: str(path.resolve()) for name, path in read.items()}, config.seed)
    log_to(out / log_name(jax.process_index()))


def _replay(request: Request) -> tuple[Path | None, str]:
    """What the parser was trained on; or None, and why."""
    if request.parser is None:
        return None, ""
    return (request.replay, "") if request.replay is not None else trained_on(request.parser)


def _check_classes(listed: Sequence[Listed], classes: LabelSet) -> None:
    for one in listed:
        if one.labelset is not None and one.labelset.names != classes.names:
            wanted = f"those that are voted on ({', '.join(classes.names)})"
            what, got = f"capture {one.identity}: classes", ", ".join(one.labelset.names)
            raise InputError(what, wanted=wanted, got=got, hint="`--no-score` passes over the captures' labels")


def _resources(listed: Sequence[Listed], planned: Plan, voters: Voters, out: Path, config: RunConfig) -> list[str]:
    """What a run will take, in lines; InputError where there is no room for it."""
    learners = len(planned.student_identities) if "student" in planned.stages else 0
    input_size = None if voters.parser is None else voters.parser.architecture.input_size
    need = estimate.needs([one.shape for one in listed], len(voters.classes), config, learners, input_size)
    free, memory = estimate.available(out)
    estimate.check_resources(need, free, memory, config.size)
    return estimate.describe(listed, planned.stages, config, need, free)
