"""What a voter says of the views of one head, as small as it was said, and as probabilities where they are needed.

A network's logits stay at their own stride, in steps of 16 bits below each place's largest; a label map stays a label
map. Both are pytrees whose arrays have the views in front, so that programs over blocks of views take them like
pictures, and make pixels of one view at a time.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, UInt8, UInt16

from jsplat.errors import Unusable
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.pytree import pytree, static
from jsplat.runtime.precision import einsum, in_32_bits

LEVELS = 65535
Axis = tuple[float, float]


def interpolation(length: int, positions: np.ndarray) -> Float[np.ndarray, "o length"]:
    """Rows that read a signal of `length` samples at `positions` (indices, fractions allowed), clamped at the ends."""
    positions = np.clip(positions, 0, length - 1)
    low = np.minimum(np.floor(positions).astype(int), max(length - 2, 0))
    rows, fraction = np.arange(len(positions)), positions - low
    matrix = np.zeros((len(positions), length), np.float32)
    np.add.at(matrix, (rows, low), 1 - fraction)
    np.add.at(matrix, (rows, np.minimum(low + 1, length - 1)), fraction)
    return matrix


@functools.cache
def _reading(axis: Axis, pixels: int, length: int) -> np.ndarray:
    start, step = axis
    return interpolation(length, start + np.arange(pixels) * step)


@pytree
class NetworkPass:
    """One look of a network at every view: mirrored, or at another scale, is another look.

    Attributes:
        levels: how far each class's logit lies below the largest of its place, in steps.
        steps: logits in a step, by view.
        rows, columns: where pixels read the logits: that of the first pixel (an index, fractions allowed), and from
            one to the next; beyond the ends they read the ends.
    """

    levels: UInt16[Array | np.ndarray, "*v i j k"]
    steps: Float[Array | np.ndarray, "*v"]
    rows: Axis = static()
    columns: Axis = static()


@pytree
class Logits:
    """Soft opinions: probabilities are the mean, over the looks, of the softmax of logits read bilinearly.

    Attributes:
        size: height and width of the pictures.
    """

    looks: tuple[NetworkPass, ...]
    size: tuple[int, int] = static()


@pytree
class Maps:
    """Hard opinions: label maps; a pixel with IGNORE says nothing.

    Attributes:
        classes: how many there are.
    """

    labels: UInt8[Array | np.ndarray, "*v h w"]
    classes: int = static()


@pytree
class Masked:
    """Opinions that say nothing where a view's pixels are not valid."""

    unmasked: Logits | Maps | Num[Array | np.ndarray, "*v h w k"]
    valid: Bool[Array | np.ndarray, "*v h w"]


Opinions = Logits | Maps | Masked


@dataclasses.dataclass(frozen=True)
class Voter:
    """Somebody with opinions about every view of one head.

    Attributes:
        name: how people call it.
        labelset: the classes it speaks of.
    """

    name: str
    labelset: LabelSet
    opinions: Logits | Maps

    @property
    def shape(self) -> tuple[int, int, int]:
        """Views, height and width."""
        views, height, width, _ = shape_of(self.opinions)
        return views, height, width

    def labels(self) -> UInt8[np.ndarray, "v h w"]:
        """The class of every pixel, the first of equals; IGNORE where it says nothing."""
        return most_probable(self.opinions)


def quantised(logits: Float[np.ndarray, "v i j k"], rows: Axis, columns: Axis, where: str = "logits") -> NetworkPass:
    """A look from logits; each is off by at most a 131,070th of the largest lead in its view.

    Raises:
        Unusable: (`where`: whose) logits that are not finite.
    """
    below = logits.max(-1, keepdims=True) - logits
    most = below.max((1, 2, 3)).astype(np.float32)
    if not np.isfinite(most).all():
        raise Unusable(where, wanted="finite numbers", got="NaN or infinity")
    steps = np.maximum(most / LEVELS, np.finfo(np.float32).tiny)
    levels = np.minimum(np.rint(below / steps[:, None, None, None]), LEVELS).astype(np.uint16)
    return NetworkPass(levels, steps, rows, columns)


def shape_of(opinions: Opinions | Array | np.ndarray) -> tuple[int, ...]:
    """Views, height, width and classes."""
    if isinstance(opinions, Masked):
        return shape_of(opinions.unmasked)
    if isinstance(opinions, Logits):
        return (opinions.looks[0].levels.shape[0], *opinions.size, opinions.looks[0].levels.shape[-1])
    if isinstance(opinions, Maps):
        return (*opinions.labels.shape, opinions.classes)
    return opinions.shape


def pixels(view: Opinions | Num[Array | np.ndarray, "h w k"]) -> Float[Array, "h w k"]:
    """Probabilities of every pixel of one view (no leading axis), within a compiled program.

    Rows sum to 1, or to 0 where nothing is said; a picture of channels is returned as it is, in 32 bits.
    """
    if isinstance(view, Masked):
        return pixels(view.unmasked) * view.valid[..., None]
    if isinstance(view, Logits):
        seen = [_softmax(look, view.size) for look in view.looks]
        # A barrier: what reads these pixels is compiled as for pixels that were given.
        return jax.lax.optimization_barrier(jnp.moveaxis(sum(seen[1:], seen[0]) / len(seen), 0, -1))
    if isinstance(view, Maps):
        return jax.nn.one_hot(view.labels, view.classes, dtype=jnp.float32)  # IGNORE: beyond all classes
    return jnp.asarray(view, jnp.float32)


def _softmax(look: NetworkPass, size: tuple[int, int]) -> Float[Array, "k h w"]:
    lengths = look.levels.shape[:2]
    rows, columns = (_reading(axis, n, m) for axis, n, m in zip((look.rows, look.columns), size, lengths))
    logits = look.levels.astype(jnp.float32) * -look.steps
    read = einsum("hi,ijk,wj->khw", rows, logits, columns, optimize="optimal")
    return jax.nn.softmax(read, axis=0)


@in_32_bits
def most_probable(opinions: Opinions | Float[np.ndarray, "v h w k"]) -> UInt8[np.ndarray, "v h w"]:
    """The class of every pixel, the first of equals; IGNORE where a label map says nothing."""
    if isinstance(opinions, Maps):
        return np.asarray(opinions.labels)
    return np.stack([np.asarray(_most(one(opinions, view))) for view in range(shape_of(opinions)[0])])


_pixels = jax.jit(pixels)
_most = jax.jit(lambda view: jnp.argmax(pixels(view), -1).astype(jnp.uint8))


def one(opinions: Opinions | np.ndarray, view: int) -> Opinions | np.ndarray:
    """What is said of one view."""
    return jax.tree.map(lambda x: x[view], opinions)


@in_32_bits
def dense(opinions: Opinions | Float[np.ndarray, "v h w k"], view: int) -> Float[np.ndarray, "h w k"]:
    """Probabilities of every pixel of one view, on the host."""
    found = one(opinions, view)
    return np.asarray(found, np.float32) if isinstance(found, np.ndarray) else np.asarray(_pixels(found))
