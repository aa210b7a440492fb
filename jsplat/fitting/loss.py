"""The loss between rendered class mixtures and a labelled photograph."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jsplat.labelsets.labelset import IGNORE


def label_loss(probabilities: Float[Array, "*b h w k"], labels: Integer[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Mean cross-entropy of a class mixture; `IGNORE` does not count."""
    valid = labels != IGNORE
    # A mask instead of a gather, whose gradient would be a scatter into an array of zeros: two more passes on GPUs.
    own = labels[..., None] == jnp.arange(probabilities.shape[-1])
    chosen = jnp.where(own, probabilities, 0).sum(-1)
    losses = -jnp.log(jnp.maximum(chosen, 1e-4)) * valid
    return losses.sum((-2, -1)) / jnp.maximum(valid.sum((-2, -1)), 1)
