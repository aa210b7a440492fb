"""The votes, on a small world whose teacher is right in front and lost at the sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labels import METHODS, VoteConfig, confidence, near_views, pose_prior, vote
from jsplat.labels.votes import pooled_by_pose

N, V, K = 1500, 24, 6  # class 0 is background, 1 and 2 are large, 3 to 5 small
SHARES = np.array([0.0, 0.45, 0.40, 0.05, 0.05, 0.05])


def make_world(seed: int = 0):
    """Points around a head; away from the front, the teacher does not see small parts, though it errs in one way.

    From the side a small class is mostly called large class 1, sometimes background, sometimes what the small class
    after it is called; class 2 is partly called 1. Errors are one draw per point and side of the head, shared by all
    views there, as those of a real parser are, and opinions are softer at the side.
    """
    rng = np.random.default_rng(seed)
    truth = rng.choice(K, N, p=SHARES)
    azimuth = rng.uniform(-100, 100, N)
    yaw, pitch = np.linspace(-110, 110, V), np.where(np.arange(V) % 2, 15.0, -15.0)
    away = np.abs(azimuth[None] - yaw[:, None])
    weight = np.where(away < 75, 3 * np.cos(np.radians(np.minimum(away, 89))), 0)
    lost = np.clip((np.abs(yaw) - 10) / 40, 0, 1)  # 0 in front, 1 beyond 50 degrees
    luck = rng.random((2, N))
    opinions = np.zeros((V, N, K))
    for v in range(V):
        teacher = np.eye(K)
        for small in (3, 4, 5):
            teacher[small] *= 1 - 0.9 * lost[v]
            teacher[small, [0, 1, 3 + (small - 2) % 3]] += np.array([0.1, 0.65, 0.15]) * lost[v]
        teacher[2, [1, 2]] += np.array([0.2, -0.2]) * lost[v]
        chances = 0.97 * teacher + 0.03 / K
        opinion = (luck[int(yaw[v] > 0)][:, None] > np.cumsum(chances[truth], 1)).sum(1).clip(max=K - 1)
        sure = 0.9 - 0.2 * lost[v]
        opinions[v] = (1 - sure) / (K - 1)
        opinions[v, np.arange(N), opinion] = sure
    arrays = (opinions * weight[..., None], weight, yaw, pitch)
    return truth, weight.max(0) > 0, tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@pytest.fixture(scope="module")
def world():
    return make_world()


def mean_recall(probabilities, truth, seen):
    """Mean over classes, so that the small ones count."""
    right = np.asarray(probabilities.argmax(-1)) == truth
    return np.mean([right[seen & (truth == c)].mean() for c in range(1, K)])


def ask(method, arrays, **changes):
    cosines = jnp.clip(arrays[1] / 3, 0, 1) if method == "cosine" else None
    return vote(*arrays, VoteConfig(method=method, **changes), cosines)


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_probabilities(world, method):
    _, _, arrays = world
    probabilities = ask(method, arrays)
    assert probabilities.shape == (N, K)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)  # K float32 roundings
    assert (probabilities >= 0).all()
    assert (probabilities[:, 0] == 0).all()
    assert ((confidence(probabilities) >= 0) & (confidence(probabilities) <= 1)).all()


def test_trust_beats_the_plain_mean(world):
    truth, seen, arrays = world
    score = {m: mean_recall(ask(m, arrays), truth, seen) for m in METHODS}
    # Measured on two seeds: plain 0.60 to 0.62, pose 0.85, tempered and best 0.95; a seed moves them by 0.03.
    for method in ("pose", "tempered", "best", "agreement", "entropy"):
        assert score[method] > score["plain"] + 0.15, score
    assert score["best"] > score["pose"] + 0.05, score
    assert score["tempered"] > score["dawid_skene"] + 0.05, score
    assert score["best"] > 0.9, score


def test_tempered_needs_no_pose(world):
    truth, seen, arrays = world
    blind = mean_recall(ask("tempered", arrays, pose_sigma=float("inf")), truth, seen)
    assert blind > mean_recall(ask("plain", arrays), truth, seen) + 0.15  # measured 0.91 against 0.62


def test_views_are_near_by_the_angle_between_them():
    yaw, pitch = np.array([0.0, 10.0, 0.0, 180.0, 0.0]), np.array([0.0, 0.0, 20.0, 0.0, 0.0])
    near = near_views(yaw, pitch, VoteConfig(pose_neighborhood=10.0))
    wanted = np.exp(-np.array([0.0, 100.0, 400.0, 180.0**2, 0.0]) / 200)
    np.testing.assert_allclose(near[0], wanted, atol=1e-5)  # float32 angles
    np.testing.assert_allclose(near, near.T, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(near), 1, atol=1e-6)


def test_a_views_error_model_learns_from_its_neighbours_alone():
    """Two views from one side and one from the other: what the far one confuses does not count."""
    counts = np.zeros((3, 2, 2))
    counts[0], counts[1], counts[2] = [[2, 0], [0, 2]], [[0, 2], [0, 2]], [[0, 50], [50, 0]]
    near = near_views(np.array([0.0, 0.0, 170.0]), np.zeros(3), VoteConfig())
    found = pooled_by_pose(jnp.asarray(counts, jnp.float32), near)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(found[0], [[2.5 / 5, 2.5 / 5], [0.5 / 5, 4.5 / 5]], atol=1e-5)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[2], [[0.5 / 51, 50.5 / 51], [50.5 / 51, 0.5 / 51]], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_views_does_not_matter(world, method):
    _, _, arrays = world
    order = np.random.default_rng(1).permutation(V)
    # Sums over views in another order differ by float32 rounding, which a few rounds of trust enlarge.
    np.testing.assert_allclose(ask(method, arrays), ask(method, tuple(a[order] for a in arrays)), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_padded_views_say_nothing(world, method):
    _, _, arrays = world
    padded = tuple(jnp.concatenate([a, jnp.zeros((3, *a.shape[1:]))]) for a in arrays)
    # The prior pooled over views and sums over views see only zeros more.
    np.testing.assert_allclose(ask(method, padded), ask(method, arrays), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_unanimous_views_are_believed(method):
    truth = np.arange(40) % 3 + 1
    evidence = jnp.broadcast_to(jnp.eye(4)[truth], (5, 40, 4))
    yaw = jnp.linspace(-60, 60, 5)
    probabilities = ask(method, (evidence, jnp.ones((5, 40)), yaw, jnp.zeros(5)))
    np.testing.assert_array_equal(probabilities.argmax(-1), truth)


@pytest.mark.parametrize("method", METHODS)
def test_unseen_gaussians_get_the_mean_row(world, method):
    _, _, (evidence, weight, yaw, pitch) = world
    hidden = jnp.arange(N) < 10
    evidence, weight = jnp.where(hidden[:, None], 0, evidence), jnp.where(hidden, 0, weight)
    probabilities = ask(method, (evidence, weight, yaw, pitch))
    seen = np.asarray(weight.max(0) > 0.01)
    expected = np.asarray(probabilities)[seen].mean(0)
    np.testing.assert_allclose(probabilities[:10], np.tile(expected, (10, 1)), atol=1e-5)  # a float32 mean of 1500 rows


def test_nobody_sees_anything():
    probabilities = vote(jnp.zeros((3, 4, 5)), jnp.zeros((3, 4)), jnp.zeros(3), jnp.zeros(3), VoteConfig())
    np.testing.assert_allclose(probabilities, np.tile([0, 0.25, 0.25, 0.25, 0.25], (4, 1)), atol=1e-6)  # float32


def test_background_is_removed_or_kept():
    evidence = jnp.asarray([[[0.7, 0.2, 0.1]]])
    arrays = (evidence, jnp.ones((1, 1)), jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(ask("plain", arrays), [[0, 2 / 3, 1 / 3]], atol=1e-6)  # float32
    kept = ask("plain", arrays, remove_background=False)
    np.testing.assert_allclose(kept, evidence[0], atol=1e-6)  # float32


def test_plain_is_the_mean_of_the_softmax():
    evidence = jnp.asarray([[[0.0, 0.9, 0.1]], [[0.0, 0.2, 0.8]]])
    probabilities = ask("plain", (evidence, jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(2)))
    np.testing.assert_allclose(probabilities, [[0, 0.55, 0.45]], atol=1e-6)  # float32
    np.testing.assert_allclose(confidence(probabilities), [0.1], atol=1e-6)  # float32


def test_pose_prior_is_the_formula():
    config = VoteConfig(pose_sigma=40.0, pose_floor=0.001)
    prior = pose_prior(np.array([0.0, 40.0, 180.0]), np.array([0.0, 40.0, 0.0]), config)
    np.testing.assert_allclose(prior, [1.001, np.exp(-1) + 0.001, np.exp(-81 / 8) + 0.001], rtol=1e-5)  # float32 exp
    blind = pose_prior(np.array([0.0, 180.0]), np.zeros(2), VoteConfig(pose_sigma=float("inf")))
    np.testing.assert_allclose(blind, blind[0])


def test_heads_are_a_batch(world):
    _, _, arrays = world
    two = tuple(jnp.stack([a, a[::-1]]) for a in arrays)
    probabilities = jax.vmap(lambda *a: vote(*a, VoteConfig()))(*two)
    np.testing.assert_allclose(probabilities[0], vote(*arrays, VoteConfig()), atol=1e-4)  # another order of sums


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match=r"VoteConfig.method: wanted one of plain, .*best, got 'loudest'"):
        VoteConfig(method="loudest")
    with pytest.raises(InputError, match=r"VoteConfig.temperature: wanted a positive number, got 0\.0"):
        VoteConfig(temperature=0.0)
    evidence, weight, angle = jnp.ones((2, 3, 4)), jnp.ones((2, 3)), jnp.zeros(2)
    with pytest.raises(InputError, match=r"vote: weight: wanted shape \(2, 3\)"):
        vote(evidence, weight.T, angle, angle, VoteConfig())
    with pytest.raises(InputError, match=r"vote: cosines: wanted shape \(2, 3\), got None"):
        vote(evidence, weight, angle, angle, VoteConfig(method="cosine"))
    with pytest.raises(InputError, match="vote: evidence: wanted at least two classes"):
        vote(evidence[..., :2], weight, angle, angle, VoteConfig())
