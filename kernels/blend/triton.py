"""`blend` in Pallas Triton, for GPUs on which the Mosaic kernels do not run: one program a tile, CHUNK hits a turn.

Everything about a turn is an array of pixels x hits, and everything that sums over hits or pixels is a product of
matrices: the logarithm of the transmittance (by a triangle of ones), the colours, the weights' gradients, and the
gradients' sums over the pixels. Triton offers no sum along an axis that would be cheaper.

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
from jaxtyping import Array, Int

from jsplat.kernels.blend.gradients import image_dot_grad, root_moments, shape_gradients
from jsplat.kernels.blend.splats import Shown, Splats, nan_gradients, nan_where
from jsplat.kernels.collect import collect, sum_over_images
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.kernels.tiling import bin_tiles, tile_grid, to_tiles

TILE = (8, 8)
PIXELS = TILE[0] * TILE[1]
WARPS = 2
CHUNK = 16  # hits a turn: the least that a product of matrices sums over
NARROW = 16  # columns of a product, the least that Triton takes: channels are padded to multiples of it, by masks
MOMENTS = 6
FORM = 5  # columns for the Gaussian's mean and roots, with which its moments are moved to its mean
OPACITY_PARTS = 3  # of log2 of an opacity, which is exact then
ONE = 0x3F800000  # 1.0, packed
EMPTY = -100.0  # log2 of the opacity of nothing

_SCALE = math.sqrt(0.5 / math.log(2.0))  # of the roots: their squares then hold log2(e) / 2
X, Y, U, V, W, LOG2_OPACITY, DEPTH, COLUMNS = range(8)  # of the table of Gaussians

_NEGATIVE_POWER = """{
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


class _Static(typing.NamedTuple):
    """What is known when a kernel is built."""

    images: int
    count: int
    channels: int
    size: tuple[int, int]
    interpret: bool


class _Turn(typing.NamedTuple):
    """Pixels x hits of one turn: alpha where it counts, and weight; and by pixel what is carried to the next turn."""

    alpha: jax.Array
    weight: jax.Array
    log2_transmittance: jax.Array


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


def _negative_power(px, py, x, y, u, v, w):
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
    image, within = tile // (across * down), tile % (across * down)
    left, top = within % across * TILE[0], within // across * TILE[1]
    pixel = jnp.arange(PIXELS, dtype=jnp.int32)
    center = [(edge + length // 2).astype(jnp.float32) for edge, length in zip((left, top), TILE)]
    return image, center, left + pixel % TILE[0], top + pixel // TILE[0]


def _start(x, y, g):
    """log2 of the transmittance before the first hit: none is left outside the image."""
    return jnp.where((x < g.size[0]) & (y < g.size[1]), 0.0, EMPTY)


def _turn(gaussians, x, y, log2_transmittance, g):
    """Alphas and weights of all pixels and hits; log2 of the transmittance at the turn's start is given."""
    px, py = x.astype(jnp.float32)[:, None] + 0.5, y.astype(jnp.float32)[:, None] + 0.5
    form = [gaussians[k][None, :] for k in range(X, LOG2_OPACITY)]
    negative_power = _inline(_NEGATIVE_POWER, _negative_power, [px, py, *form], g.interpret)
    # The opacity comes in as a product: its result pins the arrays of a turn to the layout that the next ones take.
    sixteen = jnp.arange(NARROW, dtype=jnp.int32)
    log2_opacity = jnp.zeros((NARROW, CHUNK), jnp.bfloat16)
    for k, part in enumerate(_parts(gaussians[LOG2_OPACITY], OPACITY_PARTS)):
        log2_opacity = jnp.where((sixteen == k)[:, None], part[None, :], log2_opacity)
    ones = jnp.where((sixteen < OPACITY_PARTS)[None, :], jnp.ones((PIXELS, NARROW), jnp.bfloat16), 0)
    log2_alpha = negative_power + _product([ones], [log2_opacity])
    unclipped = _inline(_EXP2, jnp.exp2, [log2_alpha], g.interpret)
    alpha = jnp.where(unclipped >= ALPHA_FLOOR, jnp.minimum(unclipped, ALPHA_CEILING), 0.0)
    log2_rest = _inline(_LOG2, jnp.log2, [1 - alpha], g.interpret)
    log2_before = log2_transmittance[:, None] + _product(_parts(log2_rest), [_triangle(strict=True)])
    transmittance = _inline(_EXP2, jnp.exp2, [log2_before], g.interpret)
    alpha = jnp.where(transmittance >= TRANSMITTANCE_STOP, alpha, 0.0)
    return _Turn(alpha, alpha * transmittance, (log2_before + log2_rest).min(1))


def _taken_by(pixels, turn):
    """1 for each hit that one of these pixels takes, else 0."""
    return jnp.where(turn.alpha > 0, pixels[:, None], 0.0).max(0)


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


def _any_alive(log2_transmittance):
    """Whether any pixel of the tile still counts."""
    return jnp.max(log2_transmittance) >= math.log2(TRANSMITTANCE_STOP)


def _hits(ids_ref, table_ref, first, end, g):
    """Where in the list a turn's hits are, which of them exist, their Gaussians, and what the table says of these."""
    hit = first + jnp.arange(CHUNK, dtype=jnp.int32)
    live = hit < end
    ids = plt.load(ids_ref.at[hit], mask=live, other=g.images * g.count)
    return hit, live, ids, [plt.load(table_ref.at[ids, k]) for k in range(COLUMNS)]


def _values(features_ref, row, depth, live, column, g, shaping=None):
    """What hits blend in these columns: features, then depth, then 1; `column` and the rest shaped to broadcast.

    Args:
        row: of the table of features.
        shaping: leave out the channels from here on.
    """
    known = column < (g.channels if shaping is None else shaping)
    value = plt.load(features_ref.at[row, column], mask=live & known, other=0)
    return _unpacked(jnp.where(column == g.channels, depth, jnp.where(column == g.channels + 1, ONE, value)))


def _at(ref, image, x, y, column, g):
    """Pixels x columns of an image, and which of them there are."""
    inside = ((x < g.size[0]) & (y < g.size[1]))[:, None] & (column < g.channels + 2)[None, :]
    return ref.at[image, y[:, None], x[:, None], column[None, :]], inside


def _table(splats):
    """The Gaussians of all images, and one of nothing; the roots are scaled to make exp(-power) a power of two."""
    roots = _SCALE * splats.conic_roots
    depths = jnp.where(jnp.isfinite(splats.depths), splats.depths, 0.0)
    depths = lax.bitcast_convert_type(_packed(depths), jnp.float32)
    rest = jnp.stack([jnp.maximum(jnp.log2(splats.opacities), EMPTY), depths], -1)
    table = jnp.concatenate([splats.means2d, roots, rest], -1).reshape(-1, COLUMNS)
    nothing = jnp.asarray([[EMPTY if k == LOG2_OPACITY else 0.0 for k in range(COLUMNS)]], jnp.float32)
    return jnp.concatenate([table, nothing])


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
    splats: Splats, set_ids: Int[Array, " i"], *, size: tuple[int, int], capacity: int, interpret: bool = False
) -> tuple[Shown, Int[Array, " i"]]:
    """What the Gaussians show, and the tile hits each image needed; see `kernels.blend`."""
    (images, count), channels = splats.opacities.shape, splats.features.shape[-1]
    g = _Static(images, count, channels, size, interpret)
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity)

    def blend_forward(ids_ref, offsets_ref, set_ids_ref, table_ref, features_ref, out_ref):
        tile = pl.program_id(0)
        image, _, x, y = _pixels(tile, g)
        begin, end = offsets_ref[tile], offsets_ref[tile + 1]
        shift = (set_ids_ref[image] - image) * count

        def chunk(index, carry):
            def blend(carry):
                log2_transmittance, totals = carry
                _, live, ids, gaussians = _hits(ids_ref, table_ref, begin + index * CHUNK, end, g)
                turn = _turn(gaussians, x, y, log2_transmittance, g)
                weight, sums = _parts(turn.weight), []
                for column, total in zip(_blocks(channels + 2), totals):
                    value = _values(
                        features_ref,
                        (ids + shift)[:, None],
                        lax.bitcast_convert_type(gaussians[DEPTH], jnp.int32)[:, None],
                        live[:, None],
                        column[None, :],
                        g,
                    )
                    sums.append(total + _product(weight, value))
                return turn.log2_transmittance, tuple(sums)

            return lax.cond(_any_alive(carry[0]), blend, lambda carry: carry, carry)

        sums = tuple(jnp.zeros((PIXELS, NARROW), jnp.float32) for _ in _blocks(channels + 2))
        _, sums = lax.fori_loop(0, pl.cdiv(end - begin, CHUNK), chunk, (_start(x, y, g), sums))
        for column, total in zip(_blocks(channels + 2), sums):
            at, inside = _at(out_ref, image, x, y, column, g)
            plt.store(at, total, mask=inside)

    features = _packed(splats.features).reshape(-1, channels)
    args = (hits.gaussian_ids, hits.tile_offsets, set_ids, _table(splats), features)
    shape = (images, size[1], size[0], channels + 2)
    (image,) = _call(blend_forward, [shape], hits.tile_offsets.shape[0] - 1, g, args)
    return Shown.of(nan_where(hits.needed > capacity, image)), hits.needed


@functools.partial(jax.jit, static_argnames=("size", "capacity", "shape_channels", "interpret"))
def backward(
    splats: Splats,
    set_ids: Int[Array, " i"],
    shown: Shown,
    grad_shown: Shown,
    *,
    size: tuple[int, int],
    capacity: int,
    shape_channels: int,
    interpret: bool = False,
) -> Splats:
    """Gradients of sum(shown * grad_shown), as `xla.backward` explains them; the same bits every time."""
    (images, count), channels = splats.opacities.shape, splats.features.shape[-1]
    g = _Static(images, count, channels, size, interpret)
    hits = bin_tiles(*splats[:4], size=size, tile=TILE, capacity=capacity)

    def blend_backward(
        ids_ref, offsets_ref, set_ids_ref, table_ref, features_ref, whole_ref, grad_ref, moments_ref, grad_values_ref
    ):
        tile = pl.program_id(0)
        index_of_image, center, x, y = _pixels(tile, g)
        begin, end = offsets_ref[tile], offsets_ref[tile + 1]
        shift = (set_ids_ref[index_of_image] - index_of_image) * count
        pixel = jnp.arange(PIXELS, dtype=jnp.int32)
        whole = whole_ref[tile, pixel, 0]
        broken = jnp.where(jnp.isnan(whole), 1.0, 0.0)
        any_broken = jnp.max(broken) > 0

        def chunk(index, carry):
            first = begin + index * CHUNK

            def vjp(carry):
                log2_transmittance, behind = carry
                hit, live, ids, gaussians = _hits(ids_ref, table_ref, first, end, g)
                turn = _turn(gaussians, x, y, log2_transmittance, g)
                weight = _pinned(_parts(turn.weight))
                lost = lax.cond(any_broken, lambda: _taken_by(broken, turn), lambda: jnp.zeros(CHUNK, jnp.float32)) > 0

                def block(k, grad_weight):
                    column = k * NARROW + jnp.arange(NARROW, dtype=jnp.int32)
                    value = _values(
                        features_ref,
                        (ids + shift)[None, :],
                        lax.bitcast_convert_type(gaussians[DEPTH], jnp.int32)[None, :],
                        live[None, :],
                        column[:, None],
                        g,
                        shape_channels,
                    )
                    upstream = _unpacked(grad_ref[tile, pixel[:, None], column[None, :]])
                    grad_values = jnp.where(lost[:, None], jnp.nan, _product(weight, upstream, "ki,kj"))
                    mask = live[:, None] & (column <= channels)[None, :]
                    plt.store(grad_values_ref.at[hit[:, None], column[None, :]], grad_values, mask=mask)
                    return grad_weight + _product(upstream, value)

                # A loop, not a sequence: whatever the number of channels, the registers are those of one block.
                grad_weight = jnp.zeros((PIXELS, CHUNK), jnp.float32)
                grad_weight = lax.fori_loop(0, grad_ref.shape[-1] // NARROW, block, grad_weight)
                terms = turn.weight * grad_weight
                behind_each = behind[:, None] - _product(_parts(terms), [_triangle(strict=False)])
                inverse = _inline(_INVERSE, jnp.reciprocal, [1 - turn.alpha], g.interpret)
                grad_power = jnp.where(turn.alpha < ALPHA_CEILING, turn.alpha * inverse * behind_each - terms, 0.0)
                column = jnp.arange(NARROW, dtype=jnp.int32)[None, :]
                moments = _product(_pinned(_parts(grad_power)), [_monomials()], "ki,kj")
                moments = jnp.where(lost[:, None], jnp.nan, moments)
                mean = [gaussians[X] - center[0], gaussians[Y] - center[1]]  # about the tile's centre, too
                for k, value in enumerate([*mean, gaussians[U], gaussians[V], gaussians[W]]):
                    moments = jnp.where(column == MOMENTS + k, value[:, None], moments)
                mask = live[:, None] & (column < MOMENTS + FORM)
                plt.store(moments_ref.at[hit[:, None], column], moments, mask=mask)
                return turn.log2_transmittance, behind - terms.sum(1)

            def skip(carry):
                hit = first + jnp.arange(CHUNK, dtype=jnp.int32)
                for out_ref, width in ((moments_ref, MOMENTS + FORM), (grad_values_ref, channels + 1)):
                    for column in _blocks(width):
                        mask = (hit < end)[:, None] & (column < width)[None, :]
                        at = out_ref.at[hit[:, None], column[None, :]]
                        plt.store(at, jnp.zeros((CHUNK, NARROW), jnp.float32), mask=mask)
                return carry

            return lax.cond(_any_alive(carry[0]), vjp, skip, carry)

        lax.fori_loop(0, pl.cdiv(end - begin, CHUNK), chunk, (_start(x, y, g), jnp.where(broken > 0, 0.0, whole)))

    table = _table(splats)
    # In a product of matrices NaN times nothing is NaN: only the sum of such a pixel says that its gradient is.
    image, grad_image = shown.image, grad_shown.image
    finite = jnp.isfinite(grad_image).all(-1, keepdims=True)
    grad_image = jnp.where(finite, grad_image, 0.0)
    whole = jnp.where(finite, image_dot_grad(image, grad_image, shape_channels), jnp.nan)
    padding = _covered(channels + 2) - channels - 2
    packed_grad = jnp.pad(_packed(grad_image), ((0, 0), (0, 0), (0, 0), (0, padding)))
    whole, packed_grad = (to_tiles(x, tile=TILE) for x in (whole, packed_grad))
    features = _packed(splats.features).reshape(-1, channels)
    args = (hits.gaussian_ids, hits.tile_offsets, set_ids, table, features, whole, packed_grad)
    slots = hits.gaussian_ids.shape[0]
    shapes = [(slots, MOMENTS + FORM), (slots, channels + 1)]
    moments, grad_values = _call(blend_backward, shapes, hits.tile_offsets.shape[0] - 1, g, args)
    moments, means, roots = jnp.split(moments, (MOMENTS, MOMENTS + 2), 1)
    moments = root_moments(moments, means, roots / _SCALE)
    moments, grad_values = (collect(x, hits, images * count).reshape(images, count, -1) for x in (moments, grad_values))
    shape = shape_gradients(moments, splats.conic_roots, splats.opacities)
    grad_features = sum_over_images(grad_values[..., :-1], set_ids, splats.features.shape[0])
    gradients = Splats(shape[..., :2], shape[..., 2:5], shape[..., 5], grad_values[..., -1], grad_features)
    return nan_gradients(hits.needed > capacity, set_ids, gradients)


def _monomials():
    """1, x, y, xx, xy, yy of a tile's pixel centres about its centre: halves below 4, which 8 bits hold."""
    pixel = jnp.arange(PIXELS, dtype=jnp.int32)[:, None]
    column = jnp.arange(NARROW, dtype=jnp.int32)[None, :]
    x, y = (k.astype(jnp.float32) + (0.5 - n // 2) for k, n in zip((pixel % TILE[0], pixel // TILE[0]), TILE))
    out = jnp.zeros((PIXELS, NARROW), jnp.float32)
    for k, monomial in enumerate((jnp.ones_like(x), x, y, x * x, x * y, y * y)):
        out = jnp.where(column == k, monomial, out)
    return out.astype(jnp.bfloat16)
