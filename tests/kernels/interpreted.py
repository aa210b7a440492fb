"""GPU kernels on a CPU: run by Pallas' interpreters, under names of their own.

They are registered beside the implementations as "NAME interpreted", so that the same test bodies call them through
`blend`. What an interpreter cannot show (how warps and lanes share the work) is checked elsewhere.
"""

import functools
import os
import types
from typing import Any

from jax.experimental.pallas import mosaic_gpu as plgpu

from jsplat.kernels.blend import IMPLEMENTATIONS, mosaic_gpu, triton
from jsplat.kernels.select import Implementation

ON_DEVICE = os.environ.get("JSPLAT_DEVICE_TESTS") == "1"  # a GPU is there: kernels run natively, or tests fail


def gpu_interpreter(**options: Any) -> Any:
    """Parameters of the interpreter of Mosaic GPU kernels; exported from jax 0.11 on."""
    exported = getattr(plgpu, "InterpretGPUParams", None)
    if exported is not None:
        return exported(**options)
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams(**options)


def _with(module: Any, interpret: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        forward=functools.partial(module.forward, interpret=interpret),
        backward=functools.partial(module.backward, interpret=interpret),
    )


_ALL = {"mosaic_gpu": _with(mosaic_gpu, gpu_interpreter()), "triton": _with(triton, True)}
INTERPRETED = {
    f"{name} interpreted": Implementation(lambda one=one: one, lambda facts: None, calls_host=name == "mosaic_gpu")
    for name, one in _ALL.items()
}
IMPLEMENTATIONS.update(INTERPRETED)
