"""People made from people: shapes move covariances, labels stay, colours go together, and nothing depends on order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.raster.projection import rotation_matrices
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import SH_C0, Attributes, Gaussians, Scene, rgb_to_sh
from jsplat.variants import ColorConfig, Person, ShapeConfig, Variants, VariantsConfig
from jsplat.variants.colors import groups_of, lit, recolored
from jsplat.variants.shape import Warp, moved, quats_of, random_warp, warped
from jsplat.views import ViewsConfig
from tests import ball
from tests.close import assert_close

STILL = VariantsConfig(
    views=2,
    pool=4,
    carry=0.0,
    shape=ShapeConfig(stretch=0.0, shear=0.0, bump_height=0.0),
    color=ColorConfig(recolor=0.0, light=0.0),
)
VIEWS = ViewsConfig(yaw=(-60.0, 60.0), pitch=(-10.0, 10.0), roll=(0.0, 0.0), distance=(1.0, 1.0))
moved_by = jax.jit(lambda gaussians, warp: moved(gaussians, *warped(warp, gaussians.means)))


def covariances(gaussians: Gaussians) -> np.ndarray:
    axes = np.asarray(rotation_matrices(gaussians.quats), np.float64)
    axes = axes * np.exp(np.asarray(gaussians.log_scales, np.float64))[:, None]
    return axes @ np.swapaxes(axes, -1, -2)


def some(count: int = 40, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    shapes = (0.1, (count, 3)), (1.0, (count, 4)), (0.7, (count, 3))
    means, quats, scales = (jnp.asarray(rng.normal(0, s, shape), jnp.float32) for s, shape in shapes)
    return Gaussians(means, quats, scales - 5, jnp.zeros(count))


def warp_of(gaussians: Gaussians, seed: int = 0) -> Warp:
    count = len(gaussians.means)
    return random_warp(
        jax.random.key(seed), gaussians.means, jnp.ones(count), jnp.zeros(3), jnp.float32(0.15), ShapeConfig()
    )


def person(identity: str = "ball", shift: float = 0.0, size: int = 32) -> Person:
    """The ball, its left half red and its right half blue."""
    capture, gaussians = ball.capture(identity, size=size), ball.gaussians()
    left = np.asarray(gaussians.means[:, 0]) > 0
    colors = jnp.asarray(np.where(left[:, None], [0.8, 0.2, 0.2], [0.2, 0.2, 0.8]), jnp.float32)
    rows = np.stack([np.zeros(len(left)), left, ~left], -1).astype(np.float32)
    gaussians = dataclasses.replace(gaussians, means=gaussians.means + shift)
    scene = Scene(gaussians, Attributes(rgb_to_sh(colors), jnp.zeros((len(left), 3))))
    return Person.of(capture, scene, rows, np.full(len(left), 10.0))


# Shapes


def test_the_jacobian_is_the_maps_derivative():
    gaussians = some()
    warp = warp_of(gaussians)
    wanted = jax.vmap(jax.jacfwd(lambda x: warped(warp, x[None])[0][0]))(gaussians.means)
    assert_close(warped(warp, gaussians.means)[1], wanted, 1e-5, "float32 sums of a dozen terms of about 1")
    assert np.abs(np.asarray(wanted) - np.eye(3)).max() > 0.1, "a map that moves nothing tests nothing"


def test_maps_keep_neighbours_neighbours():
    gaussians = some(200)
    least = [float(jnp.linalg.det(warped(warp_of(gaussians, seed), gaussians.means)[1]).min()) for seed in range(20)]
    assert min(least) > 0.1, "a map folds space"


def test_covariances_follow_the_jacobian():
    gaussians = some()
    warp = warp_of(gaussians)
    jacobians = np.asarray(warped(warp, gaussians.means)[1], np.float64)
    wanted = jacobians @ covariances(gaussians) @ np.swapaxes(jacobians, -1, -2)
    got = covariances(moved_by(gaussians, warp))
    sizes = np.abs(wanted).max((1, 2), keepdims=True)
    assert_close(got / sizes, wanted / sizes, 1e-4, "float32 eigenvectors; each covariance over its largest entry")


def test_a_deformed_scene_renders_as_the_deformed_points_say():
    """Points drawn from a Gaussian go where the map takes them; the render has their mean and their spread."""
    rng = np.random.default_rng(3)
    one = Gaussians(
        jnp.asarray([[0.09, 0.05, 0.02]]), jnp.asarray([[0.9, 0.2, -0.3, 0.4]]),
        jnp.log(jnp.asarray([[0.006, 0.012, 0.003]])), jnp.full(1, 2.2),
    )  # fmt: skip
    warp = warp_of(some(), 5)
    points = rng.multivariate_normal(np.asarray(one.means[0]), covariances(one)[0], 20000)
    there = np.asarray(warped(warp, jnp.asarray(points, jnp.float32))[0], np.float64)
    (camera,) = (ball.cameras([20.0], size=96)[i] for i in [0])
    local = there @ np.asarray(camera.camera_from_world[:3, :3]).T + np.asarray(camera.camera_from_world[:3, 3])
    image = local @ np.asarray(camera.intrinsics).T
    pixels = image[:, :2] / image[:, 2:]
    alpha = np.asarray(rasterize(moved_by(one, warp), jnp.ones((1, 1)), camera).alpha, np.float64)
    y, x = np.mgrid[:96, :96] + 0.5
    seen = np.stack([x.ravel(), y.ravel()], -1)
    weights = alpha.ravel() / alpha.sum()
    mean = weights @ seen
    spread = (weights[:, None] * (seen - mean)).T @ (seen - mean) - 0.3 * np.eye(2)  # the low-pass of a splat
    assert_close(mean, pixels.mean(0), 0.1, "pixels; the map bends a little within the Gaussian")
    assert_close(spread, np.cov(pixels.T), 0.06 * np.trace(spread), "20,000 points, and splats end at 1/255")
    assert np.linalg.norm(pixels.mean(0) - 48) > 5, "the Gaussian was moved off the middle"


def test_quaternions_of_matrices_are_theirs():
    quats = jnp.asarray(np.concatenate([np.eye(4), np.random.default_rng(0).normal(size=(50, 4))]), jnp.float32)
    matrices = rotation_matrices(quats)
    assert_close(rotation_matrices(quats_of(matrices)), matrices, 1e-5, "float32 products of unit quaternions")


# Colours


def test_parts_of_one_group_change_together_and_eyes_keep_their_colour():
    groups = groups_of(CELEBAMASK_HQ)
    of = dict(zip(CELEBAMASK_HQ.names, groups.tolist()))
    assert of["skin"] == of["nose"] == of["u_lip"] == of["l_ear"] == of["r_ear"]
    assert of["hair"] == of["l_brow"] == of["r_brow"] != of["skin"]
    assert len({of["skin"], of["hair"], of["l_eye"], of["cloth"], of["hat"], of["ear_r"], of["neck_l"]}) == 7
    rows = jnp.asarray(np.eye(19), jnp.float32)
    before = rgb_to_sh(jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (19, 3)), jnp.float32))
    config = ColorConfig(recolor=1.0, contrast=(1.0, 1.0))
    after = recolored(jax.random.key(0), before, rows, jnp.ones(19), groups, config)
    change = np.abs(np.asarray(after - before)).max((1, 2)) * SH_C0
    kept = [CELEBAMASK_HQ.id(name) for name in ("background", "l_eye", "r_eye")]
    assert change[kept].max() < 1e-6
    assert change[np.setdiff1d(np.arange(19), kept)].max() > 0.1


def test_sides_of_an_unknown_set_change_together():
    pair = LabelSet(("background", "left", "right"), ((0, 0, 0),) * 3, ("background", "right", "left"))
    assert groups_of(pair).tolist() == [2, 3, 3]


def test_a_groups_mean_goes_to_its_tone_and_light_falls_on_one_side():
    rng = np.random.default_rng(1)
    rows = np.zeros((400, 19), np.float32)
    rows[:, CELEBAMASK_HQ.id("skin")] = 1
    colors = jnp.asarray(rng.uniform(0.4, 0.7, (400, 3)), jnp.float32)
    config = ColorConfig(recolor=1.0, contrast=(1.0, 1.0), light=0.5)
    groups = groups_of(CELEBAMASK_HQ)
    after = recolored(jax.random.key(4), rgb_to_sh(colors), jnp.asarray(rows), jnp.ones(400), groups, config)
    shown = np.asarray(after[:, 0]) * SH_C0 + 0.5
    assert np.ptp(shown.mean(0) - np.asarray(colors.mean(0))) > 0.01
    assert (np.sign(shown - shown.mean(0)) == np.sign(np.asarray(colors - colors.mean(0)))).mean() > 0.99
    ways = jnp.asarray(np.concatenate([np.eye(3), -np.eye(3)]), jnp.float32)
    grey = rgb_to_sh(jnp.full((6, 3), 0.4))
    bright = np.stack([lit(jax.random.key(i), grey, ways, config)[:, 0, 0] * SH_C0 + 0.5 for i in range(5)])
    assert_close(bright[:, :3] + bright[:, 3:], np.full((5, 3), 0.8), 1e-6, "what one side gains the other loses")
    assert np.abs(bright - 0.4).max() > 0.05


# Pictures


def test_without_changes_a_variant_is_the_person():
    variants = Variants([person()], ball.SIDES, STILL, VIEWS, 0.5, seed=1)
    piece = variants.piece(0)
    assert piece.images.shape == (2, 32, 32, 3)
    assert set(np.unique(piece.labels)) == {0, 1, 2}
    red = piece.images[..., 0].astype(int) - piece.images[..., 2]
    inside = piece.labels > 0
    assert inside.mean() > 0.1
    # The person's left is at +x, which a camera in front shows on its right.
    assert (piece.labels[inside] == np.where(red[inside] > 0, 1, 2)).mean() > 0.97


def test_pieces_are_their_numbers_and_people_their_seeds():
    config = dataclasses.replace(STILL, shape=ShapeConfig(), color=ColorConfig())
    people = [person("a"), person("b")]
    first, again = (Variants(people, ball.SIDES, config, VIEWS, 0.5, seed=1) for _ in range(2))
    early = first.piece(3)
    again.piece(0)
    late = again.piece(3)
    assert np.array_equal(early.images, late.images)
    assert np.array_equal(early.labels, late.labels)
    other = Variants(people, ball.SIDES, config, VIEWS, 0.5, seed=2).piece(3)
    assert not np.array_equal(early.images, other.images)
    assert not np.array_equal(early.images, first.piece(4).images)


def test_what_nobody_saw_teaches_nothing():
    seen = np.asarray(ball.gaussians().means[:, 0]) > 0
    known = person()
    half = dataclasses.replace(known, seen=np.where(seen, 10.0, 0.0).astype(np.float32))
    labels = Variants([half], ball.SIDES, STILL, VIEWS, 0.5, seed=1).piece(0).labels
    assert (labels == IGNORE).any()
    assert not (labels == 2).any()


@pytest.mark.parametrize("wears", [True, False])
def test_what_another_wears_is_carried_over_in_place(wears):
    """The donor's hat, on the right half of its ball, comes to lie on the other's ball though theirs stand apart."""
    hat = LabelSet(("background", "skin", "hat"), ((0, 0, 0), (9, 9, 9), (99, 9, 9)), ("background", "skin", "hat"))
    bare, other = person("bare"), person("other")
    bare = dataclasses.replace(bare, probabilities=np.tile([0, 1, 0], (200, 1)).astype(np.float32))
    wide = np.exp(np.asarray(other.scene.gaussians.log_scales)) * 1.3
    grown = dataclasses.replace(
        other.scene.gaussians, means=other.scene.gaussians.means * 1.2 + 0.5, log_scales=jnp.log(wide)
    )
    other = dataclasses.replace(other, scene=dataclasses.replace(other.scene, gaussians=grown))
    config = dataclasses.replace(STILL, carry=1.0 if wears else 0.0)
    variants = Variants([bare, other], hat, config, VIEWS, 0.5, seed=0)
    numbers = [n for n in range(12) if "bare" in variants.piece(n).identity[0]][:2]
    shown = np.concatenate([variants.piece(n).labels for n in numbers])
    assert (shown == 2).any() == wears
    assert ((shown > 0).mean((1, 2)) < 0.6).all(), "the hat lies far beside the head"
