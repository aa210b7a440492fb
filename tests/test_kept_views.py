"""Arrays kept in blocks, in memory and beyond a limit on disk, and the label stage that asks for nothing larger."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.labels import SharpenConfig
from jsplat.labels.opinions import Maps
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.stages import label
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Attributes, Scene
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.view_blocks import VIEWS
from tests import ball


@pytest.mark.parametrize("limit", [0, 100, 10**6])
def test_what_is_kept_comes_back_in_any_cut(tmp_path, limit):
    whole = np.random.default_rng(0).integers(0, 255, (21, 4, 5)).astype(np.uint8)
    kept = KeptViews(limit)
    for start in range(0, 21, VIEWS):
        kept.append(whole[start : start + VIEWS])
    assert kept.shape == whole.shape
    for part in (slice(0, 8), slice(8, 16), slice(16, 24), slice(3, 18), slice(21, 30), slice(None)):
        np.testing.assert_array_equal(kept[part], whole[part])
    np.testing.assert_array_equal(np.asarray(kept), whole)
    assert sum(block.nbytes for block in kept._held) <= limit
    save_arrays(tmp_path / "a.npz", kept=kept, plain=whole)
    back = load_arrays(tmp_path / "a.npz")
    for of in back.values():
        np.testing.assert_array_equal(of, whole)


SIZE, COUNT = 24, 150


def labelled(views: int) -> dict[str, np.ndarray]:
    """What the label stage knows of the ball."""
    seen = ball.capture(yaw=np.linspace(0, 330, views), size=SIZE)
    scene = Scene(ball.gaussians(COUNT), Attributes(jnp.zeros((COUNT, 4, 3)), jnp.zeros((COUNT, 3))))
    config = RunConfig(ablation=False, sharpen=SharpenConfig(rounds=1))
    blind, said = dataclasses.replace(seen, labels=None), Maps(seen.labels, 3)
    known = label.label_capture(blind, scene, said, ball.SIDES, config, SharedCapacity())
    return {name: np.asarray(of) for name, of in known.items()}


def test_the_label_stage_makes_nothing_larger_than_a_block_of_views(monkeypatch):
    """With nothing kept in memory: the same bits, and the largest array alive is as large for more views."""
    usual = {views: labelled(views) for views in (2 * VIEWS, 2 * VIEWS + 5)}
    monkeypatch.setattr(importlib.import_module("jsplat.labels.lift"), "EVIDENCE", 0)
    monkeypatch.setattr(label, "PICTURES", 0)
    alive: dict[int, int] = {}
    keep, read = KeptViews.append, KeptViews.__getitem__
    for views, wanted in usual.items():
        before = {id(x) for x in jax.live_arrays()}

        def look(views=views, before=before):
            largest = max((x.nbytes for x in jax.live_arrays() if id(x) not in before), default=0)
            alive[views] = max(alive.get(views, 0), largest)

        def appended(self, block):
            look()
            assert len(block) <= VIEWS
            keep(self, block)

        def got(self, part):
            look()
            found = read(self, part)
            assert len(found) <= VIEWS or part == slice(None)
            return found

        monkeypatch.setattr(KeptViews, "append", appended)
        monkeypatch.setattr(KeptViews, "__getitem__", got)
        found = labelled(views)
        assert found.keys() == wanted.keys()
        for name, of in found.items():
            np.testing.assert_array_equal(of, wanted[name], err_msg=name)
    few, many = alive.values()
    assert 0 < few == many, alive
