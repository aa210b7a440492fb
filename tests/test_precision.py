"""No product outside the parser leaves the precision of its factors to the device: GPUs would round them to 10 bits."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.fitting import start, step
from jsplat.fitting.photos import photos_of
from jsplat.kernels.blend import mosaic_gpu, triton, xla
from jsplat.kernels.blend.cases import CAPACITY, CASES, SIZE
from jsplat.kernels.blend.reference import blend_reference
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.labels import METHODS, SharpenConfig, VoteConfig, VoterEvidence, facing, vote, vote_together
from jsplat.labels.lift import _lift
from jsplat.labels.opinions import Logits, NetworkPass, pixels
from jsplat.labels.palette import _added, _labels
from jsplat.labels.sharpen import _first_counts, _gain, error_models
from jsplat.raster.projection import project
from jsplat.raster.scene import Attributes, Scene
from tests import ball

ROOT = Path(__file__).resolve().parent.parent
PRODUCTS = {"einsum", "matmul", "dot", "vdot", "inner", "tensordot", "vecdot", "matvec", "vecmat"}


def equations(jaxpr: Any) -> Iterator[Any]:
    """Those of a traced program and of everything it calls, kernels too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def products(function, *args) -> list[tuple[str, Any]]:
    """Type of the factors and precision of every product in the program of these arguments."""
    traced = jax.make_jaxpr(function)(*args)
    found = (e for e in equations(traced.jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated"))
    return [(str(e.invars[0].aval.dtype), e.params["precision"]) for e in found]


def rounded_of(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The products whose factors a GPU may round."""
    return [p for p in found if p[0] in ("float32", "float64") and p[1] != (jax.lax.Precision.HIGHEST,) * 2]


def rounded(function, *args) -> list[tuple[str, Any]]:
    """Those of a program."""
    return rounded_of(products(function, *args))


VIEWS, COUNT = 8, 40
OWN = (frozenset({0}), frozenset({1}), frozenset({2}))


@functools.cache
def head():
    """A captured ball, Gaussians on it, and what a fit of both starts with."""
    seen, gaussians, config = ball.capture(), ball.gaussians(COUNT), ball.FIT
    scene = Scene(gaussians, Attributes(jnp.zeros((COUNT, 4, 3)), jnp.zeros((COUNT, 3))))
    one = jax.tree.map(lambda x: jnp.asarray(x)[None], (scene, photos_of(seen, config, 0)))
    return seen, gaussians, config, (step.first_state(one[0]), one[1])


PROGRAMS = (
    "hull", "colours of the start", "steps", "relocation", "centres of cameras", "projection", "lift", "facing",
    "votes", "voters together", "parser's pixels", "counts of sharpening", "confusion of sharpening", "sharpening",
    "palette",
)  # fmt: skip

BY_COMPONENTS = ("projection", "lift")  # no product of arrays at all


def program_of(name: str) -> tuple[Any, ...]:
    """A program of the fit or of the label stage, and its arguments."""
    seen, gaussians, config, fit = head()
    cameras, rows, known = seen.cameras, jnp.full((COUNT, 3), 1 / 3), jnp.ones(seen.labels.shape, bool)
    pictures, evidence, weight = (
        jnp.eye(3)[np.asarray(seen.labels)],
        jnp.ones((VIEWS, COUNT, 3)),
        jnp.ones((VIEWS, COUNT)),
    )
    how = {"capacity": 1000, "config": SharpenConfig()}
    block, means = (cameras, pictures, jnp.ones(VIEWS), ()), (None, (frozenset({0}), frozenset({1, 2})))
    counts = [jnp.ones((VIEWS, 3, 3)), jnp.ones((VIEWS, 3, 2))]
    match name:
        case "hull":
            return start._hull_votes, gaussians.means, known, known, cameras
        case "colours of the start":
            return start._seen_from, gaussians.means, gaussians.means, jnp.asarray(seen.images), known, cameras
        case "steps":
            return functools.partial(step.steps, config=config, capacity=1000), *fit, jnp.int32(8)
        case "relocation":
            return functools.partial(step._relocate, config=config), *fit
        case "centres of cameras":
            return lambda camera: camera.centers, cameras
        case "projection":
            return jax.jacrev(lambda g: project(g, cameras[0]).conic_roots), gaussians
        case "lift":
            return functools.partial(_lift, capacity=1000), gaussians, (cameras, pictures)
        case "facing":
            return facing, gaussians, cameras
        case "votes":
            yaw = jnp.zeros(VIEWS)

            def votes(*args):
                return [vote(*args[:-1], VoteConfig(method=method), args[-1]) for method in METHODS]

            return votes, evidence, weight, yaw, yaw, weight
        case "voters together":
            heard = [
                VoterEvidence(evidence[..., :2], jnp.ones(VIEWS), jnp.eye(VIEWS), means[1]),
                VoterEvidence(evidence, jnp.ones(VIEWS), jnp.eye(VIEWS), OWN),
            ]
            return functools.partial(vote_together, config=VoteConfig(), k=3), heard, weight
        case "parser's pixels":
            look = NetworkPass(jnp.ones((4, 4, 3), jnp.uint16), jnp.float32(1), (0.0, 0.5), (0.0, 0.5))
            return pixels, Logits((look,), (8, 8))
        case "counts of sharpening":
            return functools.partial(_first_counts, **how), gaussians, rows, block
        case "confusion of sharpening":
            return functools.partial(error_models, means=means, config=how["config"]), counts
        case "sharpening":
            told = [(counts[0], jnp.ones(VIEWS))]
            seen_by = block, told, known[:, 0, 0], np.bool_(True), jnp.ones(3)
            return functools.partial(_gain, **how), gaussians, rows, *seen_by
        case "palette":
            totals = jnp.zeros((3, 4))
            return lambda *of: (_added(totals, *of), _labels(of[0], of[2])), pictures, 1.0 * known, jnp.eye(3)
    raise ValueError(name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_product_of_the_fit_and_of_the_labels_is_rounded(name):
    found = products(*program_of(name))
    assert bool(found) == (name not in BY_COMPONENTS)
    assert rounded_of(found) == []


@pytest.mark.parametrize("implementation", [mosaic_gpu, triton, xla])
def test_no_product_of_a_kernel_is_rounded(implementation):
    """Where they multiply in bfloat16 the factors are parts, cut by the kernel itself."""
    splats = Splats(*CASES["random"]().arrays())
    shown = Shown.of(jnp.zeros((1, SIZE[1], SIZE[0], splats.features.shape[-1] + 2)))
    args, lens = (splats, jnp.zeros(1, jnp.int32)), {"size": SIZE, "capacity": CAPACITY}
    assert rounded(functools.partial(implementation.forward, **lens), *args) == []
    backward = functools.partial(implementation.backward, **lens, shape_channels=3)
    assert rounded(backward, *args, shown, shown) == []


def test_no_product_of_the_reference_and_of_sums_is_rounded():
    arrays = CASES["random"]().arrays()
    assert rounded(functools.partial(blend_reference, size=SIZE), *arrays) == []
    sums = functools.partial(xla.splat_sums, size=SIZE, capacity=CAPACITY)
    assert rounded(sums, *arrays[:4], jnp.zeros((1, SIZE[1], SIZE[0], 2))) == []


def test_what_is_rounded_is_found_wherever_it_is():
    x = jnp.ones((3, 3))

    def hidden(x):
        return jax.lax.scan(lambda carry, _: (jax.jit(jnp.matmul)(carry, carry), None), x, length=2)[0]

    assert rounded(lambda x: x @ x, x) == [("float32", None)]
    assert rounded(jax.grad(lambda x: jax.vmap(hidden)(x[None]).sum()), x)
    assert products(functools.partial(jnp.matmul, precision="highest"), x, x)
    assert rounded(functools.partial(jnp.matmul, precision="highest"), x, x) == []


def products_of_jax(source: str) -> list[int]:
    """Lines in which JAX multiplies matrices without a precision."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        node.lineno
        for node in calls
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in PRODUCTS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "jnp"
        and "precision" not in [k.arg for k in node.keywords]
    ]


def test_products_are_written_with_a_precision():
    paths = [p for room in ("jsplat", "kernels") for p in (ROOT / room).rglob("*.py") if p.parent.name != "parser"]
    assert {str(p.relative_to(ROOT)): lines for p in paths if (lines := products_of_jax(p.read_text()))} == {}
    assert products_of_jax("y = jnp.einsum('ij,j', a, x)\nz = jnp.dot(a, x, precision='highest')\nnp.dot(a, x)") == [1]
