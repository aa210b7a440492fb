"""The parser as an ONNX graph, for those who deploy.

Input `input`: float32 (batch, 3, height, width), RGB / 255 minus ImageNet's mean over its deviation; output `output`:
class logits (batch, classes, height, width), bilinear with aligned corners. Batch and sides are free. The auxiliary
heads are left out. Weights keep their PyTorch names; label set, architecture, mean and deviation lie in the model's
metadata.
"""

import json
import typing

import numpy as np

from jsplat.parser.bisenet import BLOCKS
from jsplat.parser.checkpoint import describe
from jsplat.parser.model import Parser
from jsplat.parser.resize import MEAN, STD
from jsplat.parser.weights.keys import norm_of, torch_key, torch_layout
from jsplat.parser.weights.onnx_file import onnx_package

# What every runtime of the last years knows; Resize with sizes and aligned corners is older.
OPSET, IR_VERSION = 17, 8


class _Graph:
    """Nodes and initialisers so far; methods take and return names of tensors, modules are ours."""

    def __init__(self, onnx: typing.Any, parser: Parser, family: str):
        self.onnx, self.parser, self.family = onnx, parser, family
        self.nodes: list = []
        self.initialisers: dict[str, np.ndarray] = {}

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: typing.Any) -> str:
        output = f"{name or operator}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, [*inputs], [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initialisers[name] = value
        return name

    def weight(self, name: str) -> str:
        value = torch_layout(np.asarray(self.parser.variables[name], np.float32))
        return self.constant(torch_key(name, self.family), value)

    def conv(self, x: str, module: str, stride: int = 1) -> str:
        kernel = f"{module}.kernel"
        size = self.parser.variables[kernel].shape[0]
        pads = [size // 2] * 4
        return self.node("Conv", x, self.weight(kernel), name=module, strides=[stride, stride], pads=pads)

    def conv_norm(self, x: str, module: str, stride: int = 1) -> str:
        x, norm = self.conv(x, module, stride), norm_of(module)
        statistics = [self.weight(f"{norm}.{kind}") for kind in ("scale", "bias", "mean", "var")]
        return self.node("BatchNormalization", x, *statistics, name=norm, epsilon=1e-5)

    def conv_norm_relu(self, x: str, module: str) -> str:
        return self.node("Relu", self.conv_norm(x, f"{module}.conv"))

    def gate(self, x: str, attention: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", attention))

    def resized(self, x: str, like: str, **how: typing.Any) -> str:
        """`x` with the sides of `like`."""
        first = [self.node("Shape", x, start=0, end=2), self.node("Shape", like, start=2, end=4)]
        sizes = self.node("Concat", *first, axis=0)
        return self.node("Resize", x, "", "", sizes, **how)

    def doubled(self, x: str, like: str) -> str:
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.resized(x, like, mode="nearest", **how)

    def block(self, x: str, module: str, stride: int) -> str:
        y = self.node("Relu", self.conv_norm(x, f"{module}.conv1", stride))
        y = self.conv_norm(y, f"{module}.conv2")
        if f"{module}.downsample.0.kernel" in self.parser.variables:
            x = self.conv_norm(x, f"{module}.downsample.0", stride)
        return self.node("Relu", self.node("Add", y, x))

    def backbone(self, x: str) -> list[str]:
        x = self.node("Relu", self.conv_norm(x, "cp.resnet.conv1", 2))
        x = self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        features = []
        for layer, blocks in enumerate(BLOCKS[self.parser.architecture.depth], 1):
            for i in range(blocks):
                x = self.block(x, f"cp.resnet.layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1)
            features.append(x)
        return features[1:]

    def refined(self, x: str, module: str) -> str:
        x = self.conv_norm_relu(x, f"{module}.conv")
        return self.gate(x, self.conv_norm(self.node("GlobalAveragePool", x), f"{module}.conv_atten"))

    def logits(self, x: str) -> str:
        """The main head's, at 1/8."""
        feat8, feat16, feat32 = self.backbone(x)
        mean = self.conv_norm_relu(self.node("GlobalAveragePool", feat32), "cp.conv_avg")
        context = self.node("Add", self.refined(feat32, "cp.arm32"), mean)
        up32 = self.conv_norm_relu(self.doubled(context, feat16), "cp.conv_head32")
        context = self.node("Add", self.refined(feat16, "cp.arm16"), up32)
        up16 = self.conv_norm_relu(self.doubled(context, feat8), "cp.conv_head16")
        x = self.conv_norm_relu(self.node("Concat", feat8, up16, axis=1), "ffm.convblk")
        attention = self.node("Relu", self.conv(self.node("GlobalAveragePool", x), "ffm.conv1"))
        x = self.node("Add", self.gate(x, self.conv(attention, "ffm.conv2")), x)
        return self.conv(self.conv_norm_relu(x, "conv_out.conv"), "conv_out.conv_out")


def onnx_model(parser: Parser, family: str = "zllrunning") -> bytes:
    """The serialised model, checked by onnx.

    Raises:
        InputError: the package `onnx` is not installed.
    """
    onnx = onnx_package("export to ONNX")
    graph = _Graph(onnx, parser, family)
    logits = graph.logits("input")
    graph.resized(logits, "input", mode="linear", coordinate_transformation_mode="align_corners")
    graph.nodes[-1].output[0] = "output"
    classes, helper = len(parser.labelset), onnx.helper
    sides = {"input": ["batch", 3, "height", "width"], "output": ["batch", classes, "height", "width"]}
    ends = {n: helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in sides.items()}
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in graph.initialisers.items()]
    made = helper.make_graph(graph.nodes, "BiSeNet", [ends["input"]], [ends["output"]], weights)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="jsplat")
    texts = {"jsplat": describe(parser), "names": parser.labelset.names, "mean": MEAN.tolist(), "std": STD.tolist()}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in texts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
