"""The photo loss and its gradient by kernels of our own: a block of threads has a part of one channel in shared memory.

The first kernel makes the windows' means, the loss, and its derivatives in the means; the second sends these back
through the windows. Between them XLA adds up what the blocks of the first one found.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from jsplat.kernels.blend.mosaic_gpu import ptx
from jsplat.kernels.blend.mosaic_gpu.forward import settings
from jsplat.kernels.blend.mosaic_gpu.layout import PIXELS
from jsplat.kernels.blend.mosaic_gpu.ptx import F32, PerThread, Ref, Scalar
from jsplat.kernels.similarity.xla import C1, C2, WINDOW

WIDTH, HEIGHT = 32, 16  # pixels of a block
HALO = len(WINDOW) // 2
WIDE, TALL = WIDTH + 2 * HALO, HEIGHT + 2 * HALO
CHANNELS = 3
GROUP = 16  # threads whose sums one thread adds up


def photo_loss_and_slope(
    render: Float[Array, "i h w 3"], photo: Float[Array, "i h w 3"], ssim_weight: float
) -> tuple[Float[Array, " i"], Float[Array, "i h w 3"]]:
    """See `jsplat.kernels.similarity`; in float32 only."""
    inner, of_blocks = loss_and_inner(render, photo, ssim_weight)
    loss = of_blocks.reshape(len(render), -1).sum(1) / math.prod(render.shape[1:])
    return loss, slope_of(inner, render, photo, ssim_weight)


def loss_and_inner(
    render: Float[Array, "i h w 3"], photo: Float[Array, "i h w 3"], ssim_weight: float
) -> tuple[Float[Array, "p 3 h w"], Float[Array, " k"]]:
    """SSIM's derivatives in the windows' means of a, a a and a b, channel by channel, and the loss of each block."""
    parts = Parts(render.shape)

    def loss_kernel(*refs):
        @ptx.inline
        def of_block(
            render: Ref, photo: Ref, inner: Ref, of_blocks: Ref, a: Ref, b: Ref, rows: Ref, sums: Ref, block: PerThread
        ) -> None:
            here = parts.at(block)
            for source, shared in ((render, a), (photo, b)):
                here.load(functools.partial(here.channel, source), shared)
            ptx.barrier()

            def along_row(read):
                pairs = [(read(a, k), read(b, k)) for k in range(len(WINDOW))]
                products = [(x, y, x * x, y * y, x * y) for x, y in pairs]
                return [_weighted(column) for column in zip(*products)]

            here.blur_rows(rows, 5, along_row)
            ptx.barrier()
            total = ptx.number(0.0)
            for x, y, inside, means in here.blur_columns(rows, 5):
                similarity, slopes = _similarity(*means)
                at = (y + HALO) * WIDE + x + HALO
                error = ptx.magnitude(_shared(a, at) - _shared(b, at))
                loss = error * (1 - ssim_weight) + (similarity * -1.0 + 1.0) * (ssim_weight / 2)
                total = total + ptx.choose(inside, loss, ptx.number(0.0))

                def store(x=x, y=y, slopes=slopes):
                    for k, slope in enumerate(slopes):
                        ptx.store_global(here.plane(inner, 3, k, x, y), [slope])

                ptx.emit_if(inside, store)
            _store_sum(total, sums, ptx.offset(ptx.global_address(of_blocks), block, 4))

        render, photo, inner, of_blocks, a, b, rows, sums = refs
        of_block(render, photo, inner, of_blocks, a, b, rows, sums, lax.axis_index("block"))

    return plgpu.kernel(
        loss_kernel,
        out_type=(
            jax.ShapeDtypeStruct((parts.planes, 3, parts.height, parts.width), jnp.float32),
            jax.ShapeDtypeStruct((parts.blocks,), jnp.float32),
        ),
        scratch_types=[
            *[plgpu.SMEM((TALL, WIDE), jnp.float32)] * 2,
            plgpu.SMEM((5, TALL, WIDTH), jnp.float32),
            plgpu.SMEM((PIXELS + PIXELS // GROUP,), jnp.float32),
        ],
        grid=(parts.blocks,),
        grid_names=("block",),
        **settings(None),
    )(render, photo)


def slope_of(
    inner: Float[Array, "p 3 h w"],
    render: Float[Array, "i h w 3"],
    photo: Float[Array, "i h w 3"],
    ssim_weight: float,
) -> Float[Array, "i h w 3"]:
    """The gradient of the loss in the render, from what `loss_and_inner` gives."""
    parts = Parts(render.shape)
    pixels = math.prod(render.shape[1:])

    def slope_kernel(*refs):
        @ptx.inline
        def of_block(inner: Ref, render: Ref, photo: Ref, slope: Ref, maps: Ref, rows: Ref, block: PerThread) -> None:
            here = parts.at(block)
            for k in range(3):
                here.load(lambda x, y, k=k: here.plane(inner, 3, k, x, y), maps, k * TALL * WIDE)
            ptx.barrier()

            def along_row(read):
                return [_weighted([read(maps, k + j * TALL * WIDE) for k in range(len(WINDOW))]) for j in range(3)]

            here.blur_rows(rows, 3, along_row)
            ptx.barrier()
            for x, y, inside, (mean, aa, ab) in here.blur_columns(rows, 3):

                def store(x=x, y=y, mean=mean, aa=aa, ab=ab):
                    a, b = (ptx.load_constant(here.channel(of, x, y), F32) for of in (render, photo))
                    towards = ptx.choose(a > b, ptx.number(1.0), ptx.choose(a < b, ptx.number(-1.0), ptx.number(0.0)))
                    own = towards * ((1 - ssim_weight) / pixels)
                    through = (mean + a * aa * 2.0 + b * ab) * (ssim_weight / 2 / pixels)
                    ptx.store_global(here.channel(slope, x, y), [own - through])

                ptx.emit_if(inside, store)

        inner, render, photo, slope, maps, rows = refs
        of_block(inner, render, photo, slope, maps, rows, lax.axis_index("block"))

    return plgpu.kernel(
        slope_kernel,
        out_type=jax.ShapeDtypeStruct(render.shape, jnp.float32),
        scratch_types=[plgpu.SMEM((3, TALL, WIDE), jnp.float32), plgpu.SMEM((3, TALL, WIDTH), jnp.float32)],
        grid=(parts.blocks,),
        grid_names=("block",),
        **settings(None),
    )(inner, render, photo)


class Parts:
    """How pictures are divided among blocks of threads; `at` gives one block's part."""

    def __init__(self, shape: Sequence[int]) -> None:
        images, self.height, self.width, _ = shape
        self.across, self.down = -(-self.width // WIDTH), -(-self.height // HEIGHT)
        self.planes = images * CHANNELS
        self.blocks = self.planes * self.across * self.down

    def at(self, block: Scalar) -> "_Part":
        """Called inside a kernel."""
        return _Part(self, block)


class _Part:
    """The part of one block of threads: pixels WIDTH x HEIGHT of one channel of one picture.

    Attributes:
        left, top: its first pixel.
    """

    def __init__(self, parts: Parts, block: Scalar) -> None:
        self._parts = parts
        self._plane, tile = block // (parts.across * parts.down), block % (parts.across * parts.down)
        self.left, self.top = tile % parts.across * WIDTH, tile // parts.across * HEIGHT

    def channel(self, pictures: Ref, x: Scalar, y: Scalar) -> Scalar:
        """Address of a pixel's number in pictures "i h w 3"; x and y count from the part's first pixel."""
        width, height = self._parts.width, self._parts.height
        picture = ptx.offset(ptx.global_address(pictures), self._plane // CHANNELS, 4 * CHANNELS * width * height)
        index = ((self.top + y) * width + self.left + x) * CHANNELS + self._plane % CHANNELS
        return ptx.offset(picture, index, 4)

    def plane(self, planes: Ref, count: int, k: int, x: Scalar, y: Scalar) -> Scalar:
        """Address of a pixel's number in the k-th of `count` planes a channel, "p count h w"."""
        width, height = self._parts.width, self._parts.height
        own = ptx.offset(ptx.global_address(planes), self._plane * count + k, 4 * width * height)
        return ptx.offset(own, (self.top + y) * width + self.left + x, 4)

    def inside(self, x: Scalar, y: Scalar) -> Scalar:
        """Whether the pixel belongs to the picture."""
        x, y = self.left + x, self.top + y
        return (x >= 0) & (x < self._parts.width) & (y >= 0) & (y < self._parts.height)

    def load(self, address: Callable[[Scalar, Scalar], Scalar], shared: Ref, at: int = 0) -> None:
        """Brings the part with its halo into shared memory, zeros outside the picture."""

        def one(place):
            x, y = place % WIDE - HALO, place // WIDE - HALO
            read = functools.partial(lambda x, y: ptx.load_constant(address(x, y), F32), x, y)
            number = ptx.emit_either(self.inside(x, y), read, ptx.number(0.0))
            ptx.store_shared(ptx.shared_address(shared) + place * 4, [number], 4 * at)

        ptx.emit_for(ptx.thread(), ptx.integer(TALL * WIDE), PIXELS, one)

    def blur_rows(self, rows: Ref, count: int, along_row: Callable[..., Sequence[Scalar]]) -> None:
        """Stores, for each row with its halo, the numbers that `along_row` makes of eleven neighbours."""

        def one(place):
            x, y = place % WIDTH, place // WIDTH
            sums = along_row(lambda shared, k: _shared(shared, y * WIDE + x, k))
            for k in range(count):
                ptx.store_shared(ptx.shared_address(rows) + place * 4, [sums[k]], 4 * k * TALL * WIDTH)

        ptx.emit_for(ptx.thread(), ptx.integer(TALL * WIDTH), PIXELS, one)

    def blur_columns(self, rows: Ref, count: int):
        """Of each of this thread's pixels: x, y, whether it is inside, and the windows' means."""
        for turn in range(WIDTH * HEIGHT // PIXELS):
            place = ptx.thread() + turn * PIXELS
            x, y = place % WIDTH, place // WIDTH
            columns = ([_shared(rows, place, (k * TALL + j) * WIDTH) for j in range(len(WINDOW))] for k in range(count))
            yield x, y, self.inside(x, y), [_weighted(column) for column in columns]


def _shared(ref: Ref, index: Scalar, at: int = 0) -> Scalar:
    return ptx.load_shared(ptx.shared_address(ref) + index * 4, F32, 4 * at)


def _weighted(numbers: Sequence[Scalar]) -> Scalar:
    total = numbers[0] * float(WINDOW[0])
    for number, weight in zip(numbers[1:], WINDOW[1:]):
        total = total + number * float(weight)
    return total


def _similarity(mean_a: Scalar, mean_b: Scalar, aa: Scalar, bb: Scalar, ab: Scalar):
    """As in `xla`."""
    both, own_a, own_b = mean_a * mean_b, mean_a * mean_a, mean_b * mean_b
    n1, n2 = both * 2.0 + C1, (ab - both) * 2.0 + C2
    d1, d2 = own_a + own_b + C1, (aa - own_a) + (bb - own_b) + C2
    scale = ptx.asm("rcp.rn.f32 $0, $1;", d1 * d2, out=F32)
    similarity = n1 * n2 * scale
    in_mean = (mean_b * (n2 - n1) - mean_a * similarity * (d2 - d1)) * scale * 2.0
    return similarity, (in_mean, similarity * d1 * scale * -1.0, n1 * scale * 2.0)


def _store_sum(own: Scalar, sums: Ref, target: Scalar) -> None:
    """Adds up one number a thread, always in the same order, and stores the sum."""
    base = ptx.shared_address(sums)

    def add(first, count):
        total = ptx.load_shared(first, F32)
        for k in range(1, count):
            total = total + ptx.load_shared(first, F32, 4 * k)
        return total

    ptx.store_shared(base + ptx.thread() * 4, [own])
    ptx.barrier()
    groups = PIXELS // GROUP
    thread = ptx.thread()

    def add_group():
        ptx.store_shared(base + thread * 4, [add(base + thread * (4 * GROUP), GROUP)], 4 * PIXELS)

    ptx.emit_if(thread < groups, add_group)
    ptx.barrier()
    ptx.emit_if(thread < 1, lambda: ptx.store_global(target, [add(base + 4 * PIXELS, groups)]))
