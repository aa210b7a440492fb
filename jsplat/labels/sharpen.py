"""From votes per Gaussian to sharp masks: expectation-maximisation of the rendered class mixture.

A vote gives each Gaussian the mean of what lies under its footprint, so rendering it blurs a second time and small
parts drown. A render is a mixture, sum of weight times class probability, and the maximum-likelihood table for given
pixel labels is found by the multiplicative EM update for mixtures (Richardson 1972, Lucy 1974; one render and one
vector-Jacobian product per view). The pixel labels are not the parser's: they are the posterior of the consensus as
prior and the view's own confusion matrix as likelihood, so a view that errs is not believed where it errs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.errors import InputError
from jsplat.labels.votes import certainty
from jsplat.raster.camera import Camera
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians
from jsplat.runtime.precision import in_32_bits
from jsplat.runtime.view_blocks import Devices, join_blocks, over_views, per_device, to_blocks, unpadded, view_count

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


@in_32_bits
def sharpen(
    gaussians: Gaussians,
    rows: Float[Array, "n k"],
    cameras: Camera,
    pictures: Float[Array | np.ndarray, "v h w k"],
    trust: Float[Array, " v"],
    *,
    capacity: int,
    config: SharpenConfig,
    devices: Devices = (),
) -> Float[Array, "n k"]:
    """Sharper class probabilities per Gaussian of one head.

    Args:
        gaussians, cameras: of the head; one camera per picture.
        rows: votes that sum to 1; class 0 (background) stays 0 if it is 0.
        pictures: the parser's class probabilities per view.
        trust: weight of each view, any scale.
        capacity: tile hits a view may need (`capacity_for`).
        config: rounds, and how far a view is believed.
        devices: share the views; where the arrays lie if none.
    """
    if not config.rounds:
        return rows
    # Whether confusion counts is an argument of the compiled program, not a part of it: the ablation asks for both.
    count, believe = view_count(cameras), itertools.repeat(np.bool_(config.confusion))
    how = {"capacity": capacity, "config": dataclasses.replace(config, rounds=0, confusion=True)}
    seen = to_blocks((cameras, pictures, trust), devices)
    heads = list(itertools.islice(itertools.cycle(per_device(gaussians, devices)), len(seen)))

    def gains(program: Callable, rows: Array, *more: Iterable) -> list:
        tables = itertools.cycle(per_device(rows, devices))
        return [program(*block, **how) for block in zip(heads, tables, seen, *more)]

    counts = join_blocks(gains(_first_counts, rows), count, devices)
    for _ in range(config.rounds):
        confusion = to_blocks(_confusion(counts, config=how["config"]), devices)
        found = gains(_gain, rows, confusion, unpadded(count), believe)
        gained = join_blocks([g for g, _ in found], len(found), devices)
        counts = join_blocks([c for _, c in found], count, devices)
        rows = _moved(rows, gained)
    return rows


def _opinion(picture: Float[Array, "h w k"]) -> tuple[Float[Array, "h w k"], Float[Array, "h w"]]:
    """What the parser says of the foreground, and how much it leaves to it."""
    picture = picture.astype(jnp.float32)
    return _normalised(picture.at[..., 0].set(0.0)), picture[..., 1:].sum(-1)


def _shown(gaussians: Gaussians, table: Float[Array, "n k"], camera: Camera, capacity: int) -> Float[Array, "h w k1"]:
    # The column of ones makes alpha a channel.
    wide = jnp.concatenate([table, jnp.ones_like(table[:, :1])], -1)
    return rasterize(gaussians, wide, camera, capacity=capacity, shape_channels=0).channels


def _counts(prior: Array, opinion: Array, mass: Array, solid: Array) -> Float[Array, "k k"]:
    hard = jax.nn.one_hot(opinion.argmax(-1), opinion.shape[-1]) * (mass * solid)[..., None]
    return jnp.einsum("hwt,hws->ts", prior, hard)


@functools.partial(jax.jit, static_argnames=("capacity", "config"))
def _first_counts(
    gaussians: Gaussians, rows: Array, seen: tuple[Camera, Array, Array], *, capacity: int, config: SharpenConfig
) -> Float[Array, "v k k"]:
    """How often each view of a block says s where the votes say t."""

    def one(item):
        camera, picture, _ = item
        opinion, mass = _opinion(picture)
        shown = _shown(gaussians, rows, camera, capacity)
        return _counts(_normalised(shown[..., :-1]), opinion, mass, shown[..., -1] >= config.alpha_gate)

    return over_views(one, seen)


@functools.partial(jax.jit, static_argnames="config")
def _confusion(counts: Float[Array, "v k k"], *, config: SharpenConfig) -> Float[Array, "v k k"]:
    pooled = _normalised(counts.sum(0) + 1e-3)
    return _normalised(counts + config.pseudo_counts * pooled)


@functools.partial(jax.jit, static_argnames=("capacity", "config"))
def _gain(
    gaussians: Gaussians,
    rows: Array,
    seen: tuple[Camera, Array, Array],
    confusion: Array,
    unpadded: Array,
    believe: Array,
    *,
    capacity: int,
    config: SharpenConfig,
) -> tuple[Float[Array, "1 n k"], Float[Array, "v k k"]]:
    """By how much each entry of the table is multiplied, as a block sees it, and the block's counts."""

    def one(item):
        (camera, picture, weight), matrix, there = item
        opinion, mass = _opinion(picture)
        shown, vjp = jax.vjp(lambda table: _shown(gaussians, table, camera, capacity), rows)
        solid = shown[..., -1] >= config.alpha_gate
        prior = _normalised(shown[..., :-1])
        likelihood = jnp.moveaxis(matrix[:, opinion.argmax(-1)], 0, -1)
        target = jnp.where(believe, _normalised(prior * likelihood), opinion)
        sure = jnp.where(solid & there, weight * certainty(opinion) ** config.trust_power * mass, 0.0)[..., None]
        ratio = jnp.where(prior > _SURE, target / jnp.maximum(prior, _LEAST), 0.0)
        (gained,) = vjp(jnp.concatenate([sure * ratio, jnp.zeros_like(sure)], -1))
        return gained, _counts(prior, opinion, mass, solid)

    gained, counts = over_views(one, (seen, confusion, unpadded))
    return gained.sum(0, keepdims=True), counts


@jax.jit
def _moved(rows: Float[Array, "n k"], gained: Float[Array, "b n k"]) -> Float[Array, "n k"]:
    """The table after an update; what nobody saw stays."""
    moved = rows * gained.sum(0)
    return jnp.where(moved.sum(-1, keepdims=True) > _SURE, _normalised(moved), rows)
