"""Loss, augmentation, and training: learning, replay, resuming, and what is refused."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, IGNORE, LabelSet
from jsplat.parser import AugmentConfig, TeacherConfig, new_parser, train_parser
from jsplat.parser import train as training
from jsplat.parser.augment import augment, jitter, mirror, random_affine, replace_background, warp
from jsplat.parser.fresh import FreshPool
from jsplat.parser.loss import HARD, ohem, pixel_loss, top_threshold
from jsplat.parser.model import is_statistic
from jsplat.parser.pool import Pool, draw
from jsplat.runtime.devices import batch_mesh
from jsplat.training_sets.auxiliary import AuxiliarySet, squared

THREE = LabelSet(
    ("background", "left", "right"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)), ("background", "right", "left")
)
STILL = AugmentConfig((1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


# Jitted once: a first eager call of each small operation would take longer than the tests.
chosen_mean = jax.jit(ohem, static_argnames=("threshold", "min_kept"))
nth_largest = jax.jit(top_threshold)
warped = jax.jit(warp, static_argnames=("size", "label_size"))
augmented = jax.jit(augment, static_argnames=("config", "size", "label_size"))


def sorted_ohem(losses, hard, least):
    """The reference's rule on a flat list, with a sort."""
    losses = np.sort(np.asarray(losses, np.float64))[::-1]
    count = max(1, int(len(losses) * least))
    return losses[losses > hard].mean() if count < len(losses) and losses[count] > hard else losses[:count].mean()


@given(
    values=st.lists(st.floats(0, 4, width=32), min_size=16, max_size=16),
    ignored=st.lists(st.booleans(), min_size=16, max_size=16),
    least=st.sampled_from([1 / 16, 0.25, 0.5]),
)
def test_ohem_is_the_sorted_rule(values, ignored, least):
    values, valid = np.asarray(values, np.float32).reshape(1, 4, 4), ~np.asarray(ignored).reshape(1, 4, 4)
    got = chosen_mean(jnp.asarray(values), jnp.asarray(valid, jnp.float32), min_kept=least)
    wanted = sorted_ohem(values[valid], HARD, least) if valid.any() else 0
    assert float(got) == pytest.approx(wanted, rel=1e-5)  # float32 sums of 16 terms


@given(
    st.lists(st.floats(0, width=32, allow_nan=False, allow_infinity=False), min_size=9, max_size=9), st.integers(1, 9)
)
def test_top_threshold_is_exact(values, count):
    values = np.abs(np.asarray(values, np.float32))  # -0.0 is no non-negative bit pattern
    assert float(nth_largest(jnp.asarray(values), jnp.asarray(count))) == np.sort(values)[-count]


def test_ohem_weights_and_gradient():
    """Two pictures, one counting three times as much; only chosen pixels get a gradient."""
    losses = jnp.asarray([[[1.0, 0.1]], [[2.0, 0.2]]])
    valid = jnp.asarray([[[1.0, 1.0]], [[3.0, 3.0]]])
    value, gradient = jax.jit(jax.value_and_grad(ohem))(losses, valid)
    assert float(value) == pytest.approx((1 * 1 + 3 * 2) / 4)
    np.testing.assert_allclose(gradient, [[[0.25, 0]], [[0.75, 0]]])
    assert float(chosen_mean(losses, 0 * valid)) == 0


def test_pixel_loss_is_cross_entropy():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 2, 2)) * 5
    labels = jnp.asarray([[[0, 1], [2, IGNORE]], [[1, 1], [0, 2]]], jnp.uint8)
    wanted = -np.log(
        np.exp(np.asarray(logits, np.float64)) / np.exp(np.asarray(logits, np.float64)).sum(1, keepdims=True)
    )
    got = np.asarray(jax.jit(pixel_loss)(logits, labels))
    for i, y, x in np.ndindex(2, 2, 2):
        label = int(labels[i, y, x])
        # float32 logsumexp of numbers up to 15.
        assert got[i, y, x] == pytest.approx(0 if label == IGNORE else wanted[i, label, y, x], rel=1e-5, abs=1e-5)
    assert not np.asarray(jax.jit(jax.grad(lambda z: pixel_loss(z, labels).sum()))(logits))[0, :, 1, 1].any()


def test_mirror_exchanges_sides_and_twice_is_nothing():
    key = jax.random.key(0)
    images = jax.random.randint(key, (2, 4, 5, 3), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(key, (2, 4, 5), 0, 19).astype(jnp.uint8).at[0, 0, 0].set(IGNORE)
    ids = jnp.asarray(CELEBAMASK_HQ.mirror_ids)
    flipped = mirror(images, labels, ids)
    np.testing.assert_array_equal(flipped[0], np.asarray(images)[:, :, ::-1])
    exchanged = {2: 3, 3: 2, 4: 5, 5: 4, 7: 8, 8: 7}
    wanted = np.vectorize(lambda i: exchanged.get(i, i))(np.asarray(labels)[:, :, ::-1])
    np.testing.assert_array_equal(flipped[1], wanted)
    for back, first in zip(mirror(*flipped, ids), (images, labels)):
        np.testing.assert_array_equal(back, first)


def test_background_changes_only_where_the_label_is_zero():
    key = jax.random.key(1)
    images = jax.random.randint(key, (64, 4, 4, 3), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(key, (64, 4, 4), 0, 2).astype(jnp.uint8)
    new = np.asarray(jax.jit(lambda *a: replace_background(*a, 0.5))(key, images, labels))
    kept = np.asarray(labels) > 0
    np.testing.assert_array_equal(new[kept], np.asarray(images)[kept])
    changed = [bool((new[i] != images[i]).any()) for i in range(64)]
    assert 16 < sum(changed) < 48  # 32 +- 4 standard deviations
    flat = [len(np.unique(new[i][~kept[i]], axis=0)) == 1 for i in range(64)]
    assert 5 < sum(flat) < 27  # 16 +- 3
    other = np.roll(images, 1, 0)
    from_other = np.flatnonzero(np.asarray(changed) & ~np.asarray(flat))
    assert all(
        (new[i] == np.where((np.roll(~kept, 1, 0)[i] & ~kept[i])[..., None], other[i], images[i])).all()
        for i in from_other
    )


def test_no_face_becomes_background():
    """Red is known to be of a head, green may be (IGNORE): neither is ever pasted."""
    random = np.random.default_rng(0)
    labels = random.choice(np.asarray([0, 1, 2, IGNORE], np.uint8), (32, 8, 8))
    images = np.zeros((32, 8, 8, 3), np.uint8)
    images[..., 2] = 1 + np.arange(32)[:, None, None]  # whose background it is
    images[labels > 0], images[labels == IGNORE] = (200, 0, 0), (0, 200, 0)
    new = np.asarray(jax.jit(lambda *a: replace_background(*a, 0.99))(jax.random.key(3), images, labels))
    behind = labels == 0
    flat = np.asarray([len(np.unique(n[b], axis=0)) == 1 for n, b in zip(new, behind)])
    assert 4 < flat.sum() < 28
    shown = new[~flat][behind[~flat]]
    assert (shown[:, :2] == 0).all(), "a head, or what may be one, is labelled background"
    assert (shown[:, 2] != images[~flat][behind[~flat]][:, 2]).any(), "no background was replaced"
    np.testing.assert_array_equal(new[~behind], images[~behind])


def test_warp_identity_shift_and_outside():
    images = jax.random.randint(jax.random.key(0), (1, 8, 8, 3), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(jax.random.key(1), (1, 8, 8), 0, 3).astype(jnp.uint8)
    identity = jnp.asarray([[[1.0, 0, 0], [0, 1, 0]]])
    colours, ids = warped(images, labels, identity, size=8, label_size=8)
    np.testing.assert_allclose(colours * 255, images, atol=1e-3)  # float32 positions at size 8, colours up to 255
    np.testing.assert_array_equal(ids, labels)
    # 2 pixels to the right in the source are 0.5 of the half-width 4.
    colours, ids = warped(images, labels, identity.at[:, 0, 2].set(0.5), size=8, label_size=8)
    np.testing.assert_allclose(colours[:, :, :6] * 255, images[:, :, 2:], atol=1e-3)
    np.testing.assert_allclose(colours[:, :, 6] * 255, images[:, :, 7], atol=1e-3)
    np.testing.assert_array_equal(ids[:, :, :6], labels[:, :, 2:])
    assert bool((ids[:, :, 6:] == IGNORE).all())


def test_warp_keeps_pictures_and_labels_together():
    """A picture that shows its own labels still does after any affine, but for pixels cut by an edge."""
    y, x = np.mgrid[:32, :32]
    labels = jnp.asarray(((x - 14) ** 2 + (y - 17) ** 2 < 80).astype(np.uint8))[None].repeat(4, 0)
    images = (labels * 255)[..., None].repeat(3, -1)
    matrices = jax.jit(lambda key: random_affine(key, 4, AugmentConfig((0.8, 1.3), 30.0, 0.1)))(jax.random.key(0))
    colours, ids = warped(images, labels, matrices, size=32, label_size=32)
    sure = (ids != IGNORE) & (jnp.abs(colours[..., 0] - 0.5) > 0.49)
    assert float(sure.mean()) > 0.6
    np.testing.assert_array_equal((colours[..., 0] > 0.5)[sure], (ids == 1)[sure])
    small = warped(images, labels, matrices, size=64, label_size=32)[0]
    # A picture twice as fine, averaged in 2x2 blocks, is blurred by half a pixel at most.
    assert float(jnp.abs(small.reshape(4, 32, 2, 32, 2, 3).mean((2, 4)) - colours).max()) < 0.5


def test_augmentation_off_is_the_picture_and_on_is_reproducible():
    images = jax.random.randint(jax.random.key(0), (3, 8, 8, 3), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(jax.random.key(1), (3, 8, 8), 0, 3).astype(jnp.uint8)
    ids, key = jnp.asarray(THREE.mirror_ids), jax.random.key(2)
    colours, same = augmented(key, images, labels, ids, config=STILL, size=8, label_size=8)
    np.testing.assert_allclose(colours * 255, images, atol=1e-3)  # float32, colours up to 255
    np.testing.assert_array_equal(same, labels)
    one, two = (augmented(key, images, labels, ids, config=c, size=8, label_size=8)[0] for c in (AugmentConfig(),) * 2)
    np.testing.assert_array_equal(one, two)
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    assert float(jnp.abs(one - colours).max()) > 0.05


def test_jitter_is_drawn_per_picture():
    images = jnp.full((4, 2, 2, 3), 0.5)
    means = np.asarray(jax.jit(lambda *a: jitter(*a, AugmentConfig()))(jax.random.key(0), images)).mean((1, 2, 3))
    assert len(np.unique(means.round(4))) == 4


def blobs(count: int, seed: int, size: int = 64) -> AuxiliarySet:
    """A red blob in the picture's right half (the subject's left) and a blue one in the other."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 130, (count, size, size, 3)).astype(np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for i in range(count):
        for label, middle in ((1, 0.75), (2, 0.25)):
            cx, cy = middle * size + random.uniform(-2, 2), size / 2 + random.uniform(-4, 4)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (size / 6) ** 2
            labels[i][inside], images[i][inside] = label, (230, 40, 40)
    zeros = np.zeros(count, np.float32)
    return AuxiliarySet(images, labels, zeros + 1, ("a",) * count, zeros, zeros, ("photo",) * count, THREE)


# One configuration and one pair of pools for all tests that train: the step compiles for longer than they run.
TINY = TeacherConfig(
    width=0.1,
    input_size=64,
    label_size=32,
    steps=40,
    batch=8,
    learning_rate=5e-3,
    warmup=5,
    log_every=10,
    validate_every=2,
)
DATA, REPLAY = blobs(12, 0), blobs(10, 1)


@pytest.fixture(scope="module")
def trained():
    """A run of 40 steps on blobs, as it is when nobody disturbs it."""
    start = new_parser(TINY.architecture, THREE, 0)
    return start, *train_parser(DATA, TINY, 0, start=start, replay=REPLAY, validation=blobs(8, 2))


def equal(one, two) -> bool:
    return all(np.array_equal(one.variables[n], two.variables[n]) for n in one.variables)


def test_it_learns_left_from_right(trained):
    """Both blobs look alike: only their place, and a flip that exchanges the ids, tells them apart."""
    start, parser, history = trained
    assert history.steps == [10, 20, 30, 40]
    assert history.validation_steps == [20, 40]
    assert history.loss[-1] < 0.7 * history.loss[0], history
    assert history.f1[-1] > 0.6, history
    assert (parser.architecture, parser.labelset) == (start.architecture, THREE)
    assert equal(start, new_parser(TINY.architecture, THREE, 0)), "the start was changed"


def test_a_killed_run_goes_on_as_if_nothing_had_been(trained, tmp_path, monkeypatch):
    start, whole, curves = trained
    config, step, calls = dataclasses.replace(TINY, save_every=0.0), training.train_step, []

    def run(seed: int):
        return train_parser(DATA, config, seed, start=start, replay=REPLAY, validation=blobs(8, 2), resume=tmp_path)

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 26:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(training, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(0)
    while [p.name for p in tmp_path.iterdir()] != ["00000020"]:  # it is written while the loop goes on
        time.sleep(0.05)
    resumed, again = run(0)
    assert equal(whole, resumed)
    assert again == curves
    assert len(calls) == 26 + 20, "it did not go on from step 20"
    assert equal(run(0)[0], whole)
    assert len(calls) == 26 + 20, "a finished run was run again"
    with pytest.raises(InputError, match=r"wanted a checkpoint of this run .* got one of another"):
        run(1)


def test_frozen_statistics_stay(trained):
    start, tuned, _ = trained
    statistics = {n: v for n, v in start.variables.items() if is_statistic(n)}
    assert not any(np.array_equal(tuned.variables[n], v) for n, v in statistics.items()), "training moves all of them"
    weights = {n: v for n, v in start.variables.items() if not is_statistic(n)}
    batch = (
        weights,
        statistics,
        jnp.asarray(DATA.images[:2]) / 255,
        jnp.asarray(DATA.labels[:2]),
        jnp.ones(2),
        jnp.ones(3),
    )
    frozen = training.StepConfig.of(dataclasses.replace(TINY, frozen_statistics=True))
    after = jax.jit(lambda *a: training.batch_loss(*a, frozen, TINY.architecture))(*batch)[1]
    assert all(np.array_equal(after[n], v) for n, v in statistics.items())


def test_averages_are_those_of_weights_and_statistics_after_each_step(monkeypatch):
    config, step, seen = dataclasses.replace(TINY, steps=4, log_every=4, ema_decay=0.3), training.train_step, []
    start = new_parser(TINY.architecture, THREE, 0)

    def watched(*arguments):
        state, loss = step(*arguments)
        seen.append({name: np.array(value) for name, value in (state.weights | state.statistics).items()})
        return state, loss

    monkeypatch.setattr(training, "train_step", watched)
    averaged, _ = train_parser(DATA, config, 0, start=start, replay=REPLAY)
    wanted = {name: np.asarray(value, np.float64) for name, value in start.variables.items()}
    for taken, values in enumerate(seen):
        kept = min(0.3, (1 + taken) / (10 + taken))  # 0.1, 0.18, 0.25, then 0.3
        wanted = {name: kept * value + (1 - kept) * values[name] for name, value in wanted.items()}
    assert len(seen) == 4
    for name, value in wanted.items():
        np.testing.assert_allclose(averaged.variables[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not all(np.allclose(averaged.variables[name], seen[-1][name], rtol=1e-5, atol=1e-6) for name in wanted)


def test_draws_do_not_repeat_while_the_pool_lasts():
    pool = Pool(*(jnp.asarray(a) for a in (blobs(5, 0).images, blobs(5, 0).labels, np.arange(5.0))))
    drawn = jax.jit(draw, static_argnames="count")
    few, many = (drawn(jax.random.key(0), pool, count=n).weights.tolist() for n in (3, 12))
    assert len(set(few)) == 3
    assert sorted(many.count(i) for i in range(5)) == [2, 2, 2, 3, 3]


class Numbered:
    """Two pictures a piece, which weigh as much as its number says."""

    fraction, pieces, every, fingerprint = 0.5, 3, 2, "numbered"

    def piece(self, number: int) -> AuxiliarySet:
        return dataclasses.replace(blobs(2, number, 8), weights=np.full(2, number, np.float32))


def test_a_pool_holds_the_latest_pieces_of_its_step_wherever_it_begins():
    held = {}
    for begin in (0, 5):
        pool = FreshPool(Numbered(), begin, batch_mesh())
        for step in range(begin, 9):
            at = pool.at(step)
            held.setdefault(step, []).append((np.asarray(at.weights).tolist(), np.asarray(at.images)))
        pool.close()
    latest = {step: {*weights} for step, ((weights, _), *_) in held.items()}
    assert latest == {step: {step // 2 + i for i in range(3)} for step in range(9)}
    for step in range(5, 9):
        (weights, images), (again, same) = held[step]
        assert weights == again
        assert np.array_equal(images, same)
        newest = max(weights)
        assert np.array_equal(images[weights.index(newest)], blobs(2, int(newest), 8).images[0])


def test_pictures_made_on_the_way_take_their_share_of_every_batch(monkeypatch, trained):
    seen, step = [], training.train_step

    def spied(*arguments):
        seen.append(np.asarray(arguments[2].weights))
        return step(*arguments)

    class Heavy(Numbered):
        def piece(self, number: int) -> AuxiliarySet:
            return dataclasses.replace(blobs(2, number), weights=np.full(2, 7, np.float32))

    monkeypatch.setattr(training, "train_step", spied)
    config = dataclasses.replace(TINY, steps=1)
    monkeypatch.setattr(training, "optimiser", lambda config: training.optax.identity())
    train_parser(DATA, config, 0, start=trained[0], replay=REPLAY, fresh=Heavy())
    assert [(weights == 7).sum() for weights in seen] == [2], "half of what replay leaves of the batch of 8"


def test_class_weights():
    """Half background and half left in one set, all left in the other, `right` nowhere; ignored pixels do not count."""
    one, two = blobs(2, 0, 4), blobs(1, 0, 4)
    one.labels[:], two.labels[:] = 1, 1
    one.labels[:, :2] = 0
    one.labels[0, 0] = IGNORE
    got = training.class_weights([one, two], 0.5)
    # 12 of one's 28 counted pixels are background.
    np.testing.assert_allclose(got, [(12 / 28 / 2) ** -0.5, ((16 / 28 + 1) / 2) ** -0.5, 1e-5**-0.5], rtol=1e-6)
    np.testing.assert_array_equal(training.class_weights([one, two], 0.0), 1)


def test_upright_pictures_are_not_stretched():
    square = blobs(4, 0)
    upright = dataclasses.replace(square, images=square.images[:, :, 8:-8], labels=square.labels[:, :, 8:-8])
    got, want = (train_parser(data, TINY, 0)[0] for data in (upright, squared(upright)))
    assert all(np.array_equal(got.variables[name], value) for name, value in want.variables.items())


def test_train_parser_refuses():
    data = blobs(2, 0)
    other = dataclasses.replace(blobs(2, 0), labelset=CELEBAMASK_HQ)
    with pytest.raises(InputError, match=r"replay.labelset: wanted .*left.* got .*l_brow"):
        train_parser(data, TINY, 0, replay=other)
    with pytest.raises(InputError, match=r"replay.images: wanted pictures with a longer side of 64, got \(32, 32\)"):
        train_parser(data, TINY, 0, replay=blobs(2, 0, 32))
    with pytest.raises(InputError, match="data: wanted at least one picture, got none"):
        train_parser(blobs(0, 0), TINY, 0)


def all_of(label: int, **changes) -> AuxiliarySet:
    data = blobs(2, 0)
    return dataclasses.replace(data, labels=np.full_like(data.labels, label), **changes)


@pytest.mark.parametrize("label", [0, IGNORE, "both"])
def test_a_validation_set_that_cannot_be_scored_is_refused_before_training(monkeypatch, label):
    monkeypatch.setattr(training, "new_parser", lambda *_: pytest.fail("training began"))
    validation = all_of(0 if label == "both" else label)
    validation.labels[0] = IGNORE if label == "both" else label
    with pytest.raises(
        InputError, match=r"train_parser: validation.labels: wanted a pixel of the foreground.* got 2 pict"
    ):
        train_parser(blobs(2, 0), TINY, 0, validation=validation)
    with pytest.raises(InputError, match="train_parser: validation: wanted at least one picture, got none"):
        train_parser(blobs(2, 0), TINY, 0, validation=blobs(0, 0))


def test_nothing_to_learn_from_is_refused(monkeypatch):
    monkeypatch.setattr(training, "new_parser", lambda *_: pytest.fail("training began"))
    message = (
        r"labels: wanted a pixel to learn from: labelled \(not 255\), in a picture of weight above 0, got 2 pictures"
    )
    for nothing in (all_of(IGNORE), all_of(1, weights=np.zeros(2, np.float32))):
        with pytest.raises(InputError, match=f"data.{message}"):
            train_parser(nothing, TINY, 0)
        with pytest.raises(InputError, match=f"replay.{message}"):
            train_parser(blobs(2, 0), TINY, 0, replay=nothing)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: wanted at least 1"),
        ({"replay_fraction": 1.0}, "share in"),
        ({"label_size": -1}, "label_size: wanted 0 or more"),
        ({"ema_decay": 1.0}, "ema_decay: wanted a share in"),
    ],
)
def test_config_refuses(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TINY, **change)


def test_scores_by_hand(monkeypatch):
    data = blobs(1, 0)
    guess = np.where(data.labels == 2, 0, data.labels)
    guess[0, 0, 0] = 1
    monkeypatch.setattr(training, "predict_labels", lambda parser, images: guess)
    n = int((data.labels == 1).sum())
    miou, f1 = training.validation_scores(new_parser(TINY.architecture, THREE, 0), data)
    assert miou == pytest.approx(n / (n + 1) / 2)
    assert f1 == pytest.approx(2 * n / (2 * n + 1) / 2)
    # Classes that no picture shows are left out; one labelled pixel is enough.
    data.labels[:], data.labels[0, 0, 0] = IGNORE, 1
    assert training.validation_scores(new_parser(TINY.architecture, THREE, 0), data) == (1.0, 1.0)
