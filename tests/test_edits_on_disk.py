"""What people drew outlives every fit; what was voted from it is read on its own geometry only, and voted on again."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from jsplat.captures.index import list_captures
from jsplat.captures.label_png import decode, encode
from jsplat.config import to_json
from jsplat.edit import UNTOUCHED, EditConfig, QueueConfig, edit_all, edits_on_disk, prepare, voted_labels
from jsplat.errors import InputError
from jsplat.files.atomic import write_json
from jsplat.labels import VoteConfig, pose_prior
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline import RunConfig, commands, editing, showing, transfer
from jsplat.pipeline.stages.label import check_edits, labels_of
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from tests import spotted
from tests.spotted import CLASSES, FRONT, SPOT

CONFIG = RunConfig(size=spotted.SIZE, edit=EditConfig(changed_pixels=5))
STALE = r"edits: ball: wanted a vote on what was drawn, got one on another geometry"


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run, with a drawing and a vote on it."""
    made = spotted.write_run(tmp_path)
    opened(made, lambda session: session.save("ball", FRONT, spotted.spot(), 0, 1.0))
    return made


def opened(run: Path, act=lambda session: None) -> None:
    """Does something in the editor; before it is closed, the votes of today are made."""
    session = editing.session(editing.open_run(run, None, CONFIG.edit), QueueConfig())
    try:
        act(session)
        for future in list(session._ready.values()):
            future.result()
    finally:
        session.close()


def test_a_run_without_a_pose_prior_is_opened(tmp_path):
    run = spotted.write_run(tmp_path)
    about = json.loads((run / "label/run.json").read_text())
    about["config"]["vote"] = to_json(VoteConfig(pose_sigma=math.inf))
    write_json(run / "label/run.json", about)
    assert editing.open_run(run, None, CONFIG.edit).vote == VoteConfig(pose_sigma=math.inf)


def vote_again(run: Path) -> None:
    editing.vote_again(run, list_captures(run.parent / "captures", CONFIG.size), CLASSES, CONFIG)


def drawings(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((run / "edits").rglob("*.png"))}


def fresh(run: Path, count: int) -> dict[str, np.ndarray]:
    """What is drawn, voted on by somebody who never saw another geometry than today's."""
    capture, known = spotted.capture(), load_arrays(run / "label" / "ball.npz")
    trust = np.asarray(pose_prior(capture.yaw, capture.pitch, CONFIG.vote))
    first = spotted.first_voter(spotted.stages()[0], CLASSES).opinions
    head = prepare(spotted.scene(count), capture.cameras, first, known, trust, spotted.settings())
    edit_all(head, {FRONT: spotted.spot()})
    return edits_on_disk.vote_of(head, "")


@pytest.mark.parametrize("count", [900, 700])
@pytest.mark.parametrize("by", [vote_again, opened], ids=["run", "edit"])
def test_after_another_fit_nobody_reads_the_old_vote_until_it_is_made_again(run, tmp_path, count, by):
    old, drawn = voted_labels(run, "ball", CLASSES), drawings(run)
    spotted.write_fit(run, count)
    moved = dict(np.load(run / "label" / "ball.npz"))
    moved["rows_refined"] = moved["rows_refined"] * np.float32(0.999)  # a fit that hardly moved is another one too
    save_arrays(run / "label" / "ball.npz", **moved)
    captures = tmp_path / "captures"
    readers = {
        "voted": lambda: voted_labels(run, "ball", CLASSES),
        "train": lambda: labels_of(run / "label", "ball", CLASSES),
        "render": lambda: commands.render(captures, run / "fit", run / "label", tmp_path / "set", CONFIG),
        "export-masks": lambda: transfer.write_masks(run / "label", tmp_path / "masks", "indexed", CONFIG),
        "turntable": lambda: showing.turntable(run, tmp_path / "a.mp4", showing.TurntableConfig()),
        "view": lambda: showing._head(run, None, "ball"),
    }
    for read in readers.values():
        with pytest.raises(InputError, match=STALE):
            read()
    assert not [path for path in ("set", "masks", "a.mp4") if (tmp_path / path).exists()]

    by(run)
    new, wanted = voted_labels(run, "ball", CLASSES), fresh(run, count)
    assert new["rows_refined"].shape == (count, len(CLASSES))
    for name, values in new.items():
        assert np.array_equal(values, wanted[name]), name
    assert not np.array_equal(new["rows_refined"], old["rows_refined"])
    assert drawings(run) == drawn
    before = (run / "edits" / "ball.npz").stat().st_mtime_ns
    by(run)
    assert (run / "edits" / "ball.npz").stat().st_mtime_ns == before, "a vote that holds was made again"


def test_a_vote_that_does_not_say_what_it_was_made_on_is_made_again(run):
    """As older programs wrote them."""
    arrays = dict(np.load(run / "edits" / "ball.npz"))
    arrays["layers"] = arrays.pop("stamp")
    save_arrays(run / "edits" / "ball.npz", **arrays)
    with pytest.raises(InputError, match=STALE):
        voted_labels(run, "ball", CLASSES)
    vote_again(run)
    assert (voted_labels(run, "ball", CLASSES)["refined"][FRONT] == SPOT).any()


def test_edits_beside_another_folder_of_labels_are_strangers(run, tmp_path, monkeypatch):
    (run / "labelled").symlink_to(run / "label")
    plain = load_arrays(run / "label" / "ball.npz")["refined"]
    assert np.array_equal(labels_of(run / "labelled", "ball", CLASSES)["refined"], plain)
    (run / "edits" / "ball.npz").unlink()
    check_edits(run / "labelled", CLASSES)
    monkeypatch.chdir(run / "label")
    for same in (run / "label", Path(), Path("../label"), Path("../fit/../label")):
        with pytest.raises(
            InputError, match=r"edits: ball: wanted a vote on what was drawn, got none; the same `jsplat run`"
        ):
            check_edits(same, CLASSES)


def test_drawings_of_another_size_are_used_at_todays(run, capsys):
    path, spot = run / "edits" / "ball" / f"{FRONT:03d}.png", spotted.spot()
    larger = np.kron(spot, np.ones((2, 2), np.uint8))
    path.write_bytes(encode(larger, np.zeros((256, 3), np.uint8)))
    listed = list_captures(run.parent / "captures", CONFIG.size)
    editing.check_drawn(run, listed, CLASSES)
    assert "ball, view 0: drawn at 96x96 pixels, used at 48x48" in capsys.readouterr().err
    assert np.array_equal(edits_on_disk.layers_of(run, "ball", CLASSES)[FRONT], spot)
    vote_again(run)
    wanted = fresh(run, 900)["rows_refined"]
    assert np.array_equal(voted_labels(run, "ball", CLASSES)["rows_refined"], wanted)
    assert np.array_equal(decode(path.read_bytes(), "png").ids, larger), "what was drawn was changed"
    opened(run)
    lines = [json.loads(line) for line in (run / "edits" / "edits.jsonl").read_text().splitlines()]
    assert [line["digest"] for line in lines] == [edits_on_disk.digest(spot), edits_on_disk.digest(larger)]


def test_sizes_differ_by_rounding_only():
    drawn = np.arange(30, dtype=np.uint8).reshape(5, 6)
    smaller = edits_on_disk.resized_layers({1: drawn}, (2, 3, 3), "ball")[1]
    assert np.array_equal(smaller, drawn[np.ix_([0, 2, 4], [1, 3, 5])])
    assert edits_on_disk.resized_layers({0: np.zeros((341, 512), np.uint8)}, (1, 85, 128), "ball")[0].shape == (85, 128)
    for shape, view in (((5, 7), 2), ((9, 40), 0), ((48, 32), 0), ((128, 85), 0)):
        with pytest.raises(InputError, match=rf"ball/{view:03d}\.png: wanted a drawing on one of 2 views of 128x85"):
            edits_on_disk.resized_layers({view: np.zeros(shape, np.uint8)}, (2, 85, 128), "ball")


def test_a_drawing_that_cannot_be_used_stops_a_run_before_its_work(run):
    listed = list_captures(run.parent / "captures", CONFIG.size)
    path = run / "edits" / "ball" / "009.png"
    path.write_bytes((run / "edits" / "ball" / "000.png").read_bytes())
    with pytest.raises(InputError, match=r"ball/009\.png: wanted a drawing on one of 8 views of 48x48 pixels"):
        editing.check_drawn(run, listed, CLASSES)
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"ball/009\.png"):
        editing.check_drawn(run, listed, CLASSES)


def test_the_names_of_a_drawings_classes_decide(run):
    """Another parser may count the same classes otherwise."""
    order = (0, 3, 2, 1)
    names = tuple(CLASSES.names[i] for i in order)
    other = LabelSet(names, CLASSES.colors, names)
    layer = edits_on_disk.read_layers(run, "ball", other)[FRONT]
    assert set(np.unique(layer)) == {other.names.index("spot"), UNTOUCHED}
    assert np.array_equal(layer == other.names.index("spot"), spotted.spot() == SPOT)
    without = LabelSet(CLASSES.names[:3], CLASSES.colors[:3], CLASSES.names[:3])
    with pytest.raises(InputError, match=r"000\.png: wanted classes among background, left, right, got spot"):
        edits_on_disk.read_layers(run, "ball", without)


def test_a_drawing_on_a_photograph_that_is_another_view_now_is_named(run, tmp_path, monkeypatch):
    """As when photographs were added to a capture; its size, noise and brightness may change."""
    images = spotted.capture().images
    smaller = images.reshape(len(images), 24, 2, 24, 2, 3).mean((2, 4))
    noise = np.random.default_rng(0).normal(0, 3, smaller.shape)
    for same in (images, np.clip(smaller + noise, 0, 255).astype(np.uint8), images // 2 + 20):
        edits_on_disk.check_pictures(run, "ball", same)
    moved = np.roll(images, 1, 0)
    named = r"ball/000\.png: wanted a drawing .*, got one on another photograph, to which view 1 is the most like"
    with pytest.raises(InputError, match=named):
        edits_on_disk.check_pictures(run, "ball", moved)
    with pytest.raises(InputError, match=named.replace("view 1 is", "view 2 is")):
        edits_on_disk.check_pictures(run, "ball", np.concatenate([images[[1, 1]], images]))
    (run / "edits" / "ball" / "000.png").rename(run / "edits" / "ball" / "001.png")
    with pytest.raises(InputError, match=r"ball/001\.png: .*view 0 is the most like"):
        vote_again(run)
    with pytest.raises(InputError, match=r"view 0 is the most like"):
        opened(run, lambda session: session.sight("ball"))
    path = run / "edits" / "ball" / "001.png"
    path.write_bytes(encode(spotted.spot(1), np.zeros((256, 3), np.uint8)))  # of an older program: it does not say
    vote_again(run)
