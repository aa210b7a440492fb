"""What the programs of `configs/gpu.toml` take on a GPU that is not there: computed by XLA, not measured.

`python -m bench.aot.memory [fit ROWS | label | student | step]...` prints a line a program. Of most the memory, in GB:
what XLA plans for arguments, results and temporaries; cuDNN's workspaces are not among them. Of a step of the fit, RGB
and labels, the launches: kernels, copies and calls, a sort as one. Wants the environment of `make check-kernels`.
"""

import dataclasses
import functools
import re
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from bench.aot.compile import device
from bench.aot.target import lowering_for
from jsplat.config import load
from jsplat.fitting.step import draws, first_capacity, one_step, shapes_of, steps
from jsplat.kernels import primitives, select
from jsplat.labels.lift import _lift
from jsplat.labels.opinions import Logits, NetworkPass
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.parser import new_parser, train
from jsplat.pipeline.config import RunConfig
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import HITS_PER_GAUSSIAN
from jsplat.runtime.programs import planned_bytes
from jsplat.runtime.view_blocks import VIEWS

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE, PHOTOS, CLASSES = "sm_90a", 56, len(CELEBAMASK_HQ)
# jaxlib 0.10.2 ends the process over a failed check in its fusion of products into Triton kernels (the training step).
_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
_HOPPER = types.SimpleNamespace(
    platform="gpu", client=types.SimpleNamespace(platform_version="cuda"), compute_capability="9.0", device_kind="H100"
)


def compiled(function: Callable, *args: Any, donated: tuple[int, ...] = (), **options: Any) -> Any:
    """A function's program, compiled as on that GPU alone."""
    where = device(ARCHITECTURE)
    (there,) = where.device_set
    there_alone = {"in_shardings": where, "out_shardings": where, "donate_argnums": donated}
    with (
        mock.patch.object(select, "default_device", return_value=_HOPPER),
        mock.patch.object(primitives, "device_for", return_value=_HOPPER),
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        lowering_for(there.device_kind),
    ):
        lowered = jax.jit(function, **there_alone).trace(*args).lower()
    return lowered.compile(compiler_options=_OPTIONS | options)


def planned(function: Callable, *args: Any, donated: tuple[int, ...] = ()) -> int:
    """Bytes of a function's program."""
    return planned_bytes(compiled(function, *args, donated=donated))


def _capacity(config: RunConfig) -> int:
    return first_capacity(HITS_PER_GAUSSIAN, config.fit.gaussians, CLASSES, config.fit)


def fit(config: RunConfig, rows: int) -> int:
    """The steps of the fit of so many identities."""
    arrays = shapes_of(rows, (PHOTOS, config.size, config.size), CLASSES, config.fit)
    run = functools.partial(steps.__wrapped__, config=config.fit, capacity=_capacity(config))
    return planned(run, *arrays, jax.ShapeDtypeStruct((), jnp.int32), donated=(0,))


def step(config: RunConfig, rows: int = 1) -> int:
    """Launches of one step of the fit, RGB and labels, of so many identities."""
    config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, label_weight=0.5))
    arrays = shapes_of(rows, (PHOTOS, config.size, config.size), CLASSES, config.fit)
    count = config.fit.steps_per_call
    drawn = jax.eval_shape(lambda state, photos: draws(state.step, photos, count, config.fit), *arrays)
    run = functools.partial(one_step, config=config.fit, capacity=_capacity(config))
    return launches_of(run, *arrays, drawn, jax.ShapeDtypeStruct((), jnp.int32), donated=(0,))


def launches_of(function: Callable, *args: Any, donated: tuple[int, ...] = ()) -> int:
    """Of a function's program."""
    with tempfile.TemporaryDirectory() as folder:
        compiled(function, *args, donated=donated, xla_dump_to=folder)
        (text,) = [path.read_text() for path in Path(folder).glob("*.thunk_sequence.txt")]
    return launches(text)


def launches(text: str) -> int:
    """Of a program, from XLA's list of what it starts. Without a device a sort is a kernel a turn; it counts as one."""
    names = [line.split("]", 1)[1].split()[0] for line in text.splitlines() if re.match(r"\d+: k", line)]
    return sum(not re.match(r"sort_.*__\d+$", name) for name in names)


def _cameras(config: RunConfig) -> Camera:
    return jax.eval_shape(lambda: Camera(jnp.zeros((VIEWS, 4, 4)), jnp.zeros((VIEWS, 3, 3)), config.size, config.size))


def label(config: RunConfig) -> int:
    """A block of views lifted onto the Gaussians, from logits at a stride of 8 and those of the mirrored picture."""
    native = config.size // 8
    look = NetworkPass(
        jax.ShapeDtypeStruct((VIEWS, native, native, CLASSES), jnp.uint16),  # type: ignore[arg-type]
        jax.ShapeDtypeStruct((VIEWS,), jnp.float32),  # type: ignore[arg-type]
        (0.0, 1 / 8),
        (0.0, 1 / 8),
    )
    scene = shapes_of(1, (PHOTOS, config.size, config.size), CLASSES, config.fit)[0].scene
    gaussians = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), scene.gaussians)
    run = functools.partial(_lift.__wrapped__, capacity=_capacity(config))
    return planned(run, gaussians, (_cameras(config), Logits((look, look), (config.size, config.size))))


def student(config: RunConfig) -> int:
    """A training step of the parser at the network and batch of the configuration."""
    settings, net = config.finetune.for_side(config.size, config.teacher.input_size), config.teacher.architecture

    def blank():
        images = (settings.batch, config.size, config.size)
        batch = train.Pool(jnp.zeros((*images, 3), jnp.uint8), jnp.zeros(images, jnp.uint8), jnp.zeros(settings.batch))
        state = train.first_state(new_parser(net, CELEBAMASK_HQ, 0), settings)
        return state, jax.random.key(0), batch, jnp.zeros(CLASSES, jnp.int32), jnp.zeros(CLASSES)

    mesh = jax.sharding.Mesh(np.asarray([*device(ARCHITECTURE).device_set]), ("batch",))
    run = functools.partial(train.train_step.__wrapped__, config=settings, architecture=net, mesh=mesh)
    return planned(run, *jax.eval_shape(blank), donated=(0,))


def main(words: list[str]) -> None:
    """Prints what each of these programs takes."""
    config = load(RunConfig, ROOT / "configs" / "gpu.toml", [])
    config = config.for_side(config.size, config.teacher.input_size)
    parts = {"label": label, "student": student, "step": step}
    while words:
        name, start = words.pop(0), time.monotonic()
        count = [int(words.pop(0))] if name == "fit" else []
        found = fit(config, *count) if name == "fit" else parts[name](config)
        told = f"{found} launches" if name == "step" else f"{found / 1e9:.2f} GB"
        print(f"{name} {count}: {told}, compiled in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
