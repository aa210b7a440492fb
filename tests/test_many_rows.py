"""Programs that treat every row alike do so beyond 32,768 of them; in jaxlib 0.10.2 one kind of fusion does not.

That one, into YNNPACK, takes squares of products summed along a row (jax issue 39103). Whatever here has this shape, as
fits run it (`vmap` under `jit`), is compared with itself on halves of the rows, which are few enough.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.fitting.mcmc import split_opacity
from jsplat.fitting.start import _quats_to, _seen_from
from jsplat.labels import VoteConfig, confidence, facing, vote
from jsplat.raster.projection import project
from jsplat.raster.scene import Gaussians
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.programs import YNNPACK, has_fusion_bug
from tests import ball
from tests.close import assert_close

pytestmark = pytest.mark.as_users  # it is about what the compiler makes of them
HALF = 16_500  # so that both are more than 32,768
CAMERAS = ball.cameras([0.0, 50.0])
PICTURES = jnp.asarray(np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3)), jnp.uint8)


def gradients(function):
    """Row-wise gradients of a sum of squares."""

    def run(scene, rows):
        def total(scene, rows):
            return sum(jnp.sum(jnp.where(jnp.isfinite(x), x, 0) ** 2) for x in jax.tree.leaves(function(scene, rows)))

        return jax.grad(total, (0, 1))(scene, rows)

    return run


def voted(scene, rows):
    opinions = jax.nn.softmax(rows.reshape(-1, 4, 3), -1)
    opinions = jnp.stack([opinions[:, 0], opinions[:, 1]])
    table = vote(opinions * 3, opinions.sum(-1) * 3, jnp.asarray([0.0, 50.0]), jnp.zeros(2), VoteConfig(method="plain"))
    return table, confidence(table)


PROGRAMS = {
    "project": lambda scene, rows: project(scene, CAMERAS[0], antialiased=True),
    "project, gradients": gradients(lambda scene, rows: project(scene, CAMERAS[0], antialiased=True)),
    "colours": lambda scene, rows: sh_colors(rows.reshape(-1, 4, 3), scene.means, CAMERAS[1]),
    "colours, gradients": gradients(lambda scene, rows: sh_colors(rows.reshape(-1, 4, 3), scene.means, CAMERAS[1])),
    "splitting": lambda scene, rows: split_opacity(jax.nn.sigmoid(rows[:, 0]), 2 + (rows[:, 1] > 0).astype(jnp.int32)),
    "facing": lambda scene, rows: facing(scene, CAMERAS).T,
    "normals": lambda scene, rows: _quats_to(rows[:, :3]),
    "colours of a start": lambda scene, rows: _seen_from(
        scene.means, rows[:, :3], PICTURES, jnp.ones((2, 32, 32), bool), CAMERAS
    ),
    "vote": voted,
}


def inputs() -> tuple[Gaussians, jax.Array]:
    """Two identities."""
    random = np.random.default_rng(0)
    scene = (
        random.normal(0, 0.05, (2, 2 * HALF, 3)),
        random.normal(size=(2, 2 * HALF, 4)),
        np.log(0.01) + 0.5 * random.normal(size=(2, 2 * HALF, 3)),
        random.normal(size=(2, 2 * HALF)),
    )
    rows = random.normal(size=(2, 2 * HALF, 12))
    return Gaussians(*(jnp.asarray(x, jnp.float32) for x in scene)), jnp.asarray(rows, jnp.float32)


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_do_not_depend_on_how_many_there_are(name):
    run, whole = jax.jit(jax.vmap(PROGRAMS[name])), inputs()
    halves = [run(*jax.tree.map(lambda x, k=k: x[:, k * HALF : (k + 1) * HALF], whole)) for k in range(2)]
    want = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *halves)
    finite = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, -1), (run(*whole), want))
    assert_close(*finite, 1e-5, "float32: the same formula for every row", relative=True)


def test_the_fusion_that_is_wrong_is_found_where_it_is():
    if not has_fusion_bug():
        pytest.skip("this jaxlib has no fusion into YNNPACK that is known to be wrong")
    on = {YNNPACK.removeprefix("--"): "LIBRARY_FUSION_TYPE_REDUCE"}  # also where XLA_FLAGS switches it off
    turn, rows = inputs()[1][:, :3, :3], inputs()[1][..., :3]
    squares = jax.vmap(lambda turn, rows: jax.vmap(lambda row: ((turn @ row) ** 2).sum())(rows))
    run = jax.jit(squares, compiler_options=on)
    want = jnp.concatenate([run(turn, rows[:, :HALF]), run(turn, rows[:, HALF:])], 1)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(run(turn, rows), want, 1e-5, "a wrong row", relative=True)
