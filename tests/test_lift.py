"""Labels onto the geometry: evidence against a dense sum of blend weights, and what sharpening does to a mixture."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.kernels.blend.reference import blend_reference
from jsplat.labels import SharpenConfig, VoteConfig, VoterLabels, facing, lift, paint, sharpen, vote
from jsplat.labels.sharpen import small_parts
from jsplat.raster.projection import project
from tests import ball
from tests.close import assert_close

SEGMENTER = (frozenset({0, 2, 3}), frozenset({1}))
SUMS = 1e-5
SUMS_WHY = "float32 sums over some hundred pixels, grouped another way"
SIZE, CAPACITY = 24, 4096


@functools.cache
def head():
    """A ball of 150 Gaussians, its true pictures from eight sides, and what they say about each Gaussian."""
    seen = ball.capture(size=SIZE)
    gaussians = ball.gaussians(150)
    truth = jax.nn.one_hot(seen.labels, len(ball.SIDES))
    evidence, weight = lift(gaussians, seen.cameras, truth, capacity=CAPACITY)
    return seen, gaussians, truth, evidence, weight


@jax.jit
def blend_weights(gaussians, cameras) -> jax.Array:
    """`v h w n`: one channel per Gaussian, in the dense reference, is the Jacobian itself."""
    flat = project(jax.tree.map(lambda x: x[None], gaussians), cameras)
    views, count = flat.depths.shape
    eye = jnp.broadcast_to(jnp.eye(count), (views, count, count))
    return blend_reference(flat.means2d, flat.conic_roots, flat.opacities, flat.depths, eye, size=(SIZE, SIZE))[0]


def test_evidence_is_the_dense_sum_of_blend_weights_times_pictures():
    seen, gaussians, truth, evidence, weight = head()
    views = np.array([0, 5])
    for v, dense in zip(views, np.asarray(blend_weights(gaussians, seen.cameras[views]), np.float64)):
        want = np.einsum("hwn,hwk->nk", dense, np.asarray(truth[v]))
        assert_close(evidence[v], want, SUMS, SUMS_WHY, relative=True)
        assert_close(weight[v], dense.sum((0, 1)), SUMS, SUMS_WHY, relative=True)


def test_evidence_adds_up_to_the_weight_where_pictures_add_up_to_one():
    _, _, _, evidence, weight = head()
    assert_close(evidence.sum(-1), weight, SUMS, SUMS_WHY, relative=True)
    assert (np.asarray(weight) > 0.1).any(0).all(), "a Gaussian that no view sees"


def test_a_capacity_too_small_is_loud():
    seen, gaussians, truth, *_ = head()
    evidence, weight = lift(gaussians, seen.cameras, truth, capacity=64)
    assert np.isnan(evidence).all()
    assert np.isnan(weight).all()


def test_lifted_labels_come_back_when_painted():
    seen, gaussians, _, evidence, weight = head()
    probabilities = vote(evidence, weight, seen.yaw, seen.pitch, VoteConfig(method="plain"))
    render = paint(gaussians, probabilities, seen.cameras, capacity=CAPACITY)
    solid = (seen.labels > 0) & (np.asarray(render.alpha) > 0.5)
    right = np.asarray(render.channels).argmax(-1) == seen.labels
    assert solid.sum() > 1000
    # A Gaussian is 3 pixels wide, and one column of pixels in eighteen lies on the border of the two classes.
    assert right[solid].mean() > 0.9


def test_facing_is_the_cosine_with_the_thin_axis():
    seen, gaussians, *_ = head()
    got = np.asarray(facing(gaussians, seen.cameras))
    toward = np.asarray(seen.cameras.centers, np.float64)[:, None] - np.asarray(gaussians.means, np.float64)
    normals = np.asarray(gaussians.means, np.float64) / ball.RADIUS
    want = np.abs(np.einsum("vni,ni->vn", toward, normals)) / np.linalg.norm(toward, axis=-1)
    assert_close(got, want, 1e-5, "float32 rotations of unit vectors")
    assert got.min() < 0.1
    assert got.max() > 0.95


# Sharpening


@functools.cache
def plain_probabilities():
    seen, _, _, evidence, weight = head()
    return vote(evidence, weight, seen.yaw, seen.pitch, VoteConfig(method="plain"))


def sharper(probabilities, pictures, **changes):
    seen, gaussians, *_ = head()
    trust = jnp.ones(len(pictures))
    config = SharpenConfig(**changes)
    return sharpen(gaussians, probabilities, seen.cameras, pictures, trust, capacity=CAPACITY, config=config)


def cross_entropy(probabilities) -> float:
    """Of the rendered mixture of true classes, over solid foreground pixels, weighted with alpha as EM weighs it."""
    seen, gaussians, truth, *_ = head()
    render = paint(gaussians, probabilities, seen.cameras, capacity=CAPACITY)
    channels, alpha = np.asarray(render.channels, np.float64), np.asarray(render.alpha, np.float64)
    weight = alpha * (alpha >= 0.5) * (seen.labels > 0)
    mixture = (channels * np.asarray(truth)).sum(-1) / np.maximum(alpha, 1e-9)
    return float((-np.log(np.maximum(mixture, 1e-3)) * weight).sum() / weight.sum())


def assert_distributions(probabilities):
    probabilities = np.asarray(probabilities)
    assert probabilities.min() >= 0
    assert_close(
        probabilities.sum(-1), np.ones(len(probabilities)), 1e-6, "float32: a division by the sum of three numbers"
    )
    assert not probabilities[:, 0].any(), "a Gaussian on the head became background"


def test_every_round_lowers_the_cross_entropy_of_the_mixture():
    _, _, truth, *_ = head()
    probabilities = [plain_probabilities()]
    for _ in range(5):
        probabilities.append(sharper(probabilities[-1], truth, rounds=1, confusion=False))
        assert_distributions(probabilities[-1])
    entropy = [cross_entropy(r) for r in probabilities]
    assert all(after < before for before, after in itertools.pairwise(entropy)), entropy
    # What is left is the border of the two classes, which runs through Gaussians three pixels wide.
    assert entropy[-1] < 0.8 * entropy[0], entropy


def test_a_lying_view_does_less_harm_through_its_confusion_matrix():
    _, _, truth, *_ = head()
    pictures = truth.at[2].set(truth[2][..., jnp.array([0, 2, 1])])
    believed = sharper(plain_probabilities(), pictures, rounds=1, confusion=False)
    doubted = sharper(plain_probabilities(), pictures, rounds=1, confusion=True)
    assert_distributions(believed)
    assert_distributions(doubted)
    honest = cross_entropy(sharper(plain_probabilities(), truth, rounds=1, confusion=False))
    harm = [cross_entropy(probabilities) - honest for probabilities in (believed, doubted)]
    assert harm[0] > 0.01, harm
    assert harm[1] < 0.5 * harm[0], harm


def test_a_parser_that_hesitates_where_class_2_is_says_where_class_1_is():
    """Class 1 is its likeliest label everywhere, so likeliest labels alone would say nothing."""
    _, _, truth, *_ = head()
    pictures = truth + 0.55 * truth[..., 2:] * jnp.array([0.0, 1.0, -1.0])
    probabilities = 0.6 * plain_probabilities() + 0.2 * jnp.array([0.0, 1.0, 1.0])
    for how in ({}, {"rounds": 5, "acceleration": 1.0}):
        after = sharper(probabilities, pictures, **how)
        assert_distributions(after)
        assert cross_entropy(after) < 0.95 * cross_entropy(probabilities)


def test_how_small_a_part_is():
    counts = jnp.array([[[5.0, 5.0, 0.0], [0.0, 300.0, 0.0], [0.0, 0.0, 10.0]], [[0, 0, 0], [0, 600, 60], [0, 20, 10]]])
    small = small_parts(counts, config=SharpenConfig(small_part=0.02))
    # 1000 pixels of the foreground: 960 of class 1, 40 of class 2.
    np.testing.assert_allclose(small, [0, 0.02 / 0.96, 0.5], rtol=1e-6)
    none = small_parts(counts.at[:, 2].set(0.0), config=SharpenConfig(small_part=0.02))
    np.testing.assert_allclose(none, [0, 0.02, 1], rtol=1e-6)
    assert not small_parts(counts, config=SharpenConfig(small_part=0.0)).any()


def test_opinions_on_small_parts_are_taken_as_they_are():
    """All parts are small: then no confusion matrix has a say. None is: then the opinions count through it alone."""
    _, _, truth, *_ = head()
    pictures = 0.7 * truth + 0.3 * jnp.roll(truth, 1, 0)
    as_they_are = sharper(plain_probabilities(), pictures, confusion=False)
    small = sharper(plain_probabilities(), pictures, small_part=0.999)
    np.testing.assert_allclose(small, as_they_are, atol=1e-6)
    large = sharper(plain_probabilities(), pictures, small_part=0.0)
    between = sharper(plain_probabilities(), pictures, small_part=0.2)
    assert float(jnp.abs(large - as_they_are).max()) > 0.01
    assert 0 < float(jnp.abs(between - as_they_are).mean()) < float(jnp.abs(large - as_they_are).mean())


def test_a_view_without_trust_says_nothing():
    seen, gaussians, truth, *_ = head()
    pictures = truth.at[2].set(truth[2][..., jnp.array([0, 2, 1])])
    config = SharpenConfig(rounds=1, confusion=False)
    trust = jnp.ones(len(pictures)).at[2].set(0.0)
    probabilities = [
        sharpen(gaussians, plain_probabilities(), seen.cameras, p, trust, capacity=CAPACITY, config=config)
        for p in (pictures, truth)
    ]
    assert np.array_equal(*probabilities)


def test_who_knows_one_class_leaves_the_odds_of_the_others():
    """A segmenter of class 1, which paints all the rest as background: classes 2 and 3 keep theirs."""
    seen, gaussians, *_ = head()
    rng = np.random.default_rng(0)
    probabilities = np.pad(rng.dirichlet((2, 2, 2), 150), ((0, 0), (1, 0))).astype(np.float32)
    voter = VoterLabels((np.asarray(seen.labels) == 1).astype(np.uint8), np.ones(8, np.float32), SEGMENTER)
    how = {"capacity": CAPACITY, "config": SharpenConfig(), "others": [voter]}
    after = np.asarray(sharpen(gaussians, jnp.asarray(probabilities), seen.cameras, None, jnp.ones(8), **how))
    assert np.abs(after - probabilities).max() > 0.01
    # Five divisions and sums over pixels in float32; a picture never shows less than _LEAST of these classes.
    np.testing.assert_allclose(after[:, 2] / after[:, 3], probabilities[:, 2] / probabilities[:, 3], rtol=1e-4)


def test_silly_numbers_are_refused():
    got = r"got \(-1, 200.0, 1.5\)"
    with pytest.raises(
        InputError, match=f"rounds, pseudo_counts, acceleration: wanted at least 0, positive, from 1 to 2, {got}"
    ):
        SharpenConfig(rounds=-1)
    for wrong in ({"pseudo_counts": 0.0}, {"acceleration": 0.9}, {"acceleration": 2.1}):
        with pytest.raises(InputError, match="rounds, pseudo_counts, acceleration"):
            SharpenConfig(**wrong)
    with pytest.raises(InputError, match=r"small_part: wanted a share in \[0, 1\), got 1.0"):
        SharpenConfig(small_part=1.0)
