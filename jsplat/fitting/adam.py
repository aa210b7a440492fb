"""Adam with a rate for each attribute of a scene, and one decay for all.

What a step's number alone decides is computed apart: for many steps at once, as each number would be a kernel on a GPU.
"""

import typing

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import tree_utils

from jsplat.fitting.config import FitConfig
from jsplat.raster.scene import Scene

BETAS = (0.9, 0.999)
EPSILON = 1e-15


class Moments(typing.NamedTuple):
    """Moving averages of the gradients and of their squares."""

    means: Scene
    squares: Scene


def first_moments(scene: Scene) -> Moments:
    """Those before the first step; every array of its own."""
    return Moments(*(jax.tree.map(jnp.zeros_like, scene) for _ in BETAS))


def factors_of(steps: Int[Array, "*s"], config: FitConfig) -> Float[Array, "*s 3"]:
    """Of steps by their numbers, from 0: what the averages are divided by, and the decay of the rates."""
    bias = [1 - beta ** (steps + 1).astype(jnp.float32) for beta in BETAS]
    return jnp.stack([*bias, optax.exponential_decay(1.0, config.steps, config.lr_final)(steps)], -1)


def adam(gradients: Scene, moments: Moments, factors: Float[Array, "b 3"], config: FitConfig) -> tuple[Scene, Moments]:
    """A step of Kingma and Ba 2015, a row an identity.

    Args:
        factors: of `factors_of`.

    Returns:
        what is to be added to the scene, and the moments after it.
    """
    rates = {
        "means": config.lr_means,
        "quats": config.lr_quats,
        "log_scales": config.lr_scales,
        "logit_opacities": config.lr_opacities,
        "sh": config.lr_sh,
        "label_logits": config.lr_labels,
    }
    means = tree_utils.tree_update_moment(gradients, moments.means, BETAS[0], 1)
    squares = tree_utils.tree_update_moment_per_elem_norm(gradients, moments.squares, BETAS[1], 2)

    def update(path, mean, square):
        first, second, decay = (factors[:, k].reshape(-1, *[1] * (mean.ndim - 1)) for k in range(3))
        return -rates[path[-1].name] * decay * ((mean / first) / (jnp.sqrt(square / second) + EPSILON))

    return jax.tree_util.tree_map_with_path(update, means, squares), Moments(means, squares)
