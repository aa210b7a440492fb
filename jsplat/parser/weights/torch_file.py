"""torch checkpoints without torch: the zip archives written since 1.6, and the pickles before them.

Zip: `NAME/data.pkl` names storages by key, `NAME/data/KEY` holds their bytes, all members stored uncompressed.
Before: five pickles in a row (magic number, protocol, system, the object, the keys of its storages), then for each key
a little-endian int64 count and the elements. Source: `torch/serialization.py`, `_save` and `_legacy_save`.
"""

import functools
import io
import struct
import typing
import zipfile
from collections.abc import Callable
from typing import Literal

import numpy as np

from jsplat.errors import InputError
from jsplat.parser.weights.pickles import Storage, Tensor, read_pickle
from jsplat.parser.weights.stored import Limits, Stored, WeightFile

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_DAMAGE = (zipfile.BadZipFile, RuntimeError, EOFError, LookupError, ValueError, OverflowError, OSError, struct.error)


def _stored(tree: typing.Any, elements: Callable[[Storage], np.ndarray]) -> typing.Any:
    """The tree with its tensors as `Stored`; containers met twice stay one."""
    done: dict[int, typing.Any] = {}

    def read(tensor: Tensor) -> np.ndarray:
        flat = elements(tensor.storage)
        if tensor.storage.view is not None:
            first, count = tensor.storage.view
            flat = flat[first : first + count]
        strides = [s * flat.itemsize for s in tensor.stride]
        window = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, strides, writeable=False)
        return np.array(window)

    def walk(node: typing.Any, depth: int) -> typing.Any:
        if isinstance(node, Tensor):
            return Stored(node.size, node.storage.dtype, functools.partial(read, node))
        if not isinstance(node, dict) or depth > 8:
            return node
        if id(node) not in done:
            done[id(node)] = {}
            done[id(node)].update({key: walk(value, depth + 1) for key, value in node.items()})
        return done[id(node)]

    return walk(tree, 0)


def _elements(data: bytes, storage: Storage, where: str, order: Literal["<", ">"]) -> np.ndarray:
    if len(data) != storage.numel * storage.dtype.itemsize:
        raise InputError(
            f"{where}: storage {storage.key[:40]}",
            wanted=f"{storage.numel * storage.dtype.itemsize} bytes ({storage.numel} x {storage.dtype})",
            got=len(data),
        )
    return np.frombuffer(data, storage.dtype.newbyteorder(order))


def read_zip(data: bytes, where: str, limits: Limits) -> WeightFile:
    """A torch zip archive.

    Raises:
        InputError: damaged, compressed, with members that point elsewhere, or holding more than tensors.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except _DAMAGE as error:
        raise InputError(where, wanted="a zip archive, whole", got=f"{type(error).__name__}: {error}"[:200]) from error
    for member in members:
        # Nothing is written anywhere, but who writes such names means no good.
        parts = member.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or ":" in parts[0]:
            raise InputError(f"{where}: member", wanted="relative names without ..", got=repr(member.filename[:80]))
        if member.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{where}: {member.filename[:80]}", wanted="stored bytes, as torch writes", got="deflated")
    declared = sum(member.file_size for member in members)
    if declared > len(data):
        raise InputError(where, wanted=f"members of together at most the file's {len(data)} bytes", got=declared)
    names = {member.filename for member in members}
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") <= 1 and name.endswith("data.pkl")]
    if len(roots) != 1 or roots[0] not in ("", f"{roots[0][:-1]}/"):
        raise InputError(where, wanted="a torch checkpoint (one data.pkl in the archive)", got=f"{sorted(names)[:5]}")

    def content(name: str) -> bytes:
        try:
            return archive.read(roots[0] + name)
        except _DAMAGE as error:
            raise InputError(f"{where}: {name}", wanted="a whole member", got=f"{error}"[:200]) from error

    order = ">" if f"{roots[0]}byteorder" in names and content("byteorder") == b"big" else "<"
    tree, _ = read_pickle(io.BytesIO(content("data.pkl")), where, limits)

    @functools.lru_cache(maxsize=1)  # a storage shared by all tensors is read once, and one is kept at a time
    def elements(storage: Storage) -> np.ndarray:
        return _elements(content(f"data/{storage.key}"), storage, where, order)

    return WeightFile("torch zip checkpoint", _stored(tree, elements))


def read_legacy(data: bytes, where: str, limits: Limits) -> WeightFile:
    """A torch checkpoint from before 1.6.

    Raises:
        InputError: no such file, damaged, or holding more than tensors.
    """
    stream = io.BytesIO(data)
    for number in (MAGIC, LEGACY_PROTOCOL):
        found, _ = read_pickle(stream, where, limits)
        if type(found) is not int or found != number:
            raise InputError(where, wanted="a torch checkpoint (its magic number first)", got="another pickle")
    system, _ = read_pickle(stream, where, limits)
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    tree, storages = read_pickle(stream, where, limits)
    keys, _ = read_pickle(stream, where, limits)
    contents: dict[str, bytes] = {}
    if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
        raise InputError(where, wanted="a list of storages behind the object", got=type(keys).__name__)
    for key in map(str, keys):
        if key not in storages:
            raise InputError(f"{where}: storage {key[:40]}", wanted="one that a tensor uses", got="none does")
        count = stream.read(8)
        size = storages[key].numel * storages[key].dtype.itemsize
        contents[key] = stream.read(size)
        announced = int.from_bytes(count, "little" if little else "big")
        if len(count) != 8 or announced != storages[key].numel or len(contents[key]) != size:
            got = f"{announced} announced, {len(contents[key])} bytes there"
            raise InputError(f"{where}: storage {key[:40]}", wanted=f"{storages[key].numel} elements", got=got)
    if lost := sorted(storages.keys() - contents.keys()):
        raise InputError(f"{where}: storage {lost[0][:40]}", wanted="its bytes behind the pickles", got="none")

    def elements(storage: Storage) -> np.ndarray:
        return _elements(contents[storage.key], storage, where, "<" if little else ">")

    return WeightFile("torch checkpoint from before 1.6", _stored(tree, elements))
