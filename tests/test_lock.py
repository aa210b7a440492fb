"""One writer at a time: who is refused, whose lock is taken over, and that of many who want it one gets it."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jsplat.errors import InputError
from jsplat.files import lock
from jsplat.files.lock import held
from jsplat.pipeline import Request, RunConfig, demo, run, work_folder

ROOT = Path(__file__).parent.parent
# The module alone: the package imports JAX, which would take most of the time.
ALONE = f"""
import sys, types
from pathlib import Path
package = types.ModuleType("jsplat")
package.__path__ = [{str(ROOT / "jsplat")!r}]
sys.modules["jsplat"] = package
from jsplat.files import lock
path = Path(sys.argv[1])
"""


def start(code: str, *args: object) -> subprocess.Popen:
    words = [sys.executable, "-c", ALONE + code, *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def output_line(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLDS = """
with lock.held(path, "one at a time"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path):
    """Another process that holds the lock."""
    process = start(HOLDS, path)
    try:
        assert output_line(process) == "held"
        yield process
    finally:
        process.kill()
        process.communicate()


def owned_by(path: Path, **changes) -> lock.Owner:
    """A lock that somebody left, as this process would have with these changes."""
    owner = dataclasses.replace(lock._myself(), **changes)
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    return owner


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_second_one_is_told_who_holds_it_in_one_line(tmp_path):
    path = tmp_path / "out" / lock.NAME
    with holder(path) as process:
        with pytest.raises(InputError) as refused, held(path, "one run at a time"):
            pass
        text = str(refused.value)
        assert text.startswith(f"{path}: wanted one run at a time, got `")
        assert f"process {process.pid} on {os.uname().nodename} since 20" in text
        assert "\n" not in text
        process.communicate("")
        assert process.returncode == 0
    with held(path, "one run at a time"):
        assert path.is_file()
    assert not path.parent.exists()


def test_the_same_process_does_not_get_it_twice(tmp_path):
    path = tmp_path / "a"
    with held(path, "one"), pytest.raises(InputError, match=f"process {os.getpid()} on"), held(path, "one"):
        pass


def test_it_is_released_by_errors_and_leaves_nothing(tmp_path):
    with contextlib.suppress(KeyError), held(tmp_path / "new" / "deep" / "a", "one"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    with holder(tmp_path / "a") as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now: nobody has asked how it ended
        with held(tmp_path / "a", "one"):
            assert json.loads((tmp_path / "a").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_number_that_another_process_has_now_protects_nobody(tmp_path):
    owned_by(tmp_path / "a", started="1")
    with held(tmp_path / "a", "one"):
        pass


def test_a_process_that_is_stopped_here_keeps_its_lock(tmp_path):
    with holder(tmp_path / "a"):
        aged(tmp_path / "a", 10 * lock.STALE)
        with pytest.raises(InputError, match="wait for it, or end it"), held(tmp_path / "a", "one"):
            pass


def test_elsewhere_the_last_touch_decides(tmp_path):
    owned_by(tmp_path / "a", host="node7", place="another boot", pid=1)
    aged(tmp_path / "a", lock.STALE - 30)
    with pytest.raises(InputError, match=r"process 1 on node7 since"), held(tmp_path / "a", "one"):
        pass
    aged(tmp_path / "a", lock.STALE + 30)
    with held(tmp_path / "a", "one"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_clock_is_that_of_the_file_system(tmp_path, monkeypatch):
    """A host whose clock is an hour ahead takes nothing over, one whose clock is behind does."""
    owned_by(tmp_path / "a", place="another boot")
    for wrong in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda w=wrong: 1e9 + w)
        with pytest.raises(InputError), held(tmp_path / "a", "one"):
            pass


def test_a_lock_that_nobody_can_read_is_somebodys_until_it_is_old(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(InputError, match="somebody else, who could not be read from a"), held(tmp_path / "a", "one"):
        pass
    aged(tmp_path / "a", lock.STALE + 30)
    with held(tmp_path / "a", "one"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_owner_keeps_touching(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(tmp_path / "a", "one"):
        aged(tmp_path / "a", 500)
        old = (tmp_path / "a").stat().st_mtime
        while (tmp_path / "a").stat().st_mtime == old:
            time.sleep(0.01)


RACES = """
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock.held(path, "one"):
        print("got", flush=True)
        sys.stdin.readline()
except lock.InputError:
    print("refused", flush=True)
"""


def test_of_many_who_take_over_one_wins(tmp_path):
    racers = [start(RACES, tmp_path / "a") for _ in range(6)]
    assert [output_line(racer) for racer in racers] == ["ready"] * 6
    owned_by(tmp_path / "a", started="1")
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    found = [output_line(racer) for racer in racers]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(found) == ["got"] + ["refused"] * 5
    assert not list(tmp_path.iterdir())


def test_one_who_died_while_taking_over_stops_nobody(tmp_path):
    dead = owned_by(tmp_path / "a", started="1")
    owned_by(tmp_path / f"a.{dead.token}", started="2")
    with held(tmp_path / "a", "one"):
        pass
    assert not list(tmp_path.iterdir())


def test_who_lost_the_lock_ends_and_leaves_the_new_owners(tmp_path):
    process = start("lock.BEAT = 0.01" + HOLDS, tmp_path / "a")
    assert output_line(process) == "held"
    owner = owned_by(tmp_path / "other", place="another boot")
    (tmp_path / "other").replace(tmp_path / "a")
    assert process.wait(60) == -signal.SIGTERM
    assert "is not this process's any more" in process.communicate()[1]
    assert json.loads((tmp_path / "a").read_text())["token"] == owner.token


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="wanted a folder that can be written"), held(tmp_path / "file" / "a", "one"):
        pass


def test_a_second_run_or_stage_on_one_folder_begins_nothing(tmp_path):
    with holder(tmp_path / "out" / lock.NAME) as process:
        refused = pytest.raises(InputError, match=f"wanted one run or editor at a time, got .*process {process.pid} on")
        with refused:
            run(Request(tmp_path / "captures", tmp_path / "teacher"), tmp_path / "out", RunConfig())
        with refused:
            demo(tmp_path / "out", RunConfig())
        assert [path.name for path in (tmp_path / "out").iterdir()] == [lock.NAME]
    first = work_folder.stage(tmp_path / "fit", "0" * 16, {}, 0, command="fit")
    with first as folder:
        (folder / "of the first").touch()
        second = work_folder.stage(tmp_path / "fit", "1" * 16, {}, 0, command="fit")
        with pytest.raises(InputError, match=r"wanted one command at a time for fit, got .*wait"), second:
            pytest.fail("two fill one folder")
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == [".written.json", "of the first", "run.json"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_refusal_of_the_first_process_of_a_run_is_everybodys(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(work_folder, "broadcast_bytes", lambda data: sent.append(data) or sent[0])
    with work_folder.exclusive(tmp_path / "a", "one"):
        monkeypatch.setattr(work_folder, "is_first_host", lambda: False)
        with work_folder.exclusive(tmp_path / "a", "one"):
            pass  # another process of the run: the first holds it for both
    sent.clear()
    owned_by(tmp_path / "a")
    monkeypatch.setattr(work_folder, "is_first_host", lambda: True)
    with pytest.raises(InputError) as first, work_folder.exclusive(tmp_path / "a", "one"):
        pass
    monkeypatch.setattr(work_folder, "is_first_host", lambda: False)
    with pytest.raises(InputError) as other, work_folder.exclusive(tmp_path / "a", "one"):
        pass
    assert str(first.value) == str(other.value)
