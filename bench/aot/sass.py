"""Loops in machine code, read from what nvdisasm prints: what one turn of a kernel's hot loop costs."""

import dataclasses
import re
from collections.abc import Sequence

SHORTEST = 4  # instructions: anything shorter waits for a barrier

_LABEL = re.compile(r"\s*(\.L_x?_?\d+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?P<text>[^;/]*\S)")
_BRANCH = re.compile(r"\bBRA\b.*?`\((\.L_x?_?\d+)\)")
_SECTION = re.compile(r"\s*\.section\s+(?:\.text\.)?([^,\s]+)")
EXPONENTIAL = "MUFU.EX2"


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop: the instructions from a label to the branch back to it, whatever a condition skips among them.

    Attributes:
        instructions: how many.
        exponentials: how many of them are base-two exponentials: blending takes one for each Gaussian and pixel.
    """

    instructions: int
    exponentials: int


def kernels_of(listing: str) -> dict[str, list[str]]:
    """Kernel -> its lines, from `nvdisasm -c`."""
    found: dict[str, list[str]] = {}
    lines = None
    for line in listing.splitlines():
        section = _SECTION.match(line)
        if section:
            lines = found.setdefault(section.group(1), []) if ".text." in line else None
        if lines is not None:
            lines.append(line)
    return found


def loops(lines: Sequence[str]) -> list[tuple[int, int, Loop]]:
    """Every loop of one kernel as (first, last instruction, what it holds), in the order of the branches back."""
    places: dict[str, int] = {}
    code: list[str] = []
    for line in lines:
        label, instruction = _LABEL.match(line), _INSTRUCTION.match(line)
        if label:
            places[label.group(1)] = len(code)
        elif instruction:
            code.append(instruction.group("text"))
    found = []
    for last, text in enumerate(code):
        branch = _BRANCH.search(text)
        first = places.get(branch.group(1), last) if branch else last
        if last - first + 1 >= SHORTEST:
            body = code[first : last + 1]
            found.append((first, last, Loop(len(body), sum(EXPONENTIAL in x for x in body))))
    return found


def hot_loop(lines: Sequence[str]) -> Loop | None:
    """The loop in which a kernel spends its time; None when it has no loop.

    Of the loops that take an exponential and hold no smaller one that does, the one with the most of them (an unrolled
    loop comes with a short one for the rest). Without exponentials: the longest of the innermost loops.
    """
    every = loops(lines)
    blending = [found for found in every if found[2].exponentials]
    inner = [a for a in blending or every if not any(_within(b, a) for b in blending or every)]
    return max((loop for *_, loop in inner), key=lambda x: (x.exponentials, x.instructions), default=None)


def _within(a: tuple[int, int, Loop], b: tuple[int, int, Loop]) -> bool:
    return a != b and b[0] <= a[0] and a[1] <= b[1]
