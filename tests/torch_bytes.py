"""Checkpoints as torch writes them, opcode by opcode, so that tests need no torch and can write more than it does."""

import io
import struct
import zipfile

import numpy as np

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "bfloat16": "BFloat16"}


def text(value: str) -> bytes:
    """A unicode constant."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """An integer constant."""
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + data


def many(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def name(module: str, attribute: str) -> bytes:
    """A global."""
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """What pickle calls REDUCE."""
    return function + many(*arguments) + b"R"


def mapping(items: dict[str, bytes]) -> bytes:
    """A dict of texts to anything."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key: str, dtype: str, numel: int, *more: bytes) -> bytes:
    """A persistent id; `more` is the view of legacy files."""
    return (
        many(text("storage"), name("torch", f"{STORAGES[dtype]}Storage"), text(key), text("cpu"), number(numel), *more)
        + b"Q"
    )


def tensor(of: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A tensor on a storage."""
    hooks = call(name("collections", "OrderedDict"))
    sizes = many(*map(number, size)), many(*map(number, stride))
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, number(offset), *sizes, b"\x89", hooks)


def pickled(value: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + value + b"."


def dense(key: str, value: np.ndarray) -> bytes:
    """A contiguous tensor on a storage of its own."""
    strides = tuple(s // value.itemsize for s in value.strides)
    return tensor(storage(key, value.dtype.name, value.size), 0, value.shape, strides)


def archive(pickle: bytes, storages: dict[str, bytes], members: dict[str, bytes] | None = None) -> bytes:
    """A zip archive around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle)
        file.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
        for path, data in (members or {}).items():
            file.writestr(path, data)
    return buffer.getvalue()


def checkpoint(state: dict[str, np.ndarray]) -> bytes:
    """torch.save of a state dict."""
    arrays = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in state.items()}
    tree = mapping({key: dense(str(i), value) for i, (key, value) in enumerate(arrays.items())})
    return archive(pickled(tree), {str(i): value.tobytes() for i, value in enumerate(arrays.values())})
