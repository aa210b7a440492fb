"""What people watch of long work: one line with the current numbers and an ETA, and a log of events for programs."""

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_log: Path | None = None
_watchers: list[Callable[["Progress"], object]] = []
_quiet = False


def log_to(path: Path | None) -> None:
    """Sends events to a file of JSON lines, which grows; None ends that."""
    global _log
    _log = path


def log_name(host: int) -> str:
    """The file of a host's events in the folder of a run."""
    return f"events{f'.{host}' if host else ''}.jsonl"


def log(event: str, **fields: object) -> None:
    """Adds one event: time (UTC), its name and fields, JSON-ready. Nothing happens where no log was asked for."""
    if _log is None:
        return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    _log.parent.mkdir(parents=True, exist_ok=True)
    with _log.open("a") as file:
        file.write(json.dumps({"time": now, "event": event, **fields}) + "\n")


def read_log(path: Path) -> list[dict]:
    """The events of a log, oldest first; a last line that a kill cut short does not count."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


@contextlib.contextmanager
def watched(by: Callable[["Progress"], object]) -> Iterator[None]:
    """Within the block `by` is called with all work that shows progress, whenever a line is shown."""
    _watchers.append(by)
    try:
        yield
    finally:
        _watchers.remove(by)


def set_quiet(quiet: bool) -> None:
    """Whether this process says nothing of how far it is from now on; the log keeps all of it."""
    global _quiet
    _quiet = quiet


def narrate(line: str, end: str = "\n") -> None:
    """A line for people who watch, to stderr; what somebody must know is printed elsewhere, `--quiet` or not."""
    if not _quiet:
        print(line, end=end, file=sys.stderr, flush=True)


class Progress:
    """Counts work done towards a known total.

    On a terminal the line is redrawn; elsewhere a line is printed at most every `interval` seconds. Each line is an
    event "progress" too.
    """

    def __init__(self, what: str, total: int, interval: float = 15.0):
        self.what, self.total, self.interval = what, max(total, 1), interval
        self.start = self.last = time.monotonic()
        self.done = 0

    def advance(self, steps: int = 1, **values: float) -> None:
        """Counts `steps` more as done and shows `values` (loss, mIoU) beside the ETA."""
        self.done += steps
        now = time.monotonic()
        finished = self.done >= self.total
        if not finished and now - self.last < (0.2 if sys.stderr.isatty() else self.interval):
            return
        self.last = now
        elapsed = now - self.start
        eta = elapsed / self.done * (self.total - self.done)
        log("progress", what=self.what, done=self.done, total=self.total, eta=round(eta, 1), **values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        time_left = f"{elapsed:.0f} s" if finished else f"ETA {eta:.0f} s"
        line = f"{self.what}: {self.done}/{self.total}  {shown}  {time_left}"
        end = "\n" if finished or not sys.stderr.isatty() else ""
        narrate(("\r\x1b[K" if sys.stderr.isatty() else "") + line, end)
        for watcher in _watchers:
            watcher(self)
