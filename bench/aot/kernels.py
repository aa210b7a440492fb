"""The Pallas kernels inside a function, each as a function of its own that can be compiled alone.

The sorts, gathers and scatters around a kernel are XLA's and cost most of the time of compiling; the checks of a
kernel need none of them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

PRIMITIVES = ("pallas_call", "mpmd_map", "core_map")  # what `pl.pallas_call` and `plgpu.kernel` trace to


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One call of a kernel: the name of its body's function, the call alone, shapes and types of its arguments."""

    name: str
    run: Callable[..., Any]
    args: Sequence[jax.ShapeDtypeStruct]


def kernels_in(function: Callable[..., Any], *args: jax.ShapeDtypeStruct) -> list[Kernel]:
    """Every kernel that `function` calls with such arguments, in the order of the calls; interpreted ones do not count.

    Raises:
        ValueError: a kernel changes a reference in place; only kernels that return what they make can stand alone.
    """
    return [_alone(equation) for equation in _calls(jax.make_jaxpr(function)(*args).jaxpr)]


def _calls(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRIMITIVES:
            if not equation.params.get("interpret"):
                yield equation
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _calls(inner)


def _alone(equation: Any) -> Kernel:
    name, shapes = _name(equation), [variable.aval for variable in equation.invars]
    if not all(hasattr(aval, "dtype") and hasattr(aval, "weak_type") for aval in shapes):
        raise ValueError(f"{name}: wanted a kernel of arrays alone, got {[str(aval) for aval in shapes]}")

    def run(*values):
        return equation.primitive.bind(*values, **equation.params)

    return Kernel(name, run, [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in shapes])


def _name(equation: Any) -> str:
    given = equation.params.get("name") or getattr(equation.params.get("name_and_src_info"), "name", None)
    return str(given or equation.primitive.name)
