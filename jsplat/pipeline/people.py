"""Procedural people as captures, and the whole loop on them."""

import concurrent.futures
from pathlib import Path

from jsplat.captures.capture import write_capture
from jsplat.config import to_json
from jsplat.errors import Stopped
from jsplat.files.lock import NAME, ONE_RUN
from jsplat.files.ownership import check_untouched
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.pipeline.ahead import Ahead, Expected
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.out import begin, claim, claim_run, claim_whole
from jsplat.pipeline.parsers import train_teacher
from jsplat.pipeline.run import run
from jsplat.pipeline.settling import Request
from jsplat.pipeline.work_folder import exclusive, fingerprint, finished, stage
from jsplat.runtime.devices import cores
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP
from jsplat.synthetic import render_captures

AT_ONCE = 8  # people at most: each takes memory for the rays of its pictures


def write_people(out: Path, people: range, views: int, rig: str, config: RunConfig) -> None:
    """Procedural people as captures on disk; skipped when they are already there, all or those that a kill left."""
    claim_whole(out, "heads")
    wanted = fingerprint(config.heads, config.seed, [people.start, people.stop], views, rig)
    if finished(out, wanted) is None:
        with stage(out, wanted, config.heads, config.seed, command="heads") as folder:

            def make(identity: int) -> None:
                if STOP.is_set():
                    raise Stopped(f"stopped at person {identity}")
                # What `render_captures` calls them; a capture that is there is whole.
                if not (folder / f"head{identity:04d}").is_dir():
                    (capture,) = render_captures([identity], views, config.heads, config.seed, rig)
                    write_capture(folder / capture.identity, capture)

            progress = Progress("heads", len(people))
            with concurrent.futures.ThreadPoolExecutor(min(cores(), AT_ONCE)) as pool:
                for _ in pool.map(make, people):
                    progress.advance()


def demo(out: Path, config: RunConfig) -> dict:
    """The whole loop on procedural people: frontal training set and test set, teacher, captures, run."""
    claim(out, "demo")
    folders = (("frontal", "heads"), ("test", "heads"), ("captures", "heads"), ("teacher", "train-parser"))
    for name, command in folders:
        claim_whole(out / name, command)
        check_untouched(out / name)
    claim_run(out / "run")
    with exclusive(out / NAME, ONE_RUN):
        begin(out, "demo", {"config": to_json(config)}, config.seed)
        return _demo(out, config)


def _demo(out: Path, config: RunConfig) -> dict:
    sizes = config.demo
    request = Request(out / "captures", out / "teacher", replay=out / "frontal", test=out / "test")
    places = {"teacher": out, **dict.fromkeys(("parse", "fit", "label", "student"), out / "run")}
    coming = [name for name, place in places.items() if not (place / name).exists()]
    with Ahead(coming, _expected(config)) as ahead:
        write_people(out / "frontal", range(1000, 1000 + sizes.teacher_people), sizes.teacher_views, "frontal", config)
        write_people(out / "test", range(2000, 2000 + sizes.test_people), sizes.test_views, "frontal", config)
        write_people(out / "captures", range(sizes.people), sizes.views, "capture", config)
        ahead.needed("teacher")
        train_teacher(out / "frontal", out / "teacher", config, config.teacher)
        return run(request, out / "run", config, ahead=ahead)


def _expected(config: RunConfig) -> Expected:
    """What the run of a demo will work on."""
    sizes, side = config.demo, config.size or config.heads.size
    config = config.for_side(side).for_side(side, config.teacher.input_size)
    pictures = ((sizes.views, side, side),) * sizes.people
    return Expected(pictures, True, CELEBAMASK_HQ, config.teacher.architecture, config)
