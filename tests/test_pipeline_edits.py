"""What a person corrects reaches the parser: an edited run renders and trains again, and does nothing else again."""

import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jsplat.captures.label_png import encode
from jsplat.config import load
from jsplat.edit import UNTOUCHED, EditConfig, QueueConfig
from jsplat.errors import InputError
from jsplat.exchange import import_masks
from jsplat.files.atomic import write_json
from jsplat.files.ownership import write_kept
from jsplat.parser import Architecture, load_parser, new_parser, save_parser
from jsplat.pipeline import Request, RunConfig, editing, transfer
from jsplat.pipeline import run as run_all
from jsplat.pipeline.work_folder import load_arrays, save_arrays, stage_name
from jsplat.training_sets.auxiliary import read_auxiliary
from tests import spotted
from tests.spotted import BACK, FRONT, SPOT
from tests.tiny import SETTINGS

KEPT = ("parse", "fit", "label")


def times(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def again(tmp_path, monkeypatch):
    """A function that does of a run on the ball what is not done yet, and says which stages that were.

    The slow stages before the edit are copies of what `spotted` makes, and the teacher has learnt nothing; what comes
    after the edit is real, but for the control, which no edit concerns.
    """
    made = spotted.write_run(tmp_path / "made")
    write_json(made / "fit" / "fit.json", {"psnr": 30.0, "ssim": 0.9, "identities": {}, "curve": {}})

    def copied(*arguments):
        (folder,) = (a for a in arguments if isinstance(a, Path) and a.name.startswith("."))
        shutil.copytree(made / stage_name(folder), folder, dirs_exist_ok=True)

    for name in ("parse_captures", "fit_captures", "label_captures"):
        monkeypatch.setattr(sys.modules["jsplat.pipeline.run"], name, copied)  # `jsplat.pipeline.run` is a function
    (tmp_path / "config.toml").write_text(SETTINGS)
    own = [f"size={spotted.SIZE}", "unseen=0", "ablation=false", "edit.changed_pixels=5"]
    config = load(RunConfig, tmp_path / "config.toml", own)
    captures, out = tmp_path / "made" / "captures", tmp_path / "run"
    save_parser(tmp_path / "teacher" / "parser", new_parser(Architecture(18, 0.125, 32), spotted.CLASSES, seed=0))

    def do() -> set[str]:
        before = times(out)
        run_all(Request(captures, tmp_path / "teacher", replay=captures, truth=False), out, config)
        after = times(out)
        return {p.relative_to(out).parts[0] for p in after if before.get(p) != after[p] and p.parent != out} - {"edits"}

    do.out, do.captures = out, captures
    return do


def learnt_from(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the photographs and of the novel views in the student's set."""
    data = read_auxiliary(out / "render" / "student")
    photo = np.asarray(data.source) == "photo"
    assert photo.sum() == len(spotted.YAW)
    assert (~photo).any()
    return data.labels[photo], data.labels[~photo]


def student(out: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(load_parser(out / "student" / "parser").variables)]


def say(again, layer: np.ndarray) -> None:
    """Saves what a person says about the first view, as `jsplat edit` does."""
    session = editing.session(editing.open_run(again.out, again.captures, EditConfig(changed_pixels=5)), QueueConfig())
    try:
        session.save("ball", FRONT, layer, 0, 2.0)
    finally:
        session.close()


def test_an_edit_reaches_what_the_student_learns_from_and_the_student(again):
    assert again() == {*KEPT, "masks", "overlays", "render", "student"}
    truth, spot = spotted.capture().labels, spotted.spot() == SPOT
    assert truth is not None
    before, novel_before = learnt_from(again.out)
    weights = student(again.out)
    assert not (before == SPOT).any()
    assert not (novel_before == SPOT).any()
    editing.session(editing.open_run(again.out, again.captures, EditConfig()), QueueConfig()).close()
    assert again() == set(), "looking at a run made it render again"

    say(again, spotted.spot())
    assert again() == {"masks", "overlays", "render", "student"}
    after, novel = learnt_from(again.out)
    # In its own view what was said, up to the pixels that the set cleans away or a splat's edge adds.
    assert (after[FRONT] == SPOT)[spot].all()
    for view in (1, 2):  # 25 degrees to either side; how much is right is tested with the evidence itself
        right = ((after[view] == SPOT) & (truth[view] == SPOT)).sum()
        assert right > 0.45 * (truth[view] == SPOT).sum(), f"view {view}"
    assert np.array_equal(after[BACK], before[BACK])
    assert (novel == SPOT).any(), "the novel views were labelled before the edit"
    assert any(not np.array_equal(a, b) for a, b in zip(student(again.out), weights)), "the student learnt nothing new"
    config = load(RunConfig, None, [f"size={spotted.SIZE}"])
    for source in (again.out / "label", again.out):  # the run has the pictures' own pixels, which are the same here
        out = again.out.parent / f"masks of {source.name}"
        transfer.write_masks(source, out, "indexed", config)
        masks = import_masks(out, spotted.CLASSES)
        assert len(masks) == len(spotted.YAW)
        assert (masks[f"ball/{FRONT:03d}"] == SPOT)[spot].all(), "an edit is not exported"
    assert (again.out / "overlays" / "ball" / f"{FRONT:03d}.jpg").is_file()

    assert again() == set()
    say(again, np.full_like(spotted.spot(), UNTOUCHED))
    with pytest.raises(InputError, match=r"masks: wanted masks with all that was drawn, got older ones of ball"):
        transfer.write_masks(again.out, again.out.parent / "older", "indexed", config)
    assert again() == {"masks", "overlays", "render", "student"}
    for now, then in zip(learnt_from(again.out), (before, novel_before)):
        assert np.array_equal(now, then)
    assert all(np.array_equal(a, b) for a, b in zip(student(again.out), weights))  # same data, same seed


def test_a_run_votes_on_what_was_drawn_where_no_vote_or_that_of_another_fit_is(again):
    path = again.out / "edits" / "ball" / "000.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(spotted.spot(), np.zeros((256, 3), np.uint8)))
    write_kept(again.out / "run.json", b'{"command": "run"}')
    again()
    photos, novel = learnt_from(again.out)
    assert (photos[FRONT] == SPOT)[spotted.spot() == SPOT].all()
    assert (novel == SPOT).any()
    vote = path.parent.with_suffix(".npz")
    made = load_arrays(vote)
    save_arrays(vote, **made | {"rows_refined": made["rows_refined"][:300], "stamp": np.asarray("another fit's")})
    again()
    for name, values in load_arrays(vote).items():
        assert np.array_equal(values, made[name]), name
    for now, then in zip(learnt_from(again.out), (photos, novel)):
        assert np.array_equal(now, then)
