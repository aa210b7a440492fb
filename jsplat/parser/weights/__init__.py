"""Weights across: public BiSeNet checkpoints in (torch, safetensors, ONNX), ours out (safetensors, ONNX)."""

from jsplat.parser.weights.convert import Conversion, convert, export, read_parser, to_torch
from jsplat.parser.weights.onnx_graph import onnx_model
from jsplat.parser.weights.stored import Limits

__all__ = ["Conversion", "Limits", "convert", "export", "onnx_model", "read_parser", "to_torch"]
