"""Dataclasses that are pytrees: checked when made, and free to hold anything while JAX looks through them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree, replace, static
from jsplat.raster.scene import Attributes, Gaussians, Scene


def scene(*batch: int, n: int = 4, k: int = 3) -> Scene:
    return Scene(
        Gaussians(
            jnp.ones((*batch, n, 3)), jnp.ones((*batch, n, 4)), jnp.zeros((*batch, n, 3)), jnp.zeros((*batch, n))
        ),
        Attributes(jnp.zeros((*batch, n, 1, 3)), jnp.zeros((*batch, n, k))),
    )


def camera(*batch: int) -> Camera:
    return Camera(jnp.ones((*batch, 4, 4)), jnp.ones((*batch, 3, 3)), 8, 6)


def test_a_wrong_shape_is_refused_when_made():
    good = scene()
    with pytest.raises(Exception, match="means"):
        replace(good.gaussians, means=jnp.zeros((4, 2)))
    with pytest.raises(Exception, match="logit_opacities"):
        replace(good.gaussians, logit_opacities=jnp.zeros(5))


def test_static_fields_belong_to_the_structure():
    leaves, structure = jax.tree.flatten(camera())
    assert [leaf.shape for leaf in leaves] == [(4, 4), (3, 3)]
    assert structure == jax.tree.structure(camera(2))
    assert structure != jax.tree.structure(replace(camera(), width=9))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(scene())]
    assert paths[0] == ".gaussians.means"
    assert paths[-1] == ".attributes.label_logits"


def test_a_change_of_a_static_field_compiles_again():
    traced = []

    @jax.jit
    def pixels(camera):
        traced.append(camera.width)
        return camera.intrinsics.sum() * camera.width

    for width in (8, 8, 9):
        pixels(replace(camera(), width=width))
    assert traced == [8, 9]


def test_a_tree_of_axes_goes_to_vmap():
    batched = jax.tree_util.tree_map_with_path(lambda p, x: x + 1 if p[-1].name != "sh" else x[0] + 1, scene(5))
    axes = jax.tree_util.tree_map_with_path(lambda path, _: None if path[-1].name == "sh" else 0, batched)
    assert axes.attributes.sh is None
    out = jax.vmap(lambda s: s.gaussians.means.sum() + s.attributes.sh.sum(), in_axes=(axes,))(batched)
    np.testing.assert_array_equal(out, np.full(5, 4 * 3 * 2.0 + 4 * 3))


def test_a_tree_of_labels_goes_to_an_optimizer():
    labels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].name, scene())
    assert labels.gaussians.means == "means"
    steps = {name: optax.sgd(1.0 if name == "means" else 0.0) for name in jax.tree.leaves(labels)}
    optimizer = optax.multi_transform(steps, labels)
    state = optimizer.init(scene())
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, scene()), state)
    assert float(updates.gaussians.means.max()) == -1.0
    assert float(jnp.abs(updates.gaussians.quats).max()) == 0.0


def test_shapes_are_found_without_computing():
    shapes = jax.eval_shape(lambda: scene(2))
    assert isinstance(shapes, Scene)
    assert shapes.gaussians.quats == jax.ShapeDtypeStruct((2, 4, 4), jnp.float32)


def test_a_gradient_is_the_same_type():
    gradient = jax.grad(lambda s: jnp.sum(s.gaussians.means**2))(scene())
    assert isinstance(gradient, Scene)
    np.testing.assert_array_equal(gradient.gaussians.means, np.full((4, 3), 2.0))


def test_instances_are_frozen_and_replace_makes_another():
    old = camera()
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.width = 3  # type: ignore[misc]
    new = replace(old, width=3)
    assert (old.width, new.width, new.height) == (8, 3, 6)
    assert new.intrinsics is old.intrinsics


def test_a_static_field_may_have_a_default():
    @pytree
    class Named:
        x: jax.Array
        name: str = static("nobody")

    tree = jax.tree.map(lambda x: x + 1, Named(jnp.zeros(())))
    assert (float(tree.x), tree.name) == (1.0, "nobody")
    assert jax.tree.leaves(tree) == [tree.x]
