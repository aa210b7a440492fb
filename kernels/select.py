"""Which implementation of an op runs: the one asked for, or an error that says why not; unasked, the best that can.

Nothing is decided when this is imported, and no device is touched before an op is called.
"""

import contextlib
import importlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

HOPPER_OR_BLACKWELL = "an NVIDIA GPU of compute capability 9.0 or 10.x"

Device = Any  # jax.Device, which type checkers take for a variable

# A context that jit's caches know: a program traced within it is not taken for one traced outside.
_asked = jax.make_user_context(default_value=None)


class Facts(typing.NamedTuple):
    """What an implementation may look at to decline.

    Attributes:
        device: where the op will run.
        dtype: of its arrays.
        channels: that are blended.
    """

    device: Device
    dtype: np.dtype
    channels: int


class Implementation(typing.NamedTuple):
    """One way to compute an op.

    Attributes:
        load: imports and returns it; what it needs may be missing where it cannot run anyway.
        declines: why it cannot run ("wanted ..., got ..."), or None.
        calls_host: its programs call back to the host, as Pallas' interpreter of Mosaic kernels does: JAX cannot
            divide them among devices.
    """

    load: Callable[[], Any]
    declines: Callable[[Facts], str | None]
    calls_host: bool = False


def module(name: str) -> Callable[[], types.ModuleType]:
    """Loads a module on demand."""
    return lambda: importlib.import_module(name)


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block every op whose caller names no backend takes this one, in programs traced there too.

    Args:
        name: one of `jsplat.kernels.blend.BACKENDS`; None: the best that works, as without the block.

    Raises:
        ValueError: by the first op, where the backend is unknown or cannot run here.
    """
    with _asked(name):
        yield


def asked(name: str | None) -> str | None:
    """The one asked for: by name, or by `use_backend` around."""
    return _asked.value if name is None else name


def choose(op: str, implementations: Mapping[str, Implementation], name: str | None, facts: Facts) -> str:
    """The name of the implementation to run.

    Args:
        op: for messages.
        implementations: the best first; the last one never declines.
        name: the one asked for; None: that of `use_backend`, else the best that can.

    Raises:
        ValueError: there is none of that name, or it cannot run here.
    """
    name = asked(name)
    if name is None:
        return next(key for key, one in implementations.items() if one.declines(facts) is None)
    if name not in implementations:
        raise ValueError(f"{op}: backend: wanted one of {tuple(implementations)} or None, got {name!r}")
    reason = implementations[name].declines(facts)
    if reason is not None:
        raise ValueError(f"{op}: backend: {name}: {reason}; None takes the best that works here")
    return name


def default_device() -> Device:
    """Where JAX puts arrays that nobody placed."""
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]: defined at run time
    return jax.devices(device)[0] if device is None or isinstance(device, str) else device


def compute_capability(device: Device) -> tuple[int, int] | None:
    """Of an NVIDIA GPU, as (major, minor); None of anything else."""
    if device.platform != "gpu" or "cuda" not in device.client.platform_version.lower():
        return None
    major, _, minor = str(device.compute_capability).partition(".")
    return int(major), int(minor or 0)


def is_hopper_or_blackwell(capability: tuple[int, int]) -> bool:
    """Whether Mosaic's kernels run there."""
    return capability == (9, 0) or capability[0] == 10


def needs_gpu(facts: Facts, *, wanted: str, supported: Callable[[tuple[int, int]], bool]) -> str | None:
    """Why a kernel for some NVIDIA GPUs in float32 cannot run.

    Args:
        wanted: the GPUs, in words.
        supported: whether a compute capability is among them.
    """
    if facts.dtype != np.float32:
        return f"wanted float32 arrays, got {np.dtype(facts.dtype).name}; 'xla' takes float64"
    capability = compute_capability(facts.device)
    if capability is None:
        return f"wanted {wanted}, got {facts.device.device_kind} ({facts.device.platform})"
    if not supported(capability):
        return f"wanted {wanted}, got {facts.device.device_kind} of {capability[0]}.{capability[1]}"
    return None
