"""Augmentation of whole batches inside jit; pictures come and are kept as uint8."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jsplat.labelsets.labelset import IGNORE


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How far pictures are changed; every number is drawn anew per picture.

    Attributes:
        scale: factors on the size of the head, from and to (log-uniform).
        rotation: degrees, up to either side.
        shift: share of the picture, up to either side.
        flip: probability of a mirrored picture.
        background: probability that the background (label 0) is replaced, half the time by a flat colour and half
            the time by the background of another picture of the batch.
        brightness, contrast, saturation: factors in 1 +- this.
        tint: factor per colour channel in 1 +- this.
    """

    scale: tuple[float, float] = (0.85, 1.4)
    rotation: float = 12.0
    shift: float = 0.1
    flip: float = 0.5
    background: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    tint: float = 0.1


def mirror(
    images: UInt8[Array, "b h w 3"], labels: UInt8[Array, "b h w"], mirror_ids: Int[Array, " k"]
) -> tuple[UInt8[Array, "b h w 3"], UInt8[Array, "b h w"]]:
    """Pictures flipped left to right, with the ids of left and right parts exchanged; twice is the identity."""
    table = jnp.arange(256, dtype=jnp.uint8).at[: len(mirror_ids)].set(jnp.asarray(mirror_ids, jnp.uint8))
    return images[:, :, ::-1], table[labels[:, :, ::-1]]


def replace_background(
    key: Key[Array, ""], images: UInt8[Array, "b h w 3"], labels: UInt8[Array, "b h w"], probability: float
) -> UInt8[Array, "b h w 3"]:
    """Another background where the label is 0: a flat colour or the picture before it in the batch, one chance in two.

    Of the other picture only its background is taken: where it has a head, or IGNORE, the own pixel stays. A head that
    is labelled 0 would teach that heads are background.
    """
    which, colour = jax.random.split(key)
    draw = jax.random.uniform(which, (len(images), 1, 1))
    flat = jax.random.randint(colour, (len(images), 1, 1, 3), 0, 256).astype(jnp.uint8)
    is_flat, behind = draw < probability / 2, labels == 0
    replaced = behind & (draw < probability) & (is_flat | jnp.roll(behind, 1, 0))
    return jnp.where(replaced[..., None], jnp.where(is_flat[..., None], flat, jnp.roll(images, 1, 0)), images)


def warp(
    images: UInt8[Array, "b h w 3"],
    labels: UInt8[Array, "b h w"],
    matrices: Float[Array, "b 2 3"],
    size: int,
    label_size: int,
) -> tuple[Float[Array, "b s s 3"], UInt8[Array, "b l l"]]:
    """Pictures read bilinearly and labels read at the nearest pixel.

    Args:
        images: sRGB.
        labels: class ids or IGNORE.
        matrices: from output coordinates to source coordinates, both in [-1, 1] over the picture, (x, y).
        size: side of the pictures made; colours come out in [0, 1], the edge repeated outside the source.
        label_size: side of the label maps made over the same square; IGNORE outside the source.
    """
    b, h, w, _ = images.shape

    def source(side):
        axis = (jnp.arange(side) + 0.5) * 2 / side - 1
        x, y = axis[None, None, :], axis[None, :, None]
        m = matrices[..., None, None]
        across, down = (m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in (0, 1))
        return (across + 1) * w / 2 - 0.5, (down + 1) * h / 2 - 0.5

    picture = jnp.arange(b)[:, None, None] * (h * w)
    x, y = source(size)
    x, y = jnp.clip(x, 0, w - 1), jnp.clip(y, 0, h - 1)
    left, top = jnp.minimum(x.astype(jnp.int32), w - 2), jnp.minimum(y.astype(jnp.int32), h - 2)
    # The pixel and its right neighbour lie side by side, so that one read of 6 bytes fetches both.
    pairs = jnp.concatenate([images, jnp.roll(images, -1, 2)], -1).reshape(-1, 6)
    at = picture + top * w + left
    u, v = (x - left)[..., None], (y - top)[..., None]

    def row(index):
        both = pairs[index].astype(jnp.float32)
        return both[..., :3] * (1 - u) + both[..., 3:] * u

    colours = (row(at) * (1 - v) + row(at + w) * v) / 255

    x, y = (jnp.floor(p + 0.5).astype(jnp.int32) for p in source(label_size))
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    nearest = labels.reshape(-1)[picture + jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)]
    return colours, jnp.where(inside, nearest, jnp.uint8(IGNORE))


def random_affine(key: Key[Array, ""], count: int, config: AugmentConfig) -> Float[Array, "b 2 3"]:
    """Matrices for `warp`: scale about the centre, rotation, shift."""
    scale_key, turn_key, shift_key = jax.random.split(key, 3)
    low, high = config.scale
    scale = jnp.exp(jax.random.uniform(scale_key, (count,), minval=jnp.log(low), maxval=jnp.log(high)))
    turn = jnp.radians(jax.random.uniform(turn_key, (count,), minval=-config.rotation, maxval=config.rotation))
    shift = jax.random.uniform(shift_key, (count, 2), minval=-config.shift, maxval=config.shift) * 2
    c, s = jnp.cos(turn) / scale, jnp.sin(turn) / scale
    rows = [jnp.stack([c, -s, shift[:, 0]], -1), jnp.stack([s, c, shift[:, 1]], -1)]
    return jnp.stack(rows, 1)


def jitter(key: Key[Array, ""], images: Float[Array, "b s s 3"], config: AugmentConfig) -> Float[Array, "b s s 3"]:
    """Brightness, contrast about the picture's mean, saturation and tint; colours stay in [0, 1]."""
    spans = jnp.asarray([config.brightness, config.contrast, config.saturation] + [config.tint] * 3)
    factors = 1 + spans * jax.random.uniform(key, (len(images), 1, 1, 6), minval=-1, maxval=1)
    images = images * factors[..., :1] * factors[..., 3:]
    mean = images.mean((1, 2, 3), keepdims=True)
    images = (images - mean) * factors[..., 1:2] + mean
    grey = images @ jnp.asarray([0.299, 0.587, 0.114])
    return jnp.clip((images - grey[..., None]) * factors[..., 2:3] + grey[..., None], 0, 1)


def augment(
    key: Key[Array, ""],
    images: UInt8[Array, "b h w 3"],
    labels: UInt8[Array, "b h w"],
    mirror_ids: Int[Array, " k"],
    config: AugmentConfig,
    size: int,
    label_size: int,
) -> tuple[Float[Array, "b s s 3"], UInt8[Array, "b l l"]]:
    """A training batch: pictures in [0, 1] of side `size`, label maps of side `label_size` over the same square."""
    flip_key, back_key, affine_key, colour_key = jax.random.split(key, 4)
    coin = jax.random.bernoulli(flip_key, config.flip, (len(images), 1, 1))
    flipped_images, flipped_labels = mirror(images, labels, mirror_ids)
    images = jnp.where(coin[..., None], flipped_images, images)
    labels = jnp.where(coin, flipped_labels, labels)
    images = replace_background(back_key, images, labels, config.background)
    colours, labels = warp(images, labels, random_affine(affine_key, len(images), config), size, label_size)
    return jitter(colour_key, colours, config), labels
