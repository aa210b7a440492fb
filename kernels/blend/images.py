"""Functions over images, whichever way the images come: stacked by `vmap`, or divided among devices under `jit`.

Left alone, XLA would gather the images of all devices for the one list of tiles, and it cannot divide a kernel of our
own. Here every device runs the function on the images that it has. In a program for one device nothing of this is left.
"""

import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

OPACITIES, FEATURES = 2, 4  # places among the arguments

Shape = Sequence[int]


def over_images(function: Callable[..., Any], *, gradients: bool) -> Callable[..., Any]:
    """A function of arrays with any leading axes, which `vmap` adds to and which may be divided among devices.

    Args:
        function: of arrays with one leading axis of images, at FEATURES one of sets of features, and last the set of
            each image. What it gives for an image must not depend on the others. Returns a tuple, of images.
        gradients: its results are those of the first arguments. So that at FEATURES is a sum for each set, and features
            that an axis of `vmap` shares are copied, as their gradients are not shared.

    Returns:
        the function of arrays with the same number of leading axes each; those of the features are 1 where images
        share a set.
    """
    folded = custom_vmap(_where_they_are(function, gradients))

    @folded.def_vmap
    def rule(axis_size, in_batched, *args):
        def wide(place, x, batched):
            shared = place == FEATURES and not gradients
            return x if batched else jnp.broadcast_to(x, (1 if shared else axis_size, *x.shape))

        out = folded(*(wide(place, x, batched) for place, (x, batched) in enumerate(zip(args, in_batched))))
        return out, jax.tree.map(lambda _: True, out)

    return folded


def _leading(shapes: Sequence[Shape]) -> tuple[Shape, Shape]:
    """The leading axes of the images, and of the sets of features."""
    return shapes[OPACITIES][:-1], shapes[FEATURES][:-2]


def _owners(lead: Shape, sets: Shape) -> Int[Array, " i"]:
    """The set of features of each image."""
    return jnp.broadcast_to(jnp.arange(math.prod(sets), dtype=jnp.int32).reshape(sets), lead).reshape(-1)


class Division(typing.NamedTuple):
    """Which of the mesh's axes divide the images, which the sets of features, and along which these are summed."""

    images: P
    sets: P
    summed: tuple[str, ...]

    def of(self, count: int) -> tuple[P, ...]:
        """So many arguments or results."""
        return tuple(self.sets if place == FEATURES else self.images for place in range(count))


def _division(args, shardings: Sequence[NamedSharding]) -> Division:
    """That of the argument that most of the mesh's axes divide, but for leading axes that would come out uneven."""
    lead, sets = _leading([x.shape for x in args])
    sizes = shardings[0].mesh.shape
    found = [[_names(entry) for entry in x.spec[: len(lead)]] for x in shardings]
    most = max(found, key=lambda entries: sum(map(len, entries)))
    even = [names if size % math.prod(sizes[name] for name in names) == 0 else () for size, names in zip(lead, most)]
    own = [names if of_sets == size else () for size, of_sets, names in zip(lead, sets, even)]
    summed = {name for names in even for name in names} - {name for names in own for name in names}
    return Division(P(*even), P(*own), tuple(sorted(summed)))


def _names(entry) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _where_they_are(function, gradients):
    """The function on the devices that have the images: by their type where it says which, else once XLA knows."""

    def on_one(summed: tuple[str, ...]):
        def run(*args):
            lead, sets = _leading([x.shape for x in args])
            out = function(*(x.reshape(-1, *x.shape[len(lead) :]) for x in args), _owners(lead, sets))
            out = [x.reshape(*(sets if place == FEATURES else lead), *x.shape[1:]) for place, x in enumerate(out)]
            if gradients and summed:
                out[FEATURES] = lax.psum(out[FEATURES], summed)
            return tuple(out)

        return run

    def partition(mesh, args, results):
        undivided = mesh.empty  # JAX found no mesh in the whole program
        division = Division(P(), P(), ()) if undivided else _division(args, [x.sharding for x in args])
        into, out = (tuple(NamedSharding(mesh, spec) for spec in division.of(len(x))) for x in (args, results))
        return mesh, on_one(division.summed), out, into

    def rule(mesh, args, results):
        return _rule([x.shape for x in args], [x.shape for x in results])

    alone = on_one(())
    spread = custom_partitioning(alone)
    spread.def_partition(partition, sharding_rule=rule)

    def run(*args):
        config: Any = jax.config  # its attributes are defined at run time
        if config.jax_disable_jit:  # then there is no program to divide
            return alone(*args)
        traced = jax.make_jaxpr(alone)(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))
        typed = [jax.typeof(x).sharding for x in args]
        mesh, kinds = typed[0].mesh, set(typed[0].mesh.axis_types)
        # JAX divides neither what calls back to the host (Pallas' interpreter) nor by axes that a `shard_map` left out.
        if traced.effects or kinds == {AxisType.Auto, AxisType.Manual}:
            return alone(*args)
        if AxisType.Explicit not in kinds:
            return spread(*args)
        division = _division(args, typed)
        into, out = division.of(len(args)), division.of(len(traced.out_avals))
        local = jax.shard_map(on_one(division.summed), mesh=mesh, in_specs=into, out_specs=out, check_vma=False)
        results = local(*(jax.reshard(x, NamedSharding(mesh, spec)) for x, spec in zip(args, into)))
        # A gradient has the type of its argument.
        return tuple(jax.reshard(x, of) for x, of in zip(results, typed)) if gradients else results

    return jax.jit(run)


def _rule(args: Sequence[Shape], results: Sequence[Shape]) -> SdyShardingRule:
    """What XLA's partitioner may do with arrays of these shapes: divide leading axes, and nothing else."""
    lead, sets = _leading(args)
    images = [f"axis{k}" for k in range(len(lead))]
    whole = []

    def mapping(name, place, shape):
        shared = [place == FEATURES and size != of_sets for size, of_sets in zip(lead, sets)]
        fixed = [k for k in range(len(shape)) if k >= len(lead) or shared[k]]
        whole.extend(f"{name}{place}x{k}" for k in fixed)
        return ArrayMapping(*(f"{name}{place}x{k}" if k in fixed else images[k] for k in range(len(shape))))

    into, out = (
        tuple(mapping(name, place, shape) for place, shape in enumerate(shapes))
        for name, shapes in (("in", args), ("out", results))
    )
    return SdyShardingRule(into, out, need_replication_factors=tuple(whole))
