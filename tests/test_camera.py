"""Cameras: where they stand, where they look, and what a pixel is."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsplat.errors import InputError
from jsplat.raster.camera import Camera, orbit, pose_angles

INTRINSICS = np.array([[50.0, 0, 32], [0, 60, 24], [0, 0, 1]])
SIZE = (64, 48)
ANGLE = 1e-3  # degrees; the float32 entries of a pose carry 6e-8, which is 3e-6 degrees, times some ten roundings
POINT = 1e-4  # pixels; float32 with coordinates up to 64 carries 4e-6, some twenty roundings


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of world points in one camera, in float64."""
    matrix, k = np.asarray(camera.camera_from_world, np.float64), np.asarray(camera.intrinsics, np.float64)
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = local @ k.T
    return pixels[..., :2] / pixels[..., 2:], local[..., 2]


def one(yaw=0.0, pitch=0.0, roll=0.0, distance=2.0, target=None) -> Camera:
    return orbit(*(np.array([a]) for a in (yaw, pitch, roll, distance)), INTRINSICS, SIZE, target)[0]


@given(
    yaw=st.floats(-179.0, 179.0),
    pitch=st.floats(-85.0, 85.0),
    roll=st.floats(-180.0, 180.0),
    distance=st.floats(0.1, 100.0),
)
def test_orbit_stands_where_pose_angles_says(yaw, pitch, roll, distance):
    camera = one(yaw, pitch, roll, distance)
    got_yaw, got_pitch = pose_angles(camera)
    assert got_pitch == pytest.approx(pitch, abs=ANGLE)
    assert got_yaw == pytest.approx(yaw, abs=ANGLE / np.cos(np.radians(pitch)))  # near the pole a yaw is a short arc
    assert float(jnp.linalg.norm(camera.centers)) == pytest.approx(distance, rel=1e-6)  # a few float32 roundings
    rotation = np.asarray(camera.camera_from_world, np.float64)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)  # float32 entries
    assert np.linalg.det(rotation) > 0
    pixel, depth = project(camera, np.zeros(3))
    np.testing.assert_allclose(pixel, [32, 24], atol=POINT)
    assert depth == pytest.approx(distance, rel=1e-6)


def test_the_signs_are_the_subjects():
    """From the front the person's left (+x) is on the right of the picture, and up (+y) is at smaller v."""
    left, _ = project(one(), np.array([0.1, 0, 0]))
    top, _ = project(one(), np.array([0, 0.1, 0]))
    np.testing.assert_allclose(left, [32 + 50 * 0.1 / 2, 24], atol=POINT)
    np.testing.assert_allclose(top, [32, 24 - 60 * 0.1 / 2], atol=POINT)
    assert float(one(yaw=90).centers[0]) == pytest.approx(2, abs=1e-6)  # on the person's left
    assert float(one(pitch=30).centers[1]) == pytest.approx(1, abs=1e-6)  # above


def test_roll_turns_the_camera_counter_clockwise():
    """A camera turned counter-clockwise sees the world turned clockwise: what was above is to the right."""
    pixel, _ = project(one(roll=90), np.array([0, 0.1, 0]))
    np.testing.assert_allclose(pixel, [32 + 50 * 0.1 / 2, 24], atol=POINT)


def test_orbit_looks_at_its_target():
    target = np.array([0.1, -0.2, 0.3])
    camera = one(40, 20, 10, 1.5, target)
    pixel, depth = project(camera, target)
    np.testing.assert_allclose(pixel, [32, 24], atol=POINT)
    assert depth == pytest.approx(1.5, rel=1e-6)


def test_pose_angles_are_in_the_head_frame():
    """The head faces world +x: a camera on world +x is in front of it."""
    head_from_world = np.array([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0.5], [0, 0, 0, 1.0]])
    yaw, pitch = pose_angles(one(yaw=90), head_from_world)
    np.testing.assert_allclose([yaw, pitch], 0, atol=ANGLE)
    yaw, _ = pose_angles(one(yaw=0), head_from_world)
    assert yaw == pytest.approx(np.degrees(np.arctan2(-2, 0.5)), abs=ANGLE)


def test_pose_angles_keep_the_batch():
    cameras = orbit(np.array([0.0, 30, 60]), np.zeros(3), np.zeros(3), np.ones(3), INTRINSICS, SIZE)
    yaw, pitch = pose_angles(cameras)
    assert yaw.shape == pitch.shape == (3,)
    np.testing.assert_allclose(yaw, [0, 30, 60], atol=ANGLE)
    assert cameras[1:].camera_from_world.shape == (2, 4, 4)
    assert cameras[0].intrinsics.shape == (3, 3)


def test_a_pitch_at_the_pole_is_refused():
    with pytest.raises(InputError, match=r"orbit: pitch: wanted angles within \+-89\.9 degrees, got 90"):
        one(pitch=90)


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (16, 48), (100, 31)])
def test_resizing_keeps_the_borders_of_the_picture(size):
    """Pixel (0, 0) spans [0, 1): the borders 0 and w, and with them every fraction of a picture, stay."""
    camera = one(20, 10, 5)
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
    small = camera.resized(*size)
    assert (small.width, small.height) == size
    before, after = project(camera, points)[0] / SIZE, project(small, points)[0] / size
    np.testing.assert_allclose(after, before, atol=POINT / min(size))


def test_halving_averages_pixel_centres():
    """The centres 0.5 and 1.5 of two pixels become the centre 0.5 of one."""
    ray = np.linalg.inv(INTRINSICS)
    camera = Camera(jnp.eye(4), jnp.asarray(INTRINSICS, jnp.float32), *SIZE)
    middle = (ray @ [0.5, 0.5, 1] + ray @ [1.5, 1.5, 1]) / 2
    np.testing.assert_allclose(project(camera.resized(32, 24), middle)[0], [0.5, 0.5], atol=POINT)


def test_resizing_back_is_exact_for_powers_of_two():
    camera = one()
    np.testing.assert_array_equal(camera.resized(128, 96).resized(*SIZE).intrinsics, camera.intrinsics)
