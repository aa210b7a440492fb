"""Views of one head in blocks of one size, dealt to devices in turn.

One compiled program serves heads with any number of views. What a block gives does not depend on who computes it, and
sums go over the blocks in order: the bits are the same on any number of devices.
"""

import collections
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
Devices = Sequence[jax.Device]  # none: where the arrays lie

VIEWS = 8  # in a block; a GPU renders those of a block at the same time


def view_count(views: Any) -> int:
    """How many views there are: the leading axis of every array."""
    return len(jax.tree.leaves(views)[0])


def block_indices(count: int, size: int = VIEWS) -> list[np.ndarray]:
    """The numbers of the views of each block of `size` (or all, where there are fewer); the last ones may not exist."""
    size = max(min(size, count), 1)
    return [np.arange(start, start + size) for start in range(0, count, size)]


def unpadded(count: int) -> list[np.ndarray]:
    """Which places of each block (see `deal`) hold a view of their own."""
    return [chosen < count for chosen in block_indices(count)]


def to_blocks(views: T, devices: Devices = ()) -> list[T]:
    """The views in blocks, the last one filled up with its last view."""
    count, blocks = view_count(views), []
    for chosen, device in zip(block_indices(count), itertools.cycle(devices or (None,))):
        blocks.append(_block(views, chosen, count, device))
    return blocks


def _block(views: T, chosen: np.ndarray, count: int, device: Any) -> T:
    block = _taken(views, np.minimum(chosen, count - 1))
    return block if device is None else jax.device_put(block, device)


def _taken(views: T, chosen: np.ndarray) -> T:
    # Arrays of the host stay there until a block is put somewhere.
    return jax.tree.map(lambda x: x[chosen] if isinstance(x, np.ndarray) else _rows(x, chosen), views)


@jax.jit
def _rows(x: jax.Array, chosen: jax.Array) -> jax.Array:
    return x[chosen]


def on_first(devices: Devices) -> contextlib.AbstractContextManager:
    """Within the block new arrays lie on the first of these devices, if there are any."""
    return jax.default_device(devices[0]) if devices else contextlib.nullcontext()


def per_device(shared: T, devices: Devices) -> list[T]:
    """What all blocks need, on each of the devices."""
    return [jax.device_put(shared, device) for device in devices] if devices else [shared]


def join_blocks(blocks: Sequence[T], count: int, devices: Devices = ()) -> T:
    """The first `count` views of all blocks, on the first device."""
    if devices:
        blocks = [jax.device_put(block, devices[0]) for block in blocks]
    return _joined(list(blocks), count=count)


@functools.partial(jax.jit, static_argnames="count")
def _joined(blocks: list, *, count: int):
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *blocks)


def by_view(program: Callable[[Any, T], Any], shared: Any, views: T, devices: Devices = ()) -> Any:
    """`program(shared, block)` of every block, all devices at work at the same time.

    Args:
        program: compiled; the leading axis of what it returns is that of its block.
        shared: what it needs besides.
        views: leading axis of every array: the views.

    Returns:
        what the program returns, for all views, on the first device.
    """
    return join_blocks([part for _, part in _parts(program, shared, views, devices)], view_count(views), devices)


def each_block(
    program: Callable[[Any, T], Any], shared: Any, views: T, devices: Devices = ()
) -> Iterator[tuple[slice, Any]]:
    """As `by_view`, block by block: which views, and what the program returns for them, on its device.

    Few blocks are in memory at a time: each device has one to work on while one of its results is read.
    """
    count, coming = view_count(views), collections.deque()
    for chosen, part in _parts(program, shared, views, devices):
        where = slice(int(chosen[0]), min(int(chosen[-1]) + 1, count))
        whole = where.stop - where.start == len(chosen)  # a slice of all would be a copy
        coming.append((where, part if whole else jax.tree.map(lambda x, n=where.stop - where.start: x[:n], part)))
        if len(coming) > max(len(devices), 1):
            yield coming.popleft()
    yield from coming


def _parts(program: Callable[[Any, T], Any], shared: Any, views: T, devices: Devices) -> Iterator[tuple]:
    copies, count = itertools.cycle(per_device(shared, devices)), view_count(views)
    for chosen, own, device in zip(block_indices(count), copies, itertools.cycle(devices or (None,))):
        yield chosen, program(own, _block(views, chosen, count, device))


def over_views(function: Callable[..., Any], views: Any) -> Any:
    """`function` of each view (leading axis of every array), in one compiled loop.

    On a CPU one view keeps every core busy, and memory stays small; a GPU takes several at once.
    """
    return jax.lax.map(function, views, batch_size=None if jax.default_backend() == "cpu" else VIEWS)
