"""A tensor in somebody's file, known by shape before it is read."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a weight file may cost before it is refused.

    Attributes:
        file_bytes: size of the file; nothing larger than it is ever made from it.
        operations: steps of a pickle; a checkpoint with its optimiser takes some ten thousand.
    """

    file_bytes: int = 2 << 30
    operations: int = 2_000_000


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor not yet read.

    Attributes:
        shape: its sizes, in the file's order of axes.
        dtype: the type it has in the file.
        read: makes the array; may raise InputError when the file's bytes are not what it announces.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Attributes:
        kind: the format, for people.
        tree: nested dicts (and what else a checkpoint keeps), tensors as `Stored`.
        metadata: texts that came along.
        explained: entries that are no weights of the network -> why.
    """

    kind: str
    tree: object
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    explained: dict[str, str] = dataclasses.field(default_factory=dict)
