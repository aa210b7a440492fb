"""Images divided among devices under plain `jit`: the numbers of one device, and no device asks another for images.

How many devices a process has is decided once. So one of its own, with four, runs the cases and says what it saw.
"""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jsplat.kernels.blend import blend
from jsplat.kernels.blend.cases import headlike
from jsplat.raster.camera import Camera
from jsplat.raster.rasterizer import rasterize
from jsplat.raster.scene import Gaussians
from tests.processes import QUICK

DEVICES, IDENTITIES, VIEWS = 4, 4, 2
EDGE, COUNT, CHANNELS, CAPACITY = 32, 60, 3, 1000
WEIGHTS = np.random.default_rng(0).normal(size=(EDGE, EDGE, CHANNELS + 2)).astype(np.float32)
ATTRIBUTES = ("means2d", "conic_roots", "opacities", "depths", "features")
REGROUPED = 1e-5  # float32: each device sums its part first; XLA fuses a projection anew for every size of batch
OWN, IDENTITY = P("identity"), P("identity", "view")

plain = functools.partial(blend, size=(EDGE, EDGE), capacity=CAPACITY, backend="xla")


def gradients(blending, *args):
    """Those of the blend's arguments, the image, and each image's loss."""

    def loss(*args):
        channels, alpha, depth, _ = blending(*args)
        image = jnp.concatenate([channels, alpha[..., None], depth[..., None]], -1)
        losses = (image * WEIGHTS).sum((-3, -2, -1))
        return losses.sum(), {"image": image, "losses": losses}

    found, seen = jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True)(*args)
    return dict(zip(ATTRIBUTES, found)) | seen


@functools.cache
def images(count: int = IDENTITIES * VIEWS):
    """`count` images of as many heads; the two views of an identity show the same features."""
    rows = [np.asarray(x) for x in headlike(count, COUNT, EDGE, CHANNELS).arrays()]
    return *rows[:4], rows[4][::VIEWS].repeat(VIEWS, 0)


of_images = functools.partial(gradients, plain)
compiled_once = jax.jit(of_images)


@functools.cache
def on_one():
    return jax.tree.map(np.asarray, compiled_once(*images()))


def by_identity(tree):
    return jax.tree.map(lambda x: x.reshape(-1, VIEWS, *x.shape[1:]), tree)


def mesh(*shape):
    return Mesh(np.asarray(jax.devices()).reshape(shape), ("identity", "view")[: len(shape)])


def observed(function, args, placed, want):
    """The relative errors, how the results are divided, and what the compiled program says to other devices."""
    args = [jax.device_put(x, where) for x, where in zip(args, placed)]
    compiled = jax.jit(function).lower(*args).compile()
    text, got = compiled.as_text() or "", compiled(*args)
    return {
        "errors": {
            key: float(np.abs(np.asarray(got[key]) - want[key]).max() / np.abs(want[key]).max()) for key in want
        },
        "divided": {key: not got[key].sharding.is_fully_replicated for key in want},
        "collectives": re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text),
        "sorts": len(re.findall(r" sort\(", text)),
    }


def own_features(where):
    return observed(of_images, images(), [NamedSharding(where, OWN)] * 5, on_one())


def features_of_identities(where, spec):
    """The views of an identity share features; the second of the mesh's axes, if any, divides views."""
    *rows, features = by_identity(images())
    want = by_identity(on_one())
    want["features"] = want["features"].sum(1, keepdims=True)
    placed = [NamedSharding(where, s) for s in (*[spec] * 4, OWN)]
    return observed(of_images, [*rows, features[:, :1]], placed, want)


def features_of_all():
    *rows, features = images()
    same = np.stack([features[0]] * len(features))
    want = jax.tree.map(np.asarray, compiled_once(*rows, same))
    want["features"] = want["features"].sum(0)
    where = mesh(DEVICES)
    blending = jax.vmap(plain, (0, 0, 0, 0, None))
    placed = [NamedSharding(where, s) for s in (*[OWN] * 4, P())]
    return observed(functools.partial(gradients, blending), [*rows, features[0]], placed, want)


def uneven():
    """Six images over four devices: such arrays are only found within a program."""
    where = NamedSharding(mesh(DEVICES), OWN)

    def run(*args):
        return gradients(plain, *(jax.lax.with_sharding_constraint(x, where) for x in args))

    want = {key: x[:6] for key, x in on_one().items()}
    return observed(run, [x[:6] for x in images()], [NamedSharding(where.mesh, P())] * 5, want)


def in_a_loop():
    """`vmap` of the gradient in the body of a `lax.map`."""
    function = jax.vmap(of_images)

    def run(*args):
        return jax.lax.map(lambda k: function(*args[:2], args[2] * k, *args[3:]), jnp.ones(1))

    want = jax.tree.map(lambda x: x[None], by_identity(on_one()))
    return observed(run, by_identity(images()), [NamedSharding(mesh(DEVICES), OWN)] * 5, want)


def interpreted():
    """Triton's kernels; those of Mosaic call back to the host when interpreted, which JAX cannot divide."""
    import tests.kernels.interpreted  # noqa: F401

    def run(*args):
        return {"image": blend(*args, size=(EDGE, EDGE), capacity=CAPACITY, backend="triton interpreted").channels}

    want = jax.tree.map(np.asarray, jax.jit(run)(*images()))
    return observed(run, images(), [NamedSharding(mesh(DEVICES), OWN)] * 5, want)


def exported():
    """Written down and read back, which needs the mesh in the types; and without `jit`."""
    where = jax.make_mesh((DEVICES,), ("identity",))
    args = [jax.device_put(x, NamedSharding(where, OWN)) for x in images()]
    program = jax.export.deserialize(jax.export.export(jax.jit(of_images))(*args).serialize())
    seen = observed(program.call, images(), [NamedSharding(where, OWN)] * 5, on_one())
    with jax.set_mesh(where), jax.disable_jit():
        channels = np.asarray(plain(*args).channels)
    return seen | {"without_jit": float(np.abs(channels - on_one()["image"][..., :CHANNELS]).max())}


def rasterized():
    """Four identities seen by two cameras each, one `vmap` over the cameras outside."""
    random = np.random.default_rng(1)
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": ()}
    leaves = {name: random.normal(size=(IDENTITIES, COUNT, *rest)) for name, rest in shapes.items()}
    leaves["means"], leaves["log_scales"] = leaves["means"] / 4, leaves["log_scales"] / 2 - 2
    features = random.uniform(size=(IDENTITIES, COUNT, CHANNELS))
    poses = np.tile(np.eye(4), (VIEWS, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = np.arange(VIEWS) / 5, 3
    intrinsics = np.tile([[40.0, 0, EDGE / 2], [0, 40.0, EDGE / 2], [0, 0, 1]], (VIEWS, 1, 1))
    cameras = Camera(jnp.asarray(poses, jnp.float32), jnp.asarray(intrinsics, jnp.float32), EDGE, EDGE)

    def run(*args):
        def loss(*args):
            gaussians = Gaussians(**dict(zip(shapes, args)))
            render = jax.vmap(lambda camera: rasterize(gaussians, args[-1], camera, capacity=CAPACITY))(cameras)
            return (render.channels**2).sum(), render.channels

        found, image = jax.grad(loss, range(5), has_aux=True)(*args)
        return dict(zip((*shapes, "features"), found)) | {"image": image}

    args = [np.asarray(x, np.float32) for x in (*leaves.values(), features)]
    want = jax.tree.map(np.asarray, jax.jit(run)(*args))
    return observed(run, args, [NamedSharding(mesh(DEVICES), OWN)] * 5, want)


CASES = {
    "own features": lambda: own_features(mesh(DEVICES)),
    "a mesh in the types": lambda: own_features(jax.make_mesh((DEVICES,), ("identity",))),
    "features of identities": lambda: features_of_identities(mesh(DEVICES), OWN),
    "views divided too": lambda: features_of_identities(mesh(2, 2), IDENTITY),
    "features of all": features_of_all,
    "uneven": uneven,
    "in a loop": in_a_loop,
    "interpreted": interpreted,
    "exported": exported,
    "rasterized": rasterized,
}


# Compiled quickly (`QUICK`) these have the bits of one device too; the fusion of the others depends on their arguments.
FUSED_ALIKE = [name for name in CASES if name not in ("uneven", "in a loop", "interpreted")]


@pytest.fixture(scope="module")
def report():
    """What each case saw, in two programs; machine code that is run once is not optimised in either."""
    root, found = Path(__file__).resolve().parents[2], {}
    for names in (FUSED_ALIKE, [name for name in CASES if name not in FUSED_ALIKE]):
        done = subprocess.run(
            [sys.executable, "-m", "tests.kernels.test_sharded", *names],
            cwd=root,
            env=os.environ | (QUICK if names is FUSED_ALIKE else {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}),
            stdout=subprocess.PIPE,
            check=True,
        )
        found |= json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "name", ["own features", "a mesh in the types", "features of identities", "in a loop", "interpreted"]
)
def test_divided_images_have_the_bits_of_one_device_and_stay_where_they_are(report, name):
    seen = report[name]
    assert set(seen["errors"].values()) == {0}
    assert all(seen["divided"].values())
    assert seen["collectives"] == []


def test_both_passes_share_one_binning_on_every_device(report):
    assert report["own features"]["sorts"] == 2


@pytest.mark.parametrize("name", ["features of all", "views divided too"])
def test_only_the_gradients_of_shared_features_are_summed_over_devices(report, name):
    seen = report[name]
    assert seen["collectives"] == ["all-reduce"]
    assert 0 <= seen["errors"].pop("features") < REGROUPED
    assert set(seen["errors"].values()) == {0}
    assert seen["divided"].pop("features") == (name != "features of all")
    assert all(seen["divided"].values())


def test_a_program_for_a_mesh_in_the_types_can_be_exported_and_run_without_jit(report):
    seen = report["exported"]
    assert set(seen["errors"].values()) == {0}
    assert all(seen["divided"].values())
    assert seen["collectives"] == []
    assert seen["without_jit"] < REGROUPED


def test_images_that_do_not_come_out_even_are_right(report):
    assert set(report["uneven"]["errors"].values()) == {0}


def test_a_rasterization_is_divided(report):
    seen = report["rasterized"]
    assert max(seen["errors"].values()) < REGROUPED
    assert all(seen["divided"].values())
    assert seen["collectives"] == []


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", DEVICES)
    json.dump({name: CASES[name]() for name in sys.argv[1:]}, sys.stdout)
