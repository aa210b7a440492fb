"""Bringing pictures to the network and its logits back to pixels, by matrices of linear interpolation."""

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
    return (0.5 * content / pixels - 0.5) * scale, content / pixels * scale


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
        content: height and width of the picture inside it (top left), before padding.
        pixels: height and width of the picture; they cover `content`.
        every: only every so many rows and columns of these pixels, from the first.
    """
    sizes = zip(logits.shape[1:3], network, content, pixels)
    rows, columns = (_from_native(n, s, c, p)[::every] for n, s, c, p in sizes)
    return jnp.einsum("hi,bijk,wj->bkhw", rows, logits, columns, optimize="optimal")


@functools.cache
def _to_input(pixels: int, content: int, network: int) -> np.ndarray:
    # Beyond the content the positions run over the edge, where `interpolation` repeats the last pixel.
    return interpolation(pixels, (np.minimum(np.arange(network), content - 1) + 0.5) * pixels / content - 0.5)


def to_network(
    images: Float[Array, "b h w 3"], content: tuple[int, int], network: tuple[int, int]
) -> Float[Array, "b h2 w2 3"]:
    """Pictures resized bilinearly (no antialiasing, as cv2's INTER_LINEAR) and padded by their own edge."""
    rows, columns = (_to_input(p, c, n) for p, c, n in zip(images.shape[1:3], content, network))
    return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, optimize="optimal")


def network_size(height: int, width: int, input_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a picture of `height` x `width` goes: (content, network), the longer side `input_size`, padded to 32s."""
    scale = input_size / max(height, width)
    content = max(1, round(height * scale)), max(1, round(width * scale))
    return content, (-(-content[0] // 32) * 32, -(-content[1] // 32) * 32)
