"""First labels on disk, and that a stage reads them a block of views at a time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError, Unusable
from jsplat.labels import SharpenConfig, lift, sharpen
from jsplat.labels.opinions import Logits, Maps, Masked, Voter, dense, quantised
from jsplat.pipeline.first_labels import FORMAT, read_voters, voter_arrays
from jsplat.pipeline.packing import packed, unpacked
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from tests import spotted


def _logits(scale=8, seed=0):
    """What a network might say of the ball's 48 pixels at a stride of 8, and of its mirror image."""
    rng = np.random.default_rng(seed)
    looks = [rng.normal(0, 4, (8, 6, 6, 4)).astype(np.float32) for _ in range(2)]
    start, step = 0.5 / scale - 0.5, 1 / scale
    columns = [(start, step), (start + 47 * step, -step)]
    return Logits(tuple(quantised(x, (start, step), axis) for x, axis in zip(looks, columns)), (48, 48))


def test_voters_come_back_as_they_were(tmp_path):
    capture, rng = spotted.capture(), np.random.default_rng(0)
    maps = Maps(rng.integers(0, 3, (8, 48, 48)).astype(np.uint8), len(spotted.CLASSES))
    maps.labels[0, :5] = 255
    voters = [Voter("parser", spotted.CLASSES, _logits()), Voter("somebody", spotted.CLASSES, maps)]
    save_arrays(tmp_path / "ball.npz", **voter_arrays(voters))
    soft, hard = read_voters(tmp_path, capture)
    assert [(v.name, v.labelset, v.shape) for v in (soft, hard)] == [(v.name, v.labelset, (8, 48, 48)) for v in voters]
    np.testing.assert_array_equal(hard.labels(), maps.labels)
    assert dense(hard.opinions, 0)[:5].max() == 0
    np.testing.assert_array_equal(dense(soft.opinions, 3), dense(voters[0].opinions, 3))
    np.testing.assert_array_equal(soft.labels()[3], dense(soft.opinions, 3).argmax(-1))


def test_what_is_not_first_labels_is_refused(tmp_path):
    capture, path = spotted.capture(), tmp_path / "ball.npz"
    with pytest.raises(Unusable, match=r"ball\.npz: wanted first labels of ball, got no such file"):
        read_voters(tmp_path, capture)
    save_arrays(path, probabilities=spotted.stages()[0])
    with pytest.raises(InputError, match=r"of this version .* got an older version's, or other arrays: prob"):
        read_voters(tmp_path, capture)
    arrays = voter_arrays([Voter("parser", spotted.CLASSES, _logits())])
    save_arrays(path, **arrays | {"about": np.asarray(str(arrays["about"]).replace("labels 2", "labels 3"))})
    with pytest.raises(InputError, match="wanted the format 'jsplat first labels 2', got 'jsplat first labels 3'"):
        read_voters(tmp_path, capture)
    save_arrays(path, about=np.asarray(json.dumps({"format": FORMAT, "voters": [{"name": "parser"}]})))
    with pytest.raises(InputError, match=f"{FORMAT}'"):
        read_voters(tmp_path, capture)
    one = Logits(_logits().looks, (40, 48))
    save_arrays(path, **voter_arrays([Voter("parser", spotted.CLASSES, one)]))
    with pytest.raises(Unusable, match=r"parser: wanted \(8, 48, 48\) pictures, as the capture is read, got \(8, 40"):
        read_voters(tmp_path, capture)


def test_pixels_made_in_a_program_are_pixels_that_were_given():
    """Lift and sharpening give the same bits for opinions at their stride and for pictures of them."""
    scene, capture, first = spotted.scene(), spotted.capture(), np.arange(2)
    opinions = Masked(_logits(), np.random.default_rng(1).random((8, 48, 48)) < 0.9)
    opinions, cameras = jax.tree.map(lambda x: x[first], (opinions, capture.cameras))
    pictures = np.stack([dense(opinions, view) for view in range(2)])
    where = {"capacity": 65536}
    for got, wanted in zip(*(lift(scene.gaussians, cameras, x, **where) for x in (opinions, pictures))):
        np.testing.assert_array_equal(got, wanted)
    probabilities, how = jnp.asarray(spotted.stages()[1]["rows_refined"]), SharpenConfig(rounds=1)
    tables = [
        sharpen(scene.gaussians, probabilities, cameras, x, jnp.ones(2), config=how, **where)
        for x in (opinions, pictures)
    ]
    np.testing.assert_array_equal(*tables)


def test_packed_pictures_lose_less_than_they_mean(tmp_path):
    known = spotted.stages()[1]
    save_arrays(tmp_path / "ball.npz", **packed(known))
    got = unpacked(load_arrays(tmp_path / "ball.npz"))
    assert got.keys() == known.keys()
    for name in ("alpha", "confidence"):
        np.testing.assert_allclose(got[name], known[name], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(got["depth"], known["depth"], atol=known["depth"].max() / 2**15 * 1.01)
    for name in ("refined", "rows_refined", "seen"):
        np.testing.assert_array_equal(got[name], known[name])
    assert all(np.array_equal(unpacked(known)[name], of) for name, of in known.items())  # older files hold floats
