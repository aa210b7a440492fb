"""What jsplat is measured against. Everything here imports without torch; a peer that cannot run says why."""

import importlib.util


def missing(*packages: str) -> str | None:
    """Why a peer that needs these packages cannot run here, or None when all are installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} is not installed" if absent else None


def missing_cuda() -> str | None:
    """Why a CUDA peer cannot run here, or None."""
    if absent := missing("torch"):
        return absent
    import torch

    return None if torch.cuda.is_available() else "needs CUDA"
