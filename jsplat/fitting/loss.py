"""The loss between rendered class mixtures and a labelled photograph."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jsplat.labelsets.labelset import IGNORE


def labelled_pixels(labels: Integer[Array, "*b h w"]) -> Float[Array, "*b"]:
    """How many pixels have a label that counts."""
    return (labels != IGNORE).sum((-2, -1)).astype(jnp.float32)


def label_loss(
    probabilities: Float[Array, "*b h w k"],
    labels: Integer[Array, "*b h w"],
    labelled: Float[Array, "*b"] | None = None,
) -> Float[Array, "*b"]:
    """Mean cross-entropy of a class mixture; `IGNORE` does not count.

    Args:
        labelled: of `labelled_pixels`, where it is known already.
    """
    # A mask instead of a gather, whose gradient would be a scatter into an array of zeros: two more passes on GPUs.
    own = labels[..., None] == jnp.arange(probabilities.shape[-1])
    chosen = jnp.where(own, probabilities, 0).sum(-1)
    losses = -jnp.log(jnp.maximum(chosen, 1e-4)) * (labels != IGNORE)
    labelled = labelled_pixels(labels) if labelled is None else labelled
    return losses.sum((-2, -1)) / jnp.maximum(labelled, 1)
