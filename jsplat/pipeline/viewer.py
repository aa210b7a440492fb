"""viser's server behind `jsplat.runtime.guard`: this machine only, and nothing without the secret in the address.

By itself viser (1.1) answers everybody who reaches its port, and any page that is open in the same browser may connect
to its socket, read the scene and ask for a public address of it. It has no setting for that, but hands the function
that looks at each request to `websockets`: while the server starts, ours is put before it. Whether that worked is asked
of the server itself before anything is shown.
"""

import contextlib
import dataclasses
import http.client
import importlib
import io
from collections.abc import Callable, Iterator
from typing import Any

from jsplat.errors import InputError
from jsplat.runtime.guard import HEADERS, Refused, admitted, new_token

_POLICY = "frame-ancestors 'none'; base-uri 'none'"
Look = Callable[[Any, Any], Any]  # (connection, request) -> a response, or None: the socket may open


def guarded(look: Look, token: str) -> Look:
    """Looks at requests whose target begins with the token, without it; refuses all others and all other pages."""

    def looking(connection: Any, request: Any) -> Any:
        upgrades = request.headers.get_all("Upgrade")
        try:
            rest = admitted(request.path, request.headers, token, from_page=bool(upgrades))
        except Refused as refused:
            return connection.respond(refused.status, str(refused))
        if not rest and not upgrades:  # viser's page asks for its socket without the slash
            return connection.respond(404, "nothing here")
        response = look(connection, dataclasses.replace(request, path=rest or "/"))
        if response is not None:
            response.headers.update({**HEADERS, "Content-Security-Policy": _POLICY})
        return response

    return looking


@contextlib.contextmanager
def _guarding(token: str) -> Iterator[None]:
    """Servers that `websockets` starts in the meantime are `guarded`."""
    module: Any = importlib.import_module("websockets.asyncio.server")
    plain = module.serve
    module.serve = lambda *args, process_request, **options: plain(
        *args, process_request=guarded(process_request, token), **options
    )
    try:
        yield
    finally:
        module.serve = plain


def guarded_server(viser: Any, port: int, label: str) -> tuple[Any, str]:
    """A running server of viser's on 127.0.0.1, and its address with the token.

    Args:
        viser: the module.
        port: where to listen; the next free one if it is taken.

    Raises:
        InputError: a viser that answers without the token.
    """
    token = new_token()
    with _guarding(token), contextlib.redirect_stdout(io.StringIO()):  # it prints an address without the token
        server = viser.ViserServer(host="127.0.0.1", port=port, label=label, verbose=False)
    asked = http.client.HTTPConnection("127.0.0.1", server.get_port(), timeout=60)
    asked.request("GET", "/")
    if asked.getresponse().status != 404:
        server.stop()
        wanted = "viser 1.1, whose server can be kept from other pages and users"
        got, hint = f"viser {viser.__version__}, which answers everybody", "`pip install 'viser~=1.1.0'`"
        raise InputError("view", wanted=wanted, got=got, hint=hint)
    server.gui.configure_theme(show_share_button=False)  # it would give the head a public address
    return server, f"http://127.0.0.1:{server.get_port()}/{token}/"
