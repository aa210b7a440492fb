"""The page in a real browser: strokes are drawn with the pointer, and the server is asked what arrived."""

import json

import numpy as np
import pytest

from tests import browser, spotted
from tests.spotted import FRONT, SPOT
from tests.test_edit_server import finished, labels, run, save, served  # noqa: F401 (fixtures)

pytestmark = browser.needed

IDLE = "window.jsplat && !jsplat.state.saving && document.getElementById('state').textContent === ''"


@pytest.fixture
def page(run):  # noqa: F811
    """The page on the front view of a ball, nothing said yet."""
    with served(run) as server, browser.browser() as window:
        window.open(server.address)
        window.wait(IDLE)
        goto(window, FRONT)
        yield window, server


def goto(window, view: int) -> None:
    """Turns to a view by the keys a person would press."""
    for _ in range(len(spotted.YAW)):
        if window.script("return jsplat.state.view") == view:
            return
        now = window.script("return jsplat.state.view")
        window.keys("\ue014")
        window.wait(f"jsplat.state.view !== {now} && {IDLE}")
    raise AssertionError(f"never came to view {view}")


def at(window, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture lies on the page, as the pointer can reach it (whole pixels of the page)."""
    place = window.script("return jsplat.main.toPage(arguments[0], arguments[1])", x, y)
    return round(place["x"]), round(place["y"])


def drawn_mask(window) -> np.ndarray:
    layer = window.script("return Array.from(jsplat.state.layer)")
    return np.asarray(layer, np.uint8).reshape(spotted.SIZE, spotted.SIZE)


def near(points: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Pixels whose centre lies within a radius of a path."""
    y, x = np.mgrid[: spotted.SIZE, : spotted.SIZE] + 0.5
    found = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] or points):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (length or 1), 0, 1)
        found |= (x - ax - t * (bx - ax)) ** 2 + (y - ay - t * (by - ay)) ** 2 <= radius**2
    return found


def in_picture(window, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of the page as points of the picture."""
    places = [window.script("return jsplat.main.toPicture(arguments[0], arguments[1])", *p) for p in points]
    return [(p["x"], p["y"]) for p in places]


def test_a_stroke_is_saved_as_drawn_and_corrects_the_neighbour(page, run):  # noqa: F811
    window, server = page
    window.keys("3")
    window.script("const s = document.getElementById('size'); s.value = 5; s.oninput()")
    path = [at(window, *p) for p in ((20, 20), (24, 24), (28, 24))]
    window.drag(path)
    want = np.where(near(in_picture(window, path), 2.5), SPOT, 255)
    # Coalesced moves may lie off the straight line by less than a pixel of the page: a hundredth of the picture's.
    assert (drawn_mask(window) != want).sum() <= 2
    drawn = drawn_mask(window)
    neighbor = window.script("return jsplat.state.beside")
    before = labels(server, neighbor)[0]
    shown = window.script("return Array.from(jsplat.other.auto)")
    window.keys("s")
    window.wait(f"{IDLE} && jsplat.state.revision === 1")
    assert np.array_equal(labels(server, FRONT)[1], drawn)
    assert (labels(server, neighbor)[0] != before).sum() > 5
    window.wait("!document.getElementById('save').matches(':enabled')")
    after = window.script("return Array.from(jsplat.other.auto)")
    assert after != shown
    assert np.array_equal(np.reshape(after, before.shape), labels(server, neighbor)[0])
    (line,) = (json.loads(t) for t in (run / "edits" / "edits.jsonl").read_text().splitlines())
    assert line["pixels"] == (drawn == SPOT).sum()
    assert line["seconds"] > 0
    latencies = window.script("return jsplat.state.latencies")
    assert len(latencies) >= 3
    assert min(latencies) >= 0


def test_eraser_undo_and_redo(page):
    window, _ = page
    window.keys("1")
    path = [at(window, 18, 24), at(window, 30, 24)]
    window.drag(path)
    stroke = drawn_mask(window)
    assert (stroke == 1).sum() > 30
    window.keys("e")
    window.drag([at(window, 24, 18), at(window, 24, 30)])
    erased = drawn_mask(window)
    assert 0 < (erased == 1).sum() < (stroke == 1).sum()
    window.keys("\ue009", "z")
    assert np.array_equal(drawn_mask(window), stroke)
    window.keys("\ue009", "z")
    assert (drawn_mask(window) == 255).all()
    assert window.script("return document.getElementById('save').disabled")
    window.keys("\ue009", "y")
    window.keys("\ue009", "\ue008", "z")
    assert np.array_equal(drawn_mask(window), erased)


def test_fill_and_polygon(page):
    window, server = page
    auto = labels(server, FRONT)[0]
    window.keys("3")
    window.keys("f")
    x, y = (int(a[len(a) // 2]) for a in np.nonzero(auto == 1)[::-1])
    window.drag([at(window, x + 0.5, y + 0.5)])
    assert np.array_equal(drawn_mask(window) == SPOT, auto == 1)  # the half of a ball is one region
    window.keys("\ue009", "z")
    window.keys("p")
    corners = [at(window, *p) for p in ((15, 15), (33, 15), (33, 30), (15, 30))]
    for corner in corners:
        window.drag([corner])
    window.keys("\ue007")
    (left, top), _, (right, bottom), _ = in_picture(window, corners)
    middle = np.arange(spotted.SIZE) + 0.5
    want = ((middle > top) & (middle < bottom))[:, None] & ((middle > left) & (middle < right))
    assert np.array_equal(drawn_mask(window) == SPOT, want)


def test_the_page_fits_its_window(page):
    window, _ = page
    box = "const b = document.getElementById('canvas').getBoundingClientRect(); return [b.width, b.height, b.bottom]"
    before = window.script(box)
    window.keys("v")
    window.wait(IDLE)
    assert window.script(box) == before  # a canvas that follows its own size grows with every frame
    width, height = window.script("return [innerWidth, innerHeight]")
    assert before[2] < height
    assert before[0] > 0.3 * width
    assert window.script("return document.documentElement.scrollHeight") <= height


def test_a_window_that_comes_too_late_is_asked(page):
    window, server = page
    other = np.full((spotted.SIZE, spotted.SIZE), 255, np.uint8)
    other[10:14, 20:24] = 2
    assert save(server, FRONT, other)[0] == 200
    window.keys("1")
    window.drag([at(window, 24, 24), at(window, 26, 24)])
    mine = drawn_mask(window)
    window.keys("s")
    window.wait("document.getElementById('conflict').open")
    assert np.array_equal(labels(server, FRONT)[1], other)
    window.script("document.getElementById('mine').click()")
    window.wait(f"{IDLE} && jsplat.state.revision === 2")
    assert np.array_equal(labels(server, FRONT)[1], mine)


def test_pictures_zoom_queue_and_theme_do_what_they_say(page):
    window, _ = page
    photo = window.script("return Array.from(jsplat.main.picture.getContext('2d').getImageData(0, 0, 48, 48).data)")
    for key, base in (("v", "render"), ("c", "confidence"), ("c", "photo")):
        window.keys(key)
        window.wait(f"jsplat.state.base === '{base}' && {IDLE}")
        script = "return Array.from(jsplat.main.picture.getContext('2d').getImageData(0, 0, 48, 48).data)"
        assert (window.script(script) == photo) == (base == "photo")
    spot = at(window, 30, 20)
    script = "jsplat.main.zoomAt(arguments[0], arguments[1], 4); jsplat.main.draw()"
    window.script(script, *spot)
    (x, y) = in_picture(window, [spot])[0]
    assert (x, y) == pytest.approx((30, 20), abs=0.1)  # a page's pixel is some 0.1 of the picture's
    before = window.script("return jsplat.state.view")
    window.script("document.querySelector('#queue li:not(.chosen)').click()")
    window.wait(f"jsplat.state.view !== {before} && {IDLE}")
    dark = "return getComputedStyle(document.body).backgroundColor"
    first = window.script(dark)
    window.script("document.getElementById('theme').click()")
    assert window.script(dark) != first
