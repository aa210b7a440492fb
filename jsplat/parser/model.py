"""The parser: a network, what its classes mean, and its variables by name."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jsplat.errors import InputError
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser.bisenet import Architecture, BiSeNet

Variables = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Parser:
    """A face parser.

    Attributes:
        variables: weights and batch statistics by their dotted names ("cp.resnet.bn1.scale").
        architecture: the network they belong to.
        labelset: what the classes of the logits mean.
    """

    variables: Variables
    architecture: Architecture
    labelset: LabelSet

    def __post_init__(self):
        wanted = variable_shapes(self.architecture, len(self.labelset))
        got = {name: tuple(value.shape) for name, value in self.variables.items()}
        for name in sorted(wanted.keys() | got.keys()):
            if wanted.get(name) != got.get(name):
                raise InputError(
                    f"parser variable {name}", wanted=f"shape {wanted.get(name, 'none')}", got=got.get(name, "nothing")
                )

    @property
    def network(self) -> BiSeNet:
        """The flax module that holds the variables."""
        return with_variables(self.architecture, len(self.labelset), self.variables)


def enlarged(parser: Parser, factor: float) -> Parser:
    """The same parser, which sees pictures larger: its `input_size` times a factor, to the nearest multiple of 32.

    Training on random enlargements of its pictures makes a network read them best somewhat larger than they came there
    (Touvron et al. 2019, arXiv 1906.06423).
    """
    side = max(32, 32 * round(parser.architecture.input_size * factor / 32))
    return dataclasses.replace(parser, architecture=dataclasses.replace(parser.architecture, input_size=side))


def new_parser(architecture: Architecture, labelset: LabelSet, seed: int) -> Parser:
    """A parser that has learnt nothing yet: Kaiming-normal kernels with a = 1, which is variance 1 / fan_in.

    Drawn by numpy, because JAX would compile a program for each of some twenty shapes.
    """
    random = np.random.default_rng(seed)

    def first(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if is_kernel(name):
            return random.normal(0, math.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
        return np.full(shape, name.endswith((".scale", ".var")), np.float32)

    shapes = variable_shapes(architecture, len(labelset))
    return Parser({name: jnp.asarray(first(name, s)) for name, s in shapes.items()}, architecture, labelset)


def _named(model: BiSeNet) -> dict[str, nnx.Variable]:
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def variables(model: BiSeNet) -> Variables:
    """Weights and batch statistics by dotted name."""
    return {name: variable.get_value() for name, variable in _named(model).items()}


def _abstract(architecture: Architecture, classes: int) -> BiSeNet:
    return nnx.eval_shape(lambda: BiSeNet(architecture, classes))


@functools.cache
def _split(architecture: Architecture, classes: int) -> tuple[nnx.GraphDef, list[tuple[tuple, nnx.Variable]]]:
    """The network without values, and its variables by path, which hold shapes."""
    graph, state = nnx.split(_abstract(architecture, classes))
    return graph, list(nnx.to_flat_state(state))


def with_variables(architecture: Architecture, classes: int, values: Variables) -> BiSeNet:
    """A network that holds these values (arrays or tracers, by dotted name)."""
    graph, shapes = _split(architecture, classes)
    flat = [(path, variable.replace(values[".".join(map(str, path))])) for path, variable in shapes]
    return nnx.merge(graph, nnx.from_flat_state(flat))


@functools.cache
def variable_shapes(architecture: Architecture, classes: int) -> dict[str, tuple[int, ...]]:
    """The name and shape of every variable."""
    named = _named(_abstract(architecture, classes))
    return {name: tuple(variable.get_value().shape) for name, variable in named.items()}


def is_statistic(name: str) -> bool:
    """Whether a variable is a running batch statistic (and no weight)."""
    return name.endswith((".mean", ".var"))


def is_kernel(name: str) -> bool:
    """Whether a variable is a convolution's kernel: only these decay."""
    return name.endswith(".kernel")


def parameter_count(architecture: Architecture, classes: int) -> int:
    """Weights without batch statistics."""
    shapes = variable_shapes(architecture, classes)
    return sum(math.prod(s) for name, s in shapes.items() if not is_statistic(name))
