"""Scenes on disk: every bit comes back, and every kind of damage gets one error that names the folder."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.checkpoint import load_scenes, save_scenes
from jsplat.errors import InputError
from jsplat.scene import Attributes, Gaussians, Scene
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
    got, names = load_scenes(written)
    assert names == NAMES
    assert jax.tree.structure(got) == jax.tree.structure(scenes())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(scenes())):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def test_the_label_set_is_kept(written, tmp_path):
    assert json.loads((written / "scenes.json").read_text())["labelset"] == SIDES.to_json()
    save_scenes(tmp_path, scenes(), NAMES, None)
    assert json.loads((tmp_path / "scenes.json").read_text())["labelset"] is None


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
    damage(folder)
    with pytest.raises(InputError, match=re.escape(f"{folder}: wanted fitted scenes (scenes.json, arrays), got")):
        load_scenes(folder)
