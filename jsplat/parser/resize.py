"""Bringing pictures to the network and its logits back to pixels, by matrices along each axis.

The network sees a picture as it was trained: in the middle of a square, filled up by the picture's edge. So does
`jsplat.training_sets.squares`, for pictures of many sizes.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.labels.opinions import Axis, interpolation

MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
STD = np.asarray([0.229, 0.224, 0.225], np.float32)


def normalise(rgb: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Colours in [0, 1] as the network wants them (ImageNet's mean and deviation)."""
    return (rgb - MEAN) / STD


def reading(native: int, network: int, content: int, pixels: int) -> Axis:
    """Where the first of a picture's pixels reads the native logits along an axis, and how far the next one lies.

    Pixel centres of the picture in the network's input, then torch's align_corners=True from there to the logits.
    """
    scale = (native - 1) / max(network - 1, 1)
    return (_start(content, network) + 0.5 * content / pixels - 0.5) * scale, content / pixels * scale


def _start(content: int, network: int) -> int:
    """Where a picture begins along an axis of the network's input."""
    return (network - content) // 2


@functools.cache
def _from_native(native: int, network: int, content: int, pixels: int) -> np.ndarray:
    start, step = reading(native, network, content, pixels)
    return interpolation(native, start + np.arange(pixels) * step)


def logits_to_pixels(
    logits: Float[Array, "b i j k"],
    network: tuple[int, int],
    content: tuple[int, int],
    pixels: tuple[int, int],
    every: int = 1,
) -> Float[Array, "b k h w"]:
    """Bilinear logits at a picture's own pixels, in one step.

    Where the picture has the size of the network's input this is exactly `F.interpolate(bilinear, align_corners=True)`.

    Args:
        logits: at their native resolution.
        network: height and width of the network's input, padding included.
        content: height and width of the picture in the middle of it, without padding.
        pixels: height and width of the picture; they cover `content`.
        every: only every so many rows and columns of these pixels, from the first.
    """
    sizes = zip(logits.shape[1:3], network, content, pixels)
    rows, columns = (_from_native(n, s, c, p)[::every] for n, s, c, p in sizes)
    return jnp.einsum("hi,bijk,wj->bkhw", rows, logits, columns, optimize="optimal")


@functools.cache
def _to_input(pixels: int, content: int, network: int) -> np.ndarray:
    at = np.clip(np.arange(network) - _start(content, network), 0, content - 1)  # padding repeats the edge
    step = pixels / content
    if step <= 1:
        return interpolation(pixels, (at + 0.5) * step - 0.5)
    # Smaller: each pixel is the mean of what it covers.
    ends = np.minimum((at[:, None] + 1) * step, np.arange(pixels) + 1) - np.maximum(
        at[:, None] * step, np.arange(pixels)
    )
    return (np.maximum(ends, 0) / step).astype(np.float32)


def to_network(
    images: Float[Array, "b h w 3"], content: tuple[int, int], network: tuple[int, int]
) -> Float[Array, "b h2 w2 3"]:
    """Pictures resized, larger bilinearly and smaller by area (as cv2's INTER_LINEAR and INTER_AREA), in the middle of
    the network's input, padded by their own edge."""
    rows, columns = (_to_input(p, c, n) for p, c, n in zip(images.shape[1:3], content, network))
    return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, optimize="optimal")


def network_size(height: int, width: int, input_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a picture of `height` x `width` goes: (content, network), in a square of `input_size`."""
    scale = input_size / max(height, width)
    content = max(1, round(height * scale)), max(1, round(width * scale))
    return content, (input_size, input_size)
