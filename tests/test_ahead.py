"""Programs that are compiled before their stages begin: they are those that run, and nobody waits without need."""

import concurrent.futures
import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import jax

from jsplat.captures.index import list_captures
from jsplat.config import load
from jsplat.labels.opinions import Logits
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.parser import enlarged, new_parser, train_parser
from jsplat.pipeline import ahead
from jsplat.pipeline.ahead import Ahead, Expected, compile_for
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import Voters
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.people import write_people
from jsplat.pipeline.stages.fit import fit_captures
from jsplat.pipeline.stages.label import label_captures
from jsplat.pipeline.stages.parse import parse_captures
from jsplat.runtime.progress import log_to, read_log
from jsplat.synthetic import render_captures
from jsplat.training_sets.auxiliary import from_captures
from tests.tiny import TINY

# Of no other test, so that nobody else has compiled them in this process.
CONFIG = load(RunConfig, TINY, ["fit.gaussians=288", "fit.hold_out=0", "demo.views=6"]).for_side(32, 32)
EXPECTED = Expected(((6, 32, 32),) * 2, True, CELEBAMASK_HQ, CONFIG.teacher.architecture, CONFIG)


@contextlib.contextmanager
def compiled() -> Iterator[set[str]]:
    """The names of the programs that are compiled within the block, by any thread."""
    names, log = set(), logging.getLogger("jax._src.interpreters.pxla")

    def note(record: logging.LogRecord) -> bool:
        names.update(re.findall(r"Compiling jit\((\w+)\)", record.getMessage()))
        return False

    log.addFilter(note)
    jax.config.update("jax_log_compiles", True)
    try:
        yield names
    finally:
        jax.config.update("jax_log_compiles", False)
        log.removeFilter(note)


def test_stages_find_their_programs(tmp_path):
    write_people(tmp_path / "heads", range(2), 6, "capture", CONFIG)
    listed = list_captures(tmp_path / "heads", 32)
    parser, classes = new_parser(EXPECTED.architecture, EXPECTED.classes, 1), EXPECTED.classes
    with compiled() as before:
        for stage in ("teacher", "parse", "fit", "label"):
            compile_for(stage, EXPECTED)
    large = {"train_step", "_logits", "steps", "_relocate", "_lift", "_first_counts", "_gain", "_paint"}
    assert large <= before
    with compiled() as after:
        for stage in ("student", "teacher", "parse", "fit", "label"):  # teacher and student share a program
            compile_for(stage, EXPECTED)
        train_parser(from_captures([listed[0].read()]), CONFIG.finetune, 0, start=parser)
        folders = [tmp_path / name for name in ("parse", "fit", "label")]
        for folder in folders:
            folder.mkdir()
        first, fitted, labelled = folders
        parse_captures(listed, Voters(classes, enlarged(parser, CONFIG.enlarge), None, ()), first, CONFIG.flip)
        fit_captures(listed, first, classes, CONFIG, fitted)
        label_captures(listed, fitted, first, classes, CONFIG, labelled)
    assert isinstance(first_labels(first, listed[0].read()).opinions, Logits)
    assert "draw_batch" in after  # or nothing would be noted
    assert large & after == set()


def test_a_stage_waits_for_what_compiles_for_it_and_leaves_out_what_has_not_begun(monkeypatch):
    began, go_on, done = threading.Event(), threading.Event(), []

    def fit(_):
        began.set()
        assert go_on.wait(60)
        done.append("fit")

    monkeypatch.setattr(ahead, "_PROGRAMS", {"fit": fit, "label": lambda _: done.append("label")})
    with concurrent.futures.ThreadPoolExecutor(1) as pool, Ahead(("fit", "render", "label"), EXPECTED) as compiling:
        assert began.wait(60)
        compiling.needed("label")
        compiling.needed("render")  # for which nothing is compiled ahead
        waiting = pool.submit(compiling.needed, "fit")
        assert not done
        assert not waiting.done()
        go_on.set()
        waiting.result(60)
        assert done == ["fit"]
    assert done == ["fit"]


def test_what_cannot_be_compiled_ahead_stops_nobody(monkeypatch, tmp_path):
    def fit(_):
        raise ValueError("no such shape")

    monkeypatch.setattr(ahead, "_PROGRAMS", {"fit": fit})
    log_to(tmp_path / "events.jsonl")
    try:
        with Ahead(("fit",), EXPECTED) as compiling:
            compiling._coming["fit"].result(60)
            compiling.needed("fit")
    finally:
        log_to(None)
    (event,) = read_log(tmp_path / "events.jsonl")
    assert (event["stage"], event["error"]) == ("fit", "ValueError('no such shape')")


def test_several_processes_and_accelerators_compile_less_ahead(monkeypatch):
    assert ahead._possible() == ("teacher", "student", "parse", "fit", "label")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert ahead._possible() == ("fit",)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert ahead._possible() == ()


def test_people_who_are_made_at_the_same_time_are_those_made_alone(tmp_path: Path):
    write_people(tmp_path / "heads", range(3), 2, "frontal", CONFIG)
    for one, alone in zip(list_captures(tmp_path / "heads", None), range(3), strict=True):
        (wanted,) = render_captures([alone], 2, CONFIG.heads, CONFIG.seed, "frontal")
        assert (one.read().images == wanted.images).all()
        assert (one.read().labels == wanted.labels).all()
