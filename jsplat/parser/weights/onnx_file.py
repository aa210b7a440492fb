"""Weights out of ONNX graphs, under the names they had in torch.

Exporters keep a parameter's name only where they leave it alone. A batch norm that the exporter multiplied into its
convolution leaves an anonymous kernel and bias; the node's own name still tells the module
("/fpn/backbone/layer1/layer1.0/conv1/Conv").
"""

import functools
import re
import typing

import numpy as np

from jsplat.errors import InputError
from jsplat.parser.weights.stored import Stored, WeightFile

NORMS = ("weight", "bias", "running_mean", "running_var")


def onnx_package(what: str) -> typing.Any:
    """The `onnx` package, an optional part of the installation.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        hint = "`pip install 'jsplat[export]'`"
        raise InputError(what, wanted="the package onnx", got="none installed", hint=hint) from error
    return onnx


def module_of(node_name: str) -> str:
    """The dotted module of a node: "/a/layer1/layer1.0/conv1/Conv" -> "a.layer1.0.conv1"; "" when it has no path."""
    path: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        # A container's children repeat its name.
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)


def read_onnx(data: bytes, where: str) -> WeightFile:
    """The weights of the graph's convolutions and batch norms.

    A kernel and bias are called `MODULE.weight` and `MODULE.bias`, whatever the exporter called them.

    Raises:
        InputError: no ONNX, weights outside of the file, or the package `onnx` is missing.
    """
    onnx = onnx_package(where)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no type of their own in every version
        raise InputError(where, wanted="an ONNX model, whole", got=f"{error}"[:200]) from error
    texts = [text for node in model.graph.node for text in (node.name, node.op_type, *node.input, *node.output)]
    texts += [t.name for t in model.graph.initializer] + [t for p in model.metadata_props for t in (p.key, p.value)]
    if not all(isinstance(text, str) for text in texts):  # protobuf hands over bytes where UTF-8 is broken
        raise InputError(where, wanted="names in UTF-8", got="other bytes")
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = [node for node in model.graph.node if node.op_type == "Constant" and node.output]
    initialisers |= {node.output[0]: a.t for node in constants for a in node.attribute if a.name == "value"}
    if not initialisers:
        raise InputError(where, wanted="an ONNX model with weights", got="none")
    entries: dict[str, Stored] = {}
    used: set[str] = set()
    for node in model.graph.node:
        kinds = {"Conv": ("weight", "bias"), "BatchNormalization": NORMS}.get(node.op_type)
        if kinds is None:
            continue
        inputs = list(node.input)[1:]
        named = re.fullmatch(r"(.+)\.weight", inputs[0]) if inputs else None
        module = named.group(1) if named else module_of(node.name)
        for kind, name in zip(kinds, inputs):
            if name not in initialisers:
                raise InputError(f"{where}: node {node.name[:80]}", wanted=f"{kind} as a constant", got=name[:80])
            key = f"{module}.{kind}" if module else name
            if key in entries and name not in used:
                raise InputError(f"{where}: node {node.name[:80]}", wanted="one node for a module", got=f"two of {key}")
            entries[key] = _stored(onnx, initialisers[name], where)
            used.add(name)
    others = {name: "a constant of the graph" for name in initialisers if name not in used}
    return WeightFile("ONNX", entries, {p.key: p.value for p in model.metadata_props}, others)


def _stored(onnx: typing.Any, tensor: typing.Any, where: str) -> Stored:
    what = f"{where}: {tensor.name[:80]}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        wanted, hint = "weights inside the file", "`torch.onnx.export` with external_data=False writes them so"
        raise InputError(what, wanted=wanted, got="the name of another", hint=hint)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, TypeError, ValueError):
        dtype = np.dtype(object)
    if dtype.kind == "O":
        raise InputError(what, wanted="numbers", got=f"ONNX type {tensor.data_type}")

    def read(tensor: typing.Any) -> np.ndarray:
        try:
            return onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise InputError(what, wanted=f"data of shape {tuple(tensor.dims)}", got=f"{error}"[:200]) from error

    return Stored(tuple(tensor.dims), dtype, functools.partial(read, tensor))
