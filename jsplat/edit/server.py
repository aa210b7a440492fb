"""The page's server: this machine only, one secret in the address, no file is ever named by a request.

    GET  /TOKEN/                            the page; /TOKEN/page.css and so on, from a fixed list
    GET  /TOKEN/api/run                     classes, heads, queue, progress
    GET  /TOKEN/api/HEAD                    whether the head is ready to be voted on (and makes it so)
    GET  /TOKEN/api/HEAD/VIEW/{photo,render}    sRGB bytes, row by row
    GET  /TOKEN/api/HEAD/VIEW/labels        mask, what was said, confidence: a byte per pixel each; X-Revision
    POST /TOKEN/api/HEAD/VIEW/labels        what was said, a byte per pixel; X-Revision, X-Seconds

HEAD and VIEW are numbers. Whom it answers, `jsplat.runtime.guard` decides.
"""

import contextlib
import http.server
import importlib.resources
import json
import os
import re
import socket
import socketserver
import threading
import traceback
from http import HTTPStatus

import numpy as np

from jsplat.edit.session import Outdated, Session
from jsplat.errors import InputError
from jsplat.raster.reprojection import nearest_views
from jsplat.runtime.guard import HEADERS, Refused, admitted, new_token
from jsplat.runtime.stop import STOP

FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "canvas.js": ("canvas.js", "text/javascript"),
    "strokes.js": ("strokes.js", "text/javascript"),
}
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_ABOUT = re.compile(r"api/(\d{1,6})(?:/(\d{1,6})/(photo|render|labels))?")


class _Listener(http.server.ThreadingHTTPServer):
    """Listens at one address; a port may be taken over from a server that has ended, never from one that runs."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # Windows would share the port of a server that runs

    def __init__(self, address: str, port: int, session: Session, token: str):
        self.session, self.token = session, token
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Asks nobody for this host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _IPv6Server(_Listener):
    address_family = socket.AF_INET6


class Server(_Listener):
    """Serves a session on 127.0.0.1, and on ::1 where there is one; `address` is what to open in a browser."""

    def __init__(self, session: Session, port: int = 0):
        self.ipv6: _IPv6Server | None = None
        try:
            super().__init__("127.0.0.1", port, session, new_token())
        except OSError as error:
            hint = "`--port 0` takes any that is free"
            raise InputError("port", wanted="a free one", got=f"{port}: {error.strerror}", hint=hint) from error
        with contextlib.suppress(OSError):  # no IPv6, or somebody else's port
            self.ipv6 = _IPv6Server("::1", self.server_port, session, self.token)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Answers at both addresses until `shutdown`, or until the process was asked to end (KeyboardInterrupt)."""
        if self.ipv6 is None:
            return super().serve_forever(poll_interval)
        threading.Thread(target=self.ipv6.serve_forever, args=(poll_interval,), daemon=True).start()
        try:
            super().serve_forever(poll_interval)
        finally:
            self.ipv6.shutdown()

    def server_close(self) -> None:
        """Frees the port."""
        super().server_close()
        if self.ipv6 is not None:
            self.ipv6.server_close()

    def service_actions(self) -> None:
        """Called every half second: ends when the process was asked to."""
        if STOP.is_set():
            raise KeyboardInterrupt

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds of silence after which a connection gives its thread back; browsers open a new one
    server: _Listener  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._answer(self._get, from_page=False)

    def do_POST(self) -> None:
        self._answer(self._post, from_page=True)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: addresses hold the token."""

    def _answer(self, action, *, from_page: bool) -> None:
        try:
            rest = admitted(self.path, self.headers, self.server.token, from_page=from_page)
            if not rest:
                raise _nothing()
            action(rest.removeprefix("/"))
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except Outdated as error:
            self._refuse(HTTPStatus.CONFLICT, f"saved elsewhere in the meantime: {error}")
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (ConnectionError, TimeoutError):  # the page is gone
            self.close_connection = True
        except Exception:  # a thread's end: the traceback is for the terminal, not for the page
            traceback.print_exc()
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "an error; see the terminal")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # a body may be left unread
        self._send(text.encode(), "text/plain", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, **more: object) -> None:
        self.send_response(status)
        for key, value in {**HEADERS, "Content-Security-Policy": _POLICY}.items():
            self.send_header(key, value)
        for key, value in more.items():
            self.send_header(f"X-{key}", str(value))
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text") else kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _send_json(self, data: object) -> None:
        self._send(json.dumps(data, allow_nan=False).encode(), "application/json")

    def _get(self, path: str) -> None:
        if path in FILES:
            name, kind = FILES[path]
            return self._send((importlib.resources.files("jsplat.edit") / "page" / name).read_bytes(), kind)
        if path == "api/run":
            return self._send_json(_about(self.server.session))
        name, view, what = self._named(path)
        session = self.server.session
        if what is None:
            future = session.ready(name)
            if future.done() and future.exception() is not None:
                raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, str(future.exception()))
            return self._send_json({"ready": future.done()})
        if what == "labels":
            mask, layer, sure, revision = session.picture(name, view)
            return self._send(
                mask.tobytes() + layer.tobytes() + sure.tobytes(), "application/octet-stream", Revision=revision
            )
        picture = session.sight(name).images[view] if what == "photo" else session.ready(name).result().render(view)
        self._send(np.ascontiguousarray(picture).tobytes(), "application/octet-stream")

    def _post(self, path: str) -> None:
        name, view, what = self._named(path)
        if what != "labels":
            raise _nothing()
        session = self.server.session
        shape = session.sight(name).labels.shape[1:]
        try:
            length, revision = int(self.headers["Content-Length"]), int(self.headers["X-Revision"])
            seconds = float(self.headers["X-Seconds"])
        except (TypeError, ValueError) as error:
            raise InputError("post", wanted="Content-Length, X-Revision, X-Seconds", got=error) from error
        if length != shape[0] * shape[1]:
            raise InputError("post: body", wanted=f"{shape[0] * shape[1]} bytes", got=length)
        layer = np.frombuffer(self.rfile.read(length), np.uint8)
        if len(layer) != length:
            raise InputError("post: body", wanted=f"{length} bytes", got=len(layer))
        self._send_json(session.save(name, view, layer.reshape(shape).copy(), revision, seconds))

    def _named(self, path: str) -> tuple[str, int, str | None]:
        """The head's name, view and part that an address speaks of."""
        found, session = _ABOUT.fullmatch(path), self.server.session
        if found is None or int(found[1]) >= len(session.names):
            raise _nothing()
        name = session.names[int(found[1])]
        if found[2] is None:
            return name, 0, None
        if int(found[2]) >= len(session.sight(name).labels):
            raise Refused(HTTPStatus.NOT_FOUND, "no such view")
        return name, int(found[2]), found[3]


def _nothing() -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "nothing here")


def _about(session: Session) -> dict:
    sights, edited, numbers = session.sights(), session.edited(), {n: i for i, n in enumerate(session.names)}
    heads = []
    for name in session.names:
        seen = sights.get(name)
        about = {"name": name, "edited": edited[name]}
        if name in session.failed:
            about["error"] = session.failed[name]
        if seen is not None:
            about |= {"yaw": np.round(seen.yaw, 1).tolist(), "pitch": np.round(seen.pitch, 1).tolist()}
            about |= {"height": seen.labels.shape[1], "width": seen.labels.shape[2], "gain": seen.gains.tolist()}
            about["near"] = nearest_views(seen.cameras, 4).tolist()
        heads.append(about)
    queue = [[numbers[name], view, gain] for name, view, gain in session.queue()]
    labelset = session.labelset.to_json()
    return {"labelset": labelset, "heads": heads, "queue": queue, "changed": session.config.changed_pixels}
