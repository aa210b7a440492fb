"""Pictures that are made while a parser trains: a pool on the device, whose oldest pictures give way to new ones."""

import concurrent.futures
import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jsplat.parser.pool import Pool
from jsplat.runtime.devices import replicate
from jsplat.training_sets.auxiliary import AuxiliarySet, squared


@runtime_checkable
class Source(Protocol):
    """Who makes pictures, piece by piece; a piece depends on its number alone.

    Attributes:
        fraction: share of a batch's own pictures (replay apart) that come from here.
        pieces: in the pool.
        every: training steps between two pieces.
        fingerprint: of all that pieces depend on.
    """

    fraction: float
    pieces: int
    every: int
    fingerprint: str

    def piece(self, number: int) -> AuxiliarySet:
        """As many pictures as every other piece has."""
        ...


class FreshPool:
    """The pool at each step of a training run, from any step on: what lies in it depends on the step alone.

    The next piece is made on the host's other threads while the device trains.
    """

    def __init__(self, source: Source, step: int, mesh: Mesh):
        self._source, self._mesh = source, mesh
        self._maker = concurrent.futures.ThreadPoolExecutor(1)
        self._next = source.pieces + step // source.every
        parts = [self._made(n) for n in self._order(self._next)]
        self._pool = Pool(*replicate(tuple(np.concatenate(x) for x in zip(*parts)), mesh))  # type: ignore[arg-type]
        self._coming = self._maker.submit(self._made, self._next)

    def _order(self, following: int) -> list[int]:
        """The pieces before `following`, each in its place: its number modulo their count."""
        count = self._source.pieces
        return sorted(range(following - count, following), key=lambda n: n % count)

    def _made(self, number: int) -> tuple[np.ndarray, ...]:
        piece = squared(self._source.piece(number))
        return piece.images, piece.labels, piece.weights

    def at(self, step: int) -> Pool:
        """The pool of a step; steps come one after the other."""
        while self._next < self._source.pieces + step // self._source.every:
            fresh, place = replicate(self._coming.result(), self._mesh), self._next % self._source.pieces
            self._pool = _put(self._pool, Pool(*fresh), jnp.int32(place))  # type: ignore[arg-type]
            self._next += 1
            self._coming = self._maker.submit(self._made, self._next)
        return self._pool

    def close(self) -> None:
        """No more pieces are made."""
        self._maker.shutdown(wait=False, cancel_futures=True)


@functools.partial(jax.jit, donate_argnums=0)
def _put(pool: Pool, fresh: Pool, place: jax.Array) -> Pool:
    def write(x: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(x, new, place * len(new), 0)

    return jax.tree.map(write, pool, fresh)
