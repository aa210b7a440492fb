"""Weight files of every known format; what a file is decides its content, not its name."""

from pathlib import Path
from typing import Any

import numpy as np

from jsplat.errors import InputError
from jsplat.parser.weights.onnx_file import read_onnx
from jsplat.parser.weights.stored import Limits, Stored, WeightFile
from jsplat.parser.weights.torch_file import read_legacy, read_zip

DOWNLOAD = "download or copy the file again"  # what is damaged
KINDS = "a torch checkpoint (.pth, .pt, .ckpt), safetensors or ONNX"


def read_safetensors(path: Path) -> WeightFile:
    """A safetensors file, tensors read when they are asked for.

    Raises:
        InputError: damaged: the header too long or no JSON, tensors that overlap or reach out of the file.
    """
    from safetensors import SafetensorError, safe_open

    def opened() -> Any:
        try:
            return safe_open(path, framework="numpy")
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise InputError(str(path), wanted="safetensors, whole", got=f"{error}"[:200], hint=DOWNLOAD) from error

    def read(name: str) -> np.ndarray:
        with opened() as file:
            return np.asarray(file.get_tensor(name))

    entries: dict[str, Stored] = {}
    with opened() as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            part = file.get_slice(name)
            kind = _SAFETENSORS.get(part.get_dtype())
            if kind is None:
                raise InputError(
                    f"{path}: {name[:80]}", wanted=f"one of {', '.join(_SAFETENSORS)}", got=part.get_dtype()
                )
            entries[name] = Stored(tuple(part.get_shape()), np.dtype(kind), lambda name=name: read(name))
        return WeightFile("safetensors", entries, file.metadata() or {})


_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_weights(path: Path, limits: Limits = Limits()) -> WeightFile:
    """What a weight file holds, nothing in it executed and no tensor read yet.

    Raises:
        InputError: the file is missing, too large, damaged, hostile, or of no known kind.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():  # a folder, or a pipe that would be waited for
            if (path / "parser.json").is_file() or (path / "parser").is_dir():
                raise InputError(str(path), wanted=KINDS, got="a parser of jsplat already", hint="use it as it is")
            raise InputError(str(path), wanted=KINDS, got="a folder" if path.is_dir() else "no file")
        if size > limits.file_bytes:
            raise InputError(str(path), wanted=f"a weight file of at most {limits.file_bytes} bytes", got=size)
        with path.open("rb") as file:
            head = file.read(9)
            if head[8:9] == b"{" or path.suffix == ".safetensors":
                return read_safetensors(path)
            data = head + file.read()
    except OSError as error:
        raise InputError(str(path), wanted=KINDS, got=error) from error
    if head[:4] == b"PK\x03\x04":
        return read_zip(data, str(path), limits)
    if head[:1] == b"\x80":
        return read_legacy(data, str(path), limits)
    # A protobuf whose first field is the number 1 (ir_version); nothing better marks ONNX.
    if head[:1] == b"\x08" or path.suffix == ".onnx":
        return read_onnx(data, str(path))
    raise InputError(str(path), wanted=KINDS, got=f"a file that begins with {head!r}")
