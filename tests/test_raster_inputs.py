"""`rasterize` on whatever it may be given, against one dense formula in float64, or refused by name."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jsplat.errors import InputError
from jsplat.kernels.blend.reference import blend_reference
from jsplat.raster.camera import Camera, orbit
from jsplat.raster.projection import FRUSTUM_MARGIN, LOW_PASS, rotation_matrices
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians
from tests.close import assert_close

COUNT, CHANNELS, SIZE, VIEWS = 12, 2, (24, 16), 2
AROUND = orbit(np.array([0.0, 35.0]), np.full(2, 10.0), np.full(2, -20.0), np.full(2, 1.2), np.eye(3), SIZE)
random = np.random.default_rng(0)
SCENE = {
    "means": random.normal(0, 0.3, (COUNT, 3)),  # some beyond the picture's edge
    "quats": random.normal(size=(COUNT, 4)),
    "log_scales": np.log(0.1) + 0.3 * random.normal(size=(COUNT, 3)),
    "logit_opacities": random.normal(size=COUNT),
    "features": random.uniform(size=(COUNT, CHANNELS)),
    "camera_from_world": np.asarray(AROUND.camera_from_world),
}
WEIGHTS = random.normal(size=(VIEWS, SIZE[1], SIZE[0], CHANNELS + 1))
BACKGROUNDS = {
    "none": None,
    "a number": 0.5,
    "one for all": random.uniform(size=CHANNELS),
    "one each": random.uniform(size=(VIEWS, CHANNELS)),
    "a picture for all": random.uniform(size=(SIZE[1], SIZE[0], CHANNELS)),
    "a picture each": random.uniform(size=(VIEWS, SIZE[1], SIZE[0], CHANNELS)),
}
HALF, SINGLE, DOUBLE = jnp.bfloat16, jnp.float32, jnp.float64
# Geometry, features, camera; the rounding of what is computed, and of gradients as they are handed back.
DTYPES = {
    "all float32": (SINGLE, SINGLE, SINGLE, 2e-5, 2e-4),
    "bfloat16 features": (SINGLE, HALF, SINGLE, 2e-5, 5e-3),
    "all bfloat16": (HALF, HALF, HALF, 2e-5, 5e-3),
    "float64 features": (SINGLE, DOUBLE, SINGLE, 1e-12, 1e-6),
    "float64 geometry": (DOUBLE, SINGLE, SINGLE, 1e-12, 1e-6),
    "float64 camera": (SINGLE, SINGLE, DOUBLE, 1e-12, 1e-6),
}


def dense(inputs: dict[str, jax.Array], background, shaping: int) -> jax.Array:
    """Channels and alpha `v h w c+1`, from covariances and any intrinsics."""
    size = jnp.asarray(SIZE)
    axes = rotation_matrices(inputs["quats"]) * jnp.exp(inputs["log_scales"])[:, None, :]
    covariances = axes @ axes.swapaxes(1, 2)

    def view(matrix, k):
        local = inputs["means"] @ matrix[:3, :3].T + matrix[:3, 3]
        image = local @ k.T
        means2d, depth = image[:, :2] / image[:, 2:], local[:, 2]
        held = jnp.clip(means2d, -FRUSTUM_MARGIN * size, (1 + FRUSTUM_MARGIN) * size)
        jacobian = (k[:2] - held[:, :, None] * k[2]) / depth[:, None, None] @ matrix[:3, :3]
        inverse = jnp.linalg.inv(jacobian @ covariances @ jacobian.swapaxes(1, 2) + LOW_PASS * jnp.eye(2))
        u = jnp.sqrt(inverse[:, 0, 0])
        v = inverse[:, 0, 1] / u
        roots = jnp.stack([u, v, jnp.sqrt(inverse[:, 1, 1] - v * v)], -1)
        opacities = jax.nn.sigmoid(inputs["logit_opacities"])
        kept = [x[None] for x in (means2d, roots, opacities, depth)]
        still = [jax.lax.stop_gradient(x) for x in kept]
        shown, alpha, _ = blend_reference(*kept, inputs["features"][None], size=SIZE)
        fixed, fixed_alpha, _ = blend_reference(*still, inputs["features"][None], size=SIZE)
        moves = jnp.arange(CHANNELS) < shaping
        transmittance = 1 - jnp.where(moves, alpha[0, ..., None], fixed_alpha[0, ..., None])
        return jnp.where(moves, shown[0], fixed[0]), transmittance, alpha[0, ..., None]

    shown, transmittance, alpha = jax.vmap(view)(inputs["camera_from_world"], inputs["intrinsics"])
    if background is not None:
        behind = jnp.asarray(background)
        wide = behind[..., None, None, :] if behind.ndim in (1, 2) else behind
        shown = shown + transmittance * wide
    return jnp.concatenate([shown, alpha], -1)


@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])  # shrinking would compile for minutes
@given(
    dtypes=st.sampled_from(sorted(DTYPES)),
    background=st.sampled_from(sorted(BACKGROUNDS)),
    shaping=st.sampled_from([None, 1]),
    flips=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    skew=st.sampled_from([0.0, 7.0]),
)
def test_pictures_and_gradients_are_those_of_the_dense_formula(dtypes, background, shaping, flips, skew):
    *kinds, rounding, handed = DTYPES[dtypes]
    of = {"features": kinds[1], "camera_from_world": kinds[2], "intrinsics": kinds[2]}
    lens = np.array([[30.0 * flips[0], skew, 12], [0, 33 * flips[1], 8], [0, 0, 1]])
    behind = BACKGROUNDS[background]
    with jax.enable_x64(True):
        inputs = {**SCENE, "intrinsics": np.broadcast_to(lens, (VIEWS, 3, 3))}
        inputs = {name: jnp.asarray(x, of.get(name, kinds[0])) for name, x in inputs.items()}

        def ours(inputs):
            camera = Camera(inputs["camera_from_world"], inputs["intrinsics"], *SIZE)
            scene = Gaussians(*(inputs[name] for name in list(SCENE)[:4]))
            paper = None if behind is None else np.asarray(behind, np.float32).tolist()
            render = rasterize(
                scene, inputs["features"], camera, background=paper, shape_channels=shaping, capacity=200
            )
            shown = jnp.concatenate([render.channels, render.alpha[..., None]], -1)
            return (shown * WEIGHTS.astype(shown.dtype)).sum(), shown

        def theirs(inputs):
            paper = None if behind is None else np.asarray(np.asarray(behind, np.float32), np.float64)
            shown = dense(inputs, paper, CHANNELS if shaping is None else shaping)
            return (shown * WEIGHTS).sum(), shown

        gradients, got = jax.jit(jax.grad(ours, has_aux=True))(inputs)
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), inputs)
        wanted, want = jax.jit(jax.grad(theirs, has_aux=True))(wide)
        assert got.dtype == (jnp.float64 if DOUBLE in kinds else jnp.float32)
        assert_close(got, want, rounding, f"computed in {got.dtype}")
        lenses = np.asarray([[1, 1, 1], [0, 1, 1], [0, 0, 0]])  # the other entries are no parameters
        wanted["intrinsics"] = wanted["intrinsics"] * lenses
        for name, gradient in gradients.items():
            assert gradient.dtype == inputs[name].dtype, name
            assert_close(gradient, wanted[name], handed, f"{name}: rounded to {gradient.dtype}", relative=True)


@pytest.fixture
def unchecked():
    """As people run it: shapes are checked by `rasterize` itself alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def view(**changes):
    """Arguments of `rasterize`, with changes by name."""
    rows = {"intrinsics": np.tile(np.array([[30.0, 0, 12], [0, 33, 8], [0, 0, 1]]), (VIEWS, 1, 1)), **SCENE}
    rows = {name: jnp.asarray(x, jnp.float32) for name, x in {**rows, **changes}.items()}
    camera = Camera(rows["camera_from_world"], rows["intrinsics"], *SIZE)
    return Gaussians(*(rows[name] for name in list(SCENE)[:4])), rows["features"], camera


WRONG = {
    "one channel without an axis": ({"features": np.ones(COUNT)}, {}, r"features: wanted 12 rows .*, got \(12,\)"),
    "too few features": ({"features": np.ones((3, 2))}, {}, r"features: wanted 12 rows .*, got \(3, 2\)"),
    "opacities in a column": (
        {"logit_opacities": np.ones((COUNT, 1))},
        {},
        r"gaussians.logit_opacities: wanted shape \(12,\), got \(12, 1\)",
    ),
    "one scale for all axes": (
        {"log_scales": np.ones(COUNT)},
        {},
        r"gaussians.log_scales: wanted shape \(12, 3\), got \(12,\)",
    ),
    "three by four": (
        {"camera_from_world": np.eye(4)[:3]},
        {},
        r"camera.camera_from_world: wanted \*b 4 4, got \(3, 4\)",
    ),
    "OpenGL's last row": (
        {"intrinsics": np.diag([30.0, 33, -1])},
        {},
        r"camera.intrinsics: wanted rows \(fx, skew, cx\), \(0, fy, cy\), \(0, 0, 1\), got",
    ),
    "other leading axes": (
        {"features": np.ones((3, COUNT, 2))},
        {},
        r"wanted leading axes that broadcast, got .*\(3,\)",
    ),
    "a colour too long": ({}, {"background": [1.0] * 3}, r"background: wanted a number, 2 channels or .*, got \(3,\)"),
    "a picture lying": ({}, {"background": np.ones((24, 16, 2))}, r"background: .*, got \(24, 16, 2\)"),
    "no capacity": ({}, {"capacity": 0}, "capacity: wanted 1 to 1073741823 tile hits .*, got 0"),
    "more than int32": ({}, {"capacity": 2**30}, "capacity: wanted 1 to 1073741823 tile hits .*, got 1073741824"),
    "too many that shape": ({}, {"shape_channels": 3}, "shape_channels: wanted 0 to 2, got 3"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_right_is_refused_by_name(name):
    changes, options, message = WRONG[name]
    with pytest.raises(InputError, match="rasterize:? ?" + message):
        rasterize(*view(**changes), **options)


def test_stricter_rules_of_promotion_around_are_not_ours():
    scene, painted, camera = view()

    def loss(scene, painted):
        return rasterize(scene, painted, camera, background=0.5, capacity=200).channels.sum()

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(jax.grad(loss, (0, 1)), scene, painted.astype(jnp.bfloat16))


@pytest.mark.parametrize("channels", [0, 1])
def test_a_silhouette_needs_no_channels(channels):
    scene, painted, camera = view()
    render = jax.eval_shape(lambda: rasterize(scene, painted[:, :channels], camera, background=1.0, capacity=200))
    assert render.channels.shape == (VIEWS, SIZE[1], SIZE[0], channels)
