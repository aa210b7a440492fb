"""Pictures of shares and of depth in as many bits as they mean, in the folder of `label`.

Shares ("alpha", "confidence") are kept in 255ths. Depth is kept in 16,384ths of a view's largest (a fortieth of what
may lie between two views that see the same point), as differences from pixel to pixel of a row, which zip packs well.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jsplat.pipeline.work_folder import load_arrays

SHARES = ("alpha", "confidence")
DEPTH, STEP, STEPS = "depth", "depth_step", 2**14


def packed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of some views, what is packed in place of pictures of floats; `unpacked` gives those back, rounded.

    Packed blocks of views, joined, are packed views.
    """
    out: dict[str, np.ndarray] = dict(arrays)
    for name in SHARES:
        if name in out:
            out[name] = np.rint(out[name] * np.float32(255)).astype(np.uint8)
    if DEPTH in out:
        most = out[DEPTH].max((1, 2), keepdims=True).astype(np.float32)
        step = np.maximum(most, np.finfo(np.float32).tiny * STEPS) / np.float32(STEPS)
        levels = np.rint(out[DEPTH] / step).astype(np.int16)
        out |= {DEPTH: np.diff(levels, axis=-1, prepend=np.int16(0)), STEP: step}
    return out


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `packed` was given. Older versions kept floats, or one step of depth for all views."""
    out = {name: of for name, of in arrays.items() if name != STEP}
    for name in SHARES:
        if name in out and out[name].dtype == np.uint8:
            out[name] = out[name].astype(np.float32) / 255
    if STEP in arrays:
        out[DEPTH] = np.cumsum(out[DEPTH], -1, dtype=np.int16).astype(np.float32) * arrays[STEP]
    return out


def load_labelled(folder: Path, identity: str) -> dict[str, np.ndarray]:
    """What the stage `label` wrote about a head, before any edits; InputError as of `load_arrays`."""
    return unpacked(load_arrays(folder / f"{identity}.npz"))
