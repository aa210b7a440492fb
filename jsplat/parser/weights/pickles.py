"""Pickles read without executing anything: a small stack machine over the opcodes that tensors and containers need.

`pickletools.genops` only splits the stream into opcodes; here they build dicts, lists, tuples, constants and records.
A global is never imported: a name outside `CALLS`, `INERT`, `DTYPES` and the storages is refused by that name.
Opcodes: the comments of CPython's pickletools; what torch writes: the documentation of `torch.save`.
"""

import dataclasses
import io
import itertools
import math
import pickletools
import struct
import typing
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jsplat.errors import InputError
from jsplat.parser.weights.stored import Limits

DTYPES = {
    "Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": jnp.bfloat16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip
# torch.float32 and its like lie about in optimisers and settings; they mean nothing here.
TORCH_CONSTANTS = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}
CONSTANTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
MOST_AXES = 16
_MARK = object()


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that was asked for and not looked up."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Inert:
    """What stands for an object that a checkpoint keeps beside its weights; the object itself is never made."""

    of: Global


@dataclasses.dataclass(frozen=True)
class Storage:
    """The memory behind tensors.

    Attributes:
        key: which one.
        dtype: of its elements.
        numel: how many.
        view: first element and count of the part that is meant; None for all.
    """

    key: str
    dtype: np.dtype
    numel: int
    view: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A window into a storage: `size` and `stride` in elements, from `offset`."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(n) is int and n >= 0 for n in numbers) or len(self.size) != len(self.stride):
            raise ValueError("a tensor whose offset, sizes or strides are no counts")
        available = self.storage.numel if self.storage.view is None else self.storage.view[1]
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        # The first inequality also keeps a stride of 0 from blowing one number up to any size.
        if math.prod(self.size) > available or (math.prod(self.size) and last >= available):
            raise ValueError(f"a tensor of {self.size} that reaches out of its storage of {available} elements")


def _sizes(numbers: typing.Any = ()) -> tuple[int, ...]:
    # One long list may be named a million times: whatever copies its arguments bounds them.
    if len(numbers) > MOST_AXES or not all(type(n) is int for n in numbers):
        raise ValueError(f"sizes or strides that are not at most {MOST_AXES} counts")
    return tuple(numbers)


def _tensor(storage, offset, size, stride, *_) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, _sizes(size), _sizes(stride))


# All that a pickle may "call"; each makes a container or a record of its arguments, in constant time.
CALLS: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): lambda: {},
    ("collections", "defaultdict"): lambda *_: {},
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): _sizes,
    ("torch", "device"): lambda *_: None,
}

# Settings, scores, dates and paths that lie beside weights: known by name, never looked up; `Inert` takes their place.
_SCALARS = "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex128"
_BUILTINS = "int float bool str bytes list tuple dict set frozenset complex bytearray long unicode"
_PATHS = "Path PurePath PosixPath PurePosixPath WindowsPath PureWindowsPath"
INERT: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for modules, names in (
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        ("collections", "Counter deque"),
        ("builtins __builtin__", _BUILTINS),
        ("numpy", f"dtype ndarray {_SCALARS}"),
        ("numpy.core.multiarray numpy._core.multiarray", "scalar _reconstruct"),
        ("numpy.core.numeric numpy._core.numeric", "_frombuffer"),
        ("datetime", "datetime date time timedelta timezone"),
        ("pathlib pathlib._local", _PATHS),
        ("_codecs", "encode"),  # bytes, in protocol 2
    )
    for module in modules.split()
}


def _inert(module: str, name: str) -> bool:
    return name in INERT.get(module, ())


def _into(target: dict, flat: list) -> dict:
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        # Tuples as keys would have to be hashed, and nested ones take for ever.
        if not isinstance(key, (str, int, float, bytes, type(None), Inert)):
            raise ValueError(f"a dict whose key is a {type(key).__name__}")
        target[key] = value
    return target


class _Machine:
    def __init__(self, where: str, limits: Limits):
        self.where, self.limits, self.stack, self.memo = where, limits, [], {}
        self.storages: dict[str, Storage] = {}

    def since_mark(self) -> list:
        at = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if at is None:
            raise ValueError("items without their mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self, count: int) -> list:
        if len(self.stack) < count or any(item is _MARK for item in self.stack[len(self.stack) - count :]):
            raise ValueError("a stack that runs empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def top(self, kind: type) -> typing.Any:
        """What is to be filled; for an `Inert` a container of that kind which is forgotten."""
        if not self.stack or not isinstance(self.stack[-1], (kind, Inert)):
            raise ValueError(f"something that fills a {kind.__name__} which is none")
        return kind() if isinstance(self.stack[-1], Inert) else self.stack[-1]

    def find(self, module: str, name: str) -> Global:
        known = name.endswith("Storage") and name.removesuffix("Storage") in DTYPES
        storage = known and module in ("torch", "torch.cuda")
        plain = (module, name) in CALLS or _inert(module, name) or (module == "torch" and name in TORCH_CONSTANTS)
        if not storage and not plain:
            raise InputError(
                f"{self.where}: pickle",
                wanted="tensors in plain containers (torch.save of model.state_dict()); nothing in it is executed",
                got=f"the global {module}.{name}"[:200],
            )
        return Global(module, name)

    def persistent(self, identity: typing.Any) -> Storage:
        kind, storage, key, _, numel, *view = identity
        # Nothing but texts and numbers is turned into text: nested tuples would take for ever.
        named = type(key) in (str, int) and isinstance(storage, Global) and storage.name.endswith("Storage")
        if kind != "storage" or not named or type(numel) is not int or numel < 0:
            raise ValueError("a persistent id that is no storage")
        dtype = np.dtype(DTYPES[storage.name.removesuffix("Storage")])
        if numel * dtype.itemsize > self.limits.file_bytes:
            raise ValueError(f"a storage of {numel * dtype.itemsize:.3g} bytes, more than a file may have")
        part = None
        if view and view[0] is not None:
            _, first, count = view[0]
            if not (type(first) is int and type(count) is int and 0 <= first <= first + count <= numel):
                raise ValueError("a view out of its storage")
            part = first, count
        whole = Storage(str(key), dtype, numel)
        if self.storages.setdefault(whole.key, whole) != whole:
            raise ValueError(f"two storages of the one key {whole.key[:40]}")
        return dataclasses.replace(whole, view=part)

    def step(self, name: str, argument: typing.Any) -> None:
        stack = self.stack
        if name in CONSTANTS:
            stack.append(argument)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "LIST", "DICT"):
            items = self.since_mark()
            stack.append({"TUPLE": tuple, "LIST": list, "DICT": lambda flat: _into({}, flat)}[name](items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self.pop(int(name[-1]))))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop(1) if name == "APPEND" else self.since_mark()
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop(2) if name == "SETITEM" else self.since_mark()
            _into(self.top(dict), items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "GLOBAL":
            stack.append(self.find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, attribute = self.pop(2)
            if type(module) is not str or type(attribute) is not str:
                raise ValueError("a global whose name is no text")
            stack.append(self.find(module, attribute))
        elif name == "REDUCE":
            callee, arguments = self.pop(2)
            if isinstance(callee, Global) and _inert(callee.module, callee.name):
                stack.append(Inert(callee))
            elif isinstance(callee, Global) and (callee.module, callee.name) in CALLS:
                stack.append(CALLS[callee.module, callee.name](*arguments))
            else:
                raise ValueError("a call of something that is no function")
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            made = self.pop(2 if name == "NEWOBJ" else 3)[0]
            if not isinstance(made, Global) or not _inert(made.module, made.name):
                raise ValueError("an object of a class that makes none")
            stack.append(Inert(made))
        elif name == "ADDITEMS":
            self.since_mark()
            self.top(set)
        elif name in ("EMPTY_SET", "FROZENSET"):
            if name == "FROZENSET":
                self.since_mark()
            stack.append(Inert(Global("builtins", "set")))
        elif name == "BUILD":
            # state_dict() hangs version numbers of its modules on the OrderedDict; they carry no weights.
            self.pop(1)
            self.top(dict)
        elif name == "BINPERSID":
            stack.append(self.persistent(self.pop(1)[0]))
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"{self.where}: pickle", wanted="opcodes that tensors and containers need", got=name)


def read_pickle(stream: io.BytesIO, where: str, limits: Limits) -> tuple[typing.Any, dict[str, Storage]]:
    """The object pickled at the stream's position, which moves behind it, and the storages it names.

    Raises:
        InputError: a global or an opcode that tensors do not need, a damaged stream, or too long a one.
    """
    machine = _Machine(where, limits)
    try:
        for opcode, argument, _ in itertools.islice(pickletools.genops(stream), limits.operations):
            if opcode.name == "STOP":
                return machine.pop(1)[0], machine.storages
            machine.step(opcode.name, argument)
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{where}: pickle", wanted="a pickle that torch wrote, whole", got=reason) from error
    raise InputError(f"{where}: pickle", wanted=f"at most {limits.operations} operations", got="more")
