"""How views are weighed against each other, and what they say, read a block of views at a time."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jsplat.errors import InputError
from jsplat.raster.pytree import pytree
from jsplat.runtime.view_blocks import VIEWS

_EPS = 1e-12

METHODS = ("plain", "one_hot", "cosine", "entropy", "agreement", "pose", "dawid_skene", "tempered", "best")


@dataclasses.dataclass(frozen=True)
class VoteConfig:
    """How views are weighed against each other.

    Attributes:
        method: one of `METHODS`.
        remove_background: drop class 0. A Gaussian on the head is never background, though a lost teacher says so.
        min_weight: a view that gives a Gaussian less blend weight than this (pixels) does not see it.
        half_weight: blend weight (pixels) at which a view counts half of its limit: w / (w + half_weight).
        cosine_floor: "cosine": the weight left at grazing angles.
        entropy_power: "entropy": weight (1 - H)^power, H the entropy of a view's opinion, 1 = uniform.
        agreement_power: "agreement": weight of a view = (its agreement with the consensus)^power.
        pose_sigma: "pose", "tempered", "best": degrees of the pose prior; inf = no pose prior.
        pose_floor: what the pose prior leaves to views far from the front.
        trust_power: "tempered", "best": weight (1 - H)^power of an opinion in the log evidence.
        sharpness: "tempered", "best": power of the opinions, 1 = as they came; infinite would be hard votes.
        temperature: "tempered", "best": the most independent opinions that the views of one Gaussian may count for.
        pose_neighborhood: "tempered", "best": a view's confusion matrix is pooled over the views near it, for from one
            side a parser errs alike; standard deviation of their weights, degrees.
        iterations: rounds between consensus and trust.
    """

    method: str = "best"
    remove_background: bool = True
    min_weight: float = 0.01
    half_weight: float = 0.5
    cosine_floor: float = 0.001
    entropy_power: float = 4.0
    agreement_power: float = 12.0
    pose_sigma: Annotated[float, math.inf] = 40.0
    pose_floor: float = 0.001
    trust_power: float = 2.0
    sharpness: float = 3.0
    temperature: float = 3.0
    pose_neighborhood: float = 10.0
    iterations: int = 4

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError("VoteConfig.method", wanted=f"one of {', '.join(METHODS)}", got=repr(self.method))
        for name in ("half_weight", "pose_sigma", "sharpness", "temperature", "pose_neighborhood", "iterations"):
            if not getattr(self, name) > 0:
                raise InputError(f"VoteConfig.{name}", wanted="a positive number", got=getattr(self, name))


@pytree
class Ballots:
    """What a block of views of one voter says of the Gaussians.

    Attributes:
        opinions: rows sum to 1, or to 0 where unseen.
        visible_mass: in [0, 1), how much a view sees of a Gaussian.
        pose: trust by pose.
        cosines: if they were given.
    """

    opinions: Float[Array, "v n k"]
    visible_mass: Float[Array, "v n"]
    pose: Float[Array, "v 1"]
    cosines: Float[Array, "v n"] | None = None

    @staticmethod
    def of(
        evidence: Float[Array, "v n k"], weight: Float[Array, "v n"], pose: Float[Array, " v"], config: VoteConfig
    ) -> "Ballots":
        """From what is lifted: evidence without background, and the blend weight."""
        mass = evidence.sum(-1)
        seen = (weight >= config.min_weight) & (mass > _EPS)
        opinions = jnp.where(seen, 1 / jnp.maximum(mass, _EPS), 0)[..., None] * evidence
        # A view that calls most of a Gaussian background says little about its class: it counts with the mass it has
        # left.
        return Ballots(opinions, jnp.where(seen, mass / (weight + config.half_weight), 0), pose[:, None])


@functools.partial(jax.jit, static_argnames=("program", "labels", "config"))
def _of_block(program: Callable, of_views: tuple, shared: tuple, *, labels: tuple[int, ...], config: VoteConfig) -> Any:
    evidence, weight, pose, cosines, *more = of_views
    first, end = min(labels, default=0), max(labels, default=-1) + 1
    kept = slice(first, end) if labels == tuple(range(first, end)) else np.asarray(labels, int)
    ballots = dataclasses.replace(Ballots.of(evidence[..., kept], weight, pose, config), cosines=cosines)
    return program(ballots, config, *more, *shared)


@dataclasses.dataclass(frozen=True)
class Poll:
    """What all views of one voter say of the Gaussians, read a block at a time.

    A program is a function of `Ballots`, the config, arrays with the block's views in front, and shared arrays.

    Attributes:
        evidence: "v n s"; weight: "v n"; pose: "v"; cosines: "v n" if a method needs them (see `vote`).
        near: "v v", how much the errors of one view tell of those of another (`jsplat.labels.votes.near_views`).
        labels: which of the s count.
    """

    evidence: Any
    weight: Any
    pose: Array
    near: Array
    labels: tuple[int, ...]
    config: VoteConfig
    cosines: Any = None

    def total(self, program: Callable, *shared: Array, of_views: tuple[Array, ...] = ()) -> Any:
        """The sum over all views."""
        found = None
        for _, part in self._parts(program, shared, of_views):
            found = part if found is None else jax.tree.map(jnp.add, found, part)
        return found

    def each_view(self, program: Callable, *shared: Array) -> Array:
        """What a program gives for each view, joined."""
        return jnp.concatenate([part[:count] for count, part in self._parts(program, shared, ())])

    def _parts(self, program: Callable, shared: tuple, of_views: tuple) -> Iterator[tuple[int, Any]]:
        """How many views a block has, and what the program gives; the last block is filled up with views that see
        nothing, so that one compiled program serves all."""
        # The method is no part of a program: those of several methods are one.
        config, views = dataclasses.replace(self.config, method="plain"), len(self.pose)
        size, before = max(min(VIEWS, views), 1), None
        for start in range(0, views, size):
            block = [_filled_up(x[start : start + size], size) for x in (self.evidence, self.weight, self.pose)]
            block += [None if self.cosines is None else _filled_up(self.cosines[start : start + size], size)]
            block += [_filled_up(x[start : start + size], size) for x in of_views]
            part = _of_block(program, tuple(block), shared, labels=self.labels, config=config)
            yield min(size, views - start), part
            if before is not None:
                jax.block_until_ready(before)  # or all blocks would be read before the first is worked on
            before = jax.tree.leaves(part)[0]


def _filled_up(x: Any, count: int) -> Any:
    missing = count - len(x)
    if not missing:
        return x
    return (np if isinstance(x, np.ndarray) else jnp).pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)))
