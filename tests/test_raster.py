"""Projection, spherical harmonics and rendering, against formulas written another way in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, lpmv

from jsplat.errors import InputError
from jsplat.kernels.blend import IMPLEMENTATIONS
from jsplat.kernels.blend.cases import headlike
from jsplat.kernels.tiling import bin_tiles
from jsplat.raster.camera import Camera, orbit
from jsplat.raster.capacity import SharedCapacity, backend_tile, capacity_for, default_capacity, hits_of
from jsplat.raster.projection import LOW_PASS, NEAR, project, rotation_matrices
from jsplat.raster.rasterizer import rasterize, render_scene
from jsplat.raster.scene import Attributes, Gaussians, Render, Scene, rgb_to_sh
from jsplat.raster.spherical_harmonics import sh_colors
from tests import ball
from tests.close import IMAGE, IMAGE_WHY, assert_close, assert_finite_differences

SIZE = (40, 28)
INTRINSICS = np.array([[60.0, 0, 20], [0, 66, 14], [0, 0, 1]])
COUNT, CHANNELS = 60, 5
JACOBIAN = 1e-6
JACOBIAN_WHY = "central differences in float64 with a step of 1e-6: truncation 1e-12, rounding 1e-10"
REGROUPED = 1e-5
REGROUPED_WHY = "float32 sums in another order"
PLANE = 1e-5
PLANE_WHY = "float32: a weighted mean of equal numbers"


def cameras(*yaws: float) -> Camera:
    """Cameras at 1.2 units around the origin."""
    count = len(yaws)
    return orbit(np.array(yaws), np.full(count, 10.0), np.full(count, -20.0), np.full(count, 1.2), INTRINSICS, SIZE)


VIEWS = cameras(0.0, 40.0, 80.0)


def gaussians(count: int = COUNT, seed: int = 0) -> Gaussians:
    random = np.random.default_rng(seed)
    rows = (
        random.normal(size=(count, 3)) * 0.1,
        random.normal(size=(count, 4)),
        np.log(0.03) + 0.5 * random.normal(size=(count, 3)),
        random.normal(size=count),
    )
    return Gaussians(*(jnp.asarray(x, jnp.float32) for x in rows))


def features(seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(COUNT, CHANNELS)), jnp.float32)


def in_float64(tree):
    """The same numbers in float64; call where they are enabled."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), tree)


# Projection


def test_the_projection_is_the_linearised_camera():
    with jax.enable_x64(True):
        scene, camera = in_float64(gaussians()), in_float64(cameras(35.0)[0])
        view = project(scene, camera)
        matrix, k = np.asarray(camera.camera_from_world), np.asarray(camera.intrinsics)

        def pixel(points):
            local = (points @ matrix[:3, :3].T + matrix[:3, 3]) @ k.T
            return local[:, :2] / local[:, 2:]

        means = np.asarray(scene.means)
        step = 1e-6
        jacobian = np.stack([(pixel(means + step * e) - pixel(means - step * e)) / (2 * step) for e in np.eye(3)], -1)
        axes = np.asarray(rotation_matrices(scene.quats)) * np.exp(np.asarray(scene.log_scales))[:, None]
        covariances = jacobian @ axes @ axes.swapaxes(1, 2) @ jacobian.swapaxes(1, 2) + LOW_PASS * np.eye(2)
        inverse = np.linalg.inv(covariances)
        conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
        assert (np.abs(pixel(means) - [20, 14]).max(0) < [20, 14]).all()  # inside, where the Jacobian is not held fixed
        assert_close(view.means2d, pixel(means), 1e-10, "float64, the same formula")
        assert_close(view.conics, conics, JACOBIAN, JACOBIAN_WHY, relative=True)
        assert_close(view.depths, means @ matrix[2, :3] + matrix[2, 3], 1e-12, "float64, the same formula")
        assert_close(view.opacities, 1 / (1 + np.exp(-scene.logit_opacities)), 1e-12, "float64")


def test_rotations_are_rotations_and_follow_wxyz():
    quarter = np.array([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)])  # 90 degrees about z
    got = rotation_matrices(jnp.asarray(np.stack([quarter, 3 * quarter, -quarter]), jnp.float32))
    want = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert_close(got, np.stack([want] * 3), 1e-6, "float32 entries of at most 1, a dozen roundings")


def test_what_lies_behind_or_at_the_camera_is_hidden_without_nan():
    camera = VIEWS[0]
    center, forward = np.asarray(camera.centers), np.asarray(camera.camera_from_world)[2, :3]
    depths = np.array([-1.0, 0.0, 0.9 * NEAR, 1.1 * NEAR, 1.0])
    points = jnp.asarray(center + depths[:, None] * forward, jnp.float32)
    scene = gaussians()
    scene = Gaussians(scene.means.at[: len(depths)].set(points), *jax.tree.leaves(scene)[1:])
    assert np.isfinite(project(scene, camera).depths[: len(depths)]).tolist() == [False, False, False, True, True]
    gradient = jax.grad(lambda s: rasterize(s, features(), VIEWS).channels.sum())(scene)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert not gradient.means[:3].any()
    assert gradient.means[4].any()


def test_a_long_needle_keeps_a_right_conic_in_float32():
    scene = Gaussians(*(x[:1] for x in jax.tree.leaves(gaussians())))
    needle = Gaussians(scene.means * 0, scene.quats, jnp.log(jnp.asarray([[20.0, 1e-4, 1e-4]])), scene.logit_opacities)
    got = project(needle, cameras(35.0)[0])
    with jax.enable_x64(True):
        want = project(in_float64(needle), in_float64(cameras(35.0)[0]))
    determinant = got.conics[:, 0] * got.conics[:, 2] - got.conics[:, 1] ** 2
    assert np.isfinite(determinant).all()
    assert_close(got.conics, want.conics, 1e-4, "float32 with stretches of 1000 pixels beside 0.3", relative=True)


def test_antialiasing_takes_the_light_that_the_low_pass_adds():
    camera = cameras(0.0)[0]
    plain, fair = project(gaussians(), camera), project(gaussians(), camera, antialiased=True)
    inverse = np.asarray(plain.conics, np.float64)
    covariance = np.linalg.inv(inverse[:, [0, 1, 1, 2]].reshape(-1, 2, 2))
    bare = np.linalg.det(covariance - LOW_PASS * np.eye(2)) / np.linalg.det(covariance)
    ratio = np.asarray(fair.opacities / plain.opacities, np.float64)
    assert_close(ratio, np.sqrt(np.maximum(bare, 0)), 1e-3, "an inverse of float32 conics, then a difference")
    assert ratio.max() <= 1
    assert ratio.min() < 0.95
    np.testing.assert_array_equal(fair.conics, plain.conics)


# Spherical harmonics


def harmonics(degree: int, directions: np.ndarray) -> np.ndarray:
    """`n s`: real spherical harmonics from associated Legendre functions, with the Condon-Shortley phase kept."""
    x, y, z = directions.T
    phi, columns = np.arctan2(y, x), []
    for l in range(degree + 1):  # noqa: E741
        for m in range(-l, l + 1):
            k = abs(m)
            scale = np.sqrt((2 * l + 1) / (4 * np.pi) * np.exp(gammaln(l - k + 1) - gammaln(l + k + 1)))
            turn = np.sin(k * phi) if m < 0 else np.cos(k * phi)
            columns.append(scale * lpmv(k, l, z) * turn * (np.sqrt(2) if m else 1))
    return np.stack(columns, -1)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_are_spherical_harmonics(degree):
    random = np.random.default_rng(degree)
    directions = random.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    coefficients = random.normal(size=(50, (degree + 1) ** 2, 3)) * 0.1
    with jax.enable_x64(True):
        camera = in_float64(cameras(50.0)[0])
        means = np.asarray(camera.centers) + 2.5 * directions
        got = sh_colors(jnp.asarray(coefficients), jnp.asarray(means), camera)
    want = np.einsum("ns,nsc->nc", harmonics(degree, directions), coefficients) + 0.5
    assert_close(got, np.maximum(want, 0), 1e-12, "float64; the constants have 16 digits")


def test_the_basis_is_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact for the products of degree 6
    phi = np.arange(16) * np.pi / 8
    z, turn = np.repeat(nodes, 16), np.tile(phi, 8)
    directions = np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], -1)
    with jax.enable_x64(True):
        camera = in_float64(cameras(0.0)[0])
        rows = jnp.asarray(np.asarray(camera.centers) + directions)
        one_hot = jnp.broadcast_to(jnp.eye(16)[:, None, :, None] * 0.1, (16, 128, 16, 3))
        basis = np.stack([np.asarray(sh_colors(sh, rows, camera))[:, 0] - 0.5 for sh in one_hot]) / 0.1
    products = basis * np.repeat(weights, 16) * np.pi / 8 @ basis.T
    assert_close(products, np.eye(16), 1e-12, "float64, an exact quadrature")


def test_one_colour_from_everywhere_comes_back():
    rgb = jnp.asarray(np.random.default_rng(0).uniform(size=(7, 3)), jnp.float32)
    for degree in range(4):
        got = sh_colors(rgb_to_sh(rgb, degree), jnp.ones((7, 3)), cameras(0.0, 90.0))
        assert_close(got, np.stack([rgb, rgb]), 1e-6, "float32, one product and one sum")


def test_a_strange_number_of_coefficients_is_refused():
    with pytest.raises(InputError, match="sh_colors: sh: wanted 1, 4, 9 or 16 coefficients a channel, got 5"):
        sh_colors(jnp.zeros((2, 5, 3)), jnp.zeros((2, 3)), cameras(0.0)[0])


# Rendering


@functools.cache
def three_views() -> Render:
    return rasterize(gaussians(), features(), VIEWS)


def test_leading_axes_broadcast():
    both = jax.tree.map(lambda *x: jnp.stack(x)[:, None], gaussians(), gaussians(seed=5))
    got = rasterize(both, features(), VIEWS[None])
    assert got.channels.shape == (2, 3, SIZE[1], SIZE[0], CHANNELS)
    want = three_views()
    assert_close(jax.tree.map(lambda x: x[0], got), want, REGROUPED, REGROUPED_WHY)
    over = jax.vmap(lambda camera: rasterize(gaussians(), features(), camera))(VIEWS)
    jax.tree.map(np.testing.assert_array_equal, over, want)


def test_the_background_shows_where_alpha_leaves_room():
    plain, color = three_views(), np.linspace(0.1, 0.9, CHANNELS).astype(np.float32)
    got = rasterize(gaussians(), features(), VIEWS, background=jnp.asarray(color))
    want = plain.channels + (1 - plain.alpha)[..., None] * color
    assert_close(got.channels, want, IMAGE, IMAGE_WHY)
    np.testing.assert_array_equal(got.alpha, plain.alpha)
    shown = jax.grad(lambda c: rasterize(gaussians(), features(), VIEWS, background=c).channels.sum())
    uncovered = (1 - plain.alpha).sum()
    assert_close(shown(jnp.asarray(color)), np.full(CHANNELS, uncovered), REGROUPED, REGROUPED_WHY, relative=True)


def test_a_plane_of_gaussians_has_its_depth():
    camera = cameras(25.0)[0]
    matrix = np.asarray(camera.camera_from_world, np.float64)
    grid = np.stack(np.meshgrid(np.linspace(-0.3, 0.3, 10), np.linspace(-0.2, 0.2, 6), [1.2]), -1).reshape(-1, 3)
    world = (grid - matrix[:3, 3]) @ matrix[:3, :3]
    scene = Gaussians(jnp.asarray(world, jnp.float32), *jax.tree.leaves(gaussians())[1:])
    got = rasterize(scene, features(), camera[None][jnp.zeros(3, int)])
    assert (got.alpha > 0.5).any()
    assert_close(np.where(got.alpha > 0, got.depth, 1.2), np.full(got.depth.shape, 1.2), PLANE, PLANE_WHY)
    assert not got.depth[got.alpha == 0].any()


def test_gradients_of_everything_agree_with_finite_differences():
    """Few large, faint Gaussians, so that no step crosses a cutoff; the camera moves by its matrix and intrinsics."""
    few = Gaussians(*(x[:4] for x in jax.tree.leaves(gaussians())))
    few = Gaussians(few.means, few.quats, few.log_scales, few.logit_opacities - 1)
    weights = np.random.default_rng(3).normal(size=(SIZE[1], SIZE[0], 2))

    def loss(scene, paint, matrix, intrinsics, background):
        got = rasterize(scene, paint, Camera(matrix, intrinsics, *SIZE), background=background)
        return (got.channels * jnp.asarray(weights)).sum() + (got.depth * weights[..., 0]).sum()

    camera = cameras(35.0)[0]
    assert_finite_differences(
        loss,
        few,
        features()[:4, :2],
        camera.camera_from_world,
        camera.intrinsics,
        np.array([0.3, 0.8]),
        step=1e-7,  # the image is a staircase at the alpha floor: a short step, so that none is climbed
        tolerance=1e-4,  # rounding of 1e-16 in a sum of 1e2, over a step of 1e-7
    )


def test_shape_channels_say_who_moves_the_geometry():
    camera = VIEWS

    def loss(scene, paint, shaping, used):
        got = rasterize(scene, paint, camera, shape_channels=shaping)
        return (got.channels[..., used] ** 2).sum() + got.depth.sum()

    last = jax.grad(loss, (0, 1))(gaussians(), features(), 3, slice(3, None))
    none = jax.grad(loss, (0, 1))(gaussians(), features(), 3, slice(0, 0))
    jax.tree.map(np.testing.assert_array_equal, last[0], none[0])  # only the depth shaped
    assert last[1][:, 3:].any()
    assert none[0].means.any()


def test_too_little_capacity_is_an_error_outside_of_transformations_and_nan_inside():
    camera = VIEWS
    most = int(three_views().needed.max())
    with pytest.raises(InputError, match=f"rasterize: capacity: wanted at least {most} tile hits a view, got 100"):
        rasterize(gaussians(), features(), camera, capacity=100)
    got = jax.vmap(lambda camera: rasterize(gaussians(), features(), camera, capacity=100))(camera)
    assert np.isnan(got.channels).all()
    np.testing.assert_array_equal(got.needed, three_views().needed)


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match=r"rasterize: features: wanted 60 rows of channels .*, got \(3, 5\)"):
        rasterize(gaussians(), features()[:3], cameras(0.0)[0])
    with pytest.raises(
        InputError,
        match=r"rasterize: backend: wanted one of \('mosaic_gpu', 'triton', 'cpu', 'xla'\) or None, got 'fast'",
    ):
        rasterize(gaussians(), features(), cameras(0.0)[0], backend="fast")


def test_a_scene_gives_colours_and_probabilities():
    random = np.random.default_rng(0)
    paint = Attributes(
        jnp.asarray(random.normal(size=(COUNT, 4, 3)) * 0.3, jnp.float32),
        jnp.asarray(random.normal(size=(COUNT, 2)), jnp.float32),
    )
    scene, camera = Scene(gaussians(), paint), VIEWS
    _, image, classes = render_scene(scene, camera)
    rgb = sh_colors(paint.sh, scene.gaussians.means, camera)
    mixed = jnp.broadcast_to(jax.nn.softmax(paint.label_logits), (3, COUNT, 2))
    want = rasterize(gaussians(), jnp.concatenate([rgb, mixed], -1), camera)
    assert_close(image, want.channels[..., :3], REGROUPED, REGROUPED_WHY)
    assert_close(classes[..., 1], want.channels[..., 4], REGROUPED, REGROUPED_WHY)
    assert_close(classes.sum(-1), np.ones(classes.shape[:-1]), 1e-5, "float32: a sum of weights and what they leave")

    def bent(shaping):
        gradient = jax.grad(lambda s: (render_scene(s, camera, labels_move_geometry=shaping)[2] ** 2).sum())(scene)
        return gradient.gaussians.means, gradient.attributes.label_logits

    assert bent(True)[0].any()
    assert not bent(False)[0].any()
    assert bent(False)[1].any()


def outdoors(count: int = 6000) -> tuple[Gaussians, jax.Array]:
    """As a fit of a place outdoors leaves them: many small ones on a table, few large ones all around and far away."""
    random = np.random.default_rng(0)
    toward = random.normal(size=(count, 3))
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
    near = np.arange(count) < count // 2
    distance = np.where(
        near, 0.3 * random.uniform(size=count) ** 0.5, np.exp(random.uniform(np.log(0.5), np.log(100), count))
    )
    means = toward * distance[:, None] * np.where(near[:, None], [1, 0.2, 1], 1)
    sizes = np.exp(random.normal(np.log(0.015 * np.maximum(distance, 0.3)), 1.2, (3, count))).T
    rows = (means, random.normal(size=(count, 4)), np.log(sizes), random.normal(1, 2, count))
    colors = np.where(near[:, None], 0.5 + 0.4 * toward, 0.2 + 0.1 * toward)
    return Gaussians(*(jnp.asarray(x, jnp.float32) for x in rows)), jnp.asarray(colors, jnp.float32)


def test_an_uneven_scene_around_the_cameras_renders():
    scene, colors = outdoors()
    sizes = np.exp(np.asarray(scene.log_scales))
    away = np.linalg.norm(np.asarray(scene.means) - np.asarray(VIEWS.centers)[:, None], axis=-1)
    assert sizes.max() > 1e4 * sizes.min()
    assert away.max() > 300 * away.min()
    hidden = [~np.isfinite(project(scene, VIEWS[i]).depths) for i in range(3)]
    assert all(0.1 < h.mean() < 0.4 for h in hidden)  # behind the camera
    got = rasterize(scene, colors, VIEWS, capacity=20 * len(away[0]))
    assert all(np.isfinite(x).all() for x in (got.channels, got.alpha, got.depth))
    assert float((got.alpha > 0.5).mean()) > 0.3
    assert float(got.channels.std()) > 0.05  # a picture, not a grey field


def test_one_room_serves_heads_that_need_less_and_grows_for_more():
    few, many = ball.gaussians(100), ball.gaussians(3000)
    cameras = ball.cameras([0.0, 90.0], size=256)
    needed = [capacity_for(head, cameras) for head in (few, many)]
    assert needed[0] < needed[1]
    shared = SharedCapacity()
    first = shared.for_views(few, cameras)
    second = shared.for_views(many, cameras)
    assert first >= needed[0]
    assert second >= needed[1]
    assert shared.for_views(few, cameras) == second, "another capacity is another program"


@pytest.mark.parametrize(("count", "size"), [(10, 0.3), (100, 0.2), (1000, 0.05)])
def test_few_large_gaussians_need_no_capacity(count, size):
    """Without `capacity`, at 512 pixels: as they are, in a gradient, and within the bound of compiled programs."""
    random = np.random.default_rng(count)
    rows = (
        random.normal(0, 0.2, (count, 3)),
        random.normal(size=(count, 4)),
        np.full((count, 3), np.log(size)),
        np.zeros(count),
    )
    scene = Gaussians(*(jnp.asarray(x, jnp.float32) for x in rows))
    lens = np.array([[512.0, 0, 256], [0, 512, 256], [0, 0, 1]])
    camera = orbit(*(np.array([x]) for x in (0.0, 0.0, 0.0, 2.0)), lens, (512, 512))[0]
    most = jax.jit(lambda: rasterize(scene, jnp.ones((count, 1)), camera, capacity=1).needed)()
    assert 8 * count < most <= default_capacity(count, (512, 512), backend_tile(1)) <= 2**18


def test_a_default_that_is_too_small_grows_where_numbers_are_at_hand(monkeypatch):
    monkeypatch.setattr("jsplat.raster.rasterizer.default_capacity", lambda *_: 100)
    jax.tree.map(np.testing.assert_array_equal, rasterize(gaussians(), features(), VIEWS), three_views())
    gradient = jax.grad(lambda x: (rasterize(gaussians(), x, VIEWS).channels ** 2).sum())(features())
    assert gradient.any()
    assert np.isfinite(gradient).all()


def test_too_little_capacity_is_an_error_in_a_gradient_that_is_not_compiled():
    most = int(three_views().needed.max())
    for at in range(2):
        with pytest.raises(InputError, match=f"rasterize: capacity: wanted at least {most} tile hits a view, got 100"):
            jax.grad(lambda *x: rasterize(*x, VIEWS, capacity=100).alpha.sum(), at)(gaussians(), features())


def test_the_default_capacity_is_bounded_by_what_can_be_needed_and_by_memory():
    assert default_capacity(10, (512, 512), (8, 8)) == 10 * 64 * 64
    assert default_capacity(1000, (512, 512), (8, 8)) == 64 * 64 * 64
    assert default_capacity(100_000, (128, 128), (8, 8)) == 800_000
    assert default_capacity(1000, (512, 512), (8, 8), views=64) == 2**16
    assert default_capacity(0, (8, 8), (8, 8)) == 1


def test_capacities_are_counted_in_the_tiles_of_the_backend_that_runs(monkeypatch):
    for name, tile in {"mosaic_gpu": (16, 8), "triton": (8, 8), "cpu": (8, 8), "xla": (8, 8)}.items():
        found = IMPLEMENTATIONS[name]._replace(declines=lambda facts: None)
        with monkeypatch.context() as patch:
            patch.setitem(IMPLEMENTATIONS, name, found)
            assert backend_tile(22, backend=name) == tile
    assert default_capacity(100_000, (128, 128), (16, 8)) == 600_000
    assert default_capacity(1000, (512, 512), (16, 8)) == 64 * 32 * 64
    splats = headlike(1, 4000, 128, 3).arrays()[:4]
    needed = [int(bin_tiles(*splats, size=(128, 128), tile=t, capacity=1).needed[0]) for t in ((8, 8), (16, 8))]
    assert abs(hits_of(needed[0], (16, 8)) / needed[1] - 1) < 0.05
