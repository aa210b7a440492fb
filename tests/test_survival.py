"""Whole runs in processes of their own: killed at random moments, starved of disk, shared by several hosts."""

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jsplat.config import load, to_toml
from jsplat.files.ownership import DIGESTS, WRITTEN
from jsplat.fitting.scenes_on_disk import load_scenes
from jsplat.pipeline import RunConfig
from jsplat.pipeline.people import write_people
from tests.processes import QUICK, finish, programs, work
from tests.tiny import TINY

# A few steps to be killed between, and a batch that four hosts can share.
CHANGES = ("ablation=false", "fit.steps=8", "fit.save_every=0.0", "teacher.steps=4", "teacher.batch=4")
CHANGES += ("finetune.steps=4", "finetune.batch=4", "finetune.save_every=0.0")
PEOPLE = [f"head{i:04d}" for i in range(4)]
TORN = PEOPLE[1]
# Of a report: when, where and with what it was made.
VOLATILE = ("stages", "taken_over", "commit", "device", "versions")


class Place:
    """Captures, a parser, and a run of them that nobody interrupted."""

    def __init__(self, root, start):
        self.root, self.done, self.begin = root, root / "done", start
        config = load(RunConfig, TINY, CHANGES)
        (root / "config.toml").write_text(to_toml(config))
        write_people(root / "captures", range(len(PEOPLE)), config.demo.views, "capture", config)
        write_people(root / "frontal", range(1000, 1002), config.demo.teacher_views, "frontal", config)
        # Compiled programs are kept from run to run, and compiled quickly: these tests are about everything else.
        self.environment = os.environ | QUICK | {"XDG_CACHE_HOME": str(root / "cache")}

    def start(self, *words, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", "jsplat", *map(str, words), "--config", str(self.root / "config.toml")]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return self.begin(command, env=self.environment, text=True, **pipes, **options)

    def run(self, out, *more, captures=None, **options) -> subprocess.Popen:
        captures = captures or self.root / "captures"
        return self.start("run", out, "--captures", captures, "--parser", self.root / "teacher", *more, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with programs() as start:
        made = Place(tmp_path_factory.mktemp("survival"), start)
        finish(made.start("train-parser", made.root / "frontal", made.root / "teacher"))
        finish(made.run(made.done))
        yield made


def used_by_ended() -> float:
    """Seconds of processor time of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report_of(out) -> dict:
    return {k: v for k, v in json.loads((out / "report.json").read_text()).items() if k not in VOLATILE}


def assert_same_arrays(got, want, names=PEOPLE):
    for stage in ("parse", "label", "render"):
        for name in names:
            with np.load(got / stage / f"{name}.npz") as a, np.load(want / stage / f"{name}.npz") as b:
                assert set(a) == set(b)
                assert [k for k in a if not np.array_equal(a[k], b[k])] == [], (stage, name)
    scenes, wanted = load_scenes(got / "fit"), load_scenes(want / "fit")
    for name in names:
        assert all(map(np.array_equal, jax.tree.leaves(scenes[name]), jax.tree.leaves(wanted[name]))), name


def finished_files(out) -> dict:
    """When each file of a stage was written, whether the stage is done or under way."""
    found = {}
    for path in out.glob("*/**/*"):
        inside = path.relative_to(out)
        stage = inside.parts[0].strip(".").split(".")[0]
        parts = inside.parts[1:]
        if path.is_file() and path.suffix in (".npz", "") and not any(p.startswith(".") for p in parts):
            found["/".join((stage, *parts))] = path.stat().st_mtime_ns
    return found


def assert_untouched(out, before: dict) -> None:
    """What was finished before is still there, and was not written again."""
    after = finished_files(out)
    assert [name for name in before if name not in after] == []
    assert [name for name in before if before[name] != after[name]] == []


def test_no_end_costs_what_was_finished_and_who_cannot_be_read_is_named(place, tmp_path, request):
    """A torn picture; a disk too small, a request to stop, kills at random moments: the same command goes on."""
    captures = shutil.copytree(place.root / "captures", tmp_path / "captures")
    torn = captures / TORN / "images" / "002.png"
    torn.write_bytes(torn.read_bytes()[:200])
    others = [name for name in PEOPLE if name != TORN]
    first = tmp_path / "out0"

    small = 7_000  # bytes: the first labels of a person do not fit, run.json does
    process = place.run(first, captures=captures)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (small, small))
    (output,) = finish(process, status=1)
    assert "what is finished is kept, and the same command goes on from there" in output
    assert "Traceback" not in output

    process = place.run(first, captures=captures)
    for line in process.stderr:
        if line.startswith("== fit"):
            break
    process.send_signal(signal.SIGTERM)
    (output,) = finish(process, status=128 + signal.SIGTERM)
    assert "the same command goes on from there" in output

    moments, most = random.Random(3), 20.0  # seconds of processor time, so that a busy machine kills at the same places
    for kill in range(20 if request.config.getoption("--thorough") else 1):
        out = tmp_path / f"out{kill}"
        process = place.run(out, captures=captures)
        work(process, moments.uniform(2, most))
        process.kill()
        process.communicate()
        before = finished_files(out)
        used = used_by_ended()
        (output,) = finish(place.run(out, captures=captures), status=3)
        assert f"  {TORN}: {TORN}/transforms.json: frames[2].file_path: wanted a readable image" in output
        most = max(most, used_by_ended() - used)
        assert_untouched(out, before)
        assert_same_arrays(out, place.done, others)  # nobody's bits depend on who else is there
        assert list(report_of(out)["failed"]) == [TORN]
        assert sorted(p.name for p in out.iterdir() if p.name.startswith(".")) == [DIGESTS, WRITTEN]
    assert f"<dt>{TORN}<dd>" in (first / "report.html").read_text()

    # Mended, it is made like the others, and they are not made again.
    shutil.copyfile(place.root / "captures" / TORN / "images" / "002.png", torn)
    stages = ("parse", "fit", "label", "masks", "overlays", "render")
    before = {p: p.stat().st_ino for stage in stages for p in (first / stage).glob("*.npz")}
    fitted = fitted_by(first, 0)
    finish(place.run(first, captures=captures))
    assert fitted_by(first, 0)[len(fitted) :] == [TORN]
    assert {p: p.stat().st_ino for p in before} == before
    assert_same_arrays(first, place.done)
    assert report_of(first) == report_of(place.done)
    assert json.loads((first / "report.json").read_text())["taken_over"] == {stage: [3, 4] for stage in stages}


@pytest.mark.parametrize("count", [2, 4])
def test_several_hosts_share_a_run(place, tmp_path, count, request):
    if count > 2 and not request.config.getoption("--thorough"):
        pytest.skip("minutes on two cores; asked for with --thorough")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = [place.run(tmp_path / "out", "--process", address, count, i) for i in range(count)]
    finish(*hosts)
    assert_same_arrays(tmp_path / "out", place.done)
    got, want = report_of(tmp_path / "out"), report_of(place.done)
    for key in ("fit", "views", "refined", "oracle", "failed"):
        assert got[key] == want[key], key
    # The hosts train one parser together; its sums over a batch are taken in another order.
    for name in ("student", "truth_student", "control"):
        scores, wanted = (r[name]["fitted"]["bins"]["all"]["f1"] for r in (got, want))
        assert scores == pytest.approx(wanted, abs=0.01), name
    fits = {name for i in range(count) for name in fitted_by(tmp_path / "out", i)}
    assert fits == set(PEOPLE)
    assert all(len(fitted_by(tmp_path / "out", i)) == len(PEOPLE) // count for i in range(count)), "not shared evenly"


def fitted_by(out, host: int) -> list[str]:
    """Whom a host fitted, by its own log."""
    path = out / ("events.jsonl" if host == 0 else f"events.{host}.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [event["identity"] for event in events if event["event"] == "identity fitted"]
