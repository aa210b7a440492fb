"""From votes per Gaussian to sharp masks: expectation-maximisation of the rendered class mixture.

A vote gives each Gaussian the mean of what lies under its footprint, so rendering it blurs a second time and small
parts drown. A render is a mixture, sum of weight times class probability, and the maximum-likelihood table for given
pixel labels is found by the multiplicative EM update for mixtures (Richardson 1972, Lucy 1974; one render and one
vector-Jacobian product per view). The pixel labels are not the parser's: they are the posterior of the consensus as
prior and the view's own confusion matrix as likelihood, so a view that errs is not believed where it errs.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jsplat.camera import Camera
from jsplat.errors import InputError
from jsplat.labels.votes import certainty
from jsplat.raster import over_views, rasterize
from jsplat.scene import Gaussians

_LEAST = 1e-3  # channels below this do not divide
_SURE = 1e-6


@dataclasses.dataclass(frozen=True)
class SharpenConfig:
    """How votes are sharpened.

    Attributes:
        rounds: EM updates; 0 leaves the votes as they are.
        confusion: believe a view through its own confusion matrix; otherwise its opinions are taken as they are.
        pseudo_counts: pull (pixels per class) of a view's confusion matrix to the one pooled over views.
        trust_power: weight (1 - entropy)^power of a pixel's opinion.
        alpha_gate: pixels with less alpha than this are left out.
    """

    rounds: int = 5
    confusion: bool = True
    pseudo_counts: float = 20.0
    trust_power: float = 1.0
    alpha_gate: float = 0.5

    def __post_init__(self):
        if self.rounds < 0 or self.pseudo_counts <= 0:
            got = (self.rounds, self.pseudo_counts)
            raise InputError("SharpenConfig: rounds, pseudo_counts", wanted="at least 0, positive", got=got)


def _normalised(x: Array) -> Array:
    return x / jnp.maximum(x.sum(-1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("capacity", "config"))
def sharpen(
    gaussians: Gaussians,
    rows: Float[Array, "n k"],
    cameras: Camera,
    pictures: Float[Array, "v h w k"],
    trust: Float[Array, " v"],
    *,
    capacity: int,
    config: SharpenConfig,
) -> Float[Array, "n k"]:
    """Sharper class probabilities per Gaussian of one head.

    Args:
        rows: votes that sum to 1; class 0 (background) stays 0 if it is 0.
        pictures: the parser's class probabilities per view.
        trust: weight of each view, any scale.
        capacity: tile hits a view may need.
    """
    opinions = _normalised(pictures.at[..., 0].set(0.0))
    spoken = pictures[..., 1:].sum(-1)  # what the parser leaves to the foreground

    def shown_by(table, camera):
        # The column of ones makes alpha a channel.
        wide = jnp.concatenate([table, jnp.ones_like(table[:, :1])], -1)
        return rasterize(gaussians, wide, camera, capacity=capacity, shape_channels=0).channels

    def counts_of(prior, said, mass, solid):
        hard = jax.nn.one_hot(said.argmax(-1), said.shape[-1]) * (mass * solid)[..., None]
        return jnp.einsum("hwt,hws->ts", prior, hard)

    def first_counts(item):
        camera, said, mass = item
        shown = shown_by(rows, camera)
        return counts_of(_normalised(shown[..., :-1]), said, mass, shown[..., -1] >= config.alpha_gate)

    def update(state, _):
        table, counts = state
        pooled = _normalised(counts.sum(0) + 1e-3)
        confusion = _normalised(counts + config.pseudo_counts * pooled)

        def add(totals, item):
            camera, said, mass, matrix, weight = item
            shown, pull = jax.vjp(lambda t: shown_by(t, camera), table)
            solid = shown[..., -1] >= config.alpha_gate
            prior = _normalised(shown[..., :-1])
            likelihood = jnp.moveaxis(matrix[:, said.argmax(-1)], 0, -1)
            target = _normalised(prior * likelihood) if config.confusion else said
            sure = jnp.where(solid, weight * certainty(said) ** config.trust_power * mass, 0.0)[..., None]
            ratio = jnp.where(prior > _SURE, target / jnp.maximum(prior, _LEAST), 0.0)
            (gained,) = pull(jnp.concatenate([sure * ratio, jnp.zeros_like(sure)], -1))
            return totals + gained, counts_of(prior, said, mass, solid)

        items = (cameras, opinions, spoken, confusion, trust)
        gained, counts = jax.lax.scan(add, jnp.zeros_like(table), items)
        moved = table * gained
        return (jnp.where(moved.sum(-1, keepdims=True) > _SURE, _normalised(moved), table), counts), None

    counts = over_views(first_counts, (cameras, opinions, spoken))
    return jax.lax.scan(update, (rows, counts), length=config.rounds)[0][0]
