"""Whole runs in processes of their own: what compiling costs, cold and warm, and what sharing a run costs.

python -m bench.whole compiling sharing    # makes people, runs, and writes bench/history/whole.json; some minutes each
"""

import argparse
import datetime
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from bench.run import about
from bench.tables import QUIET, markdown
from jsplat.files.atomic import write_json
from jsplat.runtime.progress import log_name, read_log

WHOLE = Path(__file__).resolve().parent / "history" / "whole.json"
PEOPLE, VIEWS, SIZE = 8, 20, 96
# The demo's sizes; of what is not divided by identities, training above all, only as much as makes every program run.
SETTINGS = {"size": SIZE, "unseen": 1, "fit.gaussians": 6000, "fit.steps": 250, "fit.voxels": 80, "views.count": 16}
SETTINGS |= {"teacher.steps": 4, "teacher.input_size": 192, "finetune.steps": 4, "fit.label_weight": 0.0}
SHARED_BY = 2
LAST = "render"  # the last stage whose work is divided by identities


class Place:
    """A folder with captures of all people, of two halves of them, and a parser."""

    def __init__(self, root: Path):
        self.root, self.runs = root, 0
        shutil.rmtree(root, ignore_errors=True)
        everybody, frontal = root / "all", root / "frontal"
        size = ("--set", f"heads.size={SIZE}")
        self._finish([self._start("heads", everybody, "--people", PEOPLE, "--views", VIEWS, *size)])
        self._finish([self._start("heads", frontal, "--people", 4, "--views", 4, "--rig", "frontal", *size)])
        self._finish([self._start("train-parser", frontal, root / "teacher", *_settings())])
        folders = sorted(path for path in everybody.iterdir() if path.is_dir())
        for i, folder in enumerate(folders):
            shutil.copytree(folder, root / f"half{i % SHARED_BY}" / folder.name)

    def run(self, captures: list[str], shared: int = 1, cache: str = "cache", more: tuple[str, ...] = ()) -> list[Path]:
        """Runs over these folders at the same time, each by `shared` processes; where their reports lie.

        Of several processes each has a core of its own, as hosts have.
        """
        outs, processes, cores = [], [], sorted(os.sched_getaffinity(0))
        for name in captures:
            outs.append(self.root / f"run{self.runs}")
            self.runs += 1
            words = ("run", outs[-1], "--captures", self.root / name, "--parser", self.root / "teacher")
            words += (*_settings(), *more)
            address = f"127.0.0.1:{_free_port()}"
            for i in range(shared):
                who = ("--process", address, shared, i) if shared > 1 else ()
                own = [cores[len(processes)]] if len(captures) * shared > 1 else ()
                processes.append(self._start(*words, *who, cache=cache, cores=own))
        self._finish(processes)
        return outs

    def _start(self, *words, cache: str = "cache", cores: Collection[int] = ()) -> subprocess.Popen:
        environment = os.environ | {"XDG_CACHE_HOME": str(self.root / cache), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "jsplat", *map(str, words)]
        pin = functools.partial(os.sched_setaffinity, 0, cores) if cores else None
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, preexec_fn=pin)

    @staticmethod
    def _finish(processes: list[subprocess.Popen]) -> None:
        for process in processes:
            process.wait()
        if failed := [process.args for process in processes if process.returncode]:
            raise RuntimeError(f"a process failed: {failed}")


def _settings() -> list[str]:
    return [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _events(out: Path, processes: int) -> list[list[dict]]:
    return [read_log(out / log_name(i)) for i in range(processes)]


def shared_part(outs: list[Path], processes: int) -> dict:
    """What identities share out, from when the first process began to when the last one was done with it.

    Returns:
        "seconds" of it, and "compiling", the seconds that every process spent for programs within it.
    """
    logs = [events for out in outs for events in _events(out, processes)]
    begun = [_time(e) for events in logs for e in events if e["event"] == "run begins"]
    ended = [e for events in logs for e in events if e["event"] == "stage ends" and e["stage"] == LAST]
    return {
        "seconds": (max(map(_time, ended)) - min(begun)).total_seconds(),
        "compiling": [e["compiling"]["seconds"] for e in ended],
    }


def _time(event: dict) -> datetime.datetime:
    return datetime.datetime.fromisoformat(event["time"])


def compiling(out: Path) -> dict:
    """What XLA's programs cost a run, and how long all of it took."""
    (events,) = _events(out, 1)
    times = [_time(e) for e in events]
    found = next(e["compiling"] for e in events if e["event"] == "run ends")
    return {**found, "whole": (times[-1] - times[0]).total_seconds()}


def cold_and_warm(place: Place) -> dict:
    """A run with an empty cache, and the same again."""
    return {k: compiling(place.run(["half0"], cache="own")[0]) for k in ("cold", "warm")}


def sharing(place: Place, rounds: int = 2) -> dict:
    """Pairs of runs and shared runs in turns, each with an empty cache and once more."""
    halves = [f"half{i}" for i in range(SHARED_BY)]
    plain = ("--set", "ablation=false")  # what the ablation adds is divided like the rest
    found = {cache: {"apart": [], "shared": []} for cache in ("cold", "warm")}
    for i in range(rounds):
        for kind, names, shared_by in (("apart", halves, 1), ("shared", ["all"], SHARED_BY)):
            for cache in found:  # the first of them fills it
                outs = place.run(names, shared_by, cache=f"{kind}{i}", more=plain)
                found[cache][kind].append(shared_part(outs, shared_by))
    return found


PARTS = {"compiling": cold_and_warm, "sharing": sharing}


def section(found: dict) -> str:
    """The page's part, from the measured numbers alone."""
    parts = []
    if "compiling" in found:
        rows = [
            [name, f"{of['programs']:,}", f"{of['found']:,}", f"{of['seconds']:.1f}", f"{of['whole']:.1f}"]
            for name, of in found["compiling"]["compiling"].items()
        ]
        head = ["a run of half of the people", "programs", "of them in the cache", "compiling, s", "all of it, s"]
        parts += [f"Compiling. {_circumstances(found['compiling'])}", markdown(head, rows)]
    if "sharing" in found:
        rows = [_shared(cache, found["sharing"]["sharing"][cache]) for cache in ("cold", "warm")]
        head = ["cache", "two runs, s", "one shared run, s", "of their speed", "compiling, two runs, s", "shared, s"]
        parts += [
            f"Sharing. {_circumstances(found['sharing'])}",
            "Two runs of half of the people each, at the same time, a core each, until the last identity is rendered,"
            " against one run of all of them by two processes of a core each; medians of the turns, compiling for each"
            " process. On processors every process keeps its own programs, which JAX alone lets only the first do"
            " (`jsplat.runtime.programs`).",
            markdown(head, rows),
        ]
    return "\n\n".join(parts)


def _shared(cache: str, of: dict) -> list[str]:
    """A row: how long both ways took, and the ratio turn by turn."""
    apart, shared = (np.asarray([turn["seconds"] for turn in of[kind]]) for kind in ("apart", "shared"))
    ratios = apart / shared
    compiled = [np.median([turn["compiling"] for turn in of[kind]], 0) for kind in ("apart", "shared")]
    spread = f"**{np.median(ratios):.2f}** ({ratios.min():.2f} to {ratios.max():.2f})"
    each = [", ".join(f"{x:.0f}" for x in seconds) for seconds in compiled]
    return [cache, f"{np.median(apart):.0f}", f"{np.median(shared):.0f}", spread, *each]


def _circumstances(of: dict) -> str:
    busy = " (busy: nothing is judged)" if of["load"] > QUIET * of["cores"] else ""
    count, steps = (of["settings"][f"fit.{key}"] for key in ("gaussians", "steps"))
    return (
        f"Measured on {of['device']}, commit {of['commit']}, jax {of['versions']['jax']}, load {of['load']:.1f}{busy}:"
        f" {of['people']} identities of {of['views']} views, {SIZE}x{SIZE} pixels, {count:,} Gaussians, {steps} steps;"
        f" few steps of training."
    )


def main() -> None:
    """Measures, and writes bench/history/whole.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=tuple(PARTS))
    parser.add_argument("--out", type=Path, default=Path("out/bench/whole"))
    given = parser.parse_args()
    found = json.loads(WHOLE.read_text()) if WHOLE.is_file() else {}
    place = Place(given.out.resolve())
    for part in given.parts:
        circumstances = {k: v for k, v in about("whole").items() if k != "suite"}
        sizes = {"people": PEOPLE, "views": VIEWS, "settings": SETTINGS}
        found[part] = circumstances | sizes | {part: PARTS[part](place)}
        write_json(WHOLE, found)
    print(section(found))


if __name__ == "__main__":
    main()
