"""Events of a run, and what `status` reads from them."""

import json

import pytest

from jsplat.errors import InputError
from jsplat.pipeline.status import status
from jsplat.pipeline.work_folder import stage
from jsplat.runtime import progress


@pytest.fixture
def run(tmp_path):
    """A folder whose events are logged."""
    progress.log_to(tmp_path / "events.jsonl")
    progress.log("run begins", captures=["ada"])
    yield tmp_path
    progress.log_to(None)


def names(run) -> list[str]:
    return [event["event"] for event in progress.read_log(run / "events.jsonl")]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"wanted the folder of a run \(with events.jsonl\), got none; name the OUT"):
        status(tmp_path)


def test_events_are_lines_of_json_and_a_torn_last_line_does_not_count(run):
    with (run / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    (event,) = progress.read_log(run / "events.jsonl")
    assert (event["event"], event["captures"]) == ("run begins", ["ada"])


def test_a_stage_is_waiting_then_running_then_done(run):
    assert dict(status(run))["fit"] == "waiting"
    with stage(run / "fit", "x", {}, 0, command="run fit"):
        assert dict(status(run))["fit"].startswith("begun, last heard of 0 s ago")
        shown = progress.Progress("fit", 4, interval=0.0)
        shown.advance(1, loss=0.25)
        assert dict(status(run))["fit"].startswith("fit 1/4, loss 0.25, ETA 0 s, last heard of 0 s ago")
    assert dict(status(run))["fit"] == "done in 0 s"
    assert dict(status(run))["report"] == "waiting"
    assert names(run) == ["run begins", "stage begins", "progress", "stage ends"]
    (run / "report.html").write_text("")
    assert dict(status(run))["report"] == str(run / "report.html")


def test_a_stage_that_failed_says_why(run):
    with pytest.raises(InputError), stage(run / "fit", "x", {}, 0, command="run fit"):
        raise InputError("fit", wanted="light", got="darkness")
    assert dict(status(run))["fit"] == "failed: InputError: fit: wanted light, got darkness"
    assert names(run)[-1] == "stage failed"
    progress.log("stage begins", stage="fit")  # the next attempt is what counts
    assert dict(status(run))["fit"].startswith("begun")


def test_identities_that_failed_are_named(run):
    for _ in range(2):
        progress.log("identity failed", identity="bob", stage="fit")
    assert dict(status(run))["identities that failed"] == "bob"


def test_without_a_log_events_go_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    progress.log("nothing", value=json.loads("1"))
    assert not list(tmp_path.iterdir())
