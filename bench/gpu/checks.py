"""Step (a): each kernel on the smallest case, against what is known to be right."""

import functools
import time
from collections.abc import Mapping
from typing import Any

from bench.gpu.part import Part


def native(implementations: Mapping[str, Any], kernel: str, channels: int) -> Any:
    """The module of an implementation that takes this device."""
    import numpy as np

    from bench.timing import CannotRunError
    from jsplat.kernels.select import Facts, default_device

    one = implementations[kernel]
    if why := one.declines(Facts(default_device(), np.dtype(np.float32), channels)):
        raise CannotRunError(f"{kernel} does not run here: {why}")
    return one.load()


def smallest(part: Part, kernel: str, *ways: str) -> None:
    """72 Gaussians on 37 x 29 pixels; backward starts from the reference's image, so that it stands for itself."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bench.raster import WORST_GRADIENT, WORST_PSNR, relative_error
    from jsplat.kernels.blend import IMPLEMENTATIONS
    from jsplat.kernels.blend.cases import CAPACITY, CASES, CHANNELS, SIZE
    from jsplat.kernels.blend.reference import blend_reference
    from jsplat.kernels.blend.splats import Shown

    module = native(IMPLEMENTATIONS, kernel, CHANNELS)
    case, weights = CASES["random"](), np.random.default_rng(7).normal(size=(1, SIZE[1], SIZE[0], CHANNELS + 2))

    def image_of(splats):
        channels, alpha, depth = blend_reference(*splats, size=SIZE)
        return jnp.concatenate([channels, depth[..., None], alpha[..., None]], -1)

    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        truth = case._replace(depths=np.where(np.isfinite(case.depths), case.depths, np.inf)).arrays(np.float64)
        want, back = jax.vjp(jax.jit(image_of), truth)
        wanted = jax.tree.map(np.asarray, back(jnp.asarray(weights))[0])
        want = np.asarray(want)
    part.tell(reference="done")
    args, lens = (case.arrays(), jnp.zeros(1, jnp.int32)), {"size": SIZE, "capacity": CAPACITY}
    for way in ways:
        begin = time.perf_counter()
        if way == "forward":
            shown, needed = jax.block_until_ready(module.forward(*args, **lens))
            off = np.abs(np.asarray(shown.image, np.float64) - want)
            psnr = float(-10 * np.log10(max(np.square(off).mean(), 1e-20)))
            part.tell(image_error=float(off.max()), psnr=psnr, needed=int(needed[0]))
            right = psnr >= WORST_PSNR
        else:
            pictures = (Shown.of(jnp.asarray(x, jnp.float32)) for x in (want, weights))
            found = jax.block_until_ready(module.backward(*args, *pictures, **lens, shape_channels=CHANNELS))
            errors = {k: relative_error(found._asdict()[k], x) for k, x in wanted._asdict().items()}
            part.tell(gradient_error=max(errors.values()), gradient_errors=errors)
            right = max(errors.values()) <= WORST_GRADIENT
        part.tell(**{f"{way}_seconds": time.perf_counter() - begin})  # compiling most of all
        if not right:  # NaN is not right either
            raise ValueError(f"{way}: not what the reference computes")


def photo(part: Part) -> None:
    """The photo loss and its gradient on 45 x 39 pixels, against XLA's form in float64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bench.raster import WORST_GRADIENT, relative_error
    from jsplat.kernels.similarity import CHANNELS, IMPLEMENTATIONS, xla

    module = native(IMPLEMENTATIONS, "mosaic_gpu", CHANNELS)
    random = np.random.default_rng(0)
    render = random.uniform(size=(2, 39, 45, CHANNELS))
    pictures = render, np.clip(render + random.normal(scale=0.1, size=render.shape), 0, 1)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        want = [np.asarray(x) for x in xla.photo_loss_and_slope(*map(jnp.asarray, pictures), 0.2)]
    run = jax.jit(functools.partial(module.photo_loss_and_slope, ssim_weight=0.2))
    got = jax.block_until_ready(run(*(jnp.asarray(x, jnp.float32) for x in pictures)))
    errors = [relative_error(np.asarray(x), y) for x, y in zip(got, want)]
    part.tell(loss_error=errors[0], gradient_error=errors[1])
    if not max(errors) <= WORST_GRADIENT:
        raise ValueError("photo loss: not what the reference computes")


def lists(part: Part) -> None:
    """Of 32 images of 512 pixels, whose tiles are sorted in two halves: XLA's to the bit."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jsplat.kernels.blend import IMPLEMENTATIONS
    from jsplat.kernels.blend.mosaic_gpu.layout import TILE
    from jsplat.kernels.blend.mosaic_gpu.searches import SEARCHES
    from jsplat.kernels.tiling import Grid, bin_tiles, tile_grid

    native(IMPLEMENTATIONS, "mosaic_gpu", part.sizes.channels)
    images, count, edge, random = part.sizes.people, 40, part.sizes.edge, np.random.default_rng(0)
    shape, size = (images, count), (edge, edge)
    roots = random.uniform(0.05, 0.3, (*shape, 3)) * [1, 0.5, 1]
    case = (random.uniform(0, edge, (*shape, 2)), roots, random.uniform(0.2, 1, shape), random.uniform(1, 2, shape))
    case = [jnp.asarray(x, jnp.float32) for x in case]
    own = None if part.rehearse else SEARCHES
    run = functools.partial(bin_tiles, size=size, tile=TILE, capacity=4096)
    got, want = (jax.jit(functools.partial(run, searches=searches))(*case) for searches in (own, None))
    first_half = Grid(tile_grid(size, TILE), TILE, count, images).first_half
    part.tell(hits=int(want.tile_offsets[-1]), needed=int(want.needed.max()), first_half=first_half)
    for name in ("gaussian_ids", "tile_offsets"):
        if not np.array_equal(getattr(got, name), getattr(want, name)):
            raise ValueError(f"{name}: not those of XLA")
