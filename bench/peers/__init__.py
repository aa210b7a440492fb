"""What jsplat is measured against. Everything here imports without torch; a peer that cannot run says why."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from bench.timing import CannotRunError

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ModuleNotFoundError:  # `need` says so in the table
    torch = nn = F = None

__all__ = ["F", "need", "nn", "torch", "torch_call"]


def need(package: str, cuda: bool = False) -> None:
    """Raises CannotRunError, saying why, where a peer that needs PyTorch and this package cannot run."""
    if torch is None:
        raise CannotRunError("torch is not installed")
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("needs CUDA")
    if importlib.util.find_spec(package) is None:
        raise CannotRunError(f"{package} is not installed")


def torch_call(words: Sequence[str], work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` with as many threads as the words of a mode say, returning when it is done, on a GPU too."""
    threads = next((int(w.split()[0]) for w in words if w.endswith("threads")), None)

    def call(*args: Any, **options: Any) -> Any:
        if threads:
            torch.set_num_threads(threads)
        result = work(*args, **options)
        if "cuda" in words:
            torch.cuda.synchronize()
        return result

    return call
