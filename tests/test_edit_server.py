"""The editor's server: whom it answers, what it keeps through a kill, and that it never leaves the run's folder."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jsplat.captures.capture import capture_folders, read_capture, write_capture
from jsplat.captures.label_png import decode, encode
from jsplat.edit import EditConfig, QueueConfig, Server, SimulationConfig, voted_labels
from jsplat.errors import InputError
from jsplat.pipeline import editing
from jsplat.pipeline.digests import Digests
from tests import spotted
from tests.spotted import BACK, FRONT, SPOT

PIXELS = spotted.SIZE**2


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return spotted.write_run(tmp_path_factory.mktemp("edit"))


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """The finished run with edits of its own."""
    for name in ("captures", "run/parse", "run/fit", "run/label"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(finished.parent / name)
    return tmp_path / "run"


@contextlib.contextmanager
def served(run: Path):
    session = editing.session(editing.open_run(run, None, EditConfig(changed_pixels=5)), QueueConfig())
    server = Server(session)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        session.close()


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str):
    """(status, body, headers); headers are named with underscores."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def save(server: Server, view: int, layer: np.ndarray, revision: int = 0, **headers: str):
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "X_Revision": str(revision), "X_Seconds": "2.5"}
    path = f"/{server.token}/api/0/{view}/labels"
    return ask(server, "POST", path, layer.tobytes(), **{**own, **headers})


def labels(server: Server, view: int) -> tuple[np.ndarray, np.ndarray, int]:
    status, body, headers = ask(server, "GET", f"/{server.token}/api/0/{view}/labels")
    assert status == 200
    auto, layer, _ = np.frombuffer(body, np.uint8).reshape(3, spotted.SIZE, spotted.SIZE)
    return auto, layer, int(headers["X-Revision"])


def test_a_saved_edit_is_kept_voted_on_and_logged(run):
    with served(run) as server:
        before = labels(server, 1)[0]
        status, body, _ = save(server, FRONT, spotted.spot())
        assert status == 200
        line = json.loads(body)
        _, layer, revision = labels(server, FRONT)
        assert np.array_equal(layer, spotted.spot())
        assert revision == 1
        assert (labels(server, 1)[0] != before).sum() == line["changed"]["1"] > 5
        about = json.loads(ask(server, "GET", f"/{server.token}/api/run")[1])
        assert about["heads"][0]["edited"] == [FRONT]
        assert [FRONT] not in [[v] for _, v, _ in about["queue"]]
    pixels = int((spotted.spot() == SPOT).sum())
    assert (line["identity"], line["view"], line["pixels"], line["seconds"]) == ("ball", FRONT, pixels, 2.5)
    assert line["after"] == {"spot": pixels}
    assert sum(line["before"].values()) == pixels
    assert set(line["before"]) <= {"left", "right"}
    assert line["others"] == sum(n > 5 for v, n in line["changed"].items() if v != str(FRONT)) >= 3
    assert [json.loads(t) for t in (run / "edits" / "edits.jsonl").read_text().splitlines()] == [line]
    kept = decode((run / "edits" / "ball" / "000.png").read_bytes(), "png")
    assert np.array_equal(kept.ids, spotted.spot())
    assert kept.palette is not None
    assert tuple(kept.palette[SPOT]) == (255, 255, 0)
    with np.load(run / "edits" / "ball.npz") as arrays:
        assert ((arrays["refined"][FRONT] == SPOT) == (spotted.spot() == SPOT)).all()
        assert (arrays["refined"][1] == SPOT).sum() > 5


def test_what_was_saved_is_there_after_a_restart(run):
    with served(run) as server:
        save(server, FRONT, spotted.spot())
        neighbor = labels(server, 1)[0]
    with served(run) as server:
        assert np.array_equal(labels(server, FRONT)[1], spotted.spot())
        assert server.session.ready("ball").result().head.layers.keys() == {FRONT}
        assert (
            labels(server, 1)[0] != neighbor
        ).sum() <= 3  # all edits at once; its rim is what the label stage showed
    assert len((run / "edits" / "edits.jsonl").read_text().splitlines()) == 1


def test_an_edit_that_is_taken_back_leaves_no_file(run):
    with served(run) as server:
        save(server, FRONT, spotted.spot())
        assert save(server, FRONT, np.full_like(spotted.spot(), 255), 1)[0] == 200
        assert not (run / "edits" / "ball" / "000.png").exists()
        assert json.loads(ask(server, "GET", f"/{server.token}/api/run")[1])["heads"][0]["edited"] == []
    assert not (run / "edits" / "ball.npz").exists()
    assert voted_labels(run, "ball", spotted.CLASSES) == {}


def test_looking_changes_nothing_that_later_stages_read(run):
    with served(run) as server:
        labels(server, FRONT)
        server.session.ready("ball").result()
    assert not (run / "edits").exists()
    with served(run) as server:
        save(server, FRONT, spotted.spot())
    before = Digests().path(run / "edits")
    with served(run) as server:
        labels(server, FRONT)
        server.session.ready("ball").result()
    assert Digests().path(run / "edits") == before


def test_two_windows_do_not_overwrite_each_other(run):
    with served(run) as server:
        assert save(server, FRONT, spotted.spot())[0] == 200
        other = np.full_like(spotted.spot(), 255)
        other[20:24, 20:24] = 1
        status, body, _ = save(server, FRONT, other)
        assert status == 409
        assert b"saved elsewhere in the meantime: ball, view 0" in body
        assert np.array_equal(labels(server, FRONT)[1], spotted.spot())
        statuses = []
        threads = [
            threading.Thread(
                target=lambda i=i: statuses.append(save(server, 1, np.where(other == 1, np.uint8(i), other))[0])
            )
            for i in (1, 2, 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 409, 409]
    lines = [json.loads(t) for t in (run / "edits" / "edits.jsonl").read_text().splitlines()]
    assert [line["view"] for line in lines] == [FRONT, 1]
    with served(run), pytest.raises(InputError, match=r"wanted one run or editor at a time, got .*process \d+ on"):
        editing.session(editing.open_run(run, None, EditConfig()), QueueConfig())


def test_other_hosts_pages_and_tokens_are_refused(run):
    with served(run) as server:
        own = f"/{server.token}/api/run"
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server, "GET", own)[0] == 200
        assert ask(server, "GET", own, Host=f"localhost:{server.server_port}")[0] == 200
        for host in ("evil.example", f"evil.example:{server.server_port}", ""):
            assert ask(server, "GET", own, Host=host)[0] == 403
        assert ask(server, "GET", own, Origin="http://evil.example")[0] == 403
        assert ask(server, "GET", own, Sec_Fetch_Site="cross-site")[0] == 403
        for token in ("", "x", server.token[:-1], server.token + "x"):
            assert ask(server, "GET", f"/{token}/api/run")[0] == 404
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.server_port + 1}"):
            assert save(server, FRONT, spotted.spot(), Origin=origin)[0] == 403
        bare = ask(
            server, "POST", f"/{server.token}/api/0/0/labels", spotted.spot().tobytes(), X_Revision="0", X_Seconds="1"
        )
        assert bare[0] == 403
        assert save(server, FRONT, spotted.spot(), Host="evil.example")[0] == 403
        assert not (run / "edits" / "ball").exists()
        _, _, headers = ask(server, "GET", f"/{server.token}/")
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        *("../run.json", "page/../../session.py", "..%2f..%2fetc/passwd", "/etc/passwd", "api/../../etc/passwd"),
        *("api/0/../0/labels", "api/0/0/../../../x", "api/1/0/labels", "api/0/8/labels", "api/0/0/x"),
        *("api/-1/0/labels", "session.py", "api/0/0/labels/"),
    ],
)
def test_no_address_leads_out_of_the_run(run, path):
    with served(run) as server:
        status, body, _ = ask(server, "GET", f"/{server.token}/{path}")
        assert status == 404
        assert body in (b"nothing here", b"no such view")


def test_bad_bodies_are_refused(run):
    with served(run) as server:
        status, body, _ = save(server, FRONT, np.full((spotted.SIZE, spotted.SIZE), 7, np.uint8))
        assert (status, body) == (400, b"edit: layer: wanted class ids below 4 or 255, got [7]")
        status, body, _ = save(server, FRONT, np.zeros(PIXELS + 1, np.uint8))
        assert (status, body) == (400, f"post: body: wanted {PIXELS} bytes, got {PIXELS + 1}".encode())
        assert save(server, FRONT, spotted.spot(), X_Revision="x")[0] == 400
        assert save(server, FRONT, spotted.spot(), X_Seconds="nan")[0] == 400
        assert save(server, FRONT, spotted.spot(), Content_Length="-1")[0] == 400
        assert ask(server, "PUT", f"/{server.token}/api/0/0/labels", b"x")[0] == 501
        assert not (run / "edits" / "ball").exists()
        assert labels(server, FRONT)[2] == 0


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_a_heads_name_cannot_lead_out_of_the_run(tmp_path, name):
    source = editing.Source(lambda: pytest.fail("read"), lambda: pytest.fail("read"))
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="wanted a path inside the folder"):
        editing.Session(tmp_path / "run", {name: source}, spotted.CLASSES, EditConfig(), QueueConfig())
    assert not (tmp_path / "evil").exists()


def test_links_out_of_the_run_are_not_followed(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / "edits").mkdir()
    (run / "edits" / "ball").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="wanted a path inside the folder"), served(run):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_edits_of_another_size_are_named_and_the_page_is_told(run):
    (run / "edits" / "ball").mkdir(parents=True)
    wrong = encode(np.full((9, 20), 1, np.uint8), np.zeros((256, 3), np.uint8))
    (run / "edits" / "ball" / "002.png").write_bytes(wrong)
    with served(run) as server:
        status, body, _ = ask(server, "GET", f"/{server.token}/api/0/2/labels")
        assert status == 400
        assert b"002.png: wanted a drawing on one of 8 views of 48x48 pixels" in body
        while not server.session.failed:
            time.sleep(0.01)
        (head,) = json.loads(ask(server, "GET", f"/{server.token}/api/run")[1])["heads"]
        assert "002.png" in head["error"]


def test_later_stages_get_the_masks_after_the_vote(run):
    assert voted_labels(run, "ball", spotted.CLASSES) == {}
    with served(run) as server:
        save(server, FRONT, spotted.spot())
    voted = voted_labels(run, "ball", spotted.CLASSES)
    assert set(voted) == {"refined", "confidence", "rows_refined"}
    assert (voted["refined"][1] == SPOT).sum() > 5
    (run / "edits" / "ball" / "001.png").write_bytes(encode(spotted.spot(), np.zeros((256, 3), np.uint8)))
    with pytest.raises(InputError, match=r"ball: wanted a vote on what was drawn, got one on other drawings"):
        voted_labels(run, "ball", spotted.CLASSES)
    (run / "edits" / "ball.npz").write_bytes(b"PK, damaged")
    with pytest.raises(InputError, match=r"wanted a vote on what was drawn, got one on another"):
        voted_labels(run, "ball", spotted.CLASSES)
    with served(run) as server:  # which it is told to do; nobody has to look at this head
        server.session._ready["ball"].result()
    assert (voted_labels(run, "ball", spotted.CLASSES)["refined"][1] == SPOT).sum() > 5


def test_a_vote_that_waits_to_be_written_is_written_at_the_end(run):
    """As when the one thread that writes makes another head ready."""
    with served(run) as server:
        server.session.ready("ball").result()
        busy = threading.Event()
        server.session._worker.submit(busy.wait)
        save(server, FRONT, spotted.spot())
        assert not (run / "edits" / "ball.npz").exists()
        threading.Timer(0.2, busy.set).start()
    assert voted_labels(run, "ball", spotted.CLASSES)


def test_serving_ends_on_interrupt_and_lets_others_in(run, monkeypatch, capsys):
    def interrupt(server):
        assert server.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupt)
    for _ in range(2):
        editing.serve(run, None, 0, EditConfig(), QueueConfig())
    assert "edit: http://127.0.0.1:" in capsys.readouterr().out
    with served_port() as port, pytest.raises(InputError, match="port: wanted a free one"):
        editing.serve(run, None, port, EditConfig(), QueueConfig())


@contextlib.contextmanager
def served_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from jsplat.edit import EditConfig, QueueConfig, session as module
from jsplat.pipeline import editing
from tests import spotted
opened = editing.session(editing.open_run(Path(sys.argv[1]), None, EditConfig()), QueueConfig())
module.edit = lambda *args: (print("voting", flush=True), sys.stdin.read())
opened.save("ball", 0, spotted.spot(), 0, 1.0)
"""


def test_a_kill_during_the_vote_loses_nothing_that_was_saved(run):
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "voting\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with (run / "edits" / "edits.jsonl").open("a") as file:
        file.write('{"time": "cut o')
    with served(run) as server:
        assert np.array_equal(labels(server, FRONT)[1], spotted.spot())
        head = server.session.ready("ball").result().head
        assert (head.masks[1] == SPOT).sum() > 5
    (line,) = (json.loads(t) for t in (run / "edits" / "edits.jsonl").read_text().splitlines())
    assert (line["view"], line["recovered"]) == (FRONT, True)


def test_the_report_gets_its_numbers_from_a_run(run):
    found = editing.edits_of(
        editing.open_run(run, None, EditConfig()), ["ball"], SimulationConfig(revealed_fraction=0.1)
    )
    assert found["revealed"] == 1
    json.dumps(found, allow_nan=False)


def test_a_run_that_is_not_finished_is_named(run, tmp_path):
    wanted = "wanted a run, or a folder with what `parse`, `fit` and `label` wrote, called so"
    with pytest.raises(InputError, match=wanted):
        editing.open_run(tmp_path / "x" / "run", None, EditConfig())
    with pytest.raises(InputError, match=wanted):
        editing.open_run(tmp_path, run.parent / "captures", EditConfig())
    (folder,) = capture_folders(run.parent / "captures")
    write_capture(tmp_path / "others" / "cube", read_capture(folder))
    text = (tmp_path / "others" / "cube" / "transforms.json").read_text().replace('"ball"', '"cube"')
    (tmp_path / "others" / "cube" / "transforms.json").write_text(text)
    with pytest.raises(InputError, match=r"wanted captures of ball, got none of them; `--captures` names"):
        editing.open_run(run, tmp_path / "others", EditConfig())


def test_settings_of_another_version_are_named(run, tmp_path):
    shutil.copytree(run / "label", tmp_path / "label")
    about = tmp_path / "label" / "run.json"
    about.write_text(about.read_text().replace('"max_regions"', '"keep"'))
    wanted = r"label/run.json: mask: default_rule.keep: wanted a known key .*; another version of jsplat wrote it"
    with pytest.raises(InputError, match=wanted):
        editing.open_run(tmp_path, run.parent / "captures", EditConfig())


def test_the_geometrys_colours_are_shown(run):
    with served(run) as server:
        photo, render = (
            np.frombuffer(ask(server, "GET", f"/{server.token}/api/0/{BACK}/{what}")[1], np.uint8).astype(float)
            for what in ("photo", "render")
        )
        assert len(photo) == 3 * PIXELS
        assert np.abs(photo - render).mean() < 8  # splats of constant colour against a smooth ball
