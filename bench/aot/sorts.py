"""Whether XLA hands the sorts of a program to CUB, its fast library on GPUs, or writes slow ones of its own.

CUB takes one-dimensional sorts of one key and at most one value. Without a device a program with such a sort cannot be
compiled to the end, since only a device tells the scratch size; the optimised program is known by then.
"""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bench.aot.compile import compile_for, device
from bench.aot.entries import CAPACITY, SIZE, gaussians
from jsplat.kernels.tiling import bin_tiles

TILE = (16, 16)
STOPPED = "CUDA Runtime error"  # what the search for CUB's scratch size ends with where there is no device or driver
_CUB = re.compile(r'custom_call_target="[^"]*cub_sort|custom_call_target="__cub\$')
_GENERIC = re.compile(r"= [^=]* sort\(")


@dataclasses.dataclass(frozen=True)
class Sorts:
    """Sorts in an optimised program: handed to CUB, and written by XLA."""

    cub: int
    generic: int


def sorts_of(hlo: str) -> Sorts:
    """Counts the sorts in the text of an optimised program."""
    return Sorts(len(_CUB.findall(hlo)), len(_GENERIC.findall(hlo)))


def sorts_in(architecture: str, function: Callable[..., Any], *args: jax.ShapeDtypeStruct) -> Sorts:
    """Compiles as far as it goes, and counts.

    Raises:
        RuntimeError: no optimised program was written down.
        what XLA raises, unless it is for want of a device.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            compile_for(device(architecture, cub=True), function, args, Path(folder))
        except Exception as error:
            if STOPPED not in str(error):
                raise
        texts = [path.read_text() for path in Path(folder).glob("*gpu_after_optimizations.txt")]
    if not texts:
        raise RuntimeError("no optimised program was written down")
    counts = [sorts_of(text) for text in texts]
    return Sorts(sum(count.cub for count in counts), sum(count.generic for count in counts))


def controls(architecture: str) -> list[str]:
    """Complaints when the counting itself is wrong: of a sort that CUB takes, and of one that it does not."""
    flat, rows = jax.ShapeDtypeStruct((1 << 16,), jnp.int32), jax.ShapeDtypeStruct((4, 1 << 14), jnp.int32)
    found = []
    for what, keys, args, wanted in (
        ("a flat sort by one key", 1, (flat, flat), Sorts(1, 0)),
        ("a batched sort by two keys", 2, (rows, rows), Sorts(0, 1)),
    ):
        got = sorts_in(architecture, lambda *x, keys=keys: lax.sort(x, num_keys=keys), *args)
        if got != wanted:
            found.append(f"{what} on {architecture}: wanted {wanted}, found {got}")
    return found


def binning() -> tuple[Callable[..., Any], Sequence[jax.ShapeDtypeStruct]]:
    """The list of tile hits that all implementations start from."""
    return lambda *args: bin_tiles(*args, size=SIZE, tile=TILE, capacity=CAPACITY), gaussians()
