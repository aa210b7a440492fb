"""What jsplat is measured against. Everything here imports without torch; a peer that cannot run says why."""

import importlib.util

from bench.timing import CannotRunError

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ModuleNotFoundError:  # `need` says so in the table
    torch = nn = F = None

__all__ = ["F", "need", "nn", "torch"]


def need(package: str, cuda: bool = False) -> None:
    """Raises CannotRunError, saying why, where a peer that needs PyTorch and this package cannot run."""
    if torch is None:
        raise CannotRunError("torch is not installed")
    if cuda and not torch.cuda.is_available():
        raise CannotRunError("needs CUDA")
    if importlib.util.find_spec(package) is None:
        raise CannotRunError(f"{package} is not installed")
