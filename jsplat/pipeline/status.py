"""Where a run stands, read from its folder: nothing is asked of the process that runs it."""

import datetime
import json
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.ownership import ABOUT
from jsplat.pipeline.students import STUDENTS
from jsplat.runtime.progress import read_log

A_RUN = "name the OUT of `jsplat run`, or OUT/run of a demo"  # what to do where no run lies
STAGES = ("parse", "fit", "label", "masks", "overlays", "render", *STUDENTS, "simulation")
REPORT = "report"


def status(run: Path) -> list[tuple[str, str]]:
    """Each stage and how it stands ("done", "running", "stopped", "failed", "waiting", with numbers).

    A stage that the run will not reach, as its run.json says, is told only where it is done already.

    Raises:
        InputError: no run lies there.
    """
    logs = [read_log(path) for path in run.glob("events*.jsonl")]
    events = sorted((event for log in logs for event in log), key=lambda event: event["time"])
    if not events:
        raise InputError(str(run), wanted="the folder of a run (with events.jsonl)", got="none", hint=A_RUN)
    begun = {e["stage"]: i for i, e in enumerate(events) if e["event"] == "stage begins"}
    planned, rows = _planned(run), []
    for name in [*dict.fromkeys([*(n for n in planned if n != REPORT), *STAGES])]:
        found = run / name / "run.json"
        if found.is_file():
            rows.append((name, f"done in {json.loads(found.read_text())['seconds']:.0f} s"))
        elif name in planned:
            rows.append((name, _unfinished(events[begun[name] :], name) if name in begun else "waiting"))
    failed = [e["identity"] for e in events if e["event"] == "identity failed"]
    if failed:
        rows.append(("identities that failed", ", ".join(dict.fromkeys(failed))))
    report = run / "report.html"
    if report.is_file() or REPORT in planned:
        rows.append((REPORT, str(report) if report.is_file() else "waiting"))
    return rows


def _planned(run: Path) -> list[str]:
    try:
        return list(json.loads((run / ABOUT).read_text())["stages"])
    except (OSError, ValueError, KeyError, TypeError):  # it has not begun, or an older version began it
        return [*STAGES, REPORT]


def _unfinished(events: list[dict], name: str) -> str:
    """What the events since a stage began say about it."""
    errors = [e["error"] for e in events if e["event"] == "stage failed" and e["stage"] == name]
    if errors:
        return f"failed: {errors[-1]}"
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(events[-1]["time"])
    heard = f"last heard of {age.total_seconds():.0f} s ago"
    steps = [e for e in events if e["event"] == "progress"]
    if not steps:
        return f"begun, {heard}"
    last = steps[-1]
    values = {k: v for k, v in last.items() if k not in ("time", "event", "what", "done", "total", "eta")}
    shown = "".join(f", {key} {value:.4g}" for key, value in values.items())
    return f"{last['what']} {last['done']}/{last['total']}{shown}, ETA {last['eta']:.0f} s, {heard}"
