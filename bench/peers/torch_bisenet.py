"""The face-parsing BiSeNet in plain PyTorch, under the module names of zllrunning/face-parsing.PyTorch's state dict.

Layers as in `jsplat.parser.bisenet` and of any width; weights come by `jsplat.parser.weights.keys`, so that
logits can be compared before anything is timed.
"""

from collections import OrderedDict

import numpy as np

from bench.peers import F, nn, torch
from jsplat.parser.bisenet import BLOCKS, Architecture
from jsplat.parser.model import Variables
from jsplat.parser.weights.keys import torch_keys, torch_layout


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def bisenet(architecture: Architecture, classes: int):
    """The module; in training mode it returns the logits of all three heads, else of the main one, in input pixels.

    Input: normalised RGB `b 3 h w`, h and w multiples of 32.
    """
    c64, c128, c256, c512 = (architecture.channels(c) for c in (64, 128, 256, 512))

    def conv_bn_relu(inputs, outputs, size=3):
        parts = {"conv": _conv(inputs, outputs, size), "bn": nn.BatchNorm2d(outputs), "relu": nn.ReLU(inplace=True)}
        return nn.Sequential(OrderedDict(parts))

    class BasicBlock(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
            self.downsample = nn.Identity()
            if inputs != outputs or stride != 1:
                self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = _conv(3, c64, 7, 2), nn.BatchNorm2d(c64)
            widths = zip((c64, c64, c128, c256), (c64, c128, c256, c512), BLOCKS[architecture.depth])
            for k, (inputs, outputs, blocks) in enumerate(widths, 1):
                rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
                setattr(self, f"layer{k}", nn.Sequential(BasicBlock(inputs, outputs, min(k, 2)), *rest))

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
            feat8 = self.layer2(self.layer1(x))
            feat16 = self.layer3(feat8)
            return feat8, feat16, self.layer4(feat16)

    class AttentionRefinement(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv = conv_bn_relu(inputs, outputs)
            self.conv_atten, self.bn_atten = _conv(outputs, outputs, 1), nn.BatchNorm2d(outputs)

        def forward(self, x):
            x = self.conv(x)
            return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))

    class ContextPath(nn.Module):
        def __init__(self):
            super().__init__()
            self.resnet = ResNet()
            self.arm16, self.arm32 = AttentionRefinement(c256, c128), AttentionRefinement(c512, c128)
            self.conv_head32, self.conv_head16 = conv_bn_relu(c128, c128), conv_bn_relu(c128, c128)
            self.conv_avg = conv_bn_relu(c512, c128, 1)

        def forward(self, x):
            feat8, feat16, feat32 = self.resnet(x)
            context = self.arm32(feat32) + self.conv_avg(feat32.mean((2, 3), keepdim=True))
            up32 = self.conv_head32(F.interpolate(context, scale_factor=2.0))
            up16 = self.conv_head16(F.interpolate(self.arm16(feat16) + up32, scale_factor=2.0))
            return feat8, up16, up32

    class FeatureFusion(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.convblk = conv_bn_relu(inputs, outputs, 1)
            self.conv1, self.conv2 = _conv(outputs, outputs // 4, 1), _conv(outputs // 4, outputs, 1)

        def forward(self, x):
            x = self.convblk(x)
            return x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True))))) + x

    class Output(nn.Module):
        def __init__(self, inputs, middle):
            super().__init__()
            self.conv, self.conv_out = conv_bn_relu(inputs, middle), _conv(middle, classes, 1)

        def forward(self, x, size):
            return F.interpolate(self.conv_out(self.conv(x)), size, mode="bilinear", align_corners=True)

    class BiSeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.cp, self.ffm = ContextPath(), FeatureFusion(2 * c128, c256)
            self.conv_out = Output(c256, c256)
            self.conv_out16, self.conv_out32 = Output(c128, c64), Output(c128, c64)

        def forward(self, x):
            size = x.shape[2:]
            feat8, up16, up32 = self.cp(x)
            main = self.conv_out(self.ffm(torch.cat([feat8, up16], 1)), size)
            return (main, self.conv_out16(up16, size), self.conv_out32(up32, size)) if self.training else main

    return BiSeNet()


def load(network, variables: Variables, architecture: Architecture, classes: int) -> None:
    """Our variables into the torch module; every key but the batch counters must find its value."""
    keys = torch_keys(architecture, classes, "zllrunning")
    values = {key: torch.from_numpy(torch_layout(np.array(variables[name]))) for key, name in keys.items()}
    wanted = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
    if wanted != set(values):
        raise ValueError(f"torch_bisenet.load: these keys have no counterpart: {sorted(wanted ^ set(values))}")
    network.load_state_dict(values, strict=False)


def ohem(logits, labels, hard: float, least: float):
    """The reference's loss: mean of the pixels above `hard`, or of the hardest `least` share when fewer are."""
    losses = F.cross_entropy(logits, labels, reduction="none").flatten()
    count = int(losses.numel() * least)
    above = losses[losses > hard]
    return above.mean() if above.numel() > count else losses.topk(count).values.mean()
