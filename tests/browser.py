"""A real browser for tests: headless Chromium, driven through chromedriver's own protocol (W3C WebDriver) over HTTP."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
DRIVER = shutil.which("chromedriver")
ABSENT = " and ".join(name for name, path in (("Chromium", CHROMIUM), ("ChromeDriver", DRIVER)) if not path)
MISSING = f"no {ABSENT} here (apt-get install chromium chromium-driver)" if ABSENT else ""
# A developer may do without; where CI runs (which CI systems say by this name), nobody would notice: there they fail.
needed = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=MISSING)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,800"),
)


class Browser:
    """One window."""

    def __init__(self, driver: str):
        self.driver, self.session = driver, ""

    def call(self, method: str, path: str, data: dict | None = None):
        """One command of the protocol; AssertionError with the browser's own words if it fails."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"{self.driver}{self.session}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.loads(error.read())["value"]["message"]) from error

    def open(self, address: str) -> None:
        """Goes to an address."""
        self.call("POST", "/url", {"url": address})

    def script(self, text: str, *args):
        """What a script returns."""
        return self.call("POST", "/execute/sync", {"script": text, "args": list(args)})

    def wait(self, text: str, seconds: float = 600) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.script(f"return Boolean({text})"):
            assert time.monotonic() < end, (
                f"waited {seconds} s for {text}; {self.script('return document.body.innerText')}"
            )
            time.sleep(0.05)

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Presses at the first point of the page, goes through the others, and lets go."""
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 15} for x, y in points]
        steps = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "hand", "actions": steps}]})

    def keys(self, *keys: str) -> None:
        """Presses keys together."""
        down = [{"type": "keyDown", "value": k} for k in keys]
        both = [*down, *({"type": "keyUp", "value": k} for k in reversed(keys))]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": both}]})

    def picture(self, path: Path) -> None:
        """Writes a screenshot."""
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A fresh profile, gone afterwards."""
    assert CHROMIUM, MISSING
    assert DRIVER, MISSING
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout
            port = next(
                line.split("port ")[1].strip(" .\n") for line in process.stdout if "successfully on port" in line
            )
            window = Browser(f"http://127.0.0.1:{port}")
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            window.session = f"/session/{window.call('POST', '/session', wanted)['sessionId']}"
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            process.terminate()
            process.wait()
