"""The queue of the fit: which identities share a batch, how many, and that neither memory nor programs pile up."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.fitting import FailedIdentity, PendingIdentity, fit_batches
from jsplat.fitting import batches as queue
from jsplat.fitting.photos import bucket, padded_size, photos_of
from jsplat.fitting.step import bytes_per_identity, steps
from jsplat.labelsets.labelset import IGNORE
from tests import ball


def programs() -> int:
    return steps._cache_size()  # type: ignore[attr-defined]


def waiting(name: str, views: int = 8, size: int = 32) -> PendingIdentity:
    capture = ball.capture(name, yaw=np.arange(views) * 360 / views, size=size)
    return PendingIdentity(name, capture.images.shape[:3], lambda: capture)


def test_few_numbers_of_views_and_sizes_cover_all():
    assert [bucket(v) for v in (1, 8, 9, 12, 13, 16, 17, 24, 25, 33, 48, 49, 56, 65)] == [
        *(8, 8, 12, 12, 16, 16, 24, 24, 32, 48, 48, 64, 64, 96)
    ]
    assert all(views <= bucket(views) <= max(8, 1.5 * views) for views in range(1, 500))
    assert len({bucket(views) for views in range(1, 500)}) == 13
    assert (padded_size(128, 128), padded_size(97, 512)) == ((128, 128), (112, 512))


def test_padding_says_nothing():
    capture = ball.capture("ada", yaw=np.arange(9) * 40.0, size=40)
    photos = photos_of(capture, ball.FIT, 0)
    assert photos.images.shape == (12, 48, 48, 3)
    assert (photos.cameras.width, photos.cameras.height) == (48, 48)
    assert photos.valid[:, :40, :40].all()
    assert not photos.valid[:, 40:].any()
    assert not photos.valid[:, :, 40:].any()
    assert (photos.labels[:, 40:] == IGNORE).all()
    assert np.array_equal(photos.images[:9, :40, :40], capture.images)
    assert int(photos.train_count) == 7
    assert set(np.asarray(photos.train[:7]).tolist()) == set(range(9)) - {2, 6}


def test_batches_are_the_fewest_and_nearly_equal():
    of = [waiting(str(i)) for i in range(7)]
    assert [len(b) for b in queue.batches(of, 2, 1)] == [2, 2, 2, 1]
    assert [len(b) for b in queue.batches(of, 2, 2)] == [4, 3]
    assert [w.identity for b in queue.batches(of, 1, 3) for w in b] == [str(i) for i in range(7)]
    kinds = queue.shapes([waiting("a"), waiting("b", views=9), waiting("c", views=7), waiting("d", size=64)])
    assert [[w.identity for w in kind] for kind in kinds] == [["a", "c"], ["b"], ["d"]]


@pytest.mark.parametrize(
    ("limit", "at_once", "alike", "most"),
    [
        (None, 0, 100, 1),  # a processor: more are not faster
        (None, 3, 100, 3),
        (1000, 0, 100, 9),  # 900 of 1000 bytes, 100 each
        (1000, 0, 6, 3),  # two devices share six
        (1000, 4, 100, 4),
    ],
)
def test_memory_says_how_many_fit_at_once(monkeypatch, limit, at_once, alike, most):
    monkeypatch.setattr(queue, "memory_of", lambda device: limit)
    config = dataclasses.replace(ball.FIT, identities_per_device=at_once)
    assert queue.max_per_device(config, ["first", "second"], alike, lambda: 100) == most


def test_a_batch_is_no_larger_than_the_host_can_read(monkeypatch):
    monkeypatch.setattr(queue, "memory_of", lambda device: 10**9)
    monkeypatch.setattr(queue, "host_memory", lambda: 8000)
    assert queue.max_per_device(ball.FIT, ["one"], 900, lambda: 100, pictures=10) == 100
    assert queue.max_per_device(ball.FIT, ["one", "two"], 900, lambda: 100, pictures=10) == 50
    assert (
        queue.max_per_device(
            dataclasses.replace(ball.FIT, identities_per_device=300), ["one"], 900, lambda: 100, pictures=10
        )
        == 300
    )


def test_a_device_too_small_for_what_is_asked_says_so(monkeypatch):
    monkeypatch.setattr(queue, "memory_of", lambda device: 2**30)
    wanted = r"fit: memory: wanted 4 identities in 90% of the device's 1.0 GiB, got 0.50 GiB each"
    with pytest.raises(InputError, match=wanted):
        queue.max_per_device(dataclasses.replace(ball.FIT, identities_per_device=4), ["one"], 9, lambda: 2**29)


def test_what_an_identity_needs_is_measured():
    small = bytes_per_identity((8, 32, 32), 3, ball.FIT)
    assert small > 12 * 32 * 32 * 3  # its pictures alone
    assert bytes_per_identity((96, 32, 32), 3, ball.FIT) - small >= (96 - 8) * 32 * 32 * (3 + 1 + 1)


def test_the_next_batch_is_read_while_one_is_worked_on():
    begun = threading.Event()

    def second():
        begun.set()
        raise InputError("second", wanted="a head", got="none")

    ada = waiting("ada")
    rest = [[ada], [PendingIdentity("bob", (8, 32, 32), second)]]
    batches = queue.read_ahead(rest)
    ((one, capture),) = next(batches)
    assert one is ada
    assert capture is ada.read()
    assert begun.wait(600), "nothing is read while the first batch is in work"
    ((other, error),) = next(batches)
    assert other.identity == "bob"
    assert isinstance(error, InputError)
    assert next(batches, None) is None


def test_neither_memory_nor_programs_grow_over_ten_batches():
    """Captures of 8, 7 and 6 views share one program, and a batch leaves nothing on the device."""
    everyone = [waiting(f"p{i}", views=8 - i % 3) for i in range(11)]
    lost = dataclasses.replace(everyone[4], read=lambda: (_ for _ in ()).throw(InputError("p4", wanted="a", got="b")))
    everyone[4] = lost
    known, held, found = [], [], []
    for result in fit_batches(everyone, ball.SIDES, ball.FIT):
        held.append(sum(x.nbytes for x in jax.live_arrays()))
        known.append(programs())
        found.append(result.identity if isinstance(result, FailedIdentity) else result.identities[0])
    assert found == [f"p{i}" for i in range(11)]
    assert known[-1] == known[2], known  # once each number of views was there, and the capacity was found
    assert held[-1] <= held[2], held
