"""How far people made from people may differ from them."""

import dataclasses

from jsplat.errors import InputError


@dataclasses.dataclass(frozen=True)
class ShapeConfig:
    """Other shapes; lengths are shares of the head's size, the mean distance of its surface from its centre.

    Attributes:
        stretch: standard deviation of the logarithm of the stretch along each axis.
        shear: standard deviation of the shears.
        bumps: how many smooth bumps, each on the surface.
        bump_width: their standard deviations, from and to.
        bump_height: standard deviation of how far a bump pushes along each axis, as a share of its width.
    """

    stretch: float = 0.08
    shear: float = 0.06
    bumps: int = 12
    bump_width: tuple[float, float] = (0.25, 0.75)
    bump_height: float = 0.12


@dataclasses.dataclass(frozen=True)
class ColorConfig:
    """Other colours; all in [0, 1] of the picture's range.

    Attributes:
        recolor: probability that a group of classes (skin, hair, cloth, each accessory) gets other colours.
        contrast: how much of the texture is kept, from and to.
        light: the most that a soft light from a random side adds where it falls and takes away on the other side.
    """

    recolor: float = 0.8
    contrast: tuple[float, float] = (0.6, 1.3)
    light: float = 0.35


@dataclasses.dataclass(frozen=True)
class VariantsConfig:
    """Pictures of people made from the captured ones, for the students to learn from.

    Attributes:
        fraction: share of what a batch takes from the captured people (replay apart) that shows variants; 0: none.
        pool: pictures to draw from at any time.
        views: pictures of each variant.
        every: steps between two variants; each takes the place of the oldest pictures of the pool.
        carry: probability that what another one wears (hair, hat, glasses, earrings, necklace) is put on too, each.
        shape, color: how far they differ.
    """

    fraction: float = 0.5
    pool: int = 256
    views: int = 4
    every: int = 2
    carry: float = 0.3
    shape: ShapeConfig = dataclasses.field(default_factory=ShapeConfig)
    color: ColorConfig = dataclasses.field(default_factory=ColorConfig)

    def __post_init__(self):
        if not 0 <= self.fraction < 1:
            raise InputError("VariantsConfig.fraction", wanted="a share in [0, 1)", got=self.fraction)
        for name in ("views", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"VariantsConfig.{name}", wanted="at least 1", got=getattr(self, name))
        if self.pool < self.views:
            raise InputError("VariantsConfig.pool", wanted=f"at least the {self.views} views of one", got=self.pool)
