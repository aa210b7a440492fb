"""The queue: what makes a view worth looking at, and the simulation that shows what it was worth."""

import dataclasses
import weakref

import numpy as np
import pytest

from jsplat.edit import QueueConfig, QueueInputs, SimulationConfig, Subject, expected_gains, rank, simulate
from jsplat.errors import InputError
from jsplat.labels import VoterLabels
from jsplat.labelsets.labelset import IGNORE
from tests import spotted
from tests.spotted import BACK, FRONT, SPOT

ONE = QueueConfig(stride=1)


def looks(**changes) -> QueueInputs:
    """The ball with masks that are sure and agree with the parser, but for what is changed."""
    known = spotted.stages()[1]
    sure = np.ones_like(known["confidence"])
    opinion = np.eye(4, dtype=np.float32)[known["refined"]]
    plain = QueueInputs(
        known["refined"], sure, opinion, known["depth"], spotted.capture().cameras, np.ones(8, np.float32)
    )
    return dataclasses.replace(plain, **changes)


def test_doubt_counts_by_the_pixel_and_by_the_size_of_its_class():
    plain = looks()
    base = expected_gains(plain, ONE)
    sure = plain.confidence.copy()
    sure[BACK, 20:30, 20:24] = 0.25
    gained = expected_gains(looks(confidence=sure), ONE) - base
    assert gained.argmax() == BACK
    assert (np.delete(gained, BACK) == 0).all()
    # 40 pixels of doubt 0.75, where neighbours agree; each counts 1 / sqrt(mean area of its class).
    area = [np.mean((plain.labels == c).sum((1, 2))[(plain.labels == c).any((1, 2))]) for c in (1, 2)]
    patch = plain.labels[BACK, 20:30, 20:24]
    want = sum(0.75 * (patch == c).sum() / np.sqrt(a) for c, a in zip((1, 2), area))
    # At the border of the two classes neighbours disagree already, and doubt adds less to that.
    assert 0.85 * want <= gained[BACK] <= want + 1e-6


def test_what_trusted_neighbours_say_counts_through_the_geometry():
    plain = looks()
    opinion = plain.first.copy()
    truth = spotted.capture().labels
    assert truth is not None
    # The neighbours saw the spot; the view itself and the views behind did not.
    for view in (1, 2):
        opinion[view][truth[view] == SPOT] = np.eye(4)[SPOT]
    gained = expected_gains(looks(first=opinion), ONE) - expected_gains(plain, ONE)
    assert gained[FRONT] > 1
    assert abs(gained[BACK]) < 0.1 * gained[FRONT]
    trust = np.ones(8, np.float32)
    trust[[1, 2]] = 1e-3
    distrusted = looks(first=opinion, trust=trust)
    assert expected_gains(distrusted, ONE)[FRONT] - expected_gains(looks(trust=trust), ONE)[FRONT] < 0.2 * gained[FRONT]


def test_every_voter_is_asked_as_far_as_it_knows():
    """A voter that saw the spot counts as the parser does; one whose label may mean what is there dissents nowhere."""
    truth = spotted.capture().labels
    assert truth is not None
    base = expected_gains(looks(), ONE)
    knows = tuple(frozenset({i}) for i in range(4))
    sees = VoterLabels(np.where(truth > 0, truth, np.uint8(IGNORE)), np.ones(8, np.float32), knows)
    gained = expected_gains(looks(others=[sees]), ONE) - base
    assert gained[FRONT] > 1
    assert abs(gained[BACK]) < 0.1 * gained[FRONT]
    coarse = VoterLabels((looks().labels > 0).astype(np.uint8), sees.trust, (frozenset({0}), frozenset({1, 2, SPOT})))
    assert (expected_gains(looks(others=[coarse]), ONE) <= base + 1e-6).all()
    silent = VoterLabels(np.full_like(truth, IGNORE), sees.trust, knows)
    np.testing.assert_allclose(expected_gains(looks(others=[silent]), ONE), base)


def test_small_classes_come_first():
    labels = spotted.capture().labels
    assert labels is not None
    agreed = looks(labels=labels, first=np.eye(4, dtype=np.float32)[labels])
    patches = [np.zeros(labels.shape, bool) for _ in range(2)]
    rows, columns = (int(a.mean()) for a in np.nonzero(labels[FRONT] == SPOT))
    patches[0][FRONT, rows - 2 : rows + 2, columns - 2 : columns + 2] = True
    patches[1][FRONT, rows - 2 : rows + 2, columns + 9 : columns + 13] = True
    assert (labels[patches[0]] == SPOT).all()
    assert (labels[patches[1]] == 1).all()
    base = expected_gains(agreed, ONE)[FRONT]
    doubted = [np.where(p, np.float32(0.5), agreed.confidence) for p in patches]
    gains = [expected_gains(dataclasses.replace(agreed, confidence=c), ONE)[FRONT] - base for c in doubted]
    area = [np.mean((labels == c).sum((1, 2))[(labels == c).any((1, 2))]) for c in (SPOT, 1)]
    # Splats at the ball's rim show through their neighbours' places: the depth, and so the pixel asked, may be one off.
    assert gains[0] / gains[1] == pytest.approx(np.sqrt(area[1] / area[0]), rel=0.2)
    assert gains[0] > 1.5 * gains[1] > 0


def test_the_order_prefers_gain_and_leaves_neighbours_for_later():
    cameras = {"a": spotted.capture().cameras, "b": spotted.capture().cameras}
    # Views of yaw 0, 25, -25, 50, -50, 90, -90, 180.
    gains = {"a": np.asarray([10, 9.9, 1, 1, 1, 8, 1, 1.0]), "b": np.asarray([9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])}
    order = list(rank(gains, cameras, {}))
    assert [(n, v) for n, v, _ in order[:3]] == [("a", 0), ("b", 0), ("a", 5)]
    assert sorted((n, v) for n, v, _ in order) == sorted((n, v) for n in "ab" for v in range(8))
    ranked = list(rank(gains, cameras, {"a": [0], "b": [0], "not read yet": [1]}))
    assert len(ranked) == 14
    assert ranked[0][:2] == ("a", 5)
    assert all(g >= 0 for *_, g in ranked)
    assert list(rank({}, {}, {})) == []


def test_truth_revealed_on_the_first_of_the_queue_corrects_other_views():
    first, known = spotted.stages()
    capture = spotted.capture()
    seen = QueueInputs(
        known["refined"], known["confidence"], first, known["depth"], capture.cameras, np.ones(8, np.float32)
    )
    made = []

    def head():
        made.append(spotted.head())
        return made[-1]

    assert capture.labels is not None
    subject = Subject(head, seen, capture.labels, capture.yaw, capture.pitch)
    found = simulate({"ball": lambda: subject}, spotted.CLASSES, SimulationConfig(revealed_fraction=0.2))
    assert (found["masks"], found["revealed"]) == (8, 2)
    assert len(made) == 1
    assert len(found["edits"]) == 2
    assert found["median_corrected"] == np.median([e["corrected"] for e in found["edits"]])
    assert all(e["pixels"] > 0 and e["corrected"] + e["harmed"] <= 7 for e in found["edits"])
    assert sum(e["corrected"] for e in found["edits"]) >= 3
    assert found["side_after"] >= found["side_after_others"]
    assert found["side_before"] > 0.5


def test_one_head_is_in_memory_at_a_time():
    first, known = spotted.stages()
    capture = spotted.capture()
    trust, alive = np.ones(8, np.float32), []

    def read(brighter):
        assert [subject for subject in alive if subject() is not None] == []
        seen = QueueInputs(
            known["refined"], known["confidence"] * brighter, first, known["depth"], capture.cameras, trust
        )
        subject = Subject(spotted.head, seen, capture.labels, capture.yaw, capture.pitch)
        alive.append(weakref.ref(subject))
        return subject

    sure = {f"sure{i}": lambda: read(1) for i in range(3)}
    found = simulate(
        {**sure, "doubted": lambda: read(np.float32(0.5))}, spotted.CLASSES, SimulationConfig(revealed_fraction=0.05)
    )
    assert len(alive) == 8
    assert [e["identity"] for e in found["edits"]] == ["doubted"] * 2
    assert found["masks"] == 32


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match=r"QueueConfig\.stride: wanted a positive number"):
        QueueConfig(stride=0)
    with pytest.raises(InputError, match="SimulationConfig: wanted a share"):
        SimulationConfig(revealed_fraction=0.0)
    with pytest.raises(InputError, match="at least one head with known labels"):
        simulate({}, spotted.CLASSES)
