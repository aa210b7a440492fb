"""Scenes on disk: every bit comes back, and every kind of damage gets one error that names the folder."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.fitting.scenes_on_disk import load_scenes, save_scenes, saved_scenes
from jsplat.raster.scene import Attributes, Gaussians, Scene
from tests.ball import SIDES

NAMES = ["ada", "bob"]


def scenes(count: int = 5, classes: int = 3) -> Scene:
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=(len(NAMES), count, *shape)), jnp.float32)

    return Scene(Gaussians(draw(3), draw(4), draw(3), draw()), Attributes(draw(4, 3), draw(classes)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit")
    save_scenes(path, scenes(), NAMES, SIDES)
    return path


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "fit")


def test_scenes_come_back_bit_by_bit(written):
    got = load_scenes(written)
    assert list(got) == NAMES
    for i, name in enumerate(NAMES):
        want = jax.tree.map(lambda x, i=i: x[i], scenes())
        assert jax.tree.structure(got[name]) == jax.tree.structure(want)
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want)):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def test_batches_are_added_and_read_by_name(tmp_path):
    save_scenes(tmp_path, scenes(), NAMES, SIDES)
    save_scenes(tmp_path, jax.tree.map(lambda x: x[:1] + 1, scenes()), ["cyd"], SIDES)
    assert set(saved_scenes(tmp_path)) == {"ada", "bob", "cyd"}
    got = load_scenes(tmp_path, ["cyd", "bob"])
    assert list(got) == ["cyd", "bob"]
    assert np.array_equal(got["cyd"].gaussians.means, scenes().gaussians.means[0] + 1)
    assert np.array_equal(got["bob"].gaussians.means, scenes().gaussians.means[1])
    with pytest.raises(InputError, match=r"wanted fitted scenes .* got none of dan; "):
        load_scenes(tmp_path, ["dan"])


def test_the_label_set_is_kept(written, tmp_path):
    def known(path):
        (shard,) = path.glob("scenes-*")
        return json.loads((shard / "scenes.json").read_text())["labelset"]

    assert known(written) == SIDES.to_json()
    save_scenes(tmp_path, scenes(), NAMES, None)
    assert known(tmp_path) is None


def _cut_the_arrays(folder):
    # Orbax also leaves each process's own copy, which nobody reads; what counts lies in arrays/d.
    files = [p for p in (folder / "arrays" / "d").iterdir() if p.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda f: (f / "scenes.json").unlink(),
        lambda f: (f / "scenes.json").write_text('{"identities": ["a'),
        lambda f: (f / "scenes.json").write_text("{}"),
        lambda f: (f / "scenes.json").write_text("[]"),
        lambda f: (f / "scenes.json").write_bytes(b"\xff\xfe\x00"),
        lambda f: shutil.rmtree(f / "arrays"),
        _cut_the_arrays,
    ],
    ids=["folder", "no-json", "cut-json", "no-names", "list", "not-text", "no-arrays", "cut-arrays"],
)
def test_damage_names_the_folder(folder, damage):
    (shard,) = folder.glob("scenes-*")
    damage(shard)
    named = shard if shard.exists() else folder
    with pytest.raises(InputError, match=re.escape(f"{named}: wanted fitted scenes (scenes-*: scenes.json, arrays)")):
        load_scenes(folder)
