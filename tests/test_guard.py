"""Who may ask a server that shows a head: by any name and port of this machine, with the token, from its own page."""

import dataclasses
import http.client
import http.server
import socket
import sys
import threading
import types
from email.message import Message

import pytest

from jsplat.edit import Server, Session
from jsplat.edit import server as edit_server
from jsplat.errors import InputError
from jsplat.pipeline import viewer
from jsplat.runtime.guard import Refused, admitted

TOKEN = "s3cret"


def headers(*pairs: tuple[str, str]) -> Message:
    found = Message()
    for name, value in pairs:
        found[name] = value
    return found


def status(*pairs: tuple[str, str], target: str = f"/{TOKEN}/x", from_page: bool = False) -> int:
    try:
        admitted(target, headers(*pairs), TOKEN, from_page=from_page)
    except Refused as refused:
        return refused.status
    return 200


HERE = [f"{name}{port}" for name in ("localhost", "LocalHost", "127.0.0.1", "[::1]") for port in ("", ":80", ":9000")]
ELSEWHERE = [
    *("", "evil.example", "evil.example:8000", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example"),
    *("127.0.0.1:", "127.0.0.1:x", "127.0.0.1:8000@evil.example", "127.0.0.11", "0.0.0.0:8000", "[::]:8000", "::1"),
    *("[::2]:8000", "localhost:123456", "localhost:८०", "evil.example\tlocalhost", "localhost,evil.example"),
]


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_known_by_its_names_with_any_port(host):
    assert status(("Host", host)) == 200
    own = ("Origin", f"http://{host.lower()}")
    assert status(("Host", host), own) == status(("Host", host), own, from_page=True) == 200
    assert status(("Host", host), own, ("Sec-Fetch-Site", "same-origin")) == 200
    assert status(("Host", host), ("Sec-Fetch-Site", "none")) == 200
    assert status(("Host", host), target=f"/{TOKEN}") == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_names_are_refused_even_with_the_token(host):
    assert status(("Host", host)) == status(("Host", host), ("Origin", f"http://{host}"), from_page=True) == 403
    with pytest.raises(Refused, match="another host's name: open this page as localhost"):
        admitted(f"/{TOKEN}/", headers(("Host", host)), TOKEN)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Host", "localhost:9000"), ("Host", "evil.example")],
        [("Host", "localhost:9000"), ("Origin", "http://evil.example")],
        [("Host", "localhost:9000"), ("Origin", "null")],
        [("Host", "localhost:9000"), ("Origin", "https://localhost:9000")],
        [("Host", "localhost:9000"), ("Origin", "http://localhost:9001")],  # another server of this machine
        [("Host", "localhost:9000"), ("Origin", "http://127.0.0.1:9000")],
        [("Host", "localhost"), ("Origin", "http://localhost:9000")],
        [("Host", "localhost:9000"), ("Origin", "http://localhost:9000"), ("Origin", "http://evil.example")],
        [("Host", "localhost:9000"), ("Sec-Fetch-Site", "cross-site")],
        [("Host", "localhost:9000"), ("Sec-Fetch-Site", "same-site")],
    ],
)
def test_other_pages_are_refused(pairs):
    assert status(*pairs) == 403


def test_posts_and_sockets_must_say_where_they_come_from():
    assert status(("Host", "localhost"), from_page=True) == 403


@pytest.mark.parametrize(
    "target", ["/", "", "//", "/s3cre/x", "/s3cret0/x", f"/x/{TOKEN}/", f"//{TOKEN}/", "/é/x", "/\udcff/"]
)
def test_the_token_comes_first(target):
    assert status(("Host", "localhost"), target=target) == 404


def test_what_follows_the_token():
    ask = lambda target: admitted(target, headers(("Host", "localhost")), TOKEN)  # noqa: E731
    assert [ask(f"/{TOKEN}{rest}") for rest in ("", "/", "/a/b?c")] == ["", "/", "/a/b?c"]


# The editor's server


@pytest.fixture
def server():
    session = object.__new__(Session)  # nobody asks for a head
    session.names = ()
    with Server(session) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def asked(server: Server, host: str, at: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(at, server.server_port, timeout=60)
    connection.putrequest("GET", f"/{server.token}/page.css", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_editor_works_through_a_tunnel(server):
    for host in (f"127.0.0.1:{server.server_port}", "localhost:1", "LOCALHOST:9000", "[::1]:9000", "localhost"):
        assert asked(server, host)[0] == 200
    refused, text = asked(server, f"example.org:{server.server_port}")
    assert refused == 403
    assert b"open this page as localhost, 127.0.0.1 or [::1] (any port, so ssh -L works)" in text


def test_the_editor_answers_at_both_addresses_of_this_machine(server):
    if server.ipv6 is None:
        pytest.skip("no IPv6 on this machine")
    assert server.ipv6.server_address[:2] == ("::1", server.server_port)
    assert asked(server, f"[::1]:{server.server_port}", "::1")[0] == 200
    assert asked(server, "example.org", "::1")[0] == 403


def test_a_port_that_is_taken_is_named(server):
    with pytest.raises(InputError, match=f"port: wanted a free one, got {server.server_port}"):
        Server(server.session, server.server_port)


def test_silent_connections_give_their_threads_back(server, monkeypatch):
    monkeypatch.setattr(edit_server._Handler, "timeout", 0.05)
    half = f"POST /{server.token}/api/0/0/labels HTTP/1.1\r\nHost: localhost\r\n".encode()
    whole = f"GET /{server.token}/page.css HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for request in (b"", half, whole):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            connection.sendall(request)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))  # until the server ends it
            assert received.startswith(b"HTTP/1.1 200" if request == whole else b"")


# viser's


@dataclasses.dataclass
class _Request:
    path: str
    headers: Message


class _Connection:
    def respond(self, status: int, text: str):
        return types.SimpleNamespace(status=status, headers={}, text=text)


def looked(target: str, *pairs: tuple[str, str]):
    """(status, path that viser saw, headers); 101 where the socket may open."""
    seen = []

    def look(_connection, request):
        seen.append(request.path)
        return None if request.headers.get("Upgrade") else types.SimpleNamespace(status=200, headers={})

    response = viewer.guarded(look, TOKEN)(_Connection(), _Request(target, headers(*pairs)))
    return (101, seen, {}) if response is None else (response.status, seen, response.headers)


def test_the_viewers_page_and_socket_need_the_token():
    here, socket_ = ("Host", "localhost:9000"), ("Upgrade", "websocket")
    own, evil = ("Origin", "http://localhost:9000"), ("Origin", "http://evil.example")
    found, seen, sent = looked(f"/{TOKEN}/a.js?b", here)
    assert (found, seen) == (200, ["/a.js?b"])
    assert (sent["X-Frame-Options"], sent["Referrer-Policy"]) == ("DENY", "no-referrer")
    assert looked(f"/{TOKEN}", here, socket_, own)[:2] == (101, ["/"])
    assert looked(f"/{TOKEN}", here)[:2] == (404, [])
    for target, pairs in (
        ("/", [here]),
        ("/", [here, socket_, own]),
        ("/x", [here, socket_, own]),
        (f"/{TOKEN}", [here, socket_]),
        (f"/{TOKEN}", [here, socket_, evil]),
        (f"/{TOKEN}", [("Host", "evil.example"), socket_, evil]),
        (f"/{TOKEN}/", [("Host", "evil.example")]),
    ):
        found, seen, _ = looked(target, *pairs)
        assert found in (403, 404)
        assert seen == [], "viser saw a request that is not for it"


class _Viser:
    """A server as viser's: it gives `websockets` the function that looks at requests, or does not."""

    __version__ = "9"

    def __init__(self, asks_first: bool):
        self.asks_first, self.stopped, self.theme = asks_first, False, {}
        self.gui = types.SimpleNamespace(configure_theme=self.theme.update)

    def ViserServer(self, host: str, port: int, label: str, verbose: bool):
        def look(_connection, _request):
            return types.SimpleNamespace(status=200, headers={}, text="a head")

        if self.asks_first:
            look = sys.modules["websockets.asyncio.server"].serve(None, host, port, process_request=look)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                response = look(_Connection(), _Request(self.path, self.headers))
                self.send_response(response.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.listening = http.server.HTTPServer((host, port), Handler)
        threading.Thread(target=self.listening.serve_forever, args=(0.01,), daemon=True).start()
        print(f"HTTP http://{host}:{port}")
        return self

    def get_port(self):
        return self.listening.server_port

    def stop(self):
        self.stopped = True
        self.listening.shutdown()
        self.listening.server_close()


@pytest.fixture
def websockets(monkeypatch):
    module = types.SimpleNamespace(serve=lambda *_, process_request: process_request)
    for name in ("websockets", "websockets.asyncio"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", module)
    return module


def test_the_guard_is_put_before_viser_and_asked(websockets, capsys):
    plain = websockets.serve
    viser, address = viewer.guarded_server(_Viser(asks_first=True), 0, "head")
    try:
        assert websockets.serve is plain
        start, _, token = address.removesuffix("/").rpartition("/")
        assert start == f"http://127.0.0.1:{viser.get_port()}"
        assert len(token) == 32
        assert viser.theme == {"show_share_button": False}
        assert capsys.readouterr().out == "", "an address that is refused"
        for target, wanted in (("/", 404), (f"/{token}/", 200)):
            connection = http.client.HTTPConnection("127.0.0.1", viser.get_port(), timeout=60)
            connection.request("GET", target)
            assert connection.getresponse().status == wanted
    finally:
        viser.stop()


def test_a_viser_that_cannot_be_guarded_shows_nothing(websockets):
    viser = _Viser(asks_first=False)
    with pytest.raises(InputError, match=r"view: wanted viser 1\.1, .* got viser 9, which answers everybody"):
        viewer.guarded_server(viser, 0, "head")
    assert viser.stopped


def test_the_real_viser_is_guarded():
    viser = pytest.importorskip("viser", reason="no viser here (pip install 'jsplat[view]')")
    connect = pytest.importorskip("websockets.sync.client").connect
    refused = pytest.importorskip("websockets.exceptions").InvalidStatus
    server, address = viewer.guarded_server(viser, 0, "head")
    try:
        port = server.get_port()
        socket_ = address.replace("http", "ws").removesuffix("/")
        options = {"subprotocols": [f"viser-v{viser.__version__}"], "open_timeout": 60}
        with connect(socket_, origin=f"http://127.0.0.1:{port}", **options) as opened:
            assert opened.recv(60)
        for url, origin in (
            (f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"),
            (socket_, "http://evil.example"),
            (socket_, f"http://localhost:{port}"),
            (socket_, None),
        ):
            with pytest.raises(refused), connect(url, origin=origin, **options):
                pass
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", address.removeprefix(f"http://127.0.0.1:{port}"))
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert b"<html" in answer.read()
    finally:
        server.stop()
