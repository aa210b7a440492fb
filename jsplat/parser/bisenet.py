"""BiSeNet for face parsing, in flax nnx, NHWC.

The variant of zllrunning/face-parsing.PyTorch (also facexlib and yakhyo/face-parsing): a ResNet context path whose 1/8
feature takes the place of the spatial path (Yu et al., "BiSeNet", ECCV 2018, without its spatial path). Attribute names
are those of zllrunning's state dict, so that a torch key maps to ours by `conv.weight -> conv.kernel (OIHW -> HWIO)`
and `bn.{weight,bias,running_mean,running_var} -> bn.{scale,bias,mean,var}`. Padding is explicit, as torch counts it.

One known difference: torch keeps the running variance unbiased, flax biased; it shows only where a batch norm sees
1x1 maps (`conv_avg`, `bn_atten`).
"""

import dataclasses
import functools
from types import EllipsisType

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from jsplat.errors import InputError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a network; together with a label set it determines every variable.

    Attributes:
        depth: layers of the ResNet context path, 18 or 34.
        width: factor on every channel count (1 = the reference), rounded to multiples of 8.
        input_size: length in pixels that the longer side of a picture is resized to.
    """

    depth: int = 18
    width: float = 1.0
    input_size: int = 512

    def __post_init__(self):
        if self.depth not in BLOCKS:
            raise InputError("Architecture.depth", wanted=f"one of {tuple(BLOCKS)}", got=self.depth)
        if not 0 < self.width <= 4:
            raise InputError("Architecture.width", wanted="a number above 0, at most 4", got=self.width)
        if self.input_size < 32 or self.input_size % 32:
            raise InputError("Architecture.input_size", wanted="a positive multiple of 32", got=self.input_size)

    def channels(self, reference: int) -> int:
        """The channel count that stands for `reference` channels at width 1."""
        return max(8, 8 * round(reference * self.width / 8))


def _convolution(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(
    x: Float[Array, "b h w i"], kernel: Float[Array, "u v i o"], stride: int, padding: tuple[int, int]
) -> Float[Array, "b h2 w2 o"]:
    """A convolution (correlation, as networks say it), padded alike along both axes.

    Its gradient with respect to the kernel is the usual one, computed from a copy of `x` whose batch axis was moved
    last, between two barriers. Left to itself, XLA on CPU fuses that copy with all the arithmetic that made `x` and
    walks memory against the grain: it took longer than the convolutions.
    """
    return _convolution(x, kernel, stride, padding)


def _convolution_forward(x, kernel, stride, padding):
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _convolution_backward(stride, padding, saved, gradient):
    x, kernel = saved
    _, back = jax.vjp(lambda x: _convolution(x, kernel, stride, padding), x)
    batch_last = lax.optimization_barrier(lax.optimization_barrier(x).transpose(1, 2, 3, 0))
    before, after = padding
    # Rows that no window reached, because the stride did not divide, lie at the end.
    unused = [(side + before + after - size) % stride for side, size in zip(x.shape[1:3], kernel.shape)]
    slope = lax.conv_general_dilated(
        batch_last,
        gradient,
        (1, 1),
        [(before, after - rest) for rest in unused],
        rhs_dilation=(stride, stride),
        dimension_numbers=("HWNC", "IHWO", "HWNC"),
    )
    return back(gradient)[0], slope


convolution.defvjp(_convolution_forward, _convolution_backward)


class Conv(nnx.Module):
    """A convolution without bias, padded by k // 2 on every side as in torch; 1x1, 3x3 or the 7x7/2 stem."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs, outputs)))
        self.size, self.stride = size, stride

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...]
        if self.size == 1:
            # A matrix product: XLA on CPU runs it twice as fast as a 1x1 convolution.
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        if self.size == 7:
            return stem_convolution(x, kernel)
        return convolution(x, kernel, self.stride, (self.size // 2, self.size // 2))


def even_sides(x: Float[Array, "b h w c"], fill: float) -> Float[Array, "b h2 w2 c"]:
    """Sides made even by a row and a column of `fill` at the end: what padding by one shows a stride of 2 there."""
    h, w = x.shape[1] % 2, x.shape[2] % 2
    return jnp.pad(x, ((0, 0), (0, h), (0, w), (0, 0)), constant_values=fill) if h or w else x


def stem_convolution(x: Float[Array, "b h w i"], kernel: Float[Array, "7 7 i o"]) -> Float[Array, "b h2 w2 o"]:
    """The 7x7 convolution with stride 2 and padding 3, as a 4x4 convolution on 2x2 blocks folded into channels.

    The same sums, 3 to 4 times faster on CPU than a convolution of 3 channels.
    """
    x = even_sides(x, 0.0)
    b, h, w, i = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, i).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * i)
    # Output p reads pixels 2p-3 .. 2p+3; a zero row and column in front make that 2p-4 .. 2p+3, four whole blocks.
    padded = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    folded = padded.reshape(4, 2, 4, 2, i, -1).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 4 * i, -1)
    return convolution(blocks, folded, 1, (2, 1))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3, stride 2, padding 1 on every side.

    Written with `maximum`, whose gradient XLA on CPU computes 4 times faster than that of `reduce_window`.
    """

    def along_rows(x):
        pairs = x.reshape(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:])
        even, odd = pairs[:, :, 0], pairs[:, :, 1]
        before = jnp.concatenate([jnp.full_like(odd[:, :1], -jnp.inf), odd[:, :-1]], 1)
        return jnp.maximum(jnp.maximum(even, odd), before)

    return along_rows(along_rows(even_sides(x, -jnp.inf)).swapaxes(1, 2)).swapaxes(1, 2)


class Statistic(nnx.BatchStat):
    """A running statistic, assigned whole.

    Flax asks before an assignment by index for the sharding of a traced array; to compose that error takes long.
    """

    def __setitem__(self, key: EllipsisType, value: Float[Array, " c"]) -> None:
        assert key is ...
        self.set_value(value)


def batch_norm(channels: int) -> nnx.BatchNorm:
    """torch's defaults: epsilon 1e-5, momentum 0.1 (0.9 as flax counts it)."""
    norm = nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    norm.mean, norm.var = Statistic(norm.mean[...]), Statistic(norm.var[...])
    return norm


def global_mean(x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
    """The mean over all pixels."""
    return x.mean((1, 2), keepdims=True)


def double(x: Float[Array, "b h w c"], like: Float[Array, "b h2 w2 _"]) -> Float[Array, "b h2 w2 c"]:
    """Nearest-neighbour upsampling by 2, to the sides of `like`, which are the double or one less.

    There torch's floor(i * h / h2) is i // 2 for both.
    """
    b, h, w, c = x.shape
    twice = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return twice[:, : like.shape[1], : like.shape[2]]


class ConvBNReLU(nnx.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3):
        self.conv = Conv(inputs, outputs, size)
        self.bn = batch_norm(outputs)

    def __call__(self, x: Float[Array, "b h w i"], running: bool) -> Float[Array, "b h w o"]:
        return jax.nn.relu(self.bn(self.conv(x), use_running_average=running))


class BasicBlock(nnx.Module):
    """The residual block of ResNet-18 and 34."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        self.conv1 = Conv(inputs, outputs, 3, stride)
        self.bn1 = batch_norm(outputs)
        self.conv2 = Conv(outputs, outputs, 3)
        self.bn2 = batch_norm(outputs)
        projected = inputs != outputs or stride != 1
        shortcut = [Conv(inputs, outputs, 1, stride), batch_norm(outputs)] if projected else []
        self.downsample = nnx.List(shortcut)

    def __call__(self, x: Float[Array, "b h w i"], running: bool) -> Float[Array, "b h2 w2 o"]:
        y = jax.nn.relu(self.bn1(self.conv1(x), use_running_average=running))
        y = self.bn2(self.conv2(y), use_running_average=running)
        if self.downsample:
            conv, bn = self.downsample
            x = bn(conv(x), use_running_average=running)
        return jax.nn.relu(y + x)


def residual_layer(inputs: int, outputs: int, blocks: int, stride: int) -> list[BasicBlock]:
    """Residual blocks of one width, the first with the stride."""
    first = BasicBlock(inputs, outputs, stride)
    return [first] + [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]


class ResNet(nnx.Module):
    """The backbone; returns its features at 1/8, 1/16 and 1/32."""

    def __init__(self, architecture: Architecture):
        widths = [architecture.channels(c) for c in (64, 128, 256, 512)]
        self.conv1 = Conv(3, widths[0], 7, 2)
        self.bn1 = batch_norm(widths[0])
        blocks = BLOCKS[architecture.depth]
        self.layer1 = nnx.List(residual_layer(widths[0], widths[0], blocks[0], 1))
        self.layer2 = nnx.List(residual_layer(widths[0], widths[1], blocks[1], 2))
        self.layer3 = nnx.List(residual_layer(widths[1], widths[2], blocks[2], 2))
        self.layer4 = nnx.List(residual_layer(widths[2], widths[3], blocks[3], 2))

    def __call__(self, x: Float[Array, "b h w 3"], running: bool) -> list[Float[Array, "b _ _ _"]]:
        x = max_pool(jax.nn.relu(self.bn1(self.conv1(x), use_running_average=running)))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = block(x, running)
            features.append(x)
        return features[1:]


class AttentionRefinement(nnx.Module):
    """ARM: a 3x3 convolution whose channels are weighted by their own global mean."""

    def __init__(self, inputs: int, outputs: int):
        self.conv = ConvBNReLU(inputs, outputs)
        self.conv_atten = Conv(outputs, outputs, 1)
        self.bn_atten = batch_norm(outputs)

    def __call__(self, x: Float[Array, "b h w i"], running: bool) -> Float[Array, "b h w o"]:
        x = self.conv(x, running)
        return x * jax.nn.sigmoid(self.bn_atten(self.conv_atten(global_mean(x)), use_running_average=running))


class ContextPath(nnx.Module):
    """The backbone and the two refined context features at 1/8 and 1/16."""

    def __init__(self, architecture: Architecture):
        c128, c256, c512 = (architecture.channels(c) for c in (128, 256, 512))
        self.resnet = ResNet(architecture)
        self.arm16 = AttentionRefinement(c256, c128)
        self.arm32 = AttentionRefinement(c512, c128)
        self.conv_head32 = ConvBNReLU(c128, c128)
        self.conv_head16 = ConvBNReLU(c128, c128)
        self.conv_avg = ConvBNReLU(c512, c128, 1)

    def __call__(self, x: Float[Array, "b h w 3"], running: bool) -> tuple[Array, Array, Array]:
        feat8, feat16, feat32 = self.resnet(x, running)
        context = self.arm32(feat32, running) + self.conv_avg(global_mean(feat32), running)
        up32 = self.conv_head32(double(context, feat16), running)
        up16 = self.conv_head16(double(self.arm16(feat16, running) + up32, feat8), running)
        return feat8, up16, up32


class FeatureFusion(nnx.Module):
    """FFM: detail and context joined, channels weighted by a two-layer bottleneck."""

    def __init__(self, inputs: int, outputs: int):
        self.convblk = ConvBNReLU(inputs, outputs, 1)
        self.conv1 = Conv(outputs, outputs // 4, 1)
        self.conv2 = Conv(outputs // 4, outputs, 1)

    def __call__(self, x: Float[Array, "b h w i"], running: bool) -> Float[Array, "b h w o"]:
        x = self.convblk(x, running)
        attention = jax.nn.sigmoid(self.conv2(jax.nn.relu(self.conv1(global_mean(x)))))
        return x * attention + x


class Output(nnx.Module):
    """A head: 3x3 ConvBNReLU, then logits."""

    def __init__(self, inputs: int, middle: int, classes: int):
        self.conv = ConvBNReLU(inputs, middle)
        self.conv_out = Conv(middle, classes, 1)

    def __call__(self, x: Float[Array, "b h w i"], running: bool) -> Float[Array, "b h w k"]:
        return self.conv_out(self.conv(x, running))


class BiSeNet(nnx.Module):
    """The network; logits stay at their native resolution, `jsplat.parser.resize` brings them to pixels.

    Kernels are made as zeros: `jsplat.parser.model` draws them or puts trained ones in.
    """

    def __init__(self, architecture: Architecture, classes: int):
        c64, c128, c256 = (architecture.channels(c) for c in (64, 128, 256))
        self.cp = ContextPath(architecture)
        self.ffm = FeatureFusion(2 * c128, c256)
        self.conv_out = Output(c256, c256, classes)
        self.conv_out16 = Output(c128, c64, classes)
        self.conv_out32 = Output(c128, c64, classes)

    def features(self, x: Float[Array, "b h w 3"], running: bool) -> tuple[Array, Array, Array]:
        """The fused feature at 1/8 and the context at 1/8 and 1/16, before the three heads."""
        if x.shape[-1] != 3 or not x.size:
            raise InputError("BiSeNet input", wanted="RGB (b, h, w, 3)", got=x.shape)
        feat8, up16, up32 = self.cp(x, running)
        return self.ffm(jnp.concatenate([feat8, up16], -1), running), up16, up32

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h8 w8 k"]:
        """Class logits at 1/8 of the input's resolution, with running batch statistics.

        Args:
            x: normalised RGB of any size; odd sides are treated as torch does, rounding up.
        """
        return self.conv_out(self.features(x, True)[0], True)

    def training_logits(self, x: Float[Array, "b h w 3"], running: bool = False) -> tuple[Array, Array, Array]:
        """Logits of the main head (1/8) and the two auxiliary ones (1/8, 1/16).

        Args:
            x: normalised RGB of any size; odd sides are treated as torch does, rounding up.
            running: use the running batch statistics and leave them as they are.
        """
        fused, up16, up32 = self.features(x, running)
        heads = ((self.conv_out, fused), (self.conv_out16, up16), (self.conv_out32, up32))
        main, aux16, aux32 = (head(feature, running) for head, feature in heads)
        return main, aux16, aux32
