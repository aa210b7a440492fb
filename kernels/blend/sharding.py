"""Images that are divided among devices: each device blends those that it has, and asks no other for any.

Left alone, XLA would gather the images of all devices for the one list of tiles, and it cannot divide a kernel of our
own. How the images are divided is known at one of two times, and each has its own tool:

- while JAX traces, where the mesh is in the types of arrays (explicit axes): `shard_map`. Such a program can be
  exported.
- after that, under a plain `jit` of arrays that lie on several devices, as the fit compiles: only XLA knows, once it
  has propagated the shardings through the whole program. It asks back, through `custom_partitioning`. `shard_map`
  cannot take its place, for it wants to know the mesh, and what it divides, while JAX traces.

In a program for one device nothing of this is left.
"""

import itertools
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jsplat.kernels.blend.splats import Splats, map_images


class Division(typing.NamedTuple):
    """Which of the mesh's axes divide the images, which the sets of features, and along which these are summed."""

    images: P
    sets: P
    summed: tuple[str, ...]

    def specs(self, tree: Any) -> Any:
        """The division of each array in a tree of images and `Splats`."""
        return map_images(lambda _: self.images, lambda _: self.sets, tree)

    def summing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function on each device; features of `Splats` among its results are summed over those that share sets."""

        def run(*args):
            sums = (lambda x: lax.psum(x, self.summed)) if self.summed else (lambda x: x)
            return map_images(lambda x: x, sums, function(*args))

        return run


def over_devices(function: Callable[..., Any], *, gradients: bool) -> Callable[..., Any]:
    """A function as `batching.folded` gives it, on the devices that have the images.

    Args:
        function: what it gives for an image must not depend on the others.
        gradients: it returns those of its `Splats`, and those of the features are sums over the images of a set.
    """
    by_xla = _by_xla(function, gradients)

    def run(*args):
        config: Any = jax.config  # its attributes are defined at run time
        kinds = set(jax.typeof(args[0].opacities).sharding.mesh.axis_types)
        if AxisType.Explicit in kinds:
            return _by_types(function, gradients, args, undivided=config.jax_disable_jit)
        # Without jit there is no program to divide; and JAX divides none by axes that a `shard_map` around it left out.
        if config.jax_disable_jit or kinds == {AxisType.Auto, AxisType.Manual}:
            return function(*args)
        return by_xla(*args)

    return jax.jit(run)


def _by_types(function: Callable[..., Any], gradients: bool, args: tuple[Any, ...], *, undivided: bool) -> Any:
    """The function where the types of its arguments say how they are divided, or on all of them on every device."""
    types = [jax.typeof(x).sharding for x in jax.tree.leaves(args)]
    mesh = types[0].mesh
    division = Division(P(), P(), ()) if undivided else _division(args, types)
    into = division.specs(args)
    placed = jax.tree.map(lambda x, spec: jax.reshard(x, NamedSharding(mesh, spec)), args, into)
    if undivided:
        results = function(*placed)
    else:
        out = division.specs(args[0]) if gradients else division.images
        local = division.summing(function)
        results = jax.shard_map(local, mesh=mesh, in_specs=into, out_specs=out, check_vma=False)(*placed)
    if not gradients:
        return results
    # A gradient has the type of its argument.
    return jax.tree.map(lambda x, like: jax.reshard(x, jax.typeof(like).sharding), results, args[0])


def _by_xla(function: Callable[..., Any], gradients: bool) -> Callable[..., Any]:
    """The function divided as XLA finds its arguments divided, once JAX has traced the whole program."""
    divided = custom_partitioning(function)

    def partition(mesh, args, results):
        if mesh.empty:  # JAX found none in the whole program
            division = Division(P(), P(), ())
        else:
            division = _division(args, [x.sharding for x in jax.tree.leaves(args)])
        into, out = (
            jax.tree.map(lambda spec: NamedSharding(mesh, spec), division.specs(tree)) for tree in (args, results)
        )
        return mesh, division.summing(function), out, into

    def rule(mesh, args, results):
        count = len(Splats._fields)
        return _sharding_rule((Splats(*args[:count]), *args[count:]), Splats(*results) if gradients else (*results,))

    divided.def_partition(partition, sharding_rule=rule)
    return divided


def _division(args: tuple[Any, ...], shardings: Sequence[NamedSharding]) -> Division:
    """That of the array that most of the mesh's axes divide, but for leading axes that would come out uneven."""
    lead, sets = args[0].opacities.shape[:-1], args[0].features.shape[:-2]
    sizes = shardings[0].mesh.shape
    found = [[_names(entry) for entry in x.spec[: len(lead)]] for x in shardings]
    most = max(found, key=lambda entries: sum(map(len, entries)))
    even = [names if size % math.prod(sizes[name] for name in names) == 0 else () for size, names in zip(lead, most)]
    own = [names if of_sets == size else () for size, of_sets, names in zip(lead, sets, even)]
    summed = {name for names in even for name in names} - {name for names in own for name in names}
    return Division(P(*even), P(*own), tuple(sorted(summed)))


def _names(entry) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _sharding_rule(args: tuple[Any, ...], results: Any) -> SdyShardingRule:
    """What XLA's partitioner may do with arrays of these shapes: divide leading axes, and nothing else."""
    lead, sets = args[0].opacities.shape[:-1], args[0].features.shape[:-2]
    images = [f"axis{k}" for k in range(len(lead))]
    fresh = (f"whole{k}" for k in itertools.count())
    whole = []

    def mapping(divided):
        def of(x):
            names = []
            for k in range(len(x.shape)):
                if k < len(lead) and divided[k]:
                    names.append(images[k])
                else:
                    whole.append(next(fresh))
                    names.append(whole[-1])
            return ArrayMapping(*names)

        return of

    of_images, of_sets = mapping([True] * len(lead)), mapping([size == own for size, own in zip(lead, sets)])
    into, out = (
        jax.tree.leaves(map_images(of_images, of_sets, tree), is_leaf=lambda x: isinstance(x, ArrayMapping))
        for tree in (args, results)
    )
    return SdyShardingRule(tuple(into), tuple(out), need_replication_factors=tuple(whole))
