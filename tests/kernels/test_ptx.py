"""The Mosaic kernels as they are compiled, thread by thread: the same numbers as the interpreter's, and no race.

Needs the compiler's wheels (`make check-kernels` brings them), but no GPU.
"""

import functools
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.ptx import tool
from jsplat.kernels.blend import mosaic_gpu
from jsplat.kernels.blend.cases import SIZE, conic_root
from jsplat.kernels.blend.mosaic_gpu.backward import hit_gradients
from jsplat.kernels.blend.mosaic_gpu.forward import blend_tiles
from jsplat.kernels.blend.mosaic_gpu.layout import CHUNK, PIXELS, TILE, column_tiles, matrix_tiles, monomials
from jsplat.kernels.blend.mosaic_gpu.walk import Lists
from jsplat.kernels.blend.splats import Splats
from jsplat.kernels.tiling import tile_grid
from tests.close import assert_close
from tests.kernels.interpreted import ON_DEVICE, gpu_interpreter
from tests.kernels.ptx_machine import Block, GlobalMemory, parse

CHANNELS = 5
COUNT = 150
SHARED = 228 << 10
GRID = tile_grid(SIZE, TILE)
# In which order a kernel's parameters come: that of their first use.
FORWARD = ("tile_offsets", "shifts", "image", "gaussian_ids", "table", "features")
BACKWARD = (
    "tile_offsets",
    "shifts",
    "pixel_grads",
    "monomials",
    "factors",
    "gaussian_ids",
    "table",
    "features",
    "hit_grads",
)
SAME = 3e-5
SAME_WHY = "float32 and products in 16 bits: the power is contracted to multiply-adds in one and not in the other"


def wheels() -> bool:
    try:
        return bool(tool("ptxas"))
    except FileNotFoundError:
        return False


pytestmark = [
    pytest.mark.skipif(not wheels(), reason="the CUDA compiler's wheels are not installed"),
    pytest.mark.skipif(ON_DEVICE, reason="a check without a GPU: on one the kernels run"),
]


@functools.cache
def scene():
    """Two images of one tile's worth of chunks each and more; faint ones, so that lists are walked to their ends."""
    random = np.random.default_rng(1)
    means = random.uniform(-2, 2 + np.asarray(SIZE), (2, COUNT, 2))
    long, short, angle = (random.uniform(low, high, (2, COUNT)) for low, high in ((4, 20), (3, 12), (0, 3)))
    opacities = np.stack([random.uniform(0.01, 0.08, COUNT), random.uniform(0.02, 0.9, COUNT)])
    depths, features = random.uniform(1, 2, (2, COUNT)), random.uniform(size=(1, COUNT, CHANNELS))
    case = [jnp.asarray(x, jnp.float32) for x in (means, conic_root(long, short, angle), opacities, depths, features)]
    lists, _ = mosaic_gpu.listed(Splats(*case), jnp.zeros(2, jnp.int32), SIZE, 16 * COUNT)
    return lists


def forward(*lists, interpret=None):
    return blend_tiles(Lists(*lists), channels=CHANNELS, grid=GRID, interpret=interpret)


def backward(table, features, gaussian_ids, tile_offsets, shifts, factors, pixel_grads, interpret=None):
    return hit_gradients(
        Lists(table, features, gaussian_ids, tile_offsets, shifts),
        factors,
        pixel_grads,
        channels=CHANNELS,
        shape_channels=CHANNELS,
        grid=GRID,
        interpret=interpret,
    )


@functools.cache
def interpreted():
    """Global memory by name, and what the interpreter makes of it."""
    lists, interpret = scene(), gpu_interpreter()
    image = forward(*lists, interpret=interpret)
    grad = jnp.asarray(np.random.default_rng(2).normal(size=image.shape), jnp.float32)
    high = grad.astype(jnp.bfloat16)
    low = (grad - high.astype(jnp.float32)).astype(jnp.bfloat16)
    whole = (image * (high.astype(jnp.float32) + low.astype(jnp.float32))).sum(1)
    factors = jnp.concatenate([matrix_tiles(part[:, : CHANNELS + 1]) for part in (high, low)], 1)
    pixel_grads = jnp.stack([high[:, -1].astype(jnp.float32) + low[:, -1].astype(jnp.float32), whole], 1)
    hit_grads = backward(*lists, factors, pixel_grads, interpret=interpret)
    right = matrix_tiles(jnp.asarray(monomials()[None], jnp.bfloat16))[0]
    assert factors.shape[1:] == (2 * column_tiles(CHANNELS), 8 * PIXELS)
    memory = {**lists._asdict(), "monomials": right, "factors": factors, "pixel_grads": pixel_grads}
    return {key: np.asarray(x) for key, x in memory.items()}, np.asarray(image), np.asarray(hit_grads)


@functools.cache
def compiled(of: str) -> str:
    """PTX of a pass for these shapes."""
    from bench.aot.compile import compile_for, device

    memory, _, _ = interpreted()
    names = (*Lists._fields, *(("factors", "pixel_grads") if of == "backward" else ()))
    args = [jax.ShapeDtypeStruct(memory[name].shape, memory[name].dtype) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        xla, mosaic = Path(folder, "xla"), Path(folder, "mosaic")
        mosaic.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MOSAIC_GPU_DUMP_TO", str(mosaic))
            compile_for(device("sm_90a"), forward if of == "forward" else backward, args, xla)
        (text,) = [path.read_text() for path in mosaic.glob("*.ptx") if "ex2" in path.read_text()]
    return text


def run(of: str, tile: int, text: str) -> tuple[np.ndarray, list[str]]:
    """What a block writes, all else NaN, and the races it had."""
    inputs, image, hit_grads = interpreted()
    names, out = (FORWARD, "image") if of == "forward" else (BACKWARD, "hit_grads")
    blank = np.full({"image": image, "hit_grads": hit_grads}[out].shape, np.float32(np.nan))
    memory = GlobalMemory()
    places = {name: memory.add(blank if name == out else inputs[name]) for name in names}
    races = Block(parse(text), [places[name] for name in names], tile, memory, SHARED).run()
    return memory.bytes_at(places[out]).view(np.float32).reshape(blank.shape), races


@functools.cache
def tiles() -> list[int]:
    """The longest list, which comes back to the first half of its buffer, and one with part of a chunk left."""
    lengths = np.diff(np.asarray(scene().tile_offsets))
    assert lengths.max() > 3 * CHUNK
    return [int(lengths.argmax()), len(lengths) - 1]


@pytest.mark.parametrize("which", [0, 1])
def test_forward(which):
    tile = tiles()[which]
    got, races = run("forward", tile, compiled("forward"))
    assert races == []
    assert_close(got[tile], interpreted()[1][tile], SAME, SAME_WHY)
    assert np.isnan(np.delete(got, tile, 0)).all()


@pytest.mark.parametrize("which", [0, 1])
def test_backward(which):
    tile = tiles()[which]
    offsets = np.asarray(scene().tile_offsets)
    own = slice(offsets[tile], offsets[tile + 1])
    got, races = run("backward", tile, compiled("backward"))
    assert races == []
    for column, want in enumerate(interpreted()[2][own].T):
        assert_close(got[own, column], want, SAME, SAME_WHY, relative=True)
    assert np.isnan(np.delete(got, np.arange(own.start, own.stop), 0)).all()


@pytest.mark.parametrize("number", range(1, 4))
def test_a_missing_barrier_is_seen(number):
    """Of the three plain barriers of our own; the first of the kernel is Mosaic's."""
    text = compiled("backward")
    place = list(re.finditer(r"bar\.sync\s+0;", text))[number]
    _, races = run("backward", tiles()[0], text[: place.start()] + text[place.end() :])
    assert races
