"""`blend` in Pallas Triton, for GPUs on which the Mosaic kernels do not run: one program a tile, CHUNK hits a turn.

Everything about a turn is an array of pixels x hits, and everything that sums over hits or pixels is a product of
matrices: the logarithm of the transmittance (by a triangle of ones), the colours, what a pixel's gradient says of each
hit, and the gradients' sums over the pixels. Triton offers no sum along an axis that would be cheaper.

Products take factors of 8 bits. A float32 is cut into two such parts, which leaves errors of 1e-5 of the largest term:
a tenth of what an image may be off, for half the instructions of three parts.

Deprecated in JAX 0.11, still there: the Mosaic kernels are the future, and need a GPU of compute capability 9 or 10.
"""

import functools
import math
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from jsplat.kernels.blend.gradients import root_moments, shape_gradients, whole_sum
from jsplat.kernels.collect import collect, sum_over_images
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import bin_tiles, tile_grid, to_tiles

TILE = (8, 8)
PIXELS = TILE[0] * TILE[1]
WARPS = 2
CHUNK = 16  # hits a turn: the least that a product of matrices sums over
NARROW = 16  # columns of a product, the least that Triton takes: channels are padded to multiples of it, by masks
MOMENTS = 6
OWN = 5  # columns for the Gaussian itself, with which its moments are moved to its mean
PEAK_PARTS = 3  # log2 of an opacity, exact
ONE = 0x3F800000  # 1.0, packed
EMPTY = -100.0  # log2 of the opacity of nothing

_SCALE = math.sqrt(0.5 / math.log(2.0))  # a square times log2(e) / 2
X, Y, U, V, W, PEAK, DEPTH, COLUMNS = range(8)  # of the table of Gaussians

_FORM = """{
.reg .f32 y, p, q, n;
sub.f32 p, $1, $3;
sub.f32 y, $2, $4;
mul.f32 q, $6, y;
fma.rn.f32 p, $5, p, q;
mul.f32 q, $7, y;
neg.f32 n, q;
mul.f32 q, n, q;
neg.f32 n, p;
fma.rn.f32 $0, n, p, q;
}"""
_EXP2 = "ex2.approx.ftz.f32 $0, $1;"
_INVERSE = "rcp.approx.ftz.f32 $0, $1;"
_LOG2 = "lg2.approx.ftz.f32 $0, $1;"


class _Geometry(typing.NamedTuple):
    """What is known when a kernel is built."""

    images: int
    count: int
    channels: int
    size: tuple[int, int]
    interpret: bool


class _Turn(typing.NamedTuple):
    """Pixels x hits of one turn: alpha where it counts, and weight; and log2 of what is left at its end, by pixel."""

    alpha: jax.Array
    weight: jax.Array
    through: jax.Array


# Arithmetic


def _inline(text, otherwise, args, interpret):
    """One instruction sequence for each element: Pallas neither fuses multiply and add nor takes the fast functions."""
    if interpret:
        return otherwise(*args)
    shape = jnp.broadcast_shapes(*(x.shape for x in args))
    (out,) = plt.elementwise_inline_asm(
        text,
        args=[jnp.broadcast_to(x, shape) for x in args],
        constraints="=f" + ",f" * len(args),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, jnp.float32)],
    )
    return out


def _form(px, py, x, y, u, v, w):
    dx, dy = px - x, py - y
    across, down = u * dx + v * dy, w * dy
    return -(across * across) - down * down


def _parts(x, count=2):
    """Numbers of 8 bits that add up to x, the largest first; by integers, since conversions are slow instructions."""
    found = []
    for _ in range(count):
        bits = lax.bitcast_convert_type(x, jnp.int32) + 0x8000
        found.append(lax.bitcast_convert_type((bits >> 16).astype(jnp.int16), jnp.bfloat16))
        x = x - lax.bitcast_convert_type(bits & -0x10000, jnp.float32)
    return found


def _packed(x):
    """Two parts of a float32 in the halves of an integer: what is loaded often is cut once."""
    high = (lax.bitcast_convert_type(x, jnp.int32) + 0x8000) & -0x10000
    rest = lax.bitcast_convert_type(x - lax.bitcast_convert_type(high, jnp.float32), jnp.int32) + 0x8000
    return high | ((rest >> 16) & 0xFFFF)


def _unpacked(bits):
    """The parts, as `_parts` gives them."""
    return [lax.bitcast_convert_type(half.astype(jnp.int16), jnp.bfloat16) for half in (bits >> 16, bits)]


def _product(a, b, sums="ik,kj"):
    """The product of two cut matrices without the product of their last parts; `sums` may also be "ki,kj"."""
    contract = ((0 if sums[0] == "k" else 1,), (0,))
    pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if i + j < max(len(a), len(b))]
    terms = [
        lax.dot_general(a[i], b[j], (contract, ((), ())), preferred_element_type=jnp.float32)
        for i, j in sorted(pairs, key=sum, reverse=True)  # the smallest first
    ]
    return functools.reduce(jnp.add, terms)


def _covered(width):
    """So many columns, in whole blocks."""
    return -(-width // NARROW) * NARROW


def _blocks(width):
    """The columns of each block; wider blocks would take fewer instructions, and more registers than there are."""
    return [start + jnp.arange(NARROW, dtype=jnp.int32) for start in range(0, width, NARROW)]


# The parts of a program


def _pixels(tile, g):
    """Image, centre of the tile, and x and y of its pixels."""
    across, down = tile_grid(g.size, TILE)
    image, place = tile // (across * down), tile % (across * down)
    left, top = place % across * TILE[0], place // across * TILE[1]
    pixel = jnp.arange(PIXELS, dtype=jnp.int32)
    center = [(edge + length // 2).astype(jnp.float32) for edge, length in zip((left, top), TILE)]
    return image, center, left + pixel % TILE[0], top + pixel // TILE[0]


def _turn(row, x, y, through, g):
    """Alphas and weights of all pixels and hits; `through` is log2 of what is left at the turn's start."""
    px, py = x.astype(jnp.float32)[:, None] + 0.5, y.astype(jnp.float32)[:, None] + 0.5
    form = _inline(_FORM, _form, [px, py, *(row[k][None, :] for k in range(X, PEAK))], g.interpret)
    # The opacity comes in as a product: its result pins the arrays of a turn to the layout that the next ones take.
    sixteen = jnp.arange(NARROW, dtype=jnp.int32)
    peak = jnp.zeros((NARROW, CHUNK), jnp.bfloat16)
    for k, part in enumerate(_parts(row[PEAK], PEAK_PARTS)):
        peak = jnp.where((sixteen == k)[:, None], part[None, :], peak)
    ones = jnp.where((sixteen < PEAK_PARTS)[None, :], jnp.ones((PIXELS, NARROW), jnp.bfloat16), 0)
    raw = _inline(_EXP2, jnp.exp2, [form + _product([ones], [peak])], g.interpret)
    alpha = jnp.where(raw >= ALPHA_FLOOR, jnp.minimum(raw, ALPHA_CEILING), 0.0)
    logs = _inline(_LOG2, jnp.log2, [1 - alpha], g.interpret)
    before = through[:, None] + _product(_parts(logs), [_triangle(strict=True)])
    left = _inline(_EXP2, jnp.exp2, [before], g.interpret)
    alpha = jnp.where(left >= TRANSMITTANCE_STOP, alpha, 0.0)
    return _Turn(alpha, alpha * left, (before + logs).min(1))


def _pinned(parts):
    """The same numbers, as results of a product: else Triton computes all of a turn again for another layout."""
    hit = jnp.arange(CHUNK, dtype=jnp.int32)
    identity = jnp.where(hit[:, None] == hit[None, :], 1.0, 0.0).astype(jnp.bfloat16)
    bits = [lax.bitcast_convert_type(_product([part], [identity]), jnp.int32) for part in parts]
    return [lax.bitcast_convert_type((x >> 16).astype(jnp.int16), jnp.bfloat16) for x in bits]


def _triangle(*, strict):
    """Ones where a hit (row) lies before another, or is itself the other."""
    hit = jnp.arange(CHUNK, dtype=jnp.int32)
    before = hit[:, None] < hit[None, :] if strict else hit[:, None] <= hit[None, :]
    return jnp.where(before, 1.0, 0.0).astype(jnp.bfloat16)


def _open(through):
    """Whether any pixel of the tile still counts."""
    return jnp.max(through) >= math.log2(TRANSMITTANCE_STOP)


def _rows(ids_ref, table_ref, first, end, g):
    """Which hits of a turn there are, their Gaussians, and the Gaussians' rows."""
    slot = first + jnp.arange(CHUNK, dtype=jnp.int32)
    live = slot < end
    gaussian = plt.load(ids_ref.at[slot], mask=live, other=g.images * g.count)
    return slot, live, gaussian, [plt.load(table_ref.at[gaussian, k]) for k in range(COLUMNS)]


def _values(features_ref, row, depth, live, column, g, shaping=None):
    """What hits blend in these columns: features, then depth, then 1; `column` and the rest shaped to broadcast.

    The channels from `shaping` on are left out where that is given.
    """
    known = column < (g.channels if shaping is None else shaping)
    value = plt.load(features_ref.at[row, column], mask=live & known, other=0)
    return _unpacked(jnp.where(column == g.channels, depth, jnp.where(column == g.channels + 1, ONE, value)))


def _at(ref, image, x, y, column, g):
    """Pixels x columns of an image, and which of them there are."""
    inside = ((x < g.size[0]) & (y < g.size[1]))[:, None] & (column < g.channels + 2)[None, :]
    return ref.at[image, y[:, None], x[:, None], column[None, :]], inside


def _table(means2d, conic_roots, opacities, depths):
    """Rows of all images and one of nothing; the form is that of a power of two."""
    form = _SCALE * conic_roots
    depths = jnp.where(jnp.isfinite(depths), depths, 0.0)
    depths = lax.bitcast_convert_type(_packed(depths), jnp.float32)
    rest = jnp.stack([jnp.maximum(jnp.log2(opacities), EMPTY), depths], -1)
    rows = jnp.concatenate([means2d, form, rest], -1).reshape(-1, COLUMNS)
    nothing = jnp.asarray([[EMPTY if k == PEAK else 0.0 for k in range(COLUMNS)]], jnp.float32)
    return jnp.concatenate([rows, nothing])


def _call(kernel, shapes, tiles, g, args):
    return pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        grid=(tiles,),
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=g.interpret,
        name=kernel.__name__,
    )(*args)


# The two passes


@functools.partial(jax.jit, static_argnames=("size", "capacity", "interpret"))
def forward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    *,
    size: tuple[int, int],
    capacity: int,
    interpret: bool = False,
) -> tuple[Float[Array, "i h w c+2"], Int[Array, " i"]]:
    """The blend of features, depth and 1, and the tile hits each image needed; see `jsplat.kernels.blend`."""
    (images, count), channels = opacities.shape, features.shape[-1]
    g = _Geometry(images, count, channels, size, interpret)
    hits = bin_tiles(means2d, conic_roots, opacities, depths, size=size, tile=TILE, capacity=capacity)

    def blend_forward(ids_ref, starts_ref, owner_ref, table_ref, features_ref, out_ref):
        tile = pl.program_id(0)
        image, _, x, y = _pixels(tile, g)
        begin, end = starts_ref[tile], starts_ref[tile + 1]
        shift = (owner_ref[image] - image) * count

        def chunk(index, carry):
            def blend(carry):
                _, live, gaussian, row = _rows(ids_ref, table_ref, begin + index * CHUNK, end, g)
                turn = _turn(row, x, y, carry[0], g)
                weight, sums = _parts(turn.weight), []
                for column, total in zip(_blocks(channels + 2), carry[1]):
                    value = _values(
                        features_ref,
                        (gaussian + shift)[:, None],
                        lax.bitcast_convert_type(row[DEPTH], jnp.int32)[:, None],
                        live[:, None],
                        column[None, :],
                        g,
                    )
                    sums.append(total + _product(weight, value))
                return turn.through, tuple(sums)

            return lax.cond(_open(carry[0]), blend, lambda carry: carry, carry)

        sums = tuple(jnp.zeros((PIXELS, NARROW), jnp.float32) for _ in _blocks(channels + 2))
        _, sums = lax.fori_loop(0, pl.cdiv(end - begin, CHUNK), chunk, (jnp.zeros(PIXELS, jnp.float32), sums))
        for column, total in zip(_blocks(channels + 2), sums):
            at, inside = _at(out_ref, image, x, y, column, g)
            plt.store(at, total, mask=inside)

    table = _table(means2d, conic_roots, opacities, depths)
    args = (hits.ids, hits.starts, owner, table, _packed(features).reshape(-1, channels))
    shape = (images, size[1], size[0], channels + 2)
    (image,) = _call(blend_forward, [shape], hits.starts.shape[0] - 1, g, args)
    return image, hits.needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels", "interpret"))
def backward(
    means2d: Float[Array, "i n 2"],
    conic_roots: Float[Array, "i n 3"],
    opacities: Float[Array, "i n"],
    depths: Float[Array, "i n"],
    features: Float[Array, "f n c"],
    owner: Int[Array, " i"],
    image: Float[Array, "i h w c+2"],
    grad: Float[Array, "i h w c+2"],
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
    interpret: bool = False,
) -> tuple[
    Float[Array, "i n 2"], Float[Array, "i n 3"], Float[Array, "i n"], Float[Array, "i n"], Float[Array, "f n c"]
]:
    """Gradients of sum(image * grad) for all but `owner`, as `xla.backward` explains them; the same bits every time."""
    (images, count), channels = opacities.shape, features.shape[-1]
    g = _Geometry(images, count, channels, size, interpret)
    hits = bin_tiles(means2d, conic_roots, opacities, depths, size=size, tile=TILE, capacity=capacity)

    def blend_backward(
        ids_ref, starts_ref, owner_ref, table_ref, features_ref, whole_ref, grad_ref, moments_ref, painted_ref
    ):
        tile = pl.program_id(0)
        index_of_image, center, x, y = _pixels(tile, g)
        begin, end = starts_ref[tile], starts_ref[tile + 1]
        shift = (owner_ref[index_of_image] - index_of_image) * count
        pixel = jnp.arange(PIXELS, dtype=jnp.int32)

        def chunk(index, carry):
            first = begin + index * CHUNK

            def pull(carry):
                through, rest = carry
                slot, live, gaussian, row = _rows(ids_ref, table_ref, first, end, g)
                turn = _turn(row, x, y, through, g)
                weight = _pinned(_parts(turn.weight))

                def block(k, said):
                    column = k * NARROW + jnp.arange(NARROW, dtype=jnp.int32)
                    value = _values(
                        features_ref,
                        (gaussian + shift)[None, :],
                        lax.bitcast_convert_type(row[DEPTH], jnp.int32)[None, :],
                        live[None, :],
                        column[:, None],
                        g,
                        shape_channels,
                    )
                    over = _unpacked(grad_ref[tile, pixel[:, None], column[None, :]])
                    painted = _product(weight, over, "ki,kj")
                    mask = live[:, None] & (column <= channels)[None, :]
                    plt.store(painted_ref.at[slot[:, None], column[None, :]], painted, mask=mask)
                    return said + _product(over, value)

                # A loop, not a sequence: whatever the number of channels, the registers are those of one block.
                said = lax.fori_loop(0, grad_ref.shape[-1] // NARROW, block, jnp.zeros((PIXELS, CHUNK), jnp.float32))
                share = turn.weight * said
                behind = rest[:, None] - _product(_parts(share), [_triangle(strict=False)])
                fade = _inline(_INVERSE, jnp.reciprocal, [1 - turn.alpha], g.interpret)
                power = jnp.where(turn.alpha < ALPHA_CEILING, turn.alpha * fade * behind - share, 0.0)
                column = jnp.arange(NARROW, dtype=jnp.int32)[None, :]
                moments = _product(_pinned(_parts(power)), [_monomials()], "ki,kj")
                form = [row[X] - center[0], row[Y] - center[1], row[U], row[V], row[W]]  # about the tile's centre, too
                for k, value in enumerate(form):
                    moments = jnp.where(column == MOMENTS + k, value[:, None], moments)
                mask = live[:, None] & (column < MOMENTS + OWN)
                plt.store(moments_ref.at[slot[:, None], column], moments, mask=mask)
                return turn.through, rest - share.sum(1)

            def skip(carry):
                slot = first + jnp.arange(CHUNK, dtype=jnp.int32)
                for out_ref, width in ((moments_ref, MOMENTS + OWN), (painted_ref, channels + 1)):
                    for column in _blocks(width):
                        mask = (slot < end)[:, None] & (column < width)[None, :]
                        at = out_ref.at[slot[:, None], column[None, :]]
                        plt.store(at, jnp.zeros((CHUNK, NARROW), jnp.float32), mask=mask)
                return carry

            return lax.cond(_open(carry[0]), pull, skip, carry)

        lax.fori_loop(
            0, pl.cdiv(end - begin, CHUNK), chunk, (jnp.zeros(PIXELS, jnp.float32), whole_ref[tile, pixel, 0])
        )

    table = _table(means2d, conic_roots, opacities, depths)
    whole = whole_sum(image, grad, shape_channels)
    grad = jnp.pad(_packed(grad), ((0, 0), (0, 0), (0, 0), (0, _covered(channels + 2) - channels - 2)))
    whole, grad = (to_tiles(x, tile=TILE) for x in (whole, grad))
    args = (hits.ids, hits.starts, owner, table, _packed(features).reshape(-1, channels), whole, grad)
    shapes = [(hits.ids.shape[0], MOMENTS + OWN), (hits.ids.shape[0], channels + 1)]
    moments, painted = _call(blend_backward, shapes, hits.starts.shape[0] - 1, g, args)
    moments, means, roots = jnp.split(moments, (MOMENTS, MOMENTS + 2), 1)
    moments = root_moments(moments, means, roots / _SCALE)
    moments, painted = (collect(x, hits, images * count).reshape(images, count, -1) for x in (moments, painted))
    shape = shape_gradients(moments, conic_roots, opacities)
    features = sum_over_images(painted[..., :-1], owner, features.shape[0])
    return shape[..., :2], shape[..., 2:5], shape[..., 5], painted[..., -1], features


def _monomials():
    """1, x, y, xx, xy, yy of a tile's pixel centres about its centre: halves below 4, which 8 bits hold."""
    pixel = jnp.arange(PIXELS, dtype=jnp.int32)[:, None]
    column = jnp.arange(NARROW, dtype=jnp.int32)[None, :]
    x, y = (k.astype(jnp.float32) + (0.5 - n // 2) for k, n in zip((pixel % TILE[0], pixel // TILE[0]), TILE))
    out = jnp.zeros((PIXELS, NARROW), jnp.float32)
    for k, monomial in enumerate((jnp.ones_like(x), x, y, x * x, x * y, y * y)):
        out = jnp.where(column == k, monomial, out)
    return out.astype(jnp.bfloat16)
