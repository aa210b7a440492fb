"""Classes of pictures of any sizes, in their own pixels, by two compiled programs.

Every picture is seen in a square of the network's input (`jsplat.training_sets.squares`). Its logits are read in tiles
of one size, by matrices that say where each pixel lies: another picture size is other numbers, not another program.
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jsplat.errors import InputError
from jsplat.labels.opinions import interpolation
from jsplat.parser.bisenet import Architecture
from jsplat.parser.model import Parser, Variables, with_variables
from jsplat.parser.predict import labels_at_once
from jsplat.parser.resize import normalise
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.view_blocks import Devices, per_device
from jsplat.training_sets.squares import Square, in_square

TILE = 256
MOST_PIXELS = 50_000_000  # of a batch; large pictures come in smaller batches


@functools.partial(jax.jit, static_argnames=("architecture", "flip"))
def _logits(
    variables: Variables,
    squares: UInt8[Array, "b s s 3"],
    mirror_ids: Int[Array, " k"],
    architecture: Architecture,
    flip: bool,
) -> Float[Array, "b looks i j k"]:
    model = with_variables(architecture, len(mirror_ids), variables)
    colours = normalise(squares.astype(jnp.float32) / 255)
    seen = [model(colours)]
    if flip:
        # Native logits lie symmetrically (align_corners=True): mirrored ones are those of the mirrored picture.
        seen.append(model(colours[:, :, ::-1])[:, :, ::-1][..., mirror_ids])
    return jnp.stack(seen, 1)


@jax.jit
def _tile(
    logits: Float[Array, "looks i j k"], rows: Float[Array, "t i"], columns: Float[Array, "u j"]
) -> UInt8[Array, "t u"]:
    seen = lax.optimization_barrier(jnp.einsum("hi,mijk,wj->mkhw", rows, logits, columns, optimize="optimal"))
    return _most(list(seen[0] if len(seen) == 1 else lax.optimization_barrier(sum(map(_softmax, seen)))))


# Class by class, with barriers between: XLA's reductions over an outer axis on CPUs took seven times as long.
def _softmax(logits: Float[Array, "k t u"]) -> Float[Array, "k t u"]:
    powers = lax.optimization_barrier(jnp.exp(logits - functools.reduce(jnp.maximum, list(logits))))
    return powers / functools.reduce(jnp.add, list(powers))


def _most(values: list[Float[Array, "t u"]]) -> UInt8[Array, "t u"]:
    """The first class that has the largest value."""
    top, found = values[0], jnp.zeros(values[0].shape, jnp.uint8)
    for i, value in enumerate(values[1:], 1):
        found = jnp.where(value > top, jnp.uint8(i), found)
        top = jnp.maximum(value, top)
    return found


def _readings(native: int, side: int, square: Square, axis: int) -> list[np.ndarray]:
    """Matrices that read the logits along one axis of a picture, for each of its tiles."""
    pixels, content = square.size[axis], square.content[axis]
    at = square.start[axis] + (np.arange(-(-pixels // TILE) * TILE) + 0.5) * content / pixels - 0.5
    matrix = interpolation(native, at * (native - 1) / max(side - 1, 1))
    return list(matrix.reshape(-1, TILE, native))


def _labels(logits: jax.Array, square: Square, side: int) -> list[list[jax.Array]]:
    """The classes of one picture in tiles, on the device of its logits; nothing waits for them."""
    rows, columns = (_readings(n, side, square, axis) for axis, n in enumerate(logits.shape[1:3]))
    return [[_tile(logits, high, wide) for wide in columns] for high in rows]


def _joined(tiles: list[list[jax.Array]], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    out = np.empty(size, np.uint8)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            place = out[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE]
            place[:] = np.asarray(tile)[: place.shape[0], : place.shape[1]]
    return out


def _batches(pictures: Iterable[np.ndarray], side: int, batch: int) -> Iterator[list[Square]]:
    squares, pixels = [], 0
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            got = f"{picture.dtype} {picture.shape}"
            raise InputError("labels_of_any_size: pictures", wanted="uint8 of shape (h, w, 3)", got=got)
        squares.append(in_square(picture, side))
        pixels += picture.shape[0] * picture.shape[1]
        if len(squares) == batch or pixels >= MOST_PIXELS:
            yield squares
            squares, pixels = [], 0
    if squares:
        yield squares


def labels_of_any_size(
    parser: Parser,
    pictures: Iterable[np.ndarray],
    batch: int = 8,
    *,
    flip: bool = False,
    devices: Devices = (),
) -> Iterator[UInt8[np.ndarray, "_ _"]]:
    """The most probable class per pixel of each picture, as they come; few are in memory at a time.

    They are those of `predict`, up to rounding where two classes are equally probable.

    Args:
        parser: from training or a checkpoint.
        pictures: uint8 sRGB (h, w, 3), each of its own size.
        batch: pictures at a time.
        flip: average with the prediction on the mirrored picture, left and right exchanged back.
        devices: share the batches; where the parser lies if none.

    Raises:
        InputError: a picture that is no uint8 RGB, or no picture at a time.
    """
    if batch < 1:
        raise InputError("labels_of_any_size: batch", wanted="at least 1", got=batch)
    side, coming = parser.architecture.input_size, collections.deque()
    copies = per_device((parser.variables, jnp.asarray(parser.labelset.mirror_ids)), devices)

    @in_32_bits
    def begin(squares: list[Square], variables: Variables, mirror_ids: jax.Array) -> list:
        # The last batch is filled up, so that one compiled program serves all.
        full = np.stack([squares[min(i, len(squares) - 1)].pixels for i in range(batch)])
        logits = _logits(variables, full, mirror_ids, parser.architecture, flip)
        return [(_labels(one, square, side), square.size) for one, square in zip(logits, squares)]

    for squares, copy in zip(_batches(pictures, side, batch), itertools.cycle(copies)):
        coming.append(begin(squares, *copy))
        if len(coming) > len(copies):  # all devices have work, and the next batch is being read
            yield from itertools.starmap(_joined, coming.popleft())
    for waiting in coming:
        yield from itertools.starmap(_joined, waiting)


@overload
def predict_labels(
    parser: Parser, images: np.ndarray, batch: int = 16, *, flip: bool = False, devices: Devices = ()
) -> UInt8[np.ndarray, "n h w"]: ...
@overload
def predict_labels(
    parser: Parser, images: Sequence[np.ndarray], batch: int = 16, *, flip: bool = False, devices: Devices = ()
) -> list[np.ndarray]: ...
def predict_labels(
    parser: Parser,
    images: np.ndarray | Sequence[np.ndarray],
    batch: int = 16,
    *,
    flip: bool = False,
    devices: Devices = (),
) -> np.ndarray | list[np.ndarray]:
    """The most probable class per pixel, in the pictures' own pixels, as `jsplat predict` writes it.

    Args:
        parser: from training or a checkpoint.
        images: uint8 sRGB: an array (n, h, w, 3), or a list of pictures (h, w, 3), each of its own size.
        batch: pictures at a time.
        flip: average with the prediction on the mirrored picture, left and right exchanged back.
        devices: share the batches; where the parser lies if none.

    Returns:
        class ids, uint8: an array (n, h, w) for an array, a list of (h, w) for a list.

    Raises:
        InputError: pictures that are no uint8 RGB.
    """
    if not isinstance(images, np.ndarray):
        return list(labels_of_any_size(parser, images, batch, flip=flip, devices=devices))
    # Larger pictures' probabilities take more memory than the network itself.
    if images.ndim == 4 and images.shape[1] * images.shape[2] > parser.architecture.input_size**2:
        seen = labels_of_any_size(parser, images, batch, flip=flip, devices=devices)
        return np.stack([*seen]) if len(images) else np.empty(images.shape[:3], np.uint8)
    return labels_at_once(parser, images, batch, flip=flip, devices=devices)
