"""The fit: its losses, what MCMC may change, where it starts, and what a result may depend on."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jsplat.errors import InputError, Stopped
from jsplat.fitting import fit, held_out, loop, photos, starting_scene
from jsplat.fitting import step as stepping
from jsplat.fitting import train as training
from jsplat.fitting.adam import adam, factors_of, first_moments
from jsplat.fitting.loss import label_loss
from jsplat.fitting.mcmc import MOST_COPIES, relocate, split_opacity
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.pytree import replace
from jsplat.raster.rasterizer import render_scene
from jsplat.raster.scene import Attributes, Scene, rgb_to_sh
from jsplat.raster.similarity import photo_loss
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.stop import STOP
from tests import ball
from tests.close import assert_close

SHORT = ball.FIT
cross_entropy = jax.jit(label_loss)
relocated = jax.jit(relocate, static_argnames="dead_opacity")


# Losses


def test_label_loss_by_hand():
    shares = jnp.asarray([[[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], [[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]]]])
    labels = jnp.asarray([[[0, 2], [0, IGNORE]]])
    want = -(np.log(0.5) + np.log(0.7) + np.log(1e-4)) / 3  # the floor of a share, and 3 pixels that count
    assert_close(cross_entropy(shares, labels), np.array([want]), 1e-6, "three logarithms in float32")
    assert float(cross_entropy(shares, jnp.full((1, 2, 2), IGNORE))[0]) == 0
    slope = jax.jit(jax.grad(lambda s: label_loss(s, labels).sum()))(shares)
    assert not np.asarray(slope[0, 1, 1]).any(), "an ignored pixel pulls"
    assert_close(slope[0, 0, 0], np.array([-1 / 0.5 / 3, 0, 0]), 1e-6, "one division in float32")


# MCMC


def test_copies_blend_to_the_opacity_they_came_from():
    opacity = jnp.repeat(jnp.asarray([0.05, 0.4, 0.9, 0.99]), 4)
    copies = jnp.tile(jnp.asarray([1, 2, 5, MOST_COPIES]), 4)
    each, factor = split_opacity(opacity, copies)
    each, factor = np.asarray(each, np.float64), np.asarray(factor, np.float64)
    assert_close(1 - (1 - each) ** copies, opacity, 1e-6, "float32: a root taken back by a power")
    assert np.array_equal(factor[copies == 1], np.ones(4))
    # The factor on the scale keeps what a line through the centre gathers, the paper's condition for it.
    x = np.linspace(-12, 12, 20001)
    for o, n, e, f in zip(np.asarray(opacity, np.float64), copies, each, factor):
        line = 1 - (1 - e * np.exp(-0.5 * (x / f) ** 2)) ** int(n)
        # float32 sums of binomials up to 6435 with alternating signs.
        assert line.sum() == pytest.approx((o * np.exp(-0.5 * x**2)).sum(), rel=2e-3 if n == MOST_COPIES else 1e-4)


@functools.cache
def half_dead() -> Scene:
    """A ball of which every tenth Gaussian is as good as gone."""
    gaussians = ball.gaussians(200, opacity=0.6)
    logits = gaussians.logit_opacities.at[::10].set(-6.0)
    colors = jnp.asarray(np.random.default_rng(0).uniform(size=(200, 3)).astype(np.float32))
    return Scene(replace(gaussians, logit_opacities=logits), Attributes(rgb_to_sh(colors), jnp.zeros((200, 3))))


def test_relocation_moves_the_dead_and_says_who_changed():
    before = half_dead()
    after, changed = relocated(before, jax.random.key(0), dead_opacity=0.02)
    dead = np.arange(200) % 10 == 0
    changed, old, new = np.asarray(changed), np.asarray(before.gaussians.means), np.asarray(after.gaussians.means)
    home = np.array([np.flatnonzero((old == row).all(1))[0] for row in new])
    assert np.array_equal(home[~dead], np.flatnonzero(~dead)), "a living Gaussian moved"
    assert not dead[home[dead]].any(), "a dead Gaussian moved onto a dead one"
    assert np.array_equal(changed, dead | np.isin(np.arange(200), home[dead]))
    assert np.array_equal(after.attributes.sh, np.asarray(before.attributes.sh)[home])
    for name in ("logit_opacities", "log_scales"):
        a, b = (np.asarray(getattr(s.gaussians, name)) for s in (before, after))
        assert np.array_equal(a[~changed], b[~changed])
        assert (b[changed & ~dead] < a[changed & ~dead]).all(), f"{name}: a split Gaussian kept its own"
    # What the dead ones weighed is bounded by their opacity of 0.0025; the rest is that copies keep the opacity at
    # their centre and along lines through it, but not everywhere.
    render = jax.jit(lambda s: render_scene(s, ball.cameras([0.0])[0], capacity=4096)[1])
    off = np.abs(np.asarray(render(after)) - np.asarray(render(before)))
    assert 0 < off.mean() < 0.005, off.mean()
    assert off.max() < 0.1, off.max()


def test_nothing_moves_where_all_are_dead():
    before = half_dead()
    after, _ = relocated(before, jax.random.key(0), dead_opacity=0.9)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before)):
        assert np.array_equal(a, b)


# Starting points


def test_the_start_lies_in_the_hull_of_the_ball():
    capture = ball.capture()
    scene = starting_scene(capture, dataclasses.replace(SHORT, quorum=1.0), jax.random.key(0), 3)
    means = np.asarray(scene.gaussians.means, np.float64)
    voxel, pixel = 2 * 1.1 * ball.ACROSS / 2 / SHORT.voxels, ball.ACROSS / 32
    # A point is drawn within half a voxel of a centre that every view shows inside the outline, to a pixel.
    allowed = ball.RADIUS + voxel * 3**0.5 / 2 + pixel * 2**0.5 / 2
    for center in np.asarray(capture.cameras.centers, np.float64):
        ray = (means - center) / np.linalg.norm(means - center, axis=-1, keepdims=True)
        assert np.linalg.norm(np.cross(ray, center), axis=-1).max() < allowed
    assert np.median(np.linalg.norm(means, axis=-1)) > 0.8 * ball.RADIUS, "the points do not lie on the surface"
    colors = np.asarray(sh_colors(scene.attributes.sh, scene.gaussians.means, capture.cameras[0]))
    want = (128 + 100 * means / np.linalg.norm(means, axis=-1, keepdims=True)) / 255
    # A view shows a point where its own outline and voxel put it, up to a fifth of the radius away.
    assert np.abs(colors - want).mean() < 0.1


def blank(capture):
    return dataclasses.replace(capture, images=np.full_like(capture.images, ball.BEHIND[0]))


def looking_away(capture):
    matrices = capture.cameras.camera_from_world.at[3, 2].multiply(-1.0).at[3, 0].multiply(-1.0)
    return dataclasses.replace(capture, cameras=replace(capture.cameras, camera_from_world=matrices))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (blank, "capture ada: silhouettes: wanted a hull: points that 90% of the views see as the head, got none"),
        (looking_away, "cameras: wanted all looking towards one head, got view 3 looks away"),
        (
            lambda c: dataclasses.replace(c, labels=None, background=None),
            "capture ada: wanted labels or a known background, got neither",
        ),
        (
            lambda c: dataclasses.replace(c, labels=np.ones_like(c.labels), background=None),
            "capture ada: labels: wanted some background, got none in any view",
        ),
    ],
    ids=["no-hull", "looking-away", "no-outline", "no-background"],
)
def test_a_capture_that_cannot_start_is_named(change, message):
    with pytest.raises(InputError) as error:
        fit([change(ball.capture("ada"))], SHORT)
    assert str(error.value) == f"{message}; {error.value.hint}"


def test_captures_that_do_not_fit_together_are_refused():
    ada = ball.capture("ada")
    with pytest.raises(InputError, match=r"fit: captures: wanted captures of different identities, got .'ada', 'ada'"):
        fit([ada, ada], SHORT)
    with pytest.raises(InputError, match="fit: captures: wanted one label set, got"):
        fit([ada, ball.capture("bob").with_labels(ada.labels, CELEBAMASK_HQ)], SHORT)
    with pytest.raises(InputError, match="fit: captures: wanted at least one, got 0"):
        fit([], SHORT)


def test_the_optimizer_is_adam_with_a_decaying_rate_for_each_attribute():
    config = dataclasses.replace(SHORT, lr_means=3e-3, lr_sh=0.2)
    scene = jax.tree.map(lambda x: x[None], half_dead())
    updates, state = [], first_moments(scene)
    for step in range(3):
        gradient = jax.tree.map(lambda x, step=step: jnp.cos(3 * x + step), scene)
        update, state = adam(gradient, state, factors_of(jnp.asarray([step]), config), config)
        updates.append(update)
    for rate, pick in ((3e-3, lambda s: s.gaussians.means), (0.2, lambda s: s.attributes.sh)):
        alone = optax.adam(optax.exponential_decay(rate, config.steps, config.lr_final), eps=1e-15)
        state = alone.init(pick(scene))
        for step in range(3):
            want, state = alone.update(jnp.cos(3 * pick(scene) + step), state)
            assert_close(pick(updates[step]), want, 1e-6, "float32, factors in another order", relative=True)


# The whole fit


@functools.cache
def ada():
    return ball.capture("ada")


@functools.cache
def fitted():
    return fit([ada()], SHORT, seed=1)


def leaves(scene: Scene) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(scene)]


def assert_same(got: Scene, want: Scene):
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(want)]
    for name, a, b in zip(names, leaves(got), leaves(want)):
        assert np.array_equal(a, b), f"{name}: off by {np.abs(a - b).max()}"


def start():
    """The scene that `fit` itself starts from."""
    seed = photos.number_of("ada") ^ 1
    shown = np.setdiff1d(np.arange(8), photos.held_out(8, SHORT.hold_out))
    return starting_scene(ada().only(shown), SHORT, jax.random.fold_in(jax.random.key(1), int(seed)), 3)


@jax.jit
def mean_loss(scene: Scene) -> jax.Array:
    """Over all views."""
    capture = ada()

    def one(item):
        camera, image, labels = item
        _, rgb, classes = render_scene(scene, camera, background=jnp.full(3, ball.BEHIND[0] / 255), capacity=4096)
        return photo_loss(rgb, image, SHORT.ssim_weight) + SHORT.label_weight * label_loss(classes, labels)

    images = jnp.asarray(capture.images, jnp.float32) / 255
    return jax.lax.map(one, (capture.cameras, images, jnp.asarray(capture.labels))).mean()


def test_a_fit_lowers_the_loss_and_raises_psnr():
    result = fitted()
    assert [step for step, _ in result.losses] == [8, 16, 24]
    assert result.scene.gaussians.means.shape == (1, 300, 3)
    after = mean_loss(jax.tree.map(lambda x: x[0], result.scene))
    assert float(after) < 0.7 * float(mean_loss(start()))
    batch = jax.tree.map(lambda x: np.asarray(x)[None], (start(), photos.photos_of(ada(), SHORT, 1)))
    before, _ = held_out.score(*batch, [ada()], SHORT, SharedCapacity())
    assert result.psnr[0] > before[0] + 2, (result.psnr, before)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    assert_same(fit([ada()], SHORT, seed=1).scene, fitted().scene)
    other = fit([ada()], SHORT, seed=2).scene
    assert not any(np.array_equal(a, b) for a, b in zip(leaves(other), leaves(fitted().scene)) if a.any())


def test_a_result_does_not_depend_on_its_neighbours():
    bob, eve = (fit([ada(), ball.capture(n, turn=t)], SHORT, seed=1) for n, t in (("bob", 1.0), ("eve", 2.0)))
    with_bob, with_eve = (jax.tree.map(lambda x: x[:1], r.scene) for r in (bob, eve))
    assert_same(with_bob, with_eve)
    assert not np.array_equal(bob.scene.gaussians.means[1], eve.scene.gaussians.means[1])
    assert_same(with_bob, fitted().scene)
    assert bob.psnr[0] == fitted().psnr[0]


def test_a_capacity_too_small_is_replayed_to_the_same_bits(capfd):
    programs = stepping.steps._cache_size()
    cramped = fit([ada()], dataclasses.replace(SHORT, hits_per_gaussian=0.1), seed=1)
    assert stepping.steps._cache_size() == programs + 2, "one for each capacity"
    assert "tile hits; going on with capacity" in capfd.readouterr().out
    assert 30 < cramped.capacity != fitted().capacity
    roomy = dataclasses.replace(SHORT, hits_per_gaussian=(cramped.capacity + 0.5) / SHORT.gaussians)
    at_once = fit([ada()], roomy, seed=1)
    assert at_once.capacity == cramped.capacity
    assert_same(cramped.scene, at_once.scene)


def test_held_out_views_are_not_trained_on():
    hidden = photos.held_out(8, SHORT.hold_out)
    assert hidden.tolist() == [2, 6]
    images, labels = ada().images.copy(), ada().labels.copy()
    images[hidden], labels[hidden] = 255 - images[hidden], 1
    spoiled = dataclasses.replace(ada(), images=images, labels=labels)
    got = fit([spoiled], SHORT, seed=1)
    assert_same(got.scene, fitted().scene)
    assert got.psnr[0] < fitted().psnr[0] - 3, "the held-out views are not what is scored"


def test_invalid_pixels_teach_nothing():
    def painted(value: int, marked: bool) -> np.ndarray:
        """Scores of the ball with a block of this value in the middle of some views, held-out ones among them."""
        images, valid = ada().images.copy(), np.ones(ada().images.shape[:3], bool)
        images[::2, 12:20, 12:20], valid[::2, 12:20, 12:20] = value, False
        return fit([dataclasses.replace(ada(), images=images, valid=valid if marked else None)], SHORT).psnr

    black, white = painted(0, True), painted(255, True)
    assert black == white
    assert painted(0, False)[0] < black[0] - 1


def test_a_given_start_is_used_and_stays_the_callers():
    first = jax.tree.map(lambda x: x[None], start())
    assert_same(fit([ada()], SHORT, seed=1, start=first).scene, fitted().scene)
    assert not first.gaussians.means.is_deleted(), "the caller's start was given away"


def test_a_killed_fit_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, capfd):
    config, advance, calls = dataclasses.replace(SHORT, save_every=0.0), loop.advance, []
    fitted()  # before calls are counted

    def killed(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return advance(*args, **options)

    monkeypatch.setattr(loop, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        fit([ada()], config, seed=1, resume=tmp_path)
    while [p.name for p in tmp_path.glob("*/*")] != ["00000008"]:  # it is written while the loop goes on
        time.sleep(0.05)
    resumed = fit([ada()], config, seed=1, resume=tmp_path)
    assert_same(resumed.scene, fitted().scene)
    assert resumed.losses == fitted().losses
    assert len(calls) == 2 + 2, "it did not go on from step 8"
    with pytest.raises(InputError, match=r"wanted a checkpoint of this run .* got one of another"):
        fit([ada()], config, seed=2, resume=tmp_path)
    # A torn checkpoint is named, and the fit starts anew.
    (torn,) = tmp_path.glob("*/*/state/manifest.ocdbt")
    torn.write_bytes(torn.read_bytes()[:10])
    assert_same(fit([ada()], config, seed=1, resume=tmp_path).scene, fitted().scene)
    assert "cannot be read" in capfd.readouterr().err


def test_a_fit_that_is_asked_to_stop_saves_and_stops(tmp_path):
    STOP.set()
    try:
        with pytest.raises(Stopped, match="stopped at step 8"):
            fit([ada()], SHORT, seed=1, resume=tmp_path)
    finally:
        STOP.clear()
    assert_same(fit([ada()], SHORT, seed=1, resume=tmp_path).scene, fitted().scene)


def test_an_identity_that_diverges_is_frozen_and_tried_once_more(monkeypatch, capfd):
    """Bob's colours are infinite at first: his neighbour must not notice, and another seed saves him."""
    carved, seeds = training._carved, []

    def spoiled(capture, config, seed, classes):
        scene = carved(capture, config, seed, classes)
        if capture.identity != "bob":
            return scene
        seeds.append(seed)
        value = jnp.inf if len(seeds) <= spoil else scene.attributes.sh[5]
        return replace(scene, attributes=replace(scene.attributes, sh=scene.attributes.sh.at[5].set(value)))

    monkeypatch.setattr(training, "_carved", spoiled)
    pair, spoil = [ada(), ball.capture("bob", turn=1.0)], 0
    clean = fit(pair, SHORT, seed=1)
    seeds.clear()
    spoil = 1
    got = fit(pair, SHORT, seed=1)
    assert seeds == [1, 1 + training.RETRY]
    assert "fit: bob diverged at step 0 and is frozen" in capfd.readouterr().err
    assert got.failed == ()
    assert_same(jax.tree.map(lambda x: x[:1], got.scene), jax.tree.map(lambda x: x[:1], clean.scene))
    assert np.isfinite(got.psnr).all()
    assert got.psnr[1] > 15
    seeds.clear()
    spoil = 2
    assert fit(pair, SHORT, seed=1).failed == ("bob",)


def test_labels_do_not_bend_the_geometry_unless_asked():
    lies = dataclasses.replace(ada(), labels=np.where(ada().labels == 1, 2, 1).astype(np.uint8))
    got = fit([lies], SHORT, seed=1).scene
    assert_same(got.gaussians, fitted().scene.gaussians)
    assert np.array_equal(got.attributes.sh, fitted().scene.attributes.sh)
    assert not np.array_equal(got.attributes.label_logits, fitted().scene.attributes.label_logits)


@pytest.mark.parametrize("shape", [False, True])
def test_the_gradient_of_the_labels(shape):
    scene, camera = start(), ada().cameras[0]

    def loss(scene):
        return label_loss(
            render_scene(scene, camera, capacity=4096, labels_move_geometry=shape)[2], jnp.asarray(ada().labels[0])
        )

    slope = jax.jit(jax.grad(loss))(scene)
    assert np.asarray(slope.attributes.label_logits).any()
    assert not np.asarray(slope.attributes.sh).any()
    for name in ("means", "quats", "log_scales", "logit_opacities"):
        assert np.asarray(getattr(slope.gaussians, name)).any() == shape, name


def test_a_first_state_can_be_given_away():
    """`steps` takes every buffer of a state; one that is there twice could not be."""
    heads = jax.tree.map(lambda x: x[None], ball.gaussians())
    state = stepping.first_state(Scene(heads, Attributes(jnp.zeros((1, 200, 1, 3)), jnp.zeros((1, 200, 2)))))
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(places)) == len(places)


@pytest.mark.as_users("fusion")  # last, because what was compiled before is of no use to it
def test_programs_for_two_capacities_take_the_same_steps():
    scene = Scene(ball.gaussians(300), Attributes(rgb_to_sh(jnp.full((300, 3), 0.5)), jnp.zeros((300, 3))))
    ready = jax.tree.map(lambda x: np.asarray(x)[None], (scene, photos.photos_of(ada(), SHORT, 1)))

    def stepped(capacity):
        state = stepping.first_state(jax.tree.map(jnp.asarray, ready[0]))
        return stepping.steps(state, ready[1], np.int32(8), config=SHORT, capacity=capacity)

    few, many = stepped(2400), stepped(4096)
    assert int(few.step[0]) == 8
    assert not np.array_equal(few.scene.gaussians.means, ready[0].gaussians.means)
    assert_same(few.scene, many.scene)
