"""Our form of the paper's idea: masks painted as colours, fitted as colours, and clustered back. Kept to compare.

A blend of two palette colours, which every soft edge is, may be nearest to the colour of a third class
(`third_color_pairs`: 130 of the 171 pairs of `CELEBAMASK_HQ`); one channel per class (`masks`) has no such pairs.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.precision import matmul
from jsplat.runtime.view_blocks import VIEWS


@dataclasses.dataclass(frozen=True)
class PaletteConfig:
    """How colours become classes.

    Attributes:
        alpha_gate: a pixel with less alpha than this is background, and no part of a cluster.
        iterations: rounds of k-means (Lloyd); 0 = the nearest palette colour.
    """

    alpha_gate: float = 0.5
    iterations: int = 4

    def __post_init__(self):
        if not 0 < self.alpha_gate < 1:
            raise InputError("PaletteConfig.alpha_gate", wanted="a number between 0 and 1", got=self.alpha_gate)
        if self.iterations < 0:
            raise InputError("PaletteConfig.iterations", wanted="0 or more", got=self.iterations)


def _palette(labelset: LabelSet) -> np.ndarray:
    if len(set(labelset.colors)) != len(labelset):
        raise InputError("LabelSet.colors", wanted="one colour per class, all different", got=labelset.colors)
    return np.asarray(labelset.colors, np.float32) / 255


def to_colors(labels: UInt8[np.ndarray, "*b h w"], labelset: LabelSet) -> Float[np.ndarray, "*b h w 3"]:
    """The palette colour of each pixel, in [0, 1].

    Raises:
        InputError: a pixel that is no class; ignored pixels have no colour that could be fitted.
    """
    if labels.size and labels.max() >= len(labelset):
        raise InputError("to_colors: labels", wanted=f"class ids below {len(labelset)}", got=int(labels.max()))
    return _palette(labelset)[labels]


def _nearest(pixels: jax.Array, centers: jax.Array) -> jax.Array:
    # |p - c|^2 without |p|^2, which is the same for all centres.
    cross = matmul(pixels, centers.T)
    return jnp.argmin((centers**2).sum(-1) - 2 * cross, -1)


@jax.jit
def _added(totals: jax.Array, renders: jax.Array, solid: jax.Array, centers: jax.Array) -> jax.Array:
    """Per centre the sums of its pixels' colours, and how many; a picture at a time in memory."""

    def add(totals, picture):
        pixels, counts = picture[0].reshape(-1, 3), picture[1].reshape(-1, 1)
        member = jax.nn.one_hot(_nearest(pixels, centers), len(centers)) * counts
        ones = jnp.concatenate([pixels, jnp.ones_like(counts)], -1)
        return totals + matmul(member.T, ones), None

    return jax.lax.scan(add, totals, (renders, solid))[0]


@jax.jit
def _moved(totals: jax.Array, centers: jax.Array) -> jax.Array:
    """The mean colour of each centre's pixels; a centre without pixels stays."""
    return jnp.where(totals[:, 3:] > 0, totals[:, :3] / jnp.maximum(totals[:, 3:], 1), centers)


@jax.jit
def _labels(renders: jax.Array, centers: jax.Array) -> jax.Array:
    return jax.lax.map(lambda picture: _nearest(picture, centers).astype(jnp.uint8), renders)


def from_colors(
    renders: KeptViews | Float[np.ndarray, "..."],  # "...": shapes that must match are checked inside, with a message
    alpha: KeptViews | Float[np.ndarray, "n h w"],
    labelset: LabelSet,
    config: PaletteConfig,
) -> UInt8[np.ndarray, "n h w"]:
    """Clusters the colours of all renders by k-means, seeded with the palette; a cluster is its seed's class.

    Args:
        renders: "n h w 3", RGB in [0, 1], rendered on the background's palette colour; read a few at a time.
        alpha: in [0, 1].
    """
    if renders.shape != (*alpha.shape, 3):
        raise InputError("from_colors: renders", wanted=f"shape {(*alpha.shape, 3)} for this alpha", got=renders.shape)
    parts = [slice(start, start + VIEWS) for start in range(0, len(renders), VIEWS)]
    if not all(np.isfinite(np.asarray(renders[part])).all() for part in parts):
        raise InputError("from_colors: renders", wanted="finite colours", got="NaN or infinity")
    centers = jnp.asarray(_palette(labelset))

    def solid(part: slice) -> np.ndarray:
        return np.asarray(alpha[part]) >= config.alpha_gate

    for _ in range(config.iterations):
        totals = jnp.zeros((len(centers), 4))
        for part in parts:
            colors, counts = jnp.asarray(renders[part], jnp.float32), jnp.asarray(solid(part), jnp.float32)
            totals = jax.block_until_ready(_added(totals, colors, counts, centers))
        centers = _moved(totals, centers)
    out = np.zeros(alpha.shape, np.uint8)
    for part in parts:
        out[part] = np.where(solid(part), np.asarray(_labels(jnp.asarray(renders[part], jnp.float32), centers)), 0)
    return out


def third_color_pairs(labelset: LabelSet) -> list[tuple[str, str, str]]:
    """Pairs of classes whose even blend is nearest to the colour of a third: (one, other, what their edge becomes)."""
    palette, names = _palette(labelset), labelset.names
    found = []
    for i, j in itertools.combinations(range(len(labelset)), 2):
        distance = np.linalg.norm(palette - (palette[i] + palette[j]) / 2, axis=-1)
        third = int(np.argmin(distance))
        # Equal halves are equally far from both ends: a third class must be really nearer than they are.
        if third not in (i, j) and distance[third] < distance[i] - 1e-6:
            found.append((names[i], names[j], names[third]))
    return found
