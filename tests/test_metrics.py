"""Scores against values worked out by hand or by a slower, plainer way."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.metrics.agreement import agreement
from jsplat.metrics.config import EvaluateConfig
from jsplat.metrics.masks import BINS, Tally, pose_bins, score, scores_of, tally
from jsplat.metrics.pictures import psnr, ssim
from jsplat.raster.camera import Camera, orbit

LABELS = LabelSet(
    names=("background", "skin", "l_eye", "r_eye", "hat"),
    colors=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)),
    mirror=("background", "skin", "r_eye", "l_eye", "hat"),
    rare=frozenset({"hat"}),
)
DEFAULTS = EvaluateConfig()
EXACT = 1e-12  # the same few divisions of integers in another order


def scored(predicted, truth, yaw=None, pitch=None, identity=None, config=DEFAULTS):
    predicted, truth = np.asarray(predicted, np.uint8), np.asarray(truth, np.uint8)
    n = len(truth)
    yaw = np.zeros(n) if yaw is None else np.asarray(yaw, float)
    pitch = np.zeros(n) if pitch is None else np.asarray(pitch, float)
    return score(predicted, truth, yaw, pitch, identity or ("a",) * n, LABELS, config)


def random_maps(n=6, size=24, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 5, (n, 4, 4)), np.ones((size // 4, size // 4), int)).astype(np.uint8)
    wrong = rng.random(truth.shape) < 0.2
    return np.where(wrong, rng.integers(0, 5, truth.shape), truth).astype(np.uint8), truth


def test_a_perfect_prediction_scores_one_everywhere():
    _, truth = random_maps()
    result = scored(truth, truth, yaw=[0, 30, 60, 90, 120, 0], pitch=[0, 0, 0, 0, 0, 40])
    for name in BINS:
        row = result["bins"][name]
        assert row["n"] == {"all": 6, "0-15": 2, "side": 3}.get(name, 1)
        assert all(value == 1.0 for key, value in row.items() if key != "n"), name
    assert result["f1_merged"] == 1.0


def test_hand_counted_scores():
    truth = [[[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 0, 0]]]
    predicted = [[[1, 1, 1, 0], [1, 1, 3, 2], [0, 0, 0, 4]]]
    result = scored(predicted, truth)
    # skin: tp 5 of 6 true, 5 predicted; l_eye: tp 1 of 2 true, 1 predicted; r_eye, hat: predicted only, so not in f1
    skin, eye = 10 / 11, 2 / 3
    row = result["bins"]["all"]
    assert row["f1"] == pytest.approx((skin + eye) / 2, abs=EXACT)
    assert row["f1_core"] == pytest.approx((skin + eye) / 2, abs=EXACT)
    assert row["f1_merged"] == pytest.approx((skin + 1.0) / 2, abs=EXACT)  # both eyes are one class: 2 of 2
    iou = [3 / 5, 5 / 6, 1 / 2, 0, 0]
    assert row["miou"] == pytest.approx(np.mean(iou), abs=EXACT)
    assert row["miou_fg"] == pytest.approx(np.mean(iou[1:]), abs=EXACT)
    assert row["miou_per_image"] == pytest.approx(np.mean(iou), abs=EXACT)
    assert result["classes"]["r_eye"] == {"iou": 0.0, "f1": None}
    assert result["classes"]["l_eye"] == {"iou": 0.5, "f1": pytest.approx(2 / 3, abs=EXACT)}
    expected = [[3, 0, 0, 0, 1], [1, 5, 0, 0, 0], [0, 0, 1, 1, 0], [0] * 5, [0] * 5]
    assert result["confusion"]["all"] == expected


def test_rare_classes_count_in_f1_and_not_in_f1_core():
    truth = [[[1, 1, 4, 4]]]
    row = scored([[[1, 1, 0, 0]]], truth)["bins"]["all"]
    assert (row["f1"], row["f1_core"]) == (0.5, 1.0)


def test_one_matrix_per_bin_is_not_a_mean_over_pictures():
    truth = np.zeros((2, 1, 10), np.uint8)
    truth[0, 0, :1] = 1  # one pixel, missed
    truth[1, 0, :9] = 1  # nine pixels, found
    predicted = truth.copy()
    predicted[0] = 0
    row = scored(predicted, truth)["bins"]["all"]
    assert row["f1"] == pytest.approx(18 / 19, abs=EXACT)
    per_image = ((9 / 10 + 0) / 2 + 1) / 2
    assert row["miou_per_image"] == pytest.approx(per_image, abs=EXACT)


def test_ignored_truth_counts_nowhere():
    predicted, truth = random_maps()
    truth[:, 6:18] = IGNORE
    reference = scored(predicted, truth)
    predicted[:, 6:18] = 2
    changed = scored(predicted, truth)
    # whatever is predicted there, the matrix stays; the bands of other pixels do not see it either
    assert changed == reference
    assert sum(map(sum, changed["confusion"]["all"])) == (truth != IGNORE).sum()


def test_no_answer_is_a_miss_and_no_ones_false_alarm():
    row = scored([[[1, IGNORE, 0, 0]]], [[[1, 1, 0, 0]]])["bins"]["all"]
    assert row["f1"] == pytest.approx(2 / 3, abs=EXACT)
    assert row["miou"] == pytest.approx((1 / 2 + 1) / 2, abs=EXACT)


def test_bins_hold_their_upper_end_and_side_starts_at_60():
    yaw = np.asarray([15, -15.000001, 15.1, 45, 60, 59.9, 75, -105, 105.1, 180])
    bins = pose_bins(yaw, np.asarray([30, -30, 29.9, -29.9, 0, 0, 0, 0, 0, 0.0]))
    members = {name: np.flatnonzero(mask).tolist() for name, mask in bins.items()}
    assert tuple(members) == BINS
    assert members == {
        "0-15": [0, 1],
        "15-45": [2, 3],
        "45-75": [4, 5, 6],
        "75-105": [7],
        ">105": [8, 9],
        "steep": [0, 1],
        "side": [4, 6, 7, 8, 9],
        "all": [*range(10)],
    }


def test_an_empty_bin_has_no_scores():
    predicted, truth = random_maps(2)
    row = scored(predicted, truth)["bins"][">105"]
    assert row.pop("n") == 0
    assert set(row.values()) == {None}


def test_no_pictures_at_all():
    result = scored(np.zeros((0, 8, 8)), np.zeros((0, 8, 8)))
    assert result["bins"]["all"]["f1"] is None
    assert result["ci"] == {"side": None, "0-15": None, "all": None}


def slow_boundary_iou(predicted, truth, k, d):
    """Cheng et al.'s definition, class by class: a mask minus its erosion, the outside of the picture being zero."""

    def band(mask):
        h, w = mask.shape
        padded = np.pad(mask, d)
        inner = np.ones_like(mask)
        for dy in range(2 * d + 1):
            for dx in range(2 * d + 1):
                inner &= padded[dy : dy + h, dx : dx + w]
        return mask & ~inner

    values = []
    for c in range(1, k):
        pairs = [(band(p == c), band(t == c)) for p, t in zip(predicted, truth)]
        union = sum(int((a | b).sum()) for a, b in pairs)
        if union:
            values.append(sum(int((a & b).sum()) for a, b in pairs) / union)
    return np.mean(values)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
def test_boundary_iou_is_the_plain_definition(radius):
    predicted, truth = random_maps()
    fraction = radius / math.hypot(24, 24)
    result = scored(predicted, truth, config=EvaluateConfig(boundary=fraction))
    expected = slow_boundary_iou(predicted, truth, 5, radius)
    assert result["bins"]["all"]["boundary_iou"] == pytest.approx(expected, abs=EXACT)


def test_boundary_band_scales_with_the_picture_and_is_at_least_one_pixel():
    predicted, truth = random_maps()
    result = scored(predicted, truth)["bins"]["all"]  # 3 px at 512 is 0.14 px here, 2 % of the diagonal is 0.7 px
    expected = pytest.approx(slow_boundary_iou(predicted, truth, 5, 1), abs=EXACT)
    assert result["boundary_iou"] == expected
    assert result["boundary_iou_standard"] == expected


def test_interval_holds_the_score_and_depends_on_people_not_pictures():
    predicted, truth = random_maps(12)
    predicted[6:] = truth[6:]  # three people are done perfectly
    people = tuple("aabbccddeeff")
    result = scored(predicted, truth, yaw=[90] * 12, identity=people)
    low, high = result["ci"]["side"]
    assert low < result["bins"]["side"]["f1"] < high <= 1.0
    assert result["ci"]["side"] == result["ci"]["all"]
    assert result["ci"]["0-15"] is None
    twice = scored(np.repeat(predicted, 2, 0), np.repeat(truth, 2, 0), identity=tuple(np.repeat(people, 2)))
    assert twice["ci"]["all"] == pytest.approx(result["ci"]["all"], abs=EXACT)
    assert scored(predicted[:10], truth[:10], identity=people[:10])["ci"]["all"] is None  # five people


def test_counts_of_one_person_after_the_other_give_every_bit_of_the_scores_of_all_pictures_together():
    rng = np.random.default_rng(3)
    counts = (3, 200, 1, 9, 40)  # more than 128 numbers are added in pairs, so the order of additions shows
    predicted, truth = random_maps(sum(counts))
    truth[5] = IGNORE  # a picture without a score of its own
    yaw, pitch = rng.uniform(-120, 120, len(truth)), rng.uniform(-50, 50, len(truth))
    people = tuple(name for name, n in zip("edcba", counts) for _ in range(n))
    whole = scored(predicted, truth, yaw, pitch, people)
    streamed = Tally.empty(len(LABELS))
    for name in "edcba":
        own = np.flatnonzero([person == name for person in people])
        streamed.add(tally(predicted[own], truth[own], yaw[own], pitch[own], (name,) * len(own), LABELS))
    assert scores_of(streamed, LABELS) == whole
    assert whole["ci"]["side"] is None, "five people"
    each = [scored(p[None], t[None])["bins"]["all"]["miou"] for p, t in zip(predicted, truth)]
    assert each.count(None) == 1
    assert whole["bins"]["all"]["miou_per_image"] == np.mean([miou for miou in each if miou is not None])
    wide = Tally.empty(19)
    with pytest.raises(InputError, match=r"Tally.add: other: wanted 5 classes, got 19"):
        streamed.add(wide)


def test_counts_of_one_person_may_come_in_pieces():
    predicted, truth = random_maps(8)
    people, yaw = tuple("abababab"), np.asarray([0, 90.0] * 4)
    pieces = Tally.empty(len(LABELS))
    for part in (slice(0, 3), slice(3, 8)):
        pieces.add(tally(predicted[part], truth[part], yaw[part], np.zeros(8)[part], people[part], LABELS))
    assert scores_of(pieces, LABELS) == scored(predicted, truth, yaw, identity=people)
    assert pieces.people["side"].keys() == {"b"}, "who has no picture in a bin cannot be drawn for its interval"


def test_bad_input_is_named():
    predicted, truth = random_maps(2)
    with pytest.raises(
        InputError, match=r"score: predicted: wanted the shape of truth \(2, 24, 24\), got \(1, 24, 24\)"
    ):
        scored(predicted[:1], truth)
    predicted[0, 0, 0] = 9
    with pytest.raises(InputError, match=r"score: predicted: wanted class ids below 5 or 255, got \[9\]"):
        scored(predicted, truth)
    with pytest.raises(InputError, match="score: truth, yaw, pitch, identity: wanted one entry per picture"):
        scored(truth, truth, yaw=[0.0])


def sphere_views(yaw, size=32, radius=1.0):
    """Exact z depth and surface points of a sphere seen by cameras around it."""
    k = np.asarray([[40.0, 0, size / 2], [0, 40.0, size / 2], [0, 0, 1]])
    zero = np.zeros(len(yaw))
    cameras = orbit(np.asarray(yaw, float), zero, zero, zero + 3.0, k, (size, size))
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    rays = np.concatenate([grid, np.ones((size, size, 1))], -1) @ np.linalg.inv(k).T
    depth, points = [], []
    for pose in np.asarray(cameras.camera_from_world, np.float64):
        rotation, translation = pose[:3, :3], pose[:3, 3]
        a, b, c = (rays**2).sum(-1), rays @ translation, translation @ translation - radius**2
        root = b**2 - a * c
        z = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
        depth.append(z)
        points.append((rays * z[..., None] - translation) @ rotation)
    return cameras, np.stack(depth), np.stack(points)


def test_labels_painted_on_a_surface_agree_and_view_bound_ones_do_not():
    cameras, depth, points = sphere_views([-20, 0, 20])
    seen = depth > 0
    painted = np.where(seen, np.where(points[..., 1] > 0, 1, 2), 0).astype(np.uint8)
    assert agreement(painted, depth, cameras) > 0.93  # all but the pixels along the seam, about one row in 25
    striped = painted.copy()
    striped[1][seen[1]] = 3  # the middle view disagrees with both others
    config = EvaluateConfig(neighbors=1)
    assert agreement(striped, depth, cameras, config) == 0.0
    one = np.where(seen, 1, 0).astype(np.uint8)
    assert agreement(one, depth, cameras) == 1.0


def test_agreement_skips_what_is_hidden_and_what_is_ignored():
    cameras, depth, _ = sphere_views([0, 180])
    labels = np.stack([np.where(depth[0] > 0, 1, 0), np.where(depth[1] > 0, 2, 0)]).astype(np.uint8)
    # opposite sides of a sphere share no point: without the depth test every pixel would be "compared" and disagree
    assert agreement(labels, depth, cameras) is None
    cameras, depth, _ = sphere_views([0, 10])
    labels = np.stack([np.where(depth[0] > 0, 1, 0), np.full_like(depth[1], IGNORE)]).astype(np.uint8)
    assert agreement(labels, depth, cameras) is None


def test_agreement_uses_pixel_centres():
    """Two cameras at one place, the second with its principal point moved by half a picture: an exact pixel shift."""
    k = np.asarray([[10.0, 0, 4], [0, 10.0, 4], [0, 0, 1]])
    moved = k + np.asarray([[0, 0, 3.0], [0, 0, 0], [0, 0, 0]])
    cameras = Camera(jnp.tile(jnp.eye(4), (2, 1, 1)), jnp.asarray(np.stack([k, moved]), jnp.float32), 8, 8)
    labels = np.random.default_rng(0).integers(1, 5, (8, 8)).astype(np.uint8)
    shifted = np.roll(labels, 3, 1)
    shifted[:, :3] = IGNORE
    assert agreement(np.stack([labels, shifted]), np.ones((2, 8, 8)), cameras) == 1.0
    with pytest.raises(InputError, match=r"agreement: labels, depth: wanted shape \(2, 8, 8\)"):
        agreement(labels[None], np.ones((1, 8, 8)), cameras)


def test_psnr():
    a = np.full((4, 4, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-9)  # mse 0.01
    assert psnr(a, a) == math.inf
    both = np.stack([a + 0.1, a + 0.01])
    assert psnr(np.stack([a, a]), both) == pytest.approx(30.0, abs=1e-9)  # the mean of 20 and 40 dB
    with pytest.raises(InputError, match=r"psnr: a, b: wanted values in \[0, 1\], got \(0.0, 2.0\)"):
        psnr(np.zeros((2, 2, 1)), np.asarray([[[0.0], [2.0]], [[0.0], [0.0]]]))
    with pytest.raises(InputError, match="psnr: a, b: wanted two pictures of one shape"):
        psnr(a, a[:2])


def slow_ssim(a, b):
    """Wang et al. 2004, equation 13, with weighted moments per window."""
    grid = np.arange(11) - 5
    w = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / 4.5)
    w /= w.sum()
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, cov = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
            top = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
            values.append(top / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(values)


def test_ssim():
    rng = np.random.default_rng(0)
    a = rng.random((2, 14, 17, 3))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    expected = np.mean([slow_ssim(a[i, ..., c], b[i, ..., c]) for i in range(2) for c in range(3)])
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)  # moments as differences of squares lose a few digits
    flat = np.full((11, 11, 1), 0.2), np.full((11, 11, 1), 0.6)  # no structure: the luminance term alone
    assert ssim(*flat) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), abs=1e-9)
    assert ssim(a, 1 - a) < 0  # anti-correlated
    with pytest.raises(InputError, match="ssim: a: wanted at least 11x11 pixels"):
        ssim(a[:, :8], b[:, :8])
