"""Whatever stands in the row of a Gaussian that no camera sees: nothing else, the camera included, notices it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.raster.camera import Camera, orbit
from jsplat.raster.projection import rotation_matrices
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians
from jsplat.raster.spherical_harmonics import sh_colors
from tests.close import assert_close

COUNT, SIZE, ROW = 16, (24, 16), 3
LENS = np.array([[30.0, 0, 12], [0, 33, 8], [0, 0, 1]])
CAMERA = orbit(np.array([35.0]), np.array([10.0]), np.array([-20.0]), np.array([1.2]), LENS, SIZE)[0]
CENTER = np.asarray(CAMERA.centers)
BEHIND = CENTER - np.asarray(CAMERA.camera_from_world)[2, :3]
NAMES = ("means", "quats", "log_scales", "logit_opacities", "sh", "features", "camera_from_world", "intrinsics")

KINDS = {
    "behind": {"means": BEHIND},
    "behind, and painted with NaN": {"means": BEHIND, "sh": np.nan, "features": np.nan},
    "at the camera": {"means": CENTER},
    "mean nan": {"means": np.nan},
    "mean inf": {"means": np.inf},
    "mean -inf": {"means": -np.inf},
    "mean beyond float32's products": {"means": 3e38},
    "quaternion of zeros": {"quats": 0},
    "quaternion nan": {"quats": np.nan},
    "quaternion inf": {"quats": np.inf},
    "one nan in the quaternion": {"quats": (1, 0, np.nan, 0)},
    "log scale 20": {"log_scales": 20},
    "log scale 45": {"log_scales": 45},
    "log scale 60": {"log_scales": 60},
    "log scale inf": {"log_scales": np.inf},
    "log scale nan": {"log_scales": np.nan},
    "one log scale of 89": {"log_scales": (-3, 89, -3)},
    "opacity nan": {"logit_opacities": np.nan},
    "opacity -inf": {"logit_opacities": -np.inf},
    "padding with zeros, opacity off": dict.fromkeys(NAMES[:3], 0) | {"logit_opacities": -1e9},
    "padding with zeros at the camera": dict.fromkeys(NAMES[1:6], 0) | {"means": CENTER},
    "nan in everything": dict.fromkeys(NAMES[:6], np.nan),
}


def rows() -> dict[str, np.ndarray]:
    """Gaussians in front of the camera, what is painted on them, and the camera."""
    random = np.random.default_rng(0)
    return {
        "means": random.normal(0, 0.1, (COUNT, 3)),
        "quats": random.normal(size=(COUNT, 4)),
        "log_scales": np.log(0.05) + 0.3 * random.normal(size=(COUNT, 3)),
        "logit_opacities": random.normal(size=COUNT),
        "sh": 0.2 * random.normal(size=(COUNT, 4, 3)),
        "features": random.uniform(size=(COUNT, 2)),
        "camera_from_world": np.asarray(CAMERA.camera_from_world),
        "intrinsics": LENS,
    }


@jax.jit
@jax.value_and_grad
def gradients(inputs: dict[str, jax.Array]) -> jax.Array:
    """A loss on colours, features, alpha and depth, and its gradient with respect to every input."""
    gaussians = Gaussians(*(inputs[name] for name in NAMES[:4]))
    camera = Camera(inputs["camera_from_world"], inputs["intrinsics"], *SIZE)
    colors = sh_colors(inputs["sh"], gaussians.means, camera)
    painted = jnp.concatenate([colors, inputs["features"]], -1)
    render = rasterize(gaussians, painted, camera, capacity=1024, antialiased=True)
    return (render.channels**2).sum() + render.alpha.sum() + (render.depth**2).sum()


def in_float32(inputs: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(x, jnp.float32) for name, x in inputs.items()}


@pytest.fixture(scope="module")
def without():
    """Loss and gradients of the same scene without the row."""
    return gradients(in_float32({k: x if k in NAMES[6:] else np.delete(x, ROW, 0) for k, x in rows().items()}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_hidden_row_changes_nobody_and_learns_nothing(kind, without):
    inputs = rows()
    for name, value in KINDS[kind].items():
        inputs[name][ROW] = value
    loss, got = gradients(in_float32(inputs))
    why = "float32 sums of the same terms"
    assert_close(loss, without[0], 1e-5, why, relative=True)
    for name in NAMES[:6]:
        assert not np.asarray(got[name][ROW]).any(), f"{name}: {got[name][ROW]}"  # NaN counts as any
        assert_close(np.delete(got[name], ROW, 0), without[1][name], 1e-4, f"{name}: {why}", relative=True)
    for name in NAMES[6:]:
        assert without[1][name].any()
        assert_close(got[name], without[1][name], 1e-4, f"{name}: {why}", relative=True)


def test_a_visible_row_of_nan_is_not_hidden():
    inputs = rows()
    inputs["sh"][ROW] = np.nan
    assert np.isnan(gradients(in_float32(inputs))[0])


def test_the_length_of_a_quaternion_does_not_matter():
    quats = jnp.asarray(rows()["quats"], jnp.float32)
    want = rotation_matrices(quats)
    for length in (1e-30, 1e30):
        assert_close(rotation_matrices(quats * length), want, 1e-6, "float32 entries of at most 1, a dozen roundings")
