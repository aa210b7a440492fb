"""Masks in the pixels of one's own pictures: through lens, turns and sizes, rendered and not enlarged."""

import dataclasses
import json
from pathlib import Path

import cv2
import jax.numpy as jnp
import layouts
import numpy as np
import pytest
from close import assert_close
from layouts import Rig
from scipy import ndimage

from jsplat.captures.capture import read_capture, write_capture
from jsplat.captures.importers import ImportConfig, import_capture
from jsplat.captures.importers.lens import Lens
from jsplat.captures.index import list_captures
from jsplat.captures.own_pixels import OwnPixels, own_pixels
from jsplat.captures.pictures import write_png
from jsplat.errors import Stopped
from jsplat.labels import MaskConfig, clean, paint, to_masks
from jsplat.labelsets.labelset import IGNORE
from jsplat.pipeline import own_pixels as room
from jsplat.pipeline.own_pixels import Painted, is_label_grid, on_label_grid, own_mask
from jsplat.pipeline.stages import own as stage
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.runtime.progress import Progress
from jsplat.training_sets.elsewhere import open_source
from tests import ball

RADIAL = (4.0,)  # the ball is small in the picture: a usual lens would bend its outline by 0.06 pixels


def sphere(radius: float = 0.1, count: int = 3000) -> Gaussians:
    """Opaque splats, flat on a ball in the head's frame."""
    i = np.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    normal = np.stack([np.cos(turn) * np.sqrt(1 - z * z), np.sin(turn) * np.sqrt(1 - z * z), z], -1)
    half = np.stack([1 + normal[:, 2], -normal[:, 1], normal[:, 0], 0 * z], -1)  # turns +z to the normal
    size = np.log(radius * 1.6 / np.sqrt(count))
    scales = np.tile([size, size, np.log(radius * 0.002)], (count, 1))
    return Gaussians(*(jnp.asarray(x, jnp.float32) for x in (radius * normal, half, scales, np.full(count, 6.0))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turns", [0, 1])
def test_pixels_and_rays_belong_together(orientation, turns):
    rig = Rig(distortion=(-0.12, 0.03, 0.002, -0.003))
    lens = Lens(rig.k, rig.width, rig.height, rig.distortion)
    own = OwnPixels("a", Path("a.png"), lens, orientation, turns)
    assert own.size == ((48, 36) if orientation < 5 else (36, 48))
    pixels = np.random.default_rng(0).uniform(1, 35, (50, 2))
    rays, known = own.rays(pixels)
    back, inside = own.pixels(rays)
    assert known.all()
    assert inside.all()
    assert_close(back, pixels, 1e-5, "Newton's method stops at 1e-7 of a ray, which is some 1e-5 pixels")


def test_exif_turns_as_programs_do(tmp_path):
    """The pixel that shows a mark in the upright picture is the one whose ray the stored mark has."""
    for orientation in range(1, 9):
        stored = np.arange(6).reshape(2, 3)
        shown = stored.T if orientation > 4 else stored
        shown = shown[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
        own = OwnPixels("a", tmp_path, Lens(np.diag([9.0, 9.0, 1.0]), 3, 2), orientation)
        y, x = np.unravel_index(np.arange(6), shown.shape)
        rays, _ = own.rays(np.stack([x, y], -1) + 0.5)
        at = np.floor(rays * 9).astype(int)
        assert np.array_equal(stored[at[:, 1], at[:, 0]], shown.ravel()), orientation


def test_old_imports_and_captures_of_other_origin_are_their_own_originals(tmp_path):
    write_capture(tmp_path / "ada", ball.capture("ada"))
    own = own_pixels(tmp_path / "ada")
    assert [one.name for one in own] == [f"{i:03d}" for i in range(8)]
    camera = read_capture(tmp_path / "ada").cameras[0]
    assert is_label_grid(own[0], camera)
    assert not is_label_grid(own[0], camera.resized(16, 16))
    np.testing.assert_array_equal(own[3].read(), ball.capture("ada").images[3])
    (tmp_path / "ada" / "import.json").write_text(json.dumps({"views": [{"source": "x.jpg", "quarter_turns": 1}]}))
    assert [(one.name, one.path, one.turns) for one in own_pixels(tmp_path / "ada")] == [
        (o.name, o.path, 0) for o in own
    ]


@pytest.fixture(scope="module", params=[0.0, 91.0])
def imported(request, tmp_path_factory):
    """A COLMAP scene of a ball with a SIMPLE_RADIAL lens, as imported at a third of its size; upright or lying."""
    folder = tmp_path_factory.mktemp("radial")
    rig = Rig(width=192, height=144, distortion=RADIAL, square=True, views=3, roll=request.param)
    layouts.colmap(folder / "7", rig, model="SIMPLE_RADIAL")
    up = "left" if request.param else "exif"
    import_capture(folder / "7", folder / "out", ImportConfig(up=up), 64)
    return rig, folder / "out"


def painted_ball(camera, gaussians: Gaussians) -> Painted:
    probabilities = jnp.asarray(np.where(np.asarray(gaussians.means)[:, :1] > 0, [[0, 1, 0]], [[0, 0, 1]]), jnp.float32)
    return Painted(gaussians, probabilities, float(camera.intrinsics[..., 0, 0].min()), ball.SIDES, MaskConfig())


def test_the_outline_of_a_mask_lies_where_the_undistorted_mask_projects(imported):
    """Within a pixel of the original; OpenCV says where an undistorted pixel is seen."""
    rig, folder = imported
    capture, own = read_capture(folder), own_pixels(folder)
    assert [one.name for one in own] == ["00", "01", "02"]
    assert own[0].turns == (1 if rig.roll else 0)
    painted, shared = painted_ball(capture.cameras, sphere()), SharedCapacity()
    focal, wide = 4 * rig.k[0, 0], 1200
    straight = np.asarray([[focal, 0, wide / 2], [0, focal, wide / 2], [0, 0, 1]])
    for i, one in enumerate(own[:2]):
        mask = own_mask(painted, capture.cameras[i], one, shared)
        assert mask.shape == (144, 192)
        undistorted = own_mask(
            painted, capture.cameras[i], dataclasses.replace(one, lens=Lens(straight, wide, wide)), shared
        )
        y, x = np.mgrid[:144, :192] + 0.5
        seen = cv2.undistortPoints(np.stack([x, y], -1).reshape(-1, 1, 2), rig.k, np.append(rig.distortion, [0.0] * 3))
        column, row = np.floor(seen.reshape(144, 192, 2) * focal + wide / 2).astype(int).transpose(2, 0, 1)
        truth = undistorted[row.clip(0, wide - 1), column.clip(0, wide - 1)]
        assert {*np.unique(truth)} == {0, 1, 2}
        for label in (0, 1, 2):
            inner, outer = (
                ndimage.binary_erosion(truth == label, np.ones((3, 3)), border_value=1),
                ndimage.binary_dilation(truth == label, np.ones((3, 3))),
            )
            assert (mask[inner] == label).all()
            assert (mask[~outer] != label).all()
        bent = np.abs(rig.k[0, 0] * seen.reshape(144, 192, 2) + rig.k[:2, 2] - np.stack([x, y], -1)).max(-1)
        assert bent[truth > 0].max() > 1.5, "a lens that bends nothing tests nothing"


def test_a_mask_of_the_photograph_votes_where_the_photograph_was_seen(imported, tmp_path):
    """Masks from elsewhere under the originals' names, in their pixels: lens and turns are undone."""
    _, folder = imported
    capture, own = read_capture(folder), own_pixels(folder)
    painted, shared = painted_ball(capture.cameras, sphere()), SharedCapacity()
    camera = capture.cameras[0]
    drawn = own_mask(painted, camera, own[0], shared)
    write_png(tmp_path / "masks" / "00.png", drawn.repeat(2, 0).repeat(2, 1))
    (tmp_path / "masks" / "labels.json").write_text(json.dumps({"names": [*ball.SIDES.names]}))
    source, (listed,) = open_source(str(tmp_path / "masks")), list_captures(folder, None)
    found = source.masks_of(listed, alone=True)
    assert [file is not None for file in found] == [True, False, False]
    labels = source.read(found, capture)
    assert (labels[1:] == IGNORE).all()
    plain = OwnPixels("", folder, Lens(np.asarray(camera.intrinsics, np.float64), camera.width, camera.height))
    truth, there = own_mask(painted, camera, plain, shared), labels[0] != IGNORE
    assert there[truth > 0].mean() > 0.98
    for label in (0, 1, 2):
        inner = ndimage.binary_erosion(truth == label, np.ones((3, 3)), border_value=1)
        assert (labels[0] == label)[inner & there].all()


def test_a_larger_picture_is_rendered_and_not_enlarged():
    """What the label stage has at a pixel's middle is there; between them there are no steps."""
    camera, gaussians = ball.cameras([0.0], 32)[0], sphere()
    painted = painted_ball(camera, gaussians)
    render = paint(gaussians, painted.probabilities, ball.cameras([0.0], 32), capacity=32768)
    labels, sure = to_masks(np.asarray(render.channels), np.asarray(render.alpha), ball.SIDES, MaskConfig())
    (small,) = clean(labels, sure, ball.SIDES, MaskConfig())
    lens = Lens(np.asarray(camera.resized(672, 672).intrinsics, np.float64), 672, 672)  # four tiles
    mask = own_mask(painted, camera, OwnPixels("a", Path("a.png"), lens), SharedCapacity())
    assert (mask[10::21, 10::21] != small).mean() < 0.01
    steps = np.abs(np.diff((mask[:, :336] > 0).argmax(1)[200:472]))
    assert steps.max() <= 4, "a pixel of the label grid is 21 wide, and would show as a step"


@pytest.mark.parametrize(("orientation", "distortion", "differ"), [(1, (), 0.0), (6, (), 0.0), (1, RADIAL, 0.001)])
def test_it_does_not_matter_how_a_picture_is_cut(orientation, distortion, differ, monkeypatch):
    """Tiles of a bent lens are as fine as their own part of it, so that outlines move by a part of a pixel."""
    camera, gaussians = ball.cameras([0.0], 32)[0], sphere()
    k = np.asarray(camera.resized(512, 512).intrinsics, np.float64)
    own = OwnPixels("a", Path("a.png"), Lens(k, 512, 400, distortion), orientation)
    painted, tiles = painted_ball(camera, gaussians), []

    def made() -> np.ndarray:
        tile = room._tile
        with monkeypatch.context() as patched:
            patched.setattr(room, "_tile", lambda *x, **y: tiles.append(x[2]) or tile(*x, **y))
            return own_mask(painted, camera, own, SharedCapacity())

    whole, count = made(), len(tiles)
    assert {*np.unique(whole)} == {0, 1, 2}
    if not distortion:
        assert count == 1, "512 pixels and their margins are one tile"
    monkeypatch.setattr(room, "LARGEST", 160)
    parts = made()
    assert len(tiles) > count + 8
    assert max(max(tile.width, tile.height) for tile in tiles[count:]) <= 192
    assert (whole != parts).mean() <= differ


def test_what_a_lens_does_not_know_is_ignored():
    """A wide fisheye sees beyond 80 degrees: those pixels get no class, and all others have theirs."""
    lens = Lens(np.asarray([[20.0, 0, 32], [0, 20.0, 32], [0, 0, 1]]), 64, 64, (0.0,), fisheye=True)
    gaussians = sphere()
    probabilities = jnp.tile(jnp.asarray([[0.0, 1, 0]]), (3000, 1))
    camera = ball.cameras([0.0], 32)[0]
    mask = own_mask(
        Painted(gaussians, probabilities, 100.0, ball.SIDES, MaskConfig()),
        camera,
        OwnPixels("a", Path("a.png"), lens),
        SharedCapacity(),
    )
    y, x = np.mgrid[:64, :64] + 0.5
    angle = np.hypot(x - 32, y - 32) / 20
    assert (mask[angle > np.radians(81)] == IGNORE).all()
    assert (mask[angle < np.radians(75)] != IGNORE).all()
    assert mask[32, 32] == 1


def test_a_layer_of_the_label_grid_reaches_the_own_pixels():
    camera = ball.cameras([0.0], 32)[0]
    own = OwnPixels("a", Path("a.png"), Lens(np.asarray(camera.resized(64, 64).intrinsics, np.float64), 64, 64))
    layer = np.arange(1024).reshape(32, 32).astype(np.uint8)
    np.testing.assert_array_equal(on_label_grid(own, camera, layer, 255), np.kron(layer, np.ones((2, 2), np.uint8)))
    twisted = dataclasses.replace(own, turns=2)
    np.testing.assert_array_equal(
        on_label_grid(twisted, camera, layer, 255)[::-1, ::-1], on_label_grid(own, camera, layer, 255)
    )


def test_masks_made_side_by_side_stop_between_two_and_go_on(tmp_path, monkeypatch):
    """What was written before a stop is not made again, and the rest is what one at a time would have made."""
    capture, gaussians = ball.capture("ada"), sphere()
    write_capture(tmp_path / "ada", capture)
    lens = Lens(np.asarray(capture.cameras.resized(96, 96).intrinsics[0], np.float64), 96, 96)
    own = [dataclasses.replace(one, lens=lens) for one in own_pixels(tmp_path / "ada")]
    probabilities = np.asarray(painted_ball(capture.cameras, gaussians).probabilities)
    known = {"rows_refined": probabilities, "refined": np.zeros((len(own), 32, 32), np.uint8)}
    scene = Scene(gaussians, Attributes(jnp.zeros((3000, 1, 3)), jnp.zeros((3000, 1))))
    masks = stage.OwnMasks(capture, known, scene, ball.SIDES, MaskConfig())
    made, write_bytes = [], stage.write_bytes
    monkeypatch.setattr(stage, "write_bytes", lambda path, data: made.append(path.name) or write_bytes(path, data))
    monkeypatch.setattr(stage, "cores", lambda: 3)
    with monkeypatch.context() as patched:
        patched.setattr(stage.STOP, "is_set", lambda: len(made) >= 2)
        with pytest.raises(Stopped, match="masks of out"):
            masks.write_all(tmp_path / "out", own, {}, Progress("masks", len(own)))
    assert 2 <= len(made) < len(own), "those that had begun are finished, no other begins"
    masks.write_all(tmp_path / "out", own, {}, Progress("masks", len(own)))
    assert sorted(made) == [f"{one.name}.png" for one in own]
    masks.write(tmp_path / "alone.png", 5, own[5], None)
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "out" / "005.png").read_bytes()
