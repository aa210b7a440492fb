"""COCO's run-length encoding of binary masks, plain and compressed to text.

Runs go down the columns and alternate between 0 and 1, beginning with 0. Compressed (cocoapi, maskApi.c): from the
fourth run on each run is stored as its difference from the run two before; a number is cut into groups of five bits,
lowest first, bit 6 set while more follow and the last group's bit 5 the sign; each group is the character 48 + group.
"""

import numpy as np
from jaxtyping import Bool

from jsplat.captures.pictures import check_size
from jsplat.errors import InputError


def encode(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Runs of a mask."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False)) if flat.size else np.zeros(0, int)
    return np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()


def decode(counts: list, size: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    """The mask of some runs.

    Args:
        counts: runs, or what a file gave for them.
        size: height, width.
        where: file and field, for errors.

    Raises:
        InputError: runs that are not whole, negative, or do not add up to height times width.
    """
    h, w = size
    check_size(w, h, where)
    whole = all(type(c) is int and 0 <= c <= h * w for c in counts)
    if not whole or sum(counts) != h * w:
        got = sum(counts) if whole else "others"
        raise InputError(where, wanted=f"runs >= 0 that add up to {h}x{w} = {h * w}", got=got)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(w, h).T


def compress(counts: list[int]) -> str:
    """Runs as text."""
    out = []
    for i, run in enumerate(counts):
        rest, more = run - (counts[i - 2] if i > 2 else 0), True
        while more:
            group = rest & 0x1F
            rest >>= 5
            more = rest != (-1 if group & 0x10 else 0)
            out.append(chr(48 + group + (0x20 if more else 0)))
    return "".join(out)


def decompress(text: str, where: str) -> list[int]:
    """Runs of a text.

    Raises:
        InputError: (`where`: file and field) another character, or a number that is cut off or too long.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for at, character in enumerate(text):
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            raise InputError(where, wanted="COCO's compressed runs", got=f"{character!r} at {at}")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            value -= (1 << shift) if group & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise InputError(where, wanted="COCO's compressed runs", got="a number that is cut off")
    return counts
