"""Novel cameras stand where they were asked to, in the head's own frame, and unseen surface is known for what it is."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labels import lift
from jsplat.raster.camera import Camera, pose_angles
from jsplat.raster.scene import Attributes, Scene
from jsplat.views import ViewsConfig, novel_cameras, photographs
from tests import ball
from tests.close import assert_close

ANGLE = 1e-2
ANGLE_WHY = "degrees; float32 matrices of a camera a unit away"
MATRIX = 1e-5
MATRIX_WHY = "float32 matrices, entries about 1"


def roll_of(cameras: Camera) -> np.ndarray:
    """Degrees between each camera's horizontal axis and the horizon."""
    right = np.asarray(cameras.camera_from_world, np.float64)[:, 0, :3]
    return np.degrees(np.arcsin(right[:, 1]))


def test_random_views_keep_to_their_ranges():
    capture = ball.capture()
    config = ViewsConfig(count=200, yaw=(-70.0, 90.0), pitch=(-30.0, 45.0), roll=(-8.0, 8.0), distance=(0.9, 1.2))
    cameras = novel_cameras(capture, config, seed=3)
    assert (cameras.width, cameras.height) == (32, 32)
    assert np.array_equal(cameras.intrinsics, np.broadcast_to(capture.cameras.intrinsics[0], (200, 3, 3)))
    yaw, pitch = pose_angles(cameras, capture.head_from_world)
    far = np.linalg.norm(np.asarray(cameras.centers), axis=-1) / ball.DISTANCE
    spans = ((yaw, config.yaw), (pitch, config.pitch), (far, config.distance))
    for values, (low, high) in spans:
        assert low - ANGLE <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high + ANGLE
    # A rolled horizontal axis dips by sin(roll) times the cosine of the pitch.
    assert 5 < np.abs(roll_of(cameras)).max() <= 8 + ANGLE


def test_random_views_are_the_seeds():
    capture, config = ball.capture(), ViewsConfig(count=5)
    first, again, other = (np.asarray(novel_cameras(capture, config, s).camera_from_world) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.isclose(first[:, :3, :3], other[:, :3, :3], atol=1e-3).all((1, 2)).any()


def test_a_grid_is_every_yaw_with_every_pitch():
    spans = {"yaw": (-60.0, 60.0), "pitch": (-10.0, 20.0), "roll": (0.0, 0.0), "distance": (1.0, 1.0)}
    config = ViewsConfig(layout="grid", grid=(3, 2), **spans)
    cameras = novel_cameras(ball.capture(), config, seed=0)
    yaw, pitch = pose_angles(cameras)
    assert_close(yaw, np.array([-60, -60, 0, 0, 60, 60]), ANGLE, ANGLE_WHY)
    assert_close(pitch, np.array([-10, 20] * 3), ANGLE, ANGLE_WHY)
    assert_close(roll_of(cameras), np.zeros(6), ANGLE, ANGLE_WHY)


def test_angles_are_the_heads_not_the_worlds():
    """The same capture in a world that lies on its side and elsewhere: the same pictures of the same head."""
    capture, config = ball.capture(), ViewsConfig(count=6)
    head_from_world = np.array([[0, 1, 0, 0.2], [-1, 0, 0, -0.1], [0, 0, 1, 0.3], [0, 0, 0, 1.0]])
    matrices = np.asarray(capture.cameras.camera_from_world, np.float64) @ head_from_world
    cameras = dataclasses.replace(capture.cameras, camera_from_world=jnp.asarray(matrices, jnp.float32))
    moved = dataclasses.replace(capture, cameras=cameras, head_from_world=head_from_world)
    want = np.asarray(novel_cameras(capture, config, 0).camera_from_world, np.float64) @ head_from_world
    got = novel_cameras(moved, config, 0)
    assert_close(got.camera_from_world, want, MATRIX, MATRIX_WHY)
    assert np.abs(want - np.asarray(novel_cameras(capture, config, 0).camera_from_world)).max() > 0.5
    for a, b in zip(pose_angles(got, head_from_world), pose_angles(novel_cameras(capture, config, 0))):
        assert_close(a, b, ANGLE, ANGLE_WHY)


def test_novel_cameras_look_where_the_captures_look():
    """At the point nearest to all optical axes, also where that is not the head frame's origin."""
    capture = ball.capture()
    shift = np.eye(4)
    shift[:3, 3] = [0.05, -0.02, 0.01]
    off = dataclasses.replace(capture, head_from_world=shift)
    config = ViewsConfig(count=4, distance=(1.0, 1.0))
    cameras = novel_cameras(off, config, 0)
    ahead = np.asarray(cameras.camera_from_world, np.float64)[:, :3, 3]  # the world's origin: the ball's centre
    assert_close(ahead, np.tile([0, 0, ball.DISTANCE], (4, 1)), MATRIX, MATRIX_WHY)


def test_what_no_camera_saw_is_not_supported():
    seen = ball.capture(yaw=[-25.0, 0.0, 25.0], size=24)
    gaussians = ball.gaussians(300, opacity=0.99)
    _, weight = lift(gaussians, seen.cameras, jnp.zeros((3, 24, 24, 1)), capacity=4096)
    asked = ball.cameras([0.0, 90.0, 180.0], size=24)
    # At the middle of the ball's front, looking away from it.
    away = Camera(jnp.asarray(np.eye(4), jnp.float32).at[2, 3].set(-1.0)[None], asked.intrinsics[:1], 24, 24)
    attributes = Attributes(jnp.zeros((300, 1, 3)), jnp.zeros((300, 3)))
    known = weight.sum(0) >= ViewsConfig().seen_weight

    def look(cameras):
        scene, grey = Scene(gaussians, attributes), np.full(3, 0.2)
        return photographs(scene, known, cameras, grey, capacity=4096)

    images, (front, side, behind) = look(asked)
    # Cameras above and below see a little over the rim, which still shows from behind.
    assert front > 0.95
    assert behind < 0.25 < side < ViewsConfig().min_coverage
    assert images.shape == (3, 24, 24, 3)
    assert (images[:, 0, 0] == 51).all(), "a corner shows what is behind"
    assert (images[:, 12, 12] > 100).all(), "no colour at all is grey, half of white"
    images, support = look(away)
    assert support == [0.0]
    assert (images == 51).all()


def test_photographs_need_room():
    scene = Scene(ball.gaussians(300), Attributes(jnp.zeros((300, 1, 3)), jnp.zeros((300, 3))))
    with pytest.raises(InputError, match=r"photographs: capacity: wanted at least \d+ tile hits a view, got 16"):
        photographs(scene, jnp.ones(300, bool), ball.cameras([0.0], 24), np.zeros(3), capacity=16)


def test_a_range_upside_down_is_refused():
    with pytest.raises(InputError, match=r"ViewsConfig.pitch: wanted \(low, high\), got \(10.0, -10.0\)"):
        ViewsConfig(pitch=(10.0, -10.0))
