"""What one more, one changed or one removed capture costs: its own results, and nobody else's."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.captures.index import Listed
from jsplat.errors import InputError, Stopped, Unusable
from jsplat.files.ownership import seal
from jsplat.fitting import FailedIdentity, FitResult
from jsplat.fitting.scenes_on_disk import load_scenes, save_scenes, saved_scenes, take_scenes
from jsplat.pipeline import RunConfig
from jsplat.pipeline.fingerprints import of_all_identities
from jsplat.pipeline.stages.fit import fit_captures
from jsplat.pipeline.stages.identities import each_identity
from jsplat.pipeline.work_folder import checkpoint_folder, failures, finished, load_arrays, stage
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.runtime.stop import STOP


def listed(names) -> list[Listed]:
    return [Listed(Path(name), name, (2, 4, 4), None, None, (4, 4)) for name in names]


class Killed(BaseException):
    """What no stage catches."""


class Made:
    """A stage that makes an array of each identity's fingerprint, and knows of whom it did."""

    def __init__(self, out: Path):
        self.folder, self.calls = out, []

    def __call__(self, each: dict[str, str], *, fails=(), dies_at: str = "") -> list[str]:
        """Whose results were made; those in `fails` cannot be."""
        self.calls.clear()

        def make(one: Listed, devices) -> dict[str, np.ndarray]:
            self.calls.append(one.identity)
            if one.identity == dies_at:
                raise Killed
            if one.identity in fails:
                raise Unusable(one.identity, wanted="light", got="darkness")
            return {"of": np.asarray(each[one.identity])}

        wanted = of_all_identities(each)
        if finished(self.folder, wanted) is None:
            with stage(self.folder, wanted, {}, 0, command="label", each=each) as work:
                self.attempt(make, listed(each), work)
        return sorted(self.calls)

    def attempt(self, make, listed, work):
        """One after the other, so that a kill comes at the same place each time."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jsplat.pipeline.stages.identities.workers", lambda count: [()])
            each_identity("label", listed, work, make)

    def holds(self) -> dict[str, str]:
        return {path.stem: str(load_arrays(path)["of"]) for path in sorted(self.folder.glob("*.npz"))}

    def about(self) -> dict:
        return json.loads((self.folder / "run.json").read_text())


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "label")


def test_one_more_costs_one_and_one_less_costs_none(made):
    assert made({"ada": "1", "bob": "2"}) == ["ada", "bob"]
    assert (made.about()["taken_over"], made.about()["made"]) == (0, 2)
    inodes = {p.name: p.stat().st_ino for p in made.folder.glob("*.npz")}
    assert made({"ada": "1", "bob": "2"}) == []
    assert made({"abe": "3", "ada": "1", "bob": "2"}) == ["abe"]
    assert (made.about()["taken_over"], made.about()["made"]) == (2, 1)
    assert made.holds() == {"abe": "3", "ada": "1", "bob": "2"}
    assert made({"abe": "3", "bob": "2"}) == []
    assert made.holds() == {"abe": "3", "bob": "2"}
    assert (made.folder / "bob.npz").stat().st_ino == inodes["bob.npz"], "written anew"
    assert made({"bob": "2", "abe": "3"}) == [], "another order"
    assert [p.name for p in made.folder.parent.iterdir()] == ["label"]


def test_a_change_costs_whom_it_concerns(made):
    made({"ada": "1", "bob": "2"})
    assert made({"ada": "1", "bob": "20"}) == ["bob"]
    assert made.holds() == {"ada": "1", "bob": "20"}
    assert made({"ada": "2", "bob": "1"}) == ["ada", "bob"], "another one's result was taken"


def test_who_failed_is_tried_again_when_something_changed(made):
    assert made({"ada": "1", "bob": "2"}, fails={"bob"}) == ["ada", "bob"]
    assert list(failures(made.folder)) == ["bob"]
    assert made({"ada": "1", "bob": "2", "cyd": "3"}) == ["cyd"]
    assert failures(made.folder) == {"bob": "bob: wanted light, got darkness"}
    assert made({"ada": "1", "bob": "20", "cyd": "3"}) == ["bob"]
    assert failures(made.folder) == {}
    assert made.holds() == {"ada": "1", "bob": "20", "cyd": "3"}
    with pytest.raises(InputError, match="wanted somebody for whom it can be done, got nobody"):
        made({"bob": "30"}, fails={"bob"})


def test_a_kill_costs_what_was_not_finished_whatever_is_asked_for_next(made):
    made({"ada": "1", "bob": "2"})
    more = {"ada": "1", "bob": "2", "cyd": "3", "dan": "4"}
    with pytest.raises(Killed):
        made(more, dies_at="dan")
    assert made.holds() == {"ada": "1", "bob": "2"}
    # The same again, after a kill while links were made.
    (work,) = made.folder.parent.glob(".label.*")
    (work / "ada.npz").unlink()
    (work / ".ada.npz.1.tmp").write_bytes(b"torn")
    with pytest.raises(Killed):
        made(more, dies_at="dan")
    assert made.calls == ["dan"]
    # Something else: what the attempt finished still counts.
    assert made(more | {"eve": "5", "ada": "10"}) == ["ada", "dan", "eve"]
    assert made.holds() == {"ada": "10", "bob": "2", "cyd": "3", "dan": "4", "eve": "5"}
    assert [p.name for p in made.folder.parent.iterdir()] == ["label"]


@pytest.mark.parametrize("table", [None, b"", b"[1]", b"{", b'{"ada": null}'])
def test_a_folder_that_does_not_say_what_it_was_made_from_is_made_again(made, table):
    made({"ada": "1"})
    (made.folder / "identities.json").unlink()
    if table is not None:
        (made.folder / "identities.json").write_bytes(table)
        seal(made.folder)
    assert made({"ada": "1", "bob": "2"}) == ["ada", "bob"]


def test_without_links_copies_are_made(made, monkeypatch):
    def refuse(*names):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    made({"ada": "1"})
    first = made.folder / "ada.npz"
    written, inode = first.read_bytes(), first.stat().st_ino
    assert made({"ada": "1", "bob": "2"}) == ["bob"]
    assert (first.read_bytes(), first.stat().st_ino == inode) == (written, False)
    assert [p.name for p in made.folder.glob(".*")] == [".written.json"]


def test_a_stage_that_was_asked_to_end_keeps_who_is_done(made, monkeypatch):
    monkeypatch.setattr(STOP, "is_set", lambda: len(made.calls) == 1)
    with pytest.raises(Stopped, match="stopped in label, at bob"):
        made({"ada": "1", "bob": "2"})
    monkeypatch.undo()
    assert made({"ada": "1", "bob": "2"}) == ["bob"]


@pytest.mark.parametrize("data", [b"", b"PK", b"torn"])
def test_damaged_arrays_are_named(made, data):
    made({"ada": "1"})
    (made.folder / "ada.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"ada\.npz: wanted arrays that jsplat wrote"):
        made.holds()


# Scenes, which lie together in shards


def scene(*marks: float) -> Scene:
    fill = jnp.asarray(marks, jnp.float32)[:, None, None]
    means = jnp.broadcast_to(fill, (len(marks), 2, 3))
    gaussians = Gaussians(means, jnp.broadcast_to(fill, (len(marks), 2, 4)), means, means[..., 0])
    return Scene(gaussians, Attributes(means[..., None, :], means))


def marks_of(folder: Path) -> dict[str, float]:
    return {name: float(one.gaussians.means[0, 0]) for name, one in load_scenes(folder).items()}


def test_scenes_are_taken_over_one_by_one(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    save_scenes(old, scene(1, 2), ["ada", "bob"], None, {"of": "both"})
    save_scenes(old, scene(3), ["cyd"], None)
    assert take_scenes(old, new, {"bob", "eve"}) == {"bob"}
    assert take_scenes(old, new, {"bob"}) == {"bob"}
    assert marks_of(new) == {"bob": 2.0}
    save_scenes(new, scene(10, 30), ["ada", "cyd"], None)
    assert marks_of(new) == {"ada": 10.0, "bob": 2.0, "cyd": 30.0}
    with pytest.raises(InputError, match=r"got none of eve; `jsplat fit`"):
        load_scenes(new, ["eve"])
    newest = tmp_path / "newest"
    assert take_scenes(new, newest, {"ada", "bob"}) == {"ada", "bob"}
    assert marks_of(newest) == {"ada": 10.0, "bob": 2.0}
    shutil.rmtree(old)
    shutil.rmtree(new)
    assert marks_of(newest) == {"ada": 10.0, "bob": 2.0}, "the scenes went with the folder they came from"


def test_a_damaged_shard_is_not_taken(tmp_path):
    save_scenes(tmp_path / "old", scene(1), ["ada"], None)
    save_scenes(tmp_path / "old", scene(2), ["bob"], None)
    (tmp_path / "old" / sorted(saved_scenes(tmp_path / "old").values())[0].name / "scenes.json").write_text("{")
    assert len(take_scenes(tmp_path / "old", tmp_path / "new", {"ada", "bob"})) == 1


class Fitted(Made):
    """The stage `fit`, with a fit that takes two at once and gives each the number in its fingerprint."""

    def attempt(self, make, listed, work):
        each = {}

        def fit_batches(waiting, *arguments):
            for i in range(0, len(waiting), 2):
                names = []
                for one in waiting[i : i + 2]:
                    try:
                        at = Listed(Path(), one.identity, one.shape, None, None, one.shape[1:])
                        each[one.identity] = float(make(at, ())["of"])
                        names.append(one.identity)
                    except Unusable as error:
                        yield FailedIdentity(one.identity, error)
                values = np.asarray([each[name] for name in names])
                if names:
                    yield FitResult(tuple(names), scene(*values), values, values / 100, [(1, values.mean())], i)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jsplat.pipeline.stages.fit.fit_batches", fit_batches)
            fit_captures(listed, None, None, RunConfig(), work)

    def holds(self) -> dict[str, str]:
        found = marks_of(self.folder)
        scores = json.loads((self.folder / "fit.json").read_text())["identities"]
        assert scores == {name: [mark, mark / 100] for name, mark in found.items()}
        return {name: f"{mark:.0f}" for name, mark in sorted(found.items())}


def test_fits_are_taken_over_though_they_lie_together(tmp_path):
    made = Fitted(tmp_path / "fit")
    assert made({"ada": "1", "bob": "2", "cyd": "3"}, fails={"cyd"}) == ["ada", "bob", "cyd"]
    assert made.holds() == {"ada": "1", "bob": "2"}
    # The first of a batch changes, so that a new batch begins with the same name.
    assert made({"abe": "5", "ada": "10", "bob": "2", "cyd": "3"}) == ["abe", "ada"]
    assert made.holds() == {"abe": "5", "ada": "10", "bob": "2"}
    assert list(failures(made.folder)) == ["cyd"]
    assert made({"ada": "10", "bob": "2"}) == []
    assert made.holds() == {"ada": "10", "bob": "2"}
    assert json.loads((made.folder / "fit.json").read_text())["psnr"] == 6.0
    with pytest.raises(Killed):
        made({"ada": "11", "bob": "2", "cyd": "30", "dan": "4"}, dies_at="dan")
    assert made.calls == ["ada", "cyd", "dan"]
    assert made({"ada": "12", "bob": "2", "cyd": "30"}) == ["ada"]
    assert made.holds() == {"ada": "12", "bob": "2", "cyd": "30"}


def test_what_is_only_for_a_killed_stage_is_not_taken_over(tmp_path):
    made = Made(tmp_path / "label")
    with contextlib.suppress(Killed):
        made({"ada": "1", "bob": "2"}, dies_at="bob")
    (work,) = made.folder.parent.glob(".label.*")
    checkpoint_folder(work).mkdir()
    (checkpoint_folder(work) / "state").write_text("half of bob")
    assert made({"ada": "1", "cyd": "3"}) == ["cyd"]
    names = [".written.json", "ada.npz", "cyd.npz", "identities.json", "run.json"]
    assert sorted(p.name for p in made.folder.iterdir()) == names
