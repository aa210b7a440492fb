"""Other colours of a head, by class: what changes together (skin and lips, hair and brows) changes together."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.scene import SH_C0
from jsplat.runtime.precision import einsum
from jsplat.variants.config import ColorConfig

# Where the mean colour of a group may lie: on the line between two sRGB colours, and by how much beside it.
TONES = {
    "skin": ((0.22, 0.13, 0.09), (0.98, 0.82, 0.72), 0.04),
    "hair": ((0.04, 0.03, 0.03), (0.90, 0.76, 0.52), 0.08),
}
SKIN = ("skin", "nose", "neck", "l_ear", "r_ear", "u_lip", "l_lip", "mouth")
HAIR = ("hair", "l_brow", "r_brow")
KEPT = ("background", "l_eye", "r_eye")


def groups_of(labelset: LabelSet) -> Int[np.ndarray, " k"]:
    """Which classes change colour together: 0 skin, 1 hair, 2 those that keep theirs, then each of the others."""
    found, own = [], 3
    for name, mirrored in zip(labelset.names, labelset.mirror):
        if name in SKIN + HAIR + KEPT:
            found.append(next(i for i, group in enumerate((SKIN, HAIR, KEPT)) if name in group))
        elif mirrored in labelset.names[: len(found)]:
            found.append(found[labelset.names.index(mirrored)])
        else:
            found.append(own)
            own += 1
    return np.asarray(found)


def recolored(
    key: Key[Array, ""],
    sh: Float[Array, "n s 3"],
    probabilities: Float[Array, "n k"],
    weights: Float[Array, " n"],
    groups: Int[np.ndarray, " k"],
    config: ColorConfig,
) -> Float[Array, "n s 3"]:
    """Coefficients in other colours: each group's mean goes elsewhere, and what differs from it goes along.

    Args:
        weights: how much a Gaussian counts in the mean colour of its group.
        groups: of each class (`groups_of`).
    """
    count = int(groups.max()) + 1
    coin_key, tone_key, beside_key, free_key, contrast_key = jax.random.split(key, 5)
    member = probabilities @ jax.nn.one_hot(jnp.asarray(groups), count)
    mass = member * weights[:, None]
    colors = sh[:, 0] * SH_C0 + 0.5
    mean = einsum("ng,nc->gc", mass, colors) / jnp.maximum(mass.sum(0), 1e-6)[:, None]
    free = jax.random.uniform(free_key, (count, 3))
    drawn = []
    for i, (low, high, beside) in enumerate(TONES.values()):
        on_line = jax.random.uniform(jax.random.fold_in(tone_key, i))
        tone = jnp.asarray(low) * (1 - on_line) + jnp.asarray(high) * on_line
        drawn.append(tone + beside * jax.random.normal(jax.random.fold_in(beside_key, i), (3,)))
    target = jnp.clip(free.at[: len(drawn)].set(jnp.stack(drawn)), 0.02, 0.98)
    change = jax.random.bernoulli(coin_key, config.recolor, (count, 1)).at[2].set(False)
    low, high = config.contrast
    # Texture on a darker ground is darker.
    gain = jax.random.uniform(contrast_key, (count, 1), minval=low, maxval=high)
    gain = gain * jnp.clip(target / jnp.maximum(mean, 0.05), 0.3, 1.6)
    gain = jnp.where(change, gain, 1.0)
    offset = jnp.where(change, target - gain * mean, 0.0)
    each, more = member @ gain, member @ offset
    base = (each * colors + more - 0.5) / SH_C0
    return (sh * each[:, None]).at[:, 0].set(base)


def lit(
    key: Key[Array, ""],
    sh: Float[Array, "n s 3"],
    directions: Float[Array, "n 3"],
    config: ColorConfig,
) -> Float[Array, "n s 3"]:
    """Coefficients under one more soft light; `directions` from the head's centre, of length 1, stand for normals."""
    from_key, strength_key = jax.random.split(key)
    toward = jax.random.normal(from_key, (3,))
    toward = toward / jnp.linalg.norm(toward)
    strength = config.light * jax.random.uniform(strength_key)
    factor = 1 + strength * (directions * toward).sum(-1)[:, None]
    base = (factor * (sh[:, 0] * SH_C0 + 0.5) - 0.5) / SH_C0
    return (sh * factor[:, None]).at[:, 0].set(base)
