"""Several voters on one head: partial ones, equal ones, useless ones, and what is learned of each."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_votes import K, N, V, make_world, mean_recall

from jsplat.errors import InputError
from jsplat.labels import VoteConfig, VoterEvidence, knows_all, near_views, pose_prior, vote, vote_together
from jsplat.labels.together import alike_classes, informative_labels

CONFIG = VoteConfig(method="tempered")
OWN = tuple(frozenset({i}) for i in range(K))
# Of the world's classes: 0 background, 1 and 2 large, 3 to 5 small.
COARSE = (frozenset({0}), frozenset({1, 3, 4, 5}), frozenset({2}))
UNDECLARED = (frozenset({0}), frozenset({1}), frozenset({2}))


NEAR = jnp.eye(V)  # further voters whose views err each in its own way


@pytest.fixture(scope="module")
def world():
    truth, seen, (evidence, weight, yaw, pitch) = make_world()
    return (
        truth,
        seen,
        weight,
        VoterEvidence(evidence, pose_prior(yaw, pitch, CONFIG), near_views(yaw, pitch, CONFIG), OWN),
    )


def second(truth, weight, means, said_of, damaged=0.2, seed=1):
    """A voter with a label for each entry of `means`, who says `said_of[class]` in all views but some, where it says
    what belongs to other points."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.asarray(said_of)[truth][None], V, 0)
    for v in rng.choice(V, round(damaged * V), replace=False):
        labels[v] = rng.permutation(labels[v])
    evidence = np.eye(len(means))[labels] * np.asarray(weight)[..., None]
    return VoterEvidence(jnp.asarray(evidence, jnp.float32), jnp.ones(V), NEAR, means)


def together(world, *others, config=CONFIG):
    _, _, weight, first = world
    probabilities, belief = vote_together([first, *others], weight, config, K)
    return np.asarray(probabilities), np.asarray(belief)


def recalls(probabilities, truth, seen):
    right = probabilities.argmax(-1) == truth
    return np.asarray([right[seen & (truth == c)].mean() for c in range(1, K)])


def test_rows_are_probabilities_and_a_partial_voter_helps_where_it_knows(world):
    truth, seen, weight, _ = world
    alone, _ = together(world)
    for means in (COARSE, UNDECLARED):
        probabilities, belief = together(world, second(truth, weight, means, [0, 1, 2, 1, 1, 1]))
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)  # K float32 roundings
        assert (probabilities[:, 0] == 0).all()
        before, after = recalls(alone, truth, seen), recalls(probabilities, truth, seen)
        assert after[:2].mean() > before[:2].mean() + 0.005
        assert (after[2:] > before[2:] - 0.02).all(), (before, after)
        assert 0.7 < belief[1, 2] < 0.95  # 20 % of its views are wrong
    assert np.isnan(belief[1, [0, 3, 4, 5]]).all()


def test_a_label_for_several_classes_says_nothing_between_them(world):
    truth, _, weight, _ = world
    one = VoteConfig(method="tempered", iterations=1)
    coarse = second(truth, weight, COARSE, [0, 1, 2, 1, 1, 1])
    alone, with_it = together(world, config=one)[0], together(world, coarse, config=one)[0]
    group = [1, 3, 4, 5]
    shares = [
        probabilities[:, group] / probabilities[:, group].sum(-1, keepdims=True) for probabilities in (alone, with_it)
    ]
    clear = np.minimum(*(probabilities[:, group].sum(-1) for probabilities in (alone, with_it))) > 1e-3
    assert clear.mean() > 0.5
    # One softmax against two: float32 roundings of log evidence up to a few tens.
    np.testing.assert_allclose(shares[1][clear], shares[0][clear], atol=1e-4)
    assert np.abs(with_it - alone).max() > 0.1


HAIR = (frozenset({0, 2, 3, 4, 5}), frozenset({1}))  # a segmenter: class 1, and background for all the rest
ONCE = VoteConfig(method="tempered", iterations=1)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_who_knows_one_class_leaves_the_odds_of_the_others(world, seed, share):
    """Whatever a segmenter says, and however often: the odds between any two classes that it does not know stay."""
    labels = (np.random.default_rng(seed).random((V, N)) < share).astype(int)
    voter = VoterEvidence(
        jnp.asarray(np.eye(2)[labels] * np.asarray(world[2])[..., None], jnp.float32), jnp.ones(V), NEAR, HAIR
    )
    odds = []
    for probabilities in (together(world, config=ONCE)[0], together(world, voter, config=ONCE)[0]):
        rest = np.log(np.maximum(probabilities[:, 2:], 1e-30))
        odds.append(rest - rest[:, :1])
    # Log evidence up to some tens in float32, and two softmaxes; below 1e-30 there are no digits left.
    clear = np.abs(odds[0]).max(-1) < 30
    assert clear.sum() > N / 2
    np.testing.assert_allclose(odds[1][clear], odds[0][clear], atol=1e-4)


def test_equal_voters_agree_and_are_surer(world):
    _, seen, _, first = world
    alone, twice = together(world)[0], together(world, first)[0]
    assert (alone.argmax(-1) == twice.argmax(-1))[seen].mean() > 0.97
    assert twice.max(-1)[seen].mean() >= alone.max(-1)[seen].mean()


@pytest.mark.parametrize("means", [OWN, COARSE, UNDECLARED])
@pytest.mark.parametrize("kind", ["noise", "constant", "silent"])
def test_a_useless_voter_does_no_harm(world, means, kind):
    truth, seen, weight, _ = world
    labels = len(means)
    noise = np.random.default_rng(5).integers(0, labels, (V, N))
    votes = noise if kind == "noise" else np.full((V, N), 1)
    evidence = np.eye(labels)[votes] * np.asarray(weight)[..., None] * (kind != "silent")
    probabilities, _ = together(world, VoterEvidence(jnp.asarray(evidence, jnp.float32), jnp.ones(V), NEAR, means))
    # Measured: noise costs up to 0.001, the others nothing.
    assert mean_recall(probabilities, truth, seen) > mean_recall(together(world)[0], truth, seen) - 0.005


def test_voters_who_lack_different_classes_fill_each_other_in():
    truth, seen, (_, weight, *_) = make_world()
    parts = (frozenset({0}), frozenset({1, 2}), frozenset({3}), frozenset({4}), frozenset({5}))
    coarse, fine = ((COARSE, [0, 1, 2, 1, 1, 1]), (parts, [0, 1, 1, 2, 3, 4]))
    voters = [second(truth, weight, *coarse), second(truth, weight, *fine, seed=2)]
    probabilities, _ = vote_together(voters, weight, VoteConfig(), K)
    assert recalls(np.asarray(probabilities), truth, seen).min() > 0.97


def test_one_voter_who_knows_all_is_near_the_plain_vote(world):
    truth, seen, weight, first = world
    yaw, pitch = make_world()[2][2:]
    plain = vote(first.evidence, weight, yaw, pitch, CONFIG)
    probabilities, _ = together(world)
    assert abs(mean_recall(probabilities, truth, seen) - mean_recall(np.asarray(plain), truth, seen)) < 0.02


def test_which_labels_count_and_which_classes_are_alike():
    assert knows_all(OWN, K)
    assert not knows_all(COARSE, K)
    assert informative_labels(OWN, K) == [1, 2, 3, 4, 5]  # a parser's background says that it is lost
    assert informative_labels((*COARSE, frozenset()), K) == [0, 1, 2]
    assert (alike_classes(OWN, K) == np.eye(K)).all()
    alike = alike_classes(UNDECLARED, K)
    assert (alike == np.eye(K)).all()  # what no label means is like nothing
    assert alike_classes(COARSE, K)[3].tolist() == [0, 1, 0, 1, 1, 1]


def test_methods_without_error_models_are_refused(world):
    with pytest.raises(InputError, match=r"vote\.method: wanted tempered or best"):
        together(world, config=VoteConfig(method="plain"))
