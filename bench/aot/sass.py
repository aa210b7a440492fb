"""Loops in machine code, read from what nvdisasm prints: what one turn of a kernel's hot loop costs.

A loop is a natural one (Aho, Sethi, Ullman: Compilers, 10.4): a branch back to a block that dominates it, and all that
can get to the branch without passing that block. So what the assembler moved out of line counts where it belongs.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence

EXPONENTIAL = "MUFU.EX2"

_LABEL = re.compile(r"\s*(\.L_x?_?\d+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?P<text>[^;/]*\S)")
_BRANCH = re.compile(r"\bBRA\b.*?`\((\.L_x?_?\d+)\)")
_ALWAYS = re.compile(r"(BRA[.\w]*\s+`|EXIT|RET|BRX)")  # at the start: without a predicate
_ENDS = re.compile(r"\b(BRA|EXIT|RET|BRX)\b")
_SECTION = re.compile(r"\s*\.section\s+(?:\.text\.)?([^,\s]+)")


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop: all its instructions, whatever a condition skips among them.

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


def hot_loop(lines: Sequence[str]) -> Loop | None:
    """The loop in which a kernel spends its time; None when it has no loop.

    Of the loops that take an exponential and hold no smaller one that does, the one with the most of them (an unrolled
    loop comes with a short one for the rest). Without exponentials: the longest of the innermost loops.
    """
    every = loops(lines)
    blending = {body: loop for body, loop in every.items() if loop.exponentials} or every
    inner = [loop for body, loop in blending.items() if not any(other < body for other in blending)]
    return max(inner, key=lambda x: (x.exponentials, x.instructions), default=None)


def loops(lines: Sequence[str]) -> dict[frozenset[int], Loop]:
    """Every loop of one kernel: the places of its instructions, and what it holds."""
    code, places = _code(lines)
    blocks, after = _blocks(code, places)
    before: list[list[int]] = [[] for _ in blocks]
    for block, following in enumerate(after):
        for other in following:
            before[other].append(block)
    dominators = _dominators(after, before)
    bodies: dict[int, set[int]] = {}
    for block, following in enumerate(after):
        for head in following:
            if head in dominators[block]:
                bodies[head] = bodies.get(head, {head}) | _reaching(block, head, before)
    found = {}
    for body in bodies.values():
        inside = frozenset(place for block in body for place in blocks[block])
        found[inside] = Loop(len(inside), sum(EXPONENTIAL in code[place] for place in inside))
    return found


def _code(lines: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The instructions, and the place of each label among them."""
    code: list[str] = []
    places: dict[str, int] = {}
    for line in lines:
        label, instruction = _LABEL.match(line), _INSTRUCTION.match(line)
        if label:
            places[label.group(1)] = len(code)
        elif instruction:
            code.append(instruction.group("text"))
    return code, places


def _blocks(code: Sequence[str], places: dict[str, int]) -> tuple[list[range], list[list[int]]]:
    """Runs of instructions that no branch enters or leaves on the way, and the blocks that may follow each."""
    starts = {0, *places.values(), *(k + 1 for k, text in enumerate(code) if _ENDS.search(text))}
    edges = [*sorted(start for start in starts if start < len(code)), len(code)]
    blocks = [range(a, b) for a, b in itertools.pairwise(edges)]
    number = {block.start: k for k, block in enumerate(blocks)}
    after = []
    for k, block in enumerate(blocks):
        last = code[block[-1]]
        branch = _BRANCH.search(last)
        following = [number[places[branch.group(1)]]] if branch and places.get(branch.group(1)) in number else []
        if not _ALWAYS.match(last) and k + 1 < len(blocks):
            following.append(k + 1)
        after.append(following)
    return blocks, after


def _dominators(after: Sequence[Sequence[int]], before: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each block those that every way to it passes, itself among them; nothing for a block out of reach."""
    reached, waiting = set(), [0] if after else []
    while waiting:
        block = waiting.pop()
        if block not in reached:
            reached.add(block)
            waiting += after[block]
    found = [set(reached) if block in reached else set() for block in range(len(after))]
    if reached:
        found[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in sorted(reached - {0}):
            ways = [found[other] for other in before[block] if other in reached]
            new = set.intersection(*ways) | {block}
            changed |= new != found[block]
            found[block] = new
    return found


def _reaching(block: int, head: int, before: Sequence[Sequence[int]]) -> set[int]:
    """The blocks that get to `block` without passing `head`."""
    found, waiting = set(), [block]
    while waiting:
        here = waiting.pop()
        if here != head and here not in found:
            found.add(here)
            waiting += before[here]
    return found
