"""What the Mosaic kernels should take on GPUs that have not run them: PREDICTED, so that a measurement can disagree.

python scripts/predicted_times.py   # prints a table in Markdown

A kernel takes as long as its instructions take to issue or its bytes to move, whichever is longer. Instructions are
those of the machine code for sm_90a at 22 channels (kernels/README.md counts them); a scheduler issues one a cycle if
one of its warps is ready, which is taken to be so in EFFICIENCY of the cycles a resident warp. Registers and shared
memory, which decide how many warps are resident, are those of bench/baseline/aot.json.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jsplat.kernels.blend.mosaic_gpu.layout import TILE, hit_grads_width
from jsplat.kernels.tiling import Grid, key_type

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = json.loads((ROOT / "bench" / "baseline" / "aot.json").read_text())["0.11"]

EFFICIENCY = 0.15  # of a scheduler's cycles that one resident warp fills: latencies of 4 to 30 cycles, some in parallel
LAUNCH = 1.5e-6  # seconds from one kernel of a CUDA graph to the next
SCHEDULERS, REGISTERS, WARP, BLOCK = 4, 65536, 32, 128
CHANNELS = 22

# One view of 512 x 512 of a head of 50,000 Gaussians (scripts/tile_counts.py): a pair is a hit and a warp of its tile.
GAUSSIANS, PIXELS, HITS = 50_000, 512 * 512, 159_204
PAIRS, REACHED = 4 * HITS, 0.49  # and of these the share in which the warp blends
CAPACITY = 400_000  # slots of a view in the fit, all of which are sorted


class Gpu(NamedTuple):
    """Multiprocessors, clock in GHz, bytes a second to and from memory, bytes of shared memory a multiprocessor."""

    name: str
    multiprocessors: int
    clock: float
    bandwidth: float
    shared: int


GPUS = [Gpu("H100 SXM", 132, 1.755, 3.35e12, 233_472), Gpu("H200", 132, 1.755, 4.8e12, 233_472)]


class Pass(NamedTuple):
    """A kernel: instructions a pair to evaluate, to blend, and for a chunk of 32 hits; bytes of a view."""

    name: str
    kernel: str
    evaluate: float
    blend: float
    chunk: float
    bytes: float


_ROW = 4 * (8 + 24 + 1)  # a hit's Gaussian, features and number
_IMAGE = 4 * (CHANNELS + 2) * PIXELS
PASSES = [
    Pass("forward", "forward_kernel_mosaic_gpu_kernel", 12, 36, 91, HITS * _ROW + _IMAGE),
    Pass(
        "backward",
        "backward_kernel_mosaic_gpu_kernel",
        12.5,
        57,
        330,
        HITS * (_ROW + 4 * hit_grads_width(CHANNELS)) + 2 * _IMAGE,
    ),
]


def blocks(kernel: str, of: str, gpu: Gpu) -> int:
    """Of a kernel that a multiprocessor holds at once."""
    used = ENTRIES[f"mosaic_gpu {of} {CHANNELS} sm_90a"][kernel]
    registers = math.ceil(used["registers"] / 8) * 8 * BLOCK
    shared = math.ceil(used["shared"] / 128) * 128 + 1024
    return min(REGISTERS // registers, gpu.shared // shared)


def kernel_time(one: Pass, gpu: Gpu, views: int) -> tuple[float, str]:
    """Seconds, and what they are for."""
    held = blocks(one.kernel, one.name, gpu)
    ready = min(1.0, EFFICIENCY * held * BLOCK / WARP / SCHEDULERS)
    instructions = views * PAIRS * (one.evaluate + REACHED * one.blend + one.chunk / 32)
    issue = instructions / (gpu.multiprocessors * SCHEDULERS * gpu.clock * 1e9 * ready)
    move = views * one.bytes / gpu.bandwidth
    return max(issue, move), "instructions" if issue > move else "bytes"


def sort_time(gpu: Gpu, views: int, key: int) -> float:
    """Seconds of the sort by tile: a pass for each byte of a key over keys and 4 bytes of values, read and written."""
    return key * 2 * (key + 4) * views * CAPACITY / gpu.bandwidth


def table() -> str:
    """Markdown: milliseconds on each GPU."""
    rows = []
    for views in (1, 32):
        title = f"{views} view" + "s" * (views > 1)
        summed = views * 4 * hit_grads_width(CHANNELS) * (HITS + GAUSSIANS)
        for one in PASSES:
            found = [kernel_time(one, gpu, views) for gpu in GPUS]
            held = blocks(one.kernel, one.name, GPUS[0])
            times = " | ".join(f"{seconds * 1e3:.3f}" for seconds, _ in found)
            rows.append(f"| {one.name}, {title} | {times} | {found[0][1]}; {held} blocks a multiprocessor |")
        times = " | ".join(f"{summed / gpu.bandwidth * 1e3:.3f}" for gpu in GPUS)
        rows.append(f"| collect, {title} | {times} | bytes |")
        tiles = 512 // TILE[0], 512 // TILE[1]
        key = np.dtype(key_type(Grid(tiles, TILE, GAUSSIANS, views).first_tiles)).itemsize
        times = " | ".join(f"{sort_time(gpu, views, key) * 1e3:.3f}" for gpu in GPUS)
        rows.append(f"| sort by tile, {title} | {times} | bytes; keys of {8 * key} bits |")
    launch = f"| each kernel launched | {LAUNCH * 1e3:.4f} | {LAUNCH * 1e3:.4f} | in a CUDA graph |"
    head = f"| PREDICTED, ms | {' | '.join(gpu.name for gpu in GPUS)} | limited by |\n|---|---:|---:|---|"
    return "\n".join([head, *rows, launch])


if __name__ == "__main__":
    print(table())
