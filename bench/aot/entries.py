"""What is checked: every implementation with kernels of its own, forward and backward, channels, architectures."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jsplat.kernels.blend import blend_function
from jsplat.kernels.blend.mosaic_gpu.layout import TILE
from jsplat.kernels.blend.mosaic_gpu.searches import SEARCHES
from jsplat.kernels.blend.splats import Shown, Splats
from jsplat.kernels.similarity.mosaic_gpu import photo_loss_and_slope
from jsplat.kernels.tiling import bin_tiles

CHANNELS = (1, 3, 8, 22, 32, 64)
PASSES = ("forward", "backward")
PHOTO_LOSS = "photo_loss"  # of three channels, and of Mosaic alone
LISTS, VIEWS = "lists", 32  # of so many views, whose halves have keys of their own, and of Mosaic alone
# Channels of the program in which jax_enable_x64 is set: no other entry's, whose kernels are not compiled again.
WIDE = 5
# Implementation -> what it is compiled for; XLA's writes no kernels.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "xla": (),
    "cpu": (),
    "mosaic_gpu": ("sm_90a", "sm_100a"),
    "triton": ("sm_80", "sm_90a"),
}
# The workload of the goals in bench/: one view of a fitted head.
IMAGES = 1
COUNT = 50_000
SIZE = (512, 512)
CAPACITY = 1 << 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """One pass of one implementation with so many channels; "x64": both, where jax_enable_x64 is set; the loss; or the
    lists of so many views."""

    implementation: str
    of: str
    channels: int
    architecture: str

    @property
    def name(self) -> str:
        """As tables and the baseline call it."""
        return f"{self.implementation} {self.of} {self.channels} {self.architecture}"


def entries(implementations: Sequence[str]) -> list[Entry]:
    """All entries of these implementations; KeyError for one that the table does not know."""
    each = [(of, channels) for of in PASSES for channels in CHANNELS] + [("x64", WIDE)]
    own = {"mosaic_gpu": [(PHOTO_LOSS, 3), (LISTS, VIEWS)]}
    return [
        Entry(name, of, channels, architecture)
        for name in implementations
        for architecture in ARCHITECTURES[name]
        for of, channels in each + own.get(name, [])
    ]


def gaussians(images: int = IMAGES, count: int = COUNT) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of means2d, conic_roots, opacities and depths."""
    return tuple(jax.ShapeDtypeStruct((images, count, *rest), jnp.float32) for rest in ((2,), (3,), (), ()))


def call(entry: Entry) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of an entry, and the shapes of its arguments."""
    module = importlib.import_module(f"jsplat.kernels.blend.{entry.implementation}")
    features = jax.ShapeDtypeStruct((IMAGES, COUNT, entry.channels), jnp.float32)
    if entry.of == "x64":
        blending = blend_function(SIZE, CAPACITY, entry.channels, entry.implementation)
        return jax.grad(lambda splats: blending(splats)[0].image.sum()), (Splats(*gaussians(), features),)
    pixels = (IMAGES, SIZE[1], SIZE[0])
    if entry.of == PHOTO_LOSS:
        pictures = [jax.ShapeDtypeStruct((*pixels, entry.channels), jnp.float32)] * 2
        return functools.partial(photo_loss_and_slope, ssim_weight=0.2), tuple(pictures)
    if entry.of == LISTS:
        how = {"size": SIZE, "tile": TILE, "capacity": CAPACITY, "searches": SEARCHES}
        return functools.partial(bin_tiles, **how), gaussians(VIEWS)
    args = (Splats(*gaussians(), features), jax.ShapeDtypeStruct((IMAGES,), jnp.int32))
    if entry.of == "forward":
        return functools.partial(module.forward, size=SIZE, capacity=CAPACITY), args
    shown = Shown(*(jax.ShapeDtypeStruct((*pixels, *rest), jnp.float32) for rest in ((entry.channels,), (), ())))
    backward = functools.partial(module.backward, size=SIZE, capacity=CAPACITY, shape_channels=entry.channels)
    return backward, (*args, shown, shown)
