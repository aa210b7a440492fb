"""Procedural heads: sides and signs, labels that agree across views, depth on the surface, same seed same bytes."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.captures.capture import read_capture, write_capture
from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ as CLASSES
from jsplat.raster.camera import Camera, orbit, pose_angles
from jsplat.synthetic import (
    HeadsConfig,
    PeopleConfig,
    capture_rig,
    frontal_rig,
    make_head,
    render_captures,
    render_head,
    trace,
)
from jsplat.synthetic import shape as shapes
from jsplat.synthetic.person import ABSENT
from jsplat.synthetic.trace import HIT

pytestmark = pytest.mark.as_users  # rays take longer than the compiler
CONFIG = HeadsConfig(size=64, samples=1)
PLAIN = PeopleConfig(hat=0.0, glasses=0.0, earrings=0.0, necklace=0.0)


def around(yaw, pitch, size=64) -> Camera:
    config = HeadsConfig(size=size)
    yaw, pitch = np.asarray(yaw, np.float64), np.asarray(pitch, np.float64)
    return orbit(yaw, pitch, 0 * yaw, 0 * yaw + 1.25, config.intrinsics, (size, size))


def middle(labels: np.ndarray, name: str) -> np.ndarray:
    """Mean (row, column) of a class."""
    rows, columns = np.nonzero(labels == CLASSES.id(name))
    assert rows.size, f"no {name}"
    return np.asarray([rows.mean(), columns.mean()])


def lifted(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """World points `h w 3` of the pixel centres of one view."""
    v, u = np.indices(depth.shape) + 0.5
    k = np.asarray(camera.intrinsics, np.float64)
    p = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1) * depth[..., None]
    m = np.linalg.inv(np.asarray(camera.camera_from_world, np.float64))
    return p @ m[:3, :3].T + m[:3, 3]


def shown(identities, camera, people=PLAIN):
    return [render_head(make_head(i, 0, people), camera, 1) for i in identities]


def test_everybody_has_a_whole_face_with_left_on_the_right_of_the_picture():
    for view in shown(range(4), around([0.0], [0.0], 128)):
        labels = view.labels[0]
        for part in ("eye", "brow"):
            assert middle(labels, f"l_{part}")[1] > 64 > middle(labels, f"r_{part}")[1]
        height = {n: middle(labels, n)[0] for n in ("l_brow", "l_eye", "nose", "u_lip", "l_lip", "neck")}
        assert list(height.values()) == sorted(height.values()), height
        assert middle(labels, "cloth")[0] > height["l_lip"]
        assert np.mean(labels == CLASSES.id("skin")) > 0.08


def test_a_camera_on_the_left_sees_the_left_side():
    """A bare head: yaw +90 shows the left ear alone and the nose on the left of the picture; -90 the mirror of it."""
    bald = make_head(3, 0, PLAIN) | {name: jnp.float32(value) for name, value in ABSENT.items()}
    labels = render_head(bald, around([90.0, -90.0], [0.0, 0.0]), 1).labels
    for i, (near, far, side) in enumerate((("l_ear", "r_ear", -1), ("r_ear", "l_ear", 1))):
        assert not np.any(labels[i] == CLASSES.id(far))
        assert side * (middle(labels[i], "nose")[1] - middle(labels[i], near)[1]) > 8
        rows, columns = np.nonzero(labels[i] == CLASSES.id("nose"))
        face = np.nonzero(labels[i] == CLASSES.id("skin"))[1]
        tip = columns.min() if side < 0 else columns.max()
        assert side * (tip - (face.min() if side < 0 else face.max())) > 0, "the nose is what sticks out"
        assert rows.size


def test_a_camera_above_sees_more_hair():
    fraction = [
        (v.labels == CLASSES.id("hair")).mean((1, 2))
        for v in shown((0, 5), around([0.0, 0.0, 0.0], [-40.0, 0.0, 45.0]))
    ]
    assert np.all(np.diff(fraction, axis=1) > 0), fraction


def test_views_that_do_not_wait_together_look_the_same(monkeypatch):
    cameras, person = around([0.0, 40.0, 80.0], [0.0, 0.0, 10.0], 32), make_head(1)
    together = render_head(person, cameras)
    monkeypatch.setattr(trace, "VIEWS_OF", 2 * 32 * 32)
    apart = render_head(person, cameras)
    assert all(map(np.array_equal, dataclasses.astuple(apart), dataclasses.astuple(together)))


def test_labels_carried_through_depth_agree():
    """At least 97 % of the co-visible pixels get the label that the other view's own ray found."""
    cameras = around([0.0, 30.0, -40.0, 75.0, 20.0], [0.0, 0.0, 10.0, -5.0, 35.0], 128)
    same, seen = 0, 0
    for identity in range(5):
        view = render_head(make_head(identity), cameras, 1)
        for i, j in ((0, 1), (0, 2), (1, 3), (0, 4)):
            p = lifted(cameras[i], view.depth[i])[view.labels[i] > 0]
            carried = view.labels[i][view.labels[i] > 0]
            m, k = np.asarray(cameras.camera_from_world[j]), np.asarray(cameras.intrinsics[j])
            q = (p @ m[:3, :3].T + m[:3, 3]) @ k.T
            u, v = (np.floor(q[:, a] / q[:, 2]).astype(int) for a in (0, 1))
            ok = (u >= 0) & (u < 128) & (v >= 0) & (v < 128)
            u, v, z, carried = u[ok], v[ok], q[ok, 2], carried[ok]
            covisible = (view.labels[j][v, u] > 0) & (np.abs(view.depth[j][v, u] - z) < 0.003)
            same += np.sum(view.labels[j][v, u][covisible] == carried[covisible])
            seen += covisible.sum()
    assert seen > 50_000  # the pairs share most of the head
    assert same / seen >= 0.97, same / seen  # the rest lies on class borders, half a pixel away


def test_depth_lies_on_the_surface():
    camera, person = around([0.0, 50.0], [0.0, 20.0]), make_head(7)
    view = render_head(person, camera, 1)
    for i in range(2):
        p = lifted(camera[i], view.depth[i])[view.labels[i] > 0]
        d = np.abs(np.asarray(shapes.distance((*jnp.asarray(p.T, jnp.float32),), person)))
        assert d.max() < HIT + 1e-6  # float32 coordinates near 1.25 m: some roundings of 1e-7
    assert np.array_equal(view.depth > 0, view.labels > 0)


def test_the_background_is_flat_and_known():
    capture = render_captures([2], 2, HeadsConfig(size=64), rig="capture")[0]
    assert capture.labels is not None
    # A pixel with no class around it takes no colour sample from the head.
    empty = np.ones_like(capture.labels, bool)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            empty &= np.roll(capture.labels, (dv, du), (1, 2)) == 0
    assert empty.mean() > 0.2
    assert np.all(capture.images[empty] == capture.background)


def test_edges_are_smooth_and_the_inside_is_textured():
    camera = around([0.0], [0.0], 128)
    hard, soft = (render_head(make_head(1), camera, n).images[0].astype(float) for n in (1, 2))
    step = np.abs(np.diff(hard, axis=1)).mean()
    assert np.abs(np.diff(soft, axis=1)).mean() < step
    skin = render_head(make_head(1), camera, 1).labels[0] == CLASSES.id("skin")
    assert hard[skin].std(0).min() > 5  # of 255: shading and mottling, or a fit could not see the shape


def test_same_seed_same_bytes_and_another_seed_another_person():
    a, b = (render_captures([5, 6], 2, CONFIG, seed=3, rig="frontal") for _ in range(2))
    for x, y in zip(a, b):
        assert x.images.tobytes() == y.images.tobytes()
        assert x.labels is not None
        assert y.labels is not None
        assert x.labels.tobytes() == y.labels.tobytes()
        assert np.array_equal(x.cameras.camera_from_world, y.cameras.camera_from_world)
    alone = render_captures([6], 2, CONFIG, seed=3, rig="frontal")[0]
    assert alone.images.tobytes() == a[1].images.tobytes()
    other = render_captures([6], 2, CONFIG, seed=4, rig="frontal")[0]
    assert other.images.tobytes() != alone.images.tobytes()


def test_a_population_shows_every_class():
    people = PeopleConfig(hat=0.5, glasses=0.5, earrings=0.6, necklace=0.6, open_mouth=0.6)
    labels = np.concatenate([v.labels for v in shown(range(8), around([0.0], [0.0], 128), people)])
    assert set(np.unique(labels)) == set(range(len(CLASSES)))


def test_nobody_wears_what_the_config_forbids():
    labels = np.concatenate([v.labels for v in shown(range(8), around([0.0, 60.0], [0.0, 0.0]))])
    assert not np.isin(labels, [CLASSES.id(n) for n in ("hat", "eye_g", "ear_r", "neck_l")]).any()


def test_rendered_captures_survive_the_disk(tmp_path):
    want = render_captures([1], 3, CONFIG)[0]
    write_capture(tmp_path / "head", want)
    got = read_capture(tmp_path / "head")
    assert np.array_equal(got.images, want.images)
    assert np.array_equal(got.labels, want.labels)
    assert (got.identity, got.background) == ("head0001", want.background)


def test_the_frontal_rig_stays_in_front():
    cameras = frontal_rig(500, HeadsConfig(), np.random.default_rng(0))
    yaw, pitch = pose_angles(cameras)
    assert yaw.shape == (500,)
    assert np.abs(yaw).max() <= 20 + 1e-3  # float32 matrices
    assert np.abs(pitch).max() <= 15 + 1e-3
    distance = np.linalg.norm(np.asarray(cameras.centers), axis=-1)
    assert np.all(np.abs(distance / 1.25 - 1) <= 0.08 + 1e-5)


@pytest.mark.parametrize("views", [2, 3, 7, 24, 40])
def test_the_dome_is_symmetric_and_has_all_its_views(views):
    yaw, pitch = pose_angles(capture_rig(views, HeadsConfig()))
    assert yaw.shape == (views,)
    assert np.abs(yaw).max() <= 110 + 1e-3  # float32 matrices
    assert pitch.min() >= -40 - 1e-3
    assert pitch.max() <= 50 + 1e-3
    assert np.allclose(np.sort(yaw), np.sort(-yaw), atol=1e-3)  # float32 matrices


def test_the_full_dome_is_the_facescape_like_rig():
    yaw, pitch = pose_angles(capture_rig(56, HeadsConfig()))
    rows = {int(p): int(n) for p, n in zip(*np.unique(np.round(pitch), return_counts=True))}
    assert rows == {-40: 6, -20: 11, 0: 15, 10: 1, 20: 11, 40: 9, 50: 3}
    assert np.round(yaw.min()) == -110


def test_the_person_is_as_large_as_a_person():
    view = shown([0], around([0.0], [0.0], 128))[0]
    p = lifted(around([0.0], [0.0], 128)[0], view.depth[0])
    head = np.isin(view.labels[0], [CLASSES.id(n) for n in ("skin", "hair", "nose", "l_lip")])
    tall = np.ptp(p[head][:, 1])
    assert 0.19 < tall < 0.27, tall  # metres, hair included
    assert np.abs(p[head][:, 0]).max() < 0.12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_head(-1), r"make_head: identity, seed: wanted integers >= 0, got \(-1, 0\)"),
        (lambda: PeopleConfig(hat=1.5), r"PeopleConfig.hat: wanted a share in \[0, 1\], got 1.5"),
        (lambda: HeadsConfig(size=4), r"HeadsConfig: size, samples: wanted at least 8, 1, got \(4, 2\)"),
        (lambda: HeadsConfig(extent=0.0), r"HeadsConfig: distance, extent, frontal_zoom: wanted > 0"),
        (lambda: HeadsConfig(distance=0.3), r"HeadsConfig: distance, extent, frontal_zoom: wanted"),
        (lambda: render_captures([0], 1, CONFIG), r"render_captures: views: wanted at least 2, got 1"),
        (lambda: render_captures([0], 2, CONFIG, rig="side"), r"rig: wanted 'frontal' or 'capture', got 'side'"),  # type: ignore[arg-type]
        (lambda: render_head(make_head(0), around([0.0], [0.0])[0]), r"render_head: cameras: wanted a batch \(v,\)"),
        (lambda: render_head(make_head(0), around([0.0], [0.0]), 0), r"render_head: samples: wanted at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
