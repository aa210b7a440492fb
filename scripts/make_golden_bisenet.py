"""Writes tests/golden/bisenet_*: checkpoints by torch, and the logits that an independent PyTorch module gets of them.

    python scripts/make_golden_bisenet.py     # needs torch, onnx and onnxscript; the tests need none of them

The module below is written from the published architecture (modules and names of the state dicts), not from jsplat's.
Weights take few values so that files pack well; they are drawn by numpy.
"""

import io
import lzma
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
# The width every test file has: 8, 8, 16 and 24 channels stand for 64, 128, 256 and 512.
NARROW = {64: 8, 128: 8, 256: 16, 512: 24}
FULL = {64: 64, 128: 128, 256: 256, 512: 512}
SIZES = ((64, 64), (75, 53))
STEP = 4


class ConvBNReLU(nn.Module):
    """conv, {bn|norm}, ReLU."""

    def __init__(self, inputs, outputs, size, norm):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, 1, size // 2, bias=False)
        self.norm_name = norm
        self.add_module(norm, nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(getattr(self, self.norm_name)(self.conv(x)))


class Block(nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Module):
    """Features at 1/8, 1/16, 1/32; `dead` adds the classifier nobody calls."""

    def __init__(self, depth, c, dead):
        super().__init__()
        self.conv1 = nn.Conv2d(3, c[64], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(c[64])
        inputs = c[64]
        for i, (blocks, reference) in enumerate(zip(BLOCKS[depth], (64, 128, 256, 512)), 1):
            first = Block(inputs, c[reference], 1 if i == 1 else 2)
            rest = [Block(c[reference], c[reference], 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
            inputs = c[reference]
        if dead:
            self.fc = nn.Linear(c[512], 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        feat8 = self.layer2(self.layer1(x))
        feat16 = self.layer3(feat8)
        return feat8, feat16, self.layer4(feat16)


class Refinement(nn.Module):
    """ARM, under zllrunning's or yakhyo's names."""

    def __init__(self, inputs, outputs, yakhyo):
        super().__init__()
        self.yakhyo = yakhyo
        atten, norm = nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        if yakhyo:
            self.conv_block = ConvBNReLU(inputs, outputs, 3, "norm")
            self.attention = nn.Sequential(atten, norm, nn.Sigmoid())
        else:
            self.conv = ConvBNReLU(inputs, outputs, 3, "bn")
            self.conv_atten, self.bn_atten = atten, norm

    def forward(self, x):
        x = self.conv_block(x) if self.yakhyo else self.conv(x)
        mean = x.mean((2, 3), keepdim=True)
        return x * (self.attention(mean) if self.yakhyo else torch.sigmoid(self.bn_atten(self.conv_atten(mean))))


class Context(nn.Module):
    """The context path."""

    def __init__(self, depth, c, yakhyo):
        super().__init__()
        norm = "norm" if yakhyo else "bn"
        self.backbone_name = "backbone" if yakhyo else "resnet"
        self.add_module(self.backbone_name, ResNet(depth, c, dead=yakhyo))
        self.arm16 = Refinement(c[256], c[128], yakhyo)
        self.arm32 = Refinement(c[512], c[128], yakhyo)
        self.conv_head32 = ConvBNReLU(c[128], c[128], 3, norm)
        self.conv_head16 = ConvBNReLU(c[128], c[128], 3, norm)
        self.conv_avg = ConvBNReLU(c[512], c[128], 1, norm)

    def forward(self, x):
        feat8, feat16, feat32 = getattr(self, self.backbone_name)(x)
        mean = self.conv_avg(feat32.mean((2, 3), keepdim=True))
        mean = F.interpolate(mean, feat32.shape[2:], mode="nearest")
        up32 = F.interpolate(self.arm32(feat32) + mean, feat16.shape[2:], mode="nearest")
        up32 = self.conv_head32(up32)
        up16 = F.interpolate(self.arm16(feat16) + up32, feat8.shape[2:], mode="nearest")
        return feat8, self.conv_head16(up16), up32


class Fusion(nn.Module):
    """FFM."""

    def __init__(self, width, yakhyo):
        super().__init__()
        self.block_name = "conv_block" if yakhyo else "convblk"
        self.add_module(self.block_name, ConvBNReLU(width, width, 1, "norm" if yakhyo else "bn"))
        self.conv1 = nn.Conv2d(width, width // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 4, width, 1, bias=False)

    def forward(self, detail, context):
        x = getattr(self, self.block_name)(torch.cat([detail, context], 1))
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True))))) + x


class Head(nn.Module):
    """A head."""

    def __init__(self, inputs, middle, classes, yakhyo):
        super().__init__()
        self.names = ("conv_block", "conv") if yakhyo else ("conv", "conv_out")
        self.add_module(self.names[0], ConvBNReLU(inputs, middle, 3, "norm" if yakhyo else "bn"))
        self.add_module(self.names[1], nn.Conv2d(middle, classes, 1, bias=False))

    def forward(self, x):
        return getattr(self, self.names[1])(getattr(self, self.names[0])(x))


class BiSeNet(nn.Module):
    """The whole; returns logits of the main head and the two auxiliary ones, at the picture's size."""

    def __init__(self, depth=18, yakhyo=False, c=FULL, classes=19):
        super().__init__()
        self.path_name = "fpn" if yakhyo else "cp"
        self.add_module(self.path_name, Context(depth, c, yakhyo))
        # The fusion is twice as wide as the context feature it joins.
        self.ffm = Fusion(2 * c[128], yakhyo)
        self.conv_out = Head(c[256], c[256], classes, yakhyo)
        self.conv_out16 = Head(c[128], c[64], classes, yakhyo)
        self.conv_out32 = Head(c[128], c[64], classes, yakhyo)

    def forward(self, x):
        detail, up16, up32 = getattr(self, self.path_name)(x)
        logits = self.conv_out(self.ffm(detail, up16)), self.conv_out16(up16), self.conv_out32(up32)
        return tuple(F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True) for y in logits)


def fill(model, seed, levels=None):
    """Random weights and statistics that keep activations near 1; `levels` values a side of zero, None for normal."""
    random = np.random.default_rng(seed)

    def draw(shape):
        if levels is None:
            return random.standard_normal(shape)
        return random.integers(-levels, levels, shape, endpoint=True) / levels * 1.3

    with torch.no_grad():
        for name, value in model.state_dict().items():
            shape, kind = tuple(value.shape), name.rsplit(".", 1)[1]
            if kind == "num_batches_tracked":
                value.fill_(80000)
                continue
            new = draw(shape)
            if len(shape) == 4:
                # A power of two, so that few distinct numbers stay few.
                new = new * 2.0 ** round(np.log2((2 / np.prod(shape[1:])) ** 0.5))
            elif kind == "running_var":
                new = 1 + 0.5 * np.abs(new)
            elif kind == "weight" and len(shape) == 1:
                new = 1 + 0.25 * new
            else:
                new = 0.25 * new
            value.copy_(torch.from_numpy(np.asarray(new, np.float32)))
    return model.eval()


def picture(height, width):
    """float32 1 3 h w, normalised noise around blocks of colour."""
    random = np.random.default_rng(height * 1000 + width)
    coarse = random.integers(0, 200, (-(-height // 8), -(-width // 8), 3))
    rgb = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width] + random.integers(0, 56, (height, width, 3))
    mean, std = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])
    return torch.from_numpy(((rgb / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None])


def saved(value, **how):
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def write(name, data):
    """Packed, for the repository."""
    packed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    (GOLDEN / f"bisenet_{name}.xz").write_bytes(packed)
    print(f"bisenet_{name}.xz: {len(packed)} bytes ({len(data)})")


def logits_of(model):
    """Per size: every STEP-th logit and all classes."""
    out = {}
    for height, width in SIZES:
        with torch.no_grad():
            logits = model(picture(height, width))[0][0].numpy()
        out[f"logits_{height}x{width}"] = logits[:, ::STEP, ::STEP]
        out[f"classes_{height}x{width}"] = logits.argmax(0).astype(np.uint8)
    return out


def main():
    """Writes everything."""
    GOLDEN.mkdir(exist_ok=True)
    zll, yakhyo = fill(BiSeNet(18, False, NARROW), 1, 2), fill(BiSeNet(34, True, NARROW), 2, 2)
    write("zllrunning.pth", saved(zll.state_dict()))
    write("legacy.pth", saved(zll.state_dict(), _use_new_zipfile_serialization=False))
    nested = {f"model.module.{key}": value for key, value in yakhyo.state_dict().items()}
    write("lightning.ckpt", saved({"epoch": 3, "state_dict": nested, "hyper_parameters": {"lr": 0.01}}))
    example, dynamic = picture(64, 64), {"input": {0: "batch", 2: "height", 3: "width"}}
    buffer = io.BytesIO()
    names = {"input_names": ["input"], "output_names": ["output", "output16", "output32"]}
    torch.onnx.export(yakhyo, (example,), buffer, opset_version=20, dynamo=False, dynamic_axes=dynamic, **names)
    write("yakhyo.onnx", buffer.getvalue())
    for name, model in (("zllrunning", zll), ("yakhyo", yakhyo)):
        np.savez_compressed(GOLDEN / f"bisenet_{name}_logits.npz", **logits_of(model))


if __name__ == "__main__":
    main()
