"""One writer at a time: a lock file that names its owner and is touched for as long as the owner lives.

It asks the file system for nothing but exclusive creation and times of change, so it holds on network file systems too,
where flock and fcntl may not. A lock whose owner is dead is taken over. Dead is

- on the machine that can look: no process of that number, or one that began at another time;
- elsewhere: a lock that nobody touched for `STALE` seconds, by the file system's own clock.

A process that lost its lock all the same (it slept, say, while another machine took over) ends as by SIGTERM.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from jsplat.errors import InputError

NAME = ".lock"  # of the lock within the folder of a run
ONE_RUN = "one run or editor at a time"
BEAT = 5.0  # seconds between two touches
STALE = 120.0  # network file systems show a touch up to a minute late


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        place: where process numbers mean the same: a boot of a machine, and a container on it.
        started: when the process began, in the machine's own count; "" where that cannot be known.
        since: when the lock was taken, ISO 8601 in UTC.
        token: tells this lock from every other.
    """

    host: str
    pid: int
    place: str
    started: str
    since: str
    command: str
    token: str

    def __str__(self):
        return f"`{self.command}`, process {self.pid} on {self.host} since {self.since}"


@contextlib.contextmanager
def held(path: Path, wanted: str) -> Iterator[None]:
    """Holds the lock `path` within the block; its folder is made where there is none.

    Args:
        wanted: what people are told is allowed here, "one run at a time".

    Raises:
        InputError: somebody else holds it (named), or it cannot be written.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = _take(path, wanted)
    except OSError as error:
        raise InputError(str(path.parent), wanted="a folder that can be written to", got=error) from error
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, own, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        with contextlib.suppress(OSError):
            if _token(path) == own.token:
                path.unlink()
            for folder in made:  # what is empty again leaves no trace
                folder.rmdir()


def _take(path: Path, wanted: str) -> Owner:
    while True:
        own = _myself()
        with contextlib.suppress(FileExistsError):
            _create(path, json.dumps(dataclasses.asdict(own)))
            return own
        try:
            owner, touched = _read(path)
        except FileNotFoundError:  # released in the meantime
            continue
        if not _dead(path, owner, touched):
            got = owner or f"somebody else, who could not be read from {path.name}"
            raise InputError(str(path), wanted=wanted, got=got, hint="wait for it, or end it")
        # Of several who see it dead one at a time may remove it, and only while it is still the dead one's.
        token = owner.token if owner else "nobody"
        with held(path.with_name(f"{path.name}.{token}"), wanted):
            if (_token(path) or "nobody") == token:
                path.unlink(missing_ok=True)


def _create(path: Path, text: str) -> None:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.write(file, text.encode())
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(file)


def _read(path: Path) -> tuple[Owner | None, float]:
    """Whose it is (None if that cannot be read), and when it was last touched."""
    for wait in (0.0, 0.05, 0.2, 0.5):  # seconds: one who just made it has yet to write
        time.sleep(wait)
        with path.open("rb") as file:  # opened, so that a network file system asks the server
            data, touched = file.read(), os.fstat(file.fileno()).st_mtime
        with contextlib.suppress(ValueError, TypeError):
            return Owner(**json.loads(data)), touched
    return None, touched


def _token(path: Path) -> str | None:
    """Of the lock as it is now; None where there is none that can be read."""
    try:
        owner, _ = _read(path)
    except FileNotFoundError:
        return None
    return owner.token if owner else None


def _dead(path: Path, owner: Owner | None, touched: float) -> bool:
    if owner is not None and owner.place == _place():
        started = _started(owner.pid)
        if started is None:
            return True
        if started and owner.started:  # a process that was stopped touches nothing, and goes on later
            return started != owner.started
    return _now(path) - touched > STALE


def _now(path: Path) -> float:
    """The time beside a file, by the clock that its times of change come from."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    _create(probe, "")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _myself() -> Owner:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = shlex.join([*(Path(name).name for name in sys.argv[:1]), *sys.argv[1:]])
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _place(), _started(pid) or "", now, command, uuid.uuid4().hex)


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this `_place` began: None if there is none, "" if that cannot be known."""
    if os.name != "posix":  # there, signal 0 is not a question
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # somebody else's, but there
        pass
    try:
        # proc(5): what follows the name, in brackets, begins with field 3, the state; field 22 is the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie is dead
    except (OSError, IndexError):
        return ""


def _beat(path: Path, own: Owner, done: threading.Event) -> None:
    while not done.wait(BEAT):
        try:
            token = _token(path)
            if token == own.token:
                os.utime(path)
                continue
        except OSError:  # a network that is away for a while
            continue
        if not done.is_set():
            print(f"{path} is not this process's any more: it ends", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
        return
