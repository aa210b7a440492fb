"""Cross-entropy on the hardest pixels (OHEM) without sorting them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from jsplat.labelsets.labelset import IGNORE

HARD = 0.35667494
"""-ln 0.7: the loss above which a pixel counts as hard in the reference recipe."""


def pixel_loss(logits: Float[Array, "b k h w"], labels: Integer[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Cross-entropy in nats per pixel; 0 where the label is `IGNORE`."""
    valid = labels != IGNORE
    onehot = jnp.where(valid, labels, 0)[:, None] == jnp.arange(logits.shape[1])[:, None, None]
    # A sum over a mask instead of a gather: its gradient needs no scatter.
    picked = jnp.where(onehot, logits, 0).sum(1)
    return jnp.where(valid, jax.nn.logsumexp(logits, axis=1) - picked, 0)


def top_threshold(values: Float[Array, "*s"], count: Int[Array, ""]) -> Float[Array, ""]:
    """The `count`-th largest of non-negative float32 `values`, exactly; `count` >= 1.

    Bisection over the bit pattern, which orders non-negative floats as integers: 31 passes of counting, no sort.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)

    def halve(i, threshold):
        candidate = threshold | (1 << (30 - i))
        return jnp.where(jnp.sum(bits >= candidate) >= count, candidate, threshold)

    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halve, jnp.int32(0)), jnp.float32)


def ohem(
    losses: Float[Array, "b h w"], valid: Float[Array, "b h w"], threshold: float = HARD, min_kept: float = 1 / 16
) -> Float[Array, ""]:
    """Mean over the hard pixels, or over the hardest `min_kept` of all when fewer are hard.

    The rule of the reference (`sort; loss[n_min] > hard ? mean(loss > hard) : mean(top n_min)`) with the same value:
    pixels that tie with the last of the top n_min share its place instead of being picked by position, which leaves
    the mean as it is. n_min is `min_kept` of the valid pixels (the reference: 1/16 of all pixels, none being ignored).

    Args:
        losses: >= 0.
        valid: weight per pixel, >= 0; pixels of weight 0 are not chosen. The mean is weighted.
        threshold: a loss in nats.
        min_kept: share of the valid pixels, in (0, 1].
    """
    chosen = jax.lax.stop_gradient(jnp.where(valid > 0, losses, 0))
    least_count = jnp.maximum(1, jnp.floor(jnp.sum(valid > 0) * min_kept).astype(jnp.int32))
    above = chosen > threshold
    kept = top_threshold(chosen, least_count)
    over, tied = chosen > kept, (chosen == kept) & (valid > 0)
    fraction = (least_count - jnp.sum(over)) / jnp.maximum(jnp.sum(tied), 1)
    weight = valid * jnp.where(jnp.sum(above) > least_count, above, over + fraction * tied)
    return jnp.sum(weight * losses) / jnp.maximum(jnp.sum(weight), 1e-12)
