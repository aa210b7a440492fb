"""Classes as colours: the colours that masks are painted in, and the classes that colours stand for."""

import collections
import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from jsplat.errors import InputError
from jsplat.exchange.shapes import IGNORE_NAME
from jsplat.labelsets.labelset import IGNORE, IGNORE_COLOR, LabelSet

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Painted:
    """A label set and the colour of ignored pixels."""

    labelset: LabelSet
    ignore: Color

    @property
    def table(self) -> UInt8[np.ndarray, "256 3"]:
        """The colour of every id; those that mean nothing have the colour of ignored pixels."""
        table = np.full((256, 3), self.ignore, np.uint8)
        table[: len(self.labelset)] = self.labelset.colors
        return table

    def ids_of(self, colors: Int[np.ndarray, "n 3"], where: str) -> UInt8[np.ndarray, " n"]:
        """The classes of colours.

        Raises:
            InputError: (`where`: the file) a colour that no class has, or more than one.
        """
        meanings = collections.defaultdict(list)
        for i, color in [*enumerate(self.labelset.colors), (IGNORE, self.ignore)]:
            meanings[color].append(i)
        found = []
        for color in map(tuple, colors.tolist()):
            ids = meanings.get(color, [])
            if len(ids) != 1:
                names = [IGNORE_NAME if i == IGNORE else self.labelset.names[i] for i in ids]
                wanted = "colours of classes" if not ids else "a colour of its own for every class that is there"
                got = f"{color}" if not ids else f"{color} for {' and '.join(names)}, in a palette that was reordered"
                hint = "save it as an indexed PNG, with the palette as it was exported"
                raise InputError(f"{where}: colours", wanted=wanted, got=got, hint=hint)
            found.append(ids[0])
        return np.asarray(found, np.uint8)


def distinct(labelset: LabelSet, first: Color | None = None) -> Painted:
    """A colour of its own for every class and for ignored pixels: the usual ones where they are free.

    Args:
        labelset: any.
        first: the colour that class 0 must have.
    """
    wanted = [*labelset.colors, IGNORE_COLOR]
    wanted[0] = wanted[0] if first is None else first
    spare = ((r, g, b) for r in range(255, -1, -51) for g in range(224, -1, -16) for b in range(192, -1, -48))
    colors: list[Color] = []
    for color in wanted:
        colors.append(color if color not in colors else next(c for c in spare if c not in colors and c not in wanted))
    return Painted(dataclasses.replace(labelset, colors=tuple(colors[:-1])), colors[-1])
