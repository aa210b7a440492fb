"""Class probabilities of pictures of any size."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jsplat.errors import InputError
from jsplat.labels.opinions import Logits, NetworkPass, quantised
from jsplat.parser.bisenet import Architecture
from jsplat.parser.model import Parser, Variables, with_variables
from jsplat.parser.resize import logits_to_pixels, network_size, normalise, reading, to_network
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.view_blocks import Devices, block_indices, per_device

T = TypeVar("T")


@functools.partial(jax.jit, static_argnames=("architecture", "flip"))
def _logits(
    variables: Variables,
    images: UInt8[Array, "b h w 3"],
    mirror_ids: Int[Array, " k"],
    architecture: Architecture,
    flip: bool,
) -> list[Float[Array, "b i j k"]]:
    """Native logits of the pictures, and with `flip` of the mirrored ones, left and right exchanged back in classes."""
    model = with_variables(architecture, len(mirror_ids), variables)
    content, network = network_size(images.shape[1], images.shape[2], architecture.input_size)

    def look(pictures: Array) -> Array:
        return model(to_network(normalise(pictures.astype(jnp.float32) / 255), content, network))

    # A mirrored picture shows class c where the picture itself shows its mirror image.
    return [look(images), look(images[:, :, ::-1])[..., mirror_ids]] if flip else [look(images)]


@functools.partial(jax.jit, static_argnames=("architecture", "flip"))
def _probabilities(
    variables: Variables,
    images: UInt8[Array, "b h w 3"],
    mirror_ids: Int[Array, " k"],
    architecture: Architecture,
    flip: bool,
) -> Float[Array, "b h w k"]:
    pixels = images.shape[1], images.shape[2]
    content, network = network_size(*pixels, architecture.input_size)
    looks = _logits(variables, images, mirror_ids, architecture, flip)
    seen, *mirrored = [jax.nn.softmax(logits_to_pixels(one, network, content, pixels), axis=1) for one in looks]
    if mirrored:
        seen = (seen + mirrored[0][..., ::-1]) / 2
    return seen.transpose(0, 2, 3, 1)


def _batches(
    program: Callable[..., T], parser: Parser, images: np.ndarray, batch: int, flip: bool, devices: Devices
) -> Iterator[tuple[slice, T]]:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError("predict: images", wanted="uint8 of shape (n, h, w, 3)", got=f"{images.dtype} {images.shape}")
    if batch < 1:
        raise InputError("predict: batch", wanted="at least 1", got=batch)
    copies = per_device((parser.variables, jnp.asarray(parser.labelset.mirror_ids)), devices)
    coming = collections.deque()
    for chosen, (variables, mirror_ids) in zip(block_indices(len(images), batch), itertools.cycle(copies)):
        # The last batch is filled up, so that one compiled program serves all.
        full = images[np.minimum(chosen, len(images) - 1)]
        seen = program(variables, full, mirror_ids, parser.architecture, flip)
        where = slice(chosen[0], min(chosen[-1] + 1, len(images)))
        coming.append((where, jax.tree.map(lambda x, n=where.stop - where.start: x[:n], seen)))
        if len(coming) == len(copies):  # all devices have work
            yield coming.popleft()
    yield from coming


@in_32_bits
def predict(
    parser: Parser, images: np.ndarray, batch: int = 16, *, flip: bool = False, devices: Devices = ()
) -> Float[np.ndarray, "n h w k"]:
    """Class probabilities, float32, at the pictures' own size.

    The network sees each in the middle of a square of its `input_size`, filled up by the edge, as it was trained;
    logits (never labels) are resized back to the pictures' pixels before the softmax.

    Args:
        parser: from training or a checkpoint.
        images: uint8 sRGB (n, h, w, 3), any size.
        batch: pictures at a time.
        flip: average with the prediction on the mirrored picture, left and right exchanged back.
        devices: share the batches; where the parser lies if none.

    Raises:
        InputError: pictures that are no uint8 RGB.
    """
    out = np.empty((*images.shape[:3], len(parser.labelset)), np.float32)
    for where, seen in _batches(_probabilities, parser, images, batch, flip, devices):
        out[where] = seen
    return out


@in_32_bits
def opinions(
    parser: Parser, images: np.ndarray, batch: int = 16, *, flip: bool = False, devices: Devices = ()
) -> Logits:
    """What `predict` would give, as logits at their own stride in steps of 16 bits; arguments as `predict`.

    Raises:
        InputError: pictures that are no uint8 RGB.
        Unusable: logits that are not finite.
    """
    pixels = images.shape[1], images.shape[2]
    content, network = network_size(*pixels, parser.architecture.input_size)
    looks: list[list[NetworkPass]] = []
    for _, seen in _batches(_logits, parser, images, batch, flip, devices):
        native = seen[0].shape[1:3]
        rows, (start, step) = (reading(*of) for of in zip(native, network, content, pixels))
        # The first pixel of a picture is the last one of its mirror image.
        columns = [(start, step), (start + (pixels[1] - 1) * step, -step)]
        looks.append(
            [quantised(np.asarray(one), rows, axis, "the parser's logits") for one, axis in zip(seen, columns)]
        )
    return Logits(tuple(jax.tree.map(lambda *x: np.concatenate(x), *same) for same in zip(*looks)), pixels)


@in_32_bits
def labels_at_once(
    parser: Parser, images: np.ndarray, batch: int = 16, *, flip: bool = False, devices: Devices = ()
) -> UInt8[np.ndarray, "n h w"]:
    """The most probable class per pixel; arguments and errors as `predict`, whose result is held for one batch."""
    out = np.empty(images.shape[:3], np.uint8)
    for where, seen in _batches(_probabilities, parser, images, batch, flip, devices):
        out[where] = jnp.argmax(seen, -1)
    return out
