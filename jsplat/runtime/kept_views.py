"""Arrays that grow with the views, without the memory that they would take: beyond a limit they lie on disk."""

import tempfile
from typing import IO, Any

import jax
import numpy as np

Block = jax.Array | np.ndarray


class KeptViews:
    """An array with the views in front, made block by block and read the same way.

    What is beyond the limit lies in a file without a name, in the folder for temporary files, and is gone with this
    object. `numpy.asarray` makes it whole.

    Args:
        limit: bytes that stay in memory, on the device that made them.
    """

    def __init__(self, limit: int):
        self._limit, self._starts, self._held = limit, [0], []
        self._file: IO[bytes] | None = None
        self._rest: tuple[int, ...] = ()
        self.dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all that was kept so far."""
        return (self._starts[-1], *self._rest)

    def append(self, block: Block) -> None:
        """Keeps some more views; all blocks have one type, and one shape but for their number of views."""
        if len(self._starts) == 1:
            self._rest, self.dtype = tuple(block.shape[1:]), np.dtype(block.dtype)
        assert (tuple(block.shape[1:]), np.dtype(block.dtype)) == (self._rest, self.dtype)
        self._starts.append(self._starts[-1] + len(block))
        if self._file is None and self._starts[-1] * self._row() <= self._limit:
            self._held.append(block)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(block).data.cast("B"))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, views: slice) -> Block:
        """Some views in a row; a block that was kept in memory comes as it is."""
        start, stop, step = views.indices(len(self))
        assert step == 1
        for block, first, end in zip(self._held, self._starts, self._starts[1:]):
            if (first, end) == (start, stop):
                return block
        parts = [np.asarray(b[max(start - s, 0) : max(stop - s, 0)]) for b, s in zip(self._held, self._starts)]
        return np.concatenate([*parts, self._read(max(start, self._starts[len(self._held)]), stop)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _row(self) -> int:
        return int(np.prod(self._rest, dtype=np.int64)) * self.dtype.itemsize

    def _read(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((max(stop - start, 0), *self._rest), self.dtype)
        if self._file is not None and out.size:
            self._file.seek((start - self._starts[len(self._held)]) * self._row())
            found = self._file.readinto(memoryview(out).cast("B"))  # type: ignore[attr-defined]
            assert found == out.nbytes
        return out
