"""How many kernels a GPU would start, from programs compiled for one that is not there (`make check-kernels`).

A launch takes some microseconds, whatever it does: of small programs that is most of the time.
"""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from bench.aot import memory
from bench.aot.entries import CAPACITY, SIZE, gaussians
from jsplat.config import load
from jsplat.kernels.blend.mosaic_gpu.layout import TILE
from jsplat.kernels.blend.mosaic_gpu.searches import SEARCHES
from jsplat.kernels.tiling import bin_tiles
from jsplat.pipeline.config import RunConfig
from jsplat.raster.similarity import photo_loss
from tests.kernels.interpreted import ON_DEVICE
from tests.kernels.test_ptx import wheels

pytestmark = [
    pytest.mark.skipif(not wheels(), reason="the CUDA compiler's wheels are not installed"),
    pytest.mark.skipif(ON_DEVICE, reason="a check without a GPU: on one its own programs are counted"),
]


@pytest.mark.parametrize(("identities", "most"), [(1, 57), (8, 61)])
def test_a_step_of_the_fit_is_so_many_launches(identities, most):
    config = load(RunConfig, memory.ROOT / "configs" / "gpu.toml", [])
    config = config.for_side(config.size, config.teacher.input_size)
    assert (config.size, config.fit.gaussians) == (512, 50_000)
    assert memory.step(config, identities) <= most


def test_the_photo_loss_and_its_gradient_are_4():
    def both(render, photo):
        loss, back = jax.vjp(lambda x: photo_loss(x, photo, 0.2), render)
        return loss, *back(jnp.ones_like(loss))

    pictures = [jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)] * 2
    assert memory.launches_of(both, *pictures) <= 4


@pytest.mark.parametrize(("views", "keys"), [(1, [16]), (31, [16]), (32, [16, 16]), (62, [16, 16]), (63, [32])])
def test_tiles_of_512_pixels_are_sorted_by_16_bits_up_to_62_views(views, keys):
    """A sort of 32 bits takes twice the passes of one of 16; depths have 32."""
    case = [jax.ShapeDtypeStruct((views, 64, *x.shape[2:]), x.dtype) for x in gaussians()]
    how = {"size": (512, 512), "tile": TILE, "capacity": 5000, "searches": SEARCHES}
    text = str(jax.make_jaxpr(functools.partial(bin_tiles, **how))(*case))
    sorts = re.findall(r":u(\d+)\[(\d+)\] \w+:i32\[\d+\] = sort\[", text)
    of_tiles = [int(bits) for bits, slots in sorts if int(slots) > views * 64]
    assert of_tiles == keys


def test_binning_is_14_with_its_two_sorts():
    how = {"size": SIZE, "tile": TILE, "capacity": CAPACITY, "searches": SEARCHES}
    assert memory.launches_of(functools.partial(bin_tiles, **how), *gaussians()) <= 14
