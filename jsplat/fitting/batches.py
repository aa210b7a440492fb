"""Which identities are fitted together: a queue of batches of few shapes, as large as the devices' memory holds."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

from jsplat.captures.capture import Capture
from jsplat.errors import InputError, Unusable, of_a_person
from jsplat.fitting.config import FitConfig
from jsplat.fitting.photos import bucket, padded_size
from jsplat.runtime.devices import host_memory

SHARE = 0.9  # of a device's memory that a batch may take
HOST_SHARE, HELD = 0.5, 4  # of the host's, which holds a batch's pictures as read, stacked, sent, and the next one's


@dataclasses.dataclass(frozen=True)
class PendingIdentity:
    """A capture to be fitted, which need not be in memory yet.

    Attributes:
        shape: views, height and width of its pictures.
        read: called once, on another thread; may raise InputError.
    """

    identity: str
    shape: tuple[int, int, int]
    read: Callable[[], Capture]


def shapes(waiting: Sequence[PendingIdentity]) -> list[list[PendingIdentity]]:
    """Captures that share compiled programs, in the order of the first of each kind."""
    found: dict[tuple, list[PendingIdentity]] = {}
    for one in waiting:
        found.setdefault((bucket(one.shape[0]), padded_size(*one.shape[1:])), []).append(one)
    return list(found.values())


def batches(alike: Sequence[PendingIdentity], devices: int, per_device: int) -> list[list[PendingIdentity]]:
    """The fewest batches of at most `devices * per_device`, of nearly one size."""
    count = math.ceil(len(alike) / (devices * per_device))
    size = math.ceil(len(alike) / count)
    return [list(alike[i : i + size]) for i in range(0, len(alike), size)]


def memory_of(device) -> int | None:
    """Bytes that a device has for arrays; None where it does not say (processors do not)."""
    return (device.memory_stats() or {}).get("bytes_limit")


def max_per_device(
    config: FitConfig, devices: Sequence, alike: int, bytes_each: Callable[[], int], pictures: int = 0
) -> int:
    """How many identities each of the devices, which are alike, takes at once.

    Args:
        alike: identities that wait.
        bytes_each: measures what one identity needs; called only where it matters.
        pictures: bytes of one identity's, which the host has to hold where nobody asks for a number.

    Raises:
        InputError: not even one has room.
    """
    wanted = config.identities_per_device or math.ceil(alike / len(devices))
    limit = memory_of(devices[0])
    if limit is None:
        return config.identities_per_device or 1
    each = bytes_each()
    fits = int(SHARE * limit) // each
    if fits < (config.identities_per_device or 1):
        what = f"{SHARE:.0%} of the device's {limit / 2**30:.1f} GiB"
        raise InputError(
            "fit: memory",
            wanted=f"{config.identities_per_device or 1} identities in {what}",
            got=f"{each / 2**30:.2f} GiB each",
            hint="a smaller `--set size=PIXELS` needs less; so do fewer `fit.gaussians` or `fit.identities_per_device`",
        )
    if config.identities_per_device or not pictures:
        return min(wanted, fits)
    return min(wanted, fits, max(int(HOST_SHARE * host_memory() / (HELD * pictures * len(devices))), 1))


def read_ahead(
    queue: Sequence[Sequence[PendingIdentity]],
) -> Iterator[list[tuple[PendingIdentity, Capture | InputError]]]:
    """Reads each batch while the one before is worked on; a capture that cannot be read comes as its error."""

    def one(waiting: PendingIdentity) -> tuple[PendingIdentity, Capture | InputError]:
        try:
            with of_a_person():
                return waiting, waiting.read()
        except Unusable as error:
            return waiting, error

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ahead = None
        for batch in queue:
            coming = pool.submit(lambda batch=batch: [one(w) for w in batch])
            if ahead is not None:
                yield ahead.result()
            ahead = coming
        if ahead is not None:
            yield ahead.result()
