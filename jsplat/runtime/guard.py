"""Who may ask a server that shows a person's head: its own page, on this machine, that knows the secret in the address.

A page that is open in the same browser can send requests to any port of this machine, and can have a name of its own
lead here (DNS rebinding). So a request must name this machine (`localhost`, `127.0.0.1`, `[::1]`; with any port, for a
tunnel such as `ssh -L` has another one at its other end), must not come from another page, and must begin with the
token. People without it, other users of this machine included, find nothing.
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HERE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class Refused(Exception):
    """A request that is answered with a status and a short text."""

    def __init__(self, status: HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


def new_token() -> str:
    """A secret of 192 bits for an address."""
    return secrets.token_urlsafe(24)


def admitted(target: str, headers: Any, token: str, *, from_page: bool = False) -> str:
    """What follows the token in a request's target: nothing, or a slash and more.

    Args:
        target: path and query of the request line.
        headers: of the request; `get_all(name)` gives every value of one.
        from_page: the request must say which page it comes from, as browsers do for posts and sockets.

    Raises:
        Refused: another name, another page, or another token.
    """
    hosts, origins, sites = (headers.get_all(name) or [] for name in ("Host", "Origin", "Sec-Fetch-Site"))
    if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
        text = "another host's name: open this page as localhost, 127.0.0.1 or [::1] (any port, so ssh -L works)"
        raise Refused(HTTPStatus.FORBIDDEN, text)
    own = f"http://{hosts[0]}".lower()
    if any(origin.lower() != own for origin in origins):
        raise Refused(HTTPStatus.FORBIDDEN, "another page's request")
    if not origins and from_page:
        raise Refused(HTTPStatus.FORBIDDEN, "a request without an origin")
    if not origins and any(site not in ("none", "same-origin") for site in sites):
        raise Refused(HTTPStatus.FORBIDDEN, "another page's request")
    first, slash, rest = target.removeprefix("/").partition("/")
    if not hmac.compare_digest(first.encode(errors="replace"), token.encode()):
        raise Refused(HTTPStatus.NOT_FOUND, "nothing here")
    return slash + rest
