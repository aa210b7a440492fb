"""A run at work: what its inputs hold, which stages are done, and how one more is."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.errors import InputError
from jsplat.files.ownership import DIGESTS
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.digests import Digests
from jsplat.pipeline.fingerprints import Content, contents, of_all_identities
from jsplat.pipeline.out import begin
from jsplat.pipeline.outlook import Outlook
from jsplat.pipeline.parsers import parser_folder
from jsplat.pipeline.plan import REPORT
from jsplat.pipeline.settling import Settled
from jsplat.pipeline.stages.identities import succeeded
from jsplat.pipeline.work_folder import failures, finished, stage
from jsplat.runtime.devices import broadcast_from_first, is_first_host
from jsplat.runtime.progress import log, log_name, log_to, narrate
from jsplat.runtime.provenance import provenance
from jsplat.training_sets.auxiliary import KNOWN_CLASSES, AuxiliarySet, check_scorable
from jsplat.training_sets.reading import read_training_set

_EACH = ("parse", "fit", "label", "masks", "render")  # stages in which somebody may be left out


@dataclasses.dataclass(frozen=True)
class Held:
    """What the inputs of a run hold, as digests.

    Attributes:
        captures: by identity.
        voters: by identity, of all who give first labels.
        parser: "" if there is none.
        replay: None if there is none, or nobody learns from it.
    """

    captures: dict[str, Content]
    voters: dict[str, str]
    parser: str
    replay: str | None


@dataclasses.dataclass(frozen=True)
class Work:
    """A run that has begun.

    Attributes:
        settled: what it does.
        held: what its inputs hold.
        replay: the parser's old training data, where somebody learns from it.
        test: pictures that nobody learns from, where parsers are scored on them.
        digests: what files hold, remembered.
        made_from: of each stage so far, and of "edits", by identity: the fingerprint of what the result is made from.
        seconds: that each stage took.
    """

    settled: Settled
    held: Held
    replay: AuxiliarySet | None
    test: AuxiliarySet | None
    digests: Digests
    made_from: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def outlook(self) -> Outlook:
        """Of what is not done yet."""
        return Outlook(self.settled, self.seconds)

    def folder(self, name: str) -> Path:
        """Of a stage."""
        return self.settled.out / name

    def succeeded_after(self, *stages: str) -> list[Listed]:
        """The captures that did not fail in any of these stages."""
        return succeeded(self.settled.listed, *map(self.folder, stages))

    def do(
        self, name: str, part: object, wanted: str, fill: Callable[[Path], None], each: dict[str, str] | None = None
    ) -> None:
        """A stage, unless it is done already.

        Args:
            part: what its run.json says of its settings.
            wanted: the fingerprint of what it is made from; `each`: the same of each identity.
            fill: writes into its folder.
        """
        folder = self.folder(name)
        if finished(folder, wanted) is None:
            self.outlook.begins(name)
            with stage(folder, wanted, part, self.settled.config.seed, command=f"run {name}", each=each) as unfinished:
                fill(unfinished)
        done = finished(folder, wanted)
        self.seconds[name] = done if done is not None else 0.0

    def do_each(
        self, name: str, part: object, each: dict[str, str], fill: Callable[[Path], None], *more: object
    ) -> None:
        """`do` of a stage with a result for each identity; `more` is what concerns them together."""
        self.made_from[name] = each
        self.do(name, part, of_all_identities(each, *more), fill, each)

    def so_far(self) -> dict:
        """JSON-ready: "stages", the seconds of each, and "failed", who was left out, and why."""
        failed = dict(self.settled.refused)
        for name in (name for name in _EACH if name in self.seconds):
            failed |= failures(self.folder(name))
        return {"stages": self.seconds, "failed": failed}


def begin_work(settled: Settled, begun: Callable[[], object]) -> Work:
    """Says in OUT and to people what will be done, and looks at what the inputs hold.

    Args:
        begun: called when OUT may be written to.
    """
    config, planned, replay, test = settled.config, settled.plan, None, None
    if settled.replay is not None and "student" in planned.stages:
        replay = read_training_set(settled.replay, config.size, config.dataset)
    if settled.request.test is not None and REPORT in planned.stages:
        test = read_training_set(settled.request.test, config.size, config.dataset)
        _check_test(test, settled.classes, replay)
    begin(settled.out, "run", _about(settled) | {"config": to_json(config)}, config.seed)
    begun()
    log_to(settled.out / log_name(jax.process_index()))
    names = [one.identity for one in settled.listed]
    log("run begins", captures=names, stages=planned.stages, **provenance(config.seed))
    for note in settled.told:
        log("run is told", note=note)
        if is_first_host():
            narrate(f"run: {note}")
    for name, why in settled.refused.items():
        log("identity failed", identity=name, stage="list", why=why)
    digests = Digests(settled.out / DIGESTS)
    try:
        return Work(settled, _held(settled, replay is not None, digests), replay, test, digests)
    finally:
        digests.save()


def _check_test(test: AuxiliarySet, classes: LabelSet, replay: AuxiliarySet | None) -> None:
    """InputError where parsers cannot be scored on this set, or learn from it."""
    if test.labelset != classes:
        got = ", ".join(test.labelset.names)
        raise InputError("--test: classes", wanted=", ".join(classes.names), got=got, hint=KNOWN_CLASSES)
    check_scorable(test, "--test: labels")
    learnt = set() if replay is None else {image.tobytes() for image in _thinned(replay.images)}
    if known := sum(image.tobytes() in learnt for image in _thinned(test.images)):
        got = f"{known} of {len(test)} pictures that are in the replay set, too"
        raise InputError("--test", wanted="pictures that no parser learns from", got=got)


def _thinned(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n y x 3"]:
    """Every eighth pixel: enough to know a picture again."""
    return images[:, ::8, ::8]


def _about(settled: Settled) -> dict:
    request, planned = settled.request, settled.plan
    about: dict = {name: str(path.resolve()) for name, path in settled.read.items()}
    about |= {"replay": None if settled.replay is None else str(settled.replay.resolve())}
    return about | {
        "labels": list(request.labels),
        "truth": request.truth,
        "stages": planned.stages,
        "notes": planned.notes,
    }


def _held(settled: Settled, replays: bool, digests: Digests) -> Held:
    listed, parser, replay = settled.listed, settled.request.parser, settled.replay
    held = contents(listed, digests)
    weak = "" if parser is None else broadcast_from_first(lambda: digests.path(parser_folder(parser)))
    voices = broadcast_from_first(lambda: settled.voters.fingerprints(weak, listed, digests))
    old = broadcast_from_first(lambda: digests.path(replay)) if replays and replay is not None else None
    return Held(held, voices, weak, old)
