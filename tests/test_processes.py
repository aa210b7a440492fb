import subprocess
import sys

import psutil
import pytest

from tests import processes
from tests.processes import finish, processor_time, programs, work

QUIET = {"stderr": subprocess.PIPE, "text": True}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_programs_that_stand_still_are_killed_and_those_that_work_are_not(monkeypatch):
    monkeypatch.setattr(processes, "STILL", 2)
    with programs() as start:
        # Two seconds of work, however long they take; beside it, one that waits for it does nothing for as long.
        busy = start(python("import time\nwhile time.process_time() < 2: pass"), **QUIET)
        waits = start(python(f"import psutil; psutil.Process({busy.pid}).wait()"), **QUIET)
        finish(busy, waits)
        stuck = start(python("import sys, time; print('here', file=sys.stderr, flush=True)\ntime.sleep(1e6)"), **QUIET)
        with pytest.raises(AssertionError, match="ended with -9: here"):
            finish(stuck)
        with pytest.raises(AssertionError, match="ended with 3"):
            finish(start(python("raise SystemExit(3)"), **QUIET))


def test_no_program_outlives_its_test():
    started = []

    def failing_test():
        with programs() as start:
            started.append(start(python("import time; time.sleep(1e6)"), **QUIET))
            raise KeyError

    with pytest.raises(KeyError):
        failing_test()
    assert not psutil.pid_exists(started[0].pid)


def test_work_is_counted_in_processor_time():
    with programs() as start:
        busy = start(python("while True: pass"), **QUIET)
        work(busy, 0.5)
        assert processor_time(busy) >= 0.5
        work(start(python(""), **QUIET), 1e9)  # returns: it has ended
