"""Weight files that are damaged or mean harm: nothing runs, nothing large is made, every one ends in an InputError."""

import argparse
import collections
import contextlib
import datetime
import io
import json
import pathlib
import pickle
import struct
import time
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsplat.errors import InputError
from jsplat.parser.weights import Limits, read_parser
from jsplat.parser.weights.files import read_weights
from jsplat.parser.weights.pickles import read_pickle
from jsplat.parser.weights.stored import Stored
from jsplat.parser.weights.torch_file import read_legacy, read_zip
from tests.torch_bytes import (
    archive,
    call,
    checkpoint,
    dense,
    many,
    mapping,
    name,
    number,
    pickled,
    storage,
    tensor,
    text,
)

SMALL = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "a.bias": np.ones(3, np.float16)}


class Touch:
    """Pickles into a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def read_all(tree):
    """Reads every tensor on the first level."""
    return [value.read() for value in tree.values() if isinstance(value, Stored)] if isinstance(tree, dict) else []


def legacy(*pickles, data=b""):
    """A file from before torch 1.6 with these in place of the object and the storages' keys."""
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, *pickles]) + data


def test_a_legacy_file_reads(tmp_path):
    """With a view: a storage that is a part of another."""
    part = storage("7", "float32", 6, many(text("v"), number(2), number(3)))
    file = legacy(pickled(mapping({"x": tensor(part, 1, (2,), (1,))})), pickle.dumps(["7"], 2))
    data = struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes()
    (values,) = read_all(read_legacy(file + data, "file", Limits()).tree)
    np.testing.assert_array_equal(values, [3, 4])


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("function", [eval, open, io.open_code, getattr, np.array, time.sleep])
def test_nothing_is_executed(tmp_path, function, protocol):
    mark = tmp_path / "mark"
    bad = pickle.dumps(Touch(function, f"open({str(mark)!r}, 'w')"), protocol)
    (tmp_path / "w.pth").write_bytes(archive(bad, {}))
    with pytest.raises(InputError, match=r"nothing in it is executed, got the global \w+(\.\w+)*\.\w+") as error:
        read_parser(tmp_path / "w.pth")
    assert function.__name__.split(".")[-1] in str(error.value)
    assert not mark.exists()


def test_os_system_is_named(tmp_path):
    (tmp_path / "w.pth").write_bytes(legacy(pickle.dumps(Touch(__import__("os").system, "true"), 2)))
    with pytest.raises(InputError, match=r"got the global (posix|nt)\.system"):
        read_parser(tmp_path / "w.pth")


def beside_weights():
    """What training scripts keep beside their weights."""
    defaults = collections.defaultdict(list, {"a": [1]})
    return {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a/b"), more=types.SimpleNamespace(x={1, 2})),
        "milestones": collections.Counter({3: 1, np.int64(5): 2}),
        "best": {"iou": np.float64(0.5), "epoch": np.int32(3), "as": np.dtype("float32"), "ok": np.bool_(True)},
        "weights of classes": np.linspace(0, 1, 5, dtype=np.float32),
        "when": [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.date(2024, 1, 2)],
        "paths": (pathlib.Path("x"), pathlib.PureWindowsPath("c:/x")),
        "history": defaults,
        "last": collections.deque([1, 2], maxlen=3),
        "sets": [set(), {"a"}, frozenset({1}), complex(1, 2), bytearray(b"x"), b"bytes"],
        "kinds": [int, str, np.float32, list],
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_lies_beside_weights_is_passed_by(protocol):
    """Records of settings, scores, dates and paths: nothing is made of them, and what stands around them is read."""
    tree = {"epoch": 3, **beside_weights(), "name": "net"}
    read, _ = read_pickle(io.BytesIO(pickle.dumps(tree, protocol)), "file", Limits())
    assert list(read) == list(tree)
    assert (read["epoch"], read["name"], read["history"]) == (3, "net", {"a": [1]})
    inert = [read["args"], *read["best"].values(), *read["when"], *read["paths"], read["last"], read["sets"][0]]
    inert += [read["weights of classes"], read["milestones"]]
    assert {type(value).__name__ for value in inert[:2] + inert[3:4] + inert[5:]} == {"Inert"}
    assert read["args"].of.name == "Namespace"


def test_weights_beside_old_numpy_scalars_are_read():
    """Named as numpy 1 names them, and in protocol 2, whose bytes are made by a codec."""
    kind = call(name("numpy", "dtype"), text("f8"), b"\x89", b"\x88")
    kind += many(number(3), text("<"), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"
    score = call(name("numpy.core.multiarray", "scalar"), kind, call(name("_codecs", "encode"), text("x" * 8)))
    tree = mapping({"x": dense("0", np.arange(6, dtype=np.float32)), "best": score})
    file = read_zip(archive(pickled(tree), {"0": np.arange(6, dtype=np.float32).tobytes()}), "file", Limits())
    np.testing.assert_array_equal(read_all(file.tree)[0], np.arange(6))


def gadgets():
    """Harmless objects whose inside is not."""
    bad = Touch(__import__("os").system, "true")
    made = collections.defaultdict(list, {"a": bad})
    return {
        "namespace": argparse.Namespace(x=bad),
        "nested": argparse.Namespace(x=[{"y": (1, types.SimpleNamespace(z=bad))}]),
        "counter": collections.Counter({"a": bad}),
        "defaultdict": made,
        "factory": collections.defaultdict(__import__("os").getcwd),
        "deque": collections.deque([bad]),
        "array": np.array([bad], object),
        "set": [{"a"}, frozenset([bad])],
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", gadgets())
def test_harmless_objects_hide_nothing(kind, protocol):
    with pytest.raises(InputError, match=r"nothing in it is executed, got the global (posix|nt)\.(system|getcwd)"):
        read_pickle(io.BytesIO(pickle.dumps({"x": gadgets()[kind]}, protocol)), "file", Limits())


ONE = storage("0", "float32", 6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(ONE, 0, (7,), (1,)), r"a tensor of \(7,\) that reaches out of its storage of 6"),
        (tensor(ONE, 5, (2,), (1,)), "reaches out of its storage"),
        (tensor(ONE, 0, (2, 2), (5, 1)), "reaches out of its storage"),
        (tensor(ONE, 0, (10**9, 10**9), (0, 0)), "reaches out of its storage"),
        (tensor(ONE, 0, (1,) * 17, (1,) * 17), "sizes or strides that are not at most 16 counts"),
        (call(name("torch", "Size"), many(*[number(1)] * 17)), "not at most 16 counts"),
        (call(name("collections", "OrderedDict"), b"]"), "TypeError"),
        (tensor(ONE, -1, (2,), (1,)), "no counts"),
        (tensor(ONE, 0, (-2,), (1,)), "no counts"),
        (tensor(ONE, 0, (2,), (1, 1)), "no counts"),
        (tensor(number(3), 0, (2,), (1,)), "a tensor without a storage"),
        (dense("0", np.zeros(0, np.float32)) + number(10**12) + b"0", "storage 0: wanted 0 bytes"),
        (tensor(storage("0", "float32", 10**12), 0, (1,), (1,)), r"a storage of 4e\+12 bytes"),
        (tensor(storage("0", "float32", 9), 0, (1,), (1,)), r"storage 0: wanted 36 bytes \(9 x float32\), got 24"),
        (tensor(storage("../0", "float32", 6), 0, (1,), (1,)), "a whole member, got"),
        (many(text("storage"), name("torch", "QInt8Storage"), text("0")) + b"Q", r"the global torch\.QInt8Storage"),
        (
            many(text("module"), number(1), text("0"), text("cpu"), number(1)) + b"Q",
            "a persistent id that is no storage",
        ),
        (call(name("torch", "FloatStorage"), number(1)), "a call of something that is no function"),
        (call(text("os"), number(1)), "a call of something that is no function"),
        (b"}(" + many(number(1)) + number(2) + b"u", "a dict whose key is a tuple"),
        (b"}(" + number(1) + b"u", "ValueError: zip"),
        (number(1) + number(2) + b"b", "something that fills a dict which is none"),
        (b"h\x05", "KeyError"),
        (b"00", "items without their mark"),
        (b"0000", "IndexError"),
        (b"\x8b\xff\xff\xff\x7f", "ValueError"),
        (b"\x82\x01", "opcodes that tensors and containers need, got EXT1"),
        (text("os") + text("system") + b"\x93", r"the global os\.system"),
        (name("builtins", "eval"), r"the global builtins\.eval"),
        (name("builtins", "getattr"), r"the global builtins\.getattr"),
        (name("numpy", "load"), r"the global numpy\.load"),
        (name("argparse", "Namespace.__init__"), r"the global argparse\.Namespace\.__init__"),
        (name("collections", "OrderedDict") + b")\x81", "an object of a class that makes none"),
        (name("torch", "FloatStorage") + b")\x81", "an object of a class that makes none"),
        (text("os") + b")\x81", "an object of a class that makes none"),
        (call(call(name("argparse", "Namespace")), text("x")), "a call of something that is no function"),
    ],
)
def test_pickles_that_torch_does_not_write(value, message):
    data = np.arange(6, dtype=np.float32).tobytes()
    with pytest.raises(InputError, match=message):
        read_all(read_zip(archive(pickled(mapping({"x": value})), {"0": data}), "file", Limits()).tree)


def test_memory_and_time_are_bounded():
    """A memo index of 4e9, shared tuples of 2^200 items where a text belongs, dicts that hold each other: at once."""
    far = pickled(b"N" + b"r\xff\xff\xff\xff")
    deep = pickled(b")q\x00" + b"h\x00h\x00\x86q\x00" * 200)
    assert read_pickle(io.BytesIO(far), "file", Limits())[0] is None
    assert len(read_pickle(io.BytesIO(deep), "file", Limits())[0]) == 2
    for end in (
        many(text("storage"), name("torch", "FloatStorage"), b"h\x00", text("cpu"), number(1)) + b"Q",
        b"h\x00\x93",
    ):
        with pytest.raises(InputError, match=r"persistent id that is no storage|whose name is no text"):
            read_pickle(io.BytesIO(deep[:-1] + end + b"."), "file", Limits())
    with pytest.raises(InputError, match="wanted a list of storages behind the object, got tuple"):
        read_legacy(legacy(pickled(b"}"), deep), "file", Limits())
    row = b"".join(text(str(i)) + b"h\x00" for i in range(50))
    circle = pickled(b"}q\x00(" + row + b"u")
    with pytest.raises(InputError, match="wanted a BiSeNet's weights"):
        read_parser_bytes(archive(circle, {}))
    with pytest.raises(InputError, match="wanted at most 100 operations, got more"):
        read_pickle(io.BytesIO(pickled(b"N0" * 100)), "file", Limits(operations=100))


def read_parser_bytes(data):
    """`read_parser` of a file in a temporary folder."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "w").write_bytes(data)
        return read_parser(Path(folder) / "w")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../x", "archive/../../x", "C:\\x", "\\\\host\\x"])
def test_members_that_point_elsewhere(path):
    file = archive(pickled(b"}"), {}, {path: b"x"})
    with pytest.raises(InputError, match=r"member: wanted relative names without \.\."):
        read_zip(file, "file", Limits())


def test_zip_bombs():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(InputError, match="wanted stored bytes, as torch writes, got deflated"):
        read_zip(buffer.getvalue(), "file", Limits())
    # Many directory entries for the same bytes: the central directory's records repeated.
    data = archive(pickled(b"}"), {"0": bytes(5000)})
    start = data.index(b"PK\x01\x02", data.index(b"archive/data/0"))
    start = data.rindex(b"PK\x01\x02", start)
    end = data.index(b"PK\x05\x06")
    copies = data[start:end] * 60
    last = bytearray(data[end:])
    head, offset = data[: struct.unpack("<I", last[16:20])[0]], len(copies)
    last[8:16] = struct.pack("<HHI", 60 * copies[: offset // 60].count(b"PK\x01\x02"), 0, offset)
    last[10:12] = last[8:10]
    with pytest.raises(InputError, match=r"file: wanted (members of together at most|a torch checkpoint|a zip)"):
        read_zip(head + copies + bytes(last), "file", Limits())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("w.pth", b"", "begins with b''"),
        ("w.pth", b"hello world", "wanted a torch checkpoint .* got a file that begins with b'hello wor'"),
        ("w.pth", b"PK\x03\x04 and no more", "wanted a zip archive, whole, got BadZipFile"),
        ("w.pth", pickle.dumps({"a": 1}, 2), r"its magic number first\), got another pickle"),
        ("w.pth", archive(pickled(b"}"), {}).replace(b"archive/data.pkl", b"archive/Data.pkl"), "one data.pkl"),
        ("w.pth", archive(b"\x80\x02}", {}), "wanted a pickle that torch wrote, whole"),
        ("w.onnx", b"\x08\x08 no protobuf", "wanted an ONNX model"),
        ("w.onnx", b"", "wanted an ONNX model"),
        ("w.safetensors", struct.pack("<Q", 10**18) + b"{}", "wanted safetensors, whole, got .*header"),
        ("w.safetensors", struct.pack("<Q", 2) + b"{]", "wanted safetensors, whole"),
        ("w.safetensors", b"{", "wanted safetensors, whole"),
    ],
)
def test_files_that_are_none(tmp_path, name, data, message):
    if name != "w.pth":
        pytest.importorskip("onnx" if name == "w.onnx" else "safetensors")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_parser(tmp_path / name)


def test_files_that_are_not_there_or_too_large(tmp_path):
    with pytest.raises(InputError, match=r"no\.pth: wanted a torch checkpoint .* got .*No such file"):
        read_parser(tmp_path / "no.pth")
    with pytest.raises(InputError, match="wanted a torch checkpoint"):
        read_parser(tmp_path)
    (tmp_path / "w.pth").write_bytes(bytes(101))
    with pytest.raises(InputError, match="wanted a weight file of at most 100 bytes, got 101"):
        read_weights(tmp_path / "w.pth", Limits(file_bytes=100))


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, "[]", '{"format": "jsplat parser 1", "architecture": {"depth": []}}']
)
def test_metadata_that_is_none(tmp_path, text):
    numpy = pytest.importorskip("safetensors.numpy")
    head = {f"cp.resnet.layer{i}.{j}.conv1.weight": np.zeros((64, 1, 1, 1)) for i in range(1, 5) for j in range(2)}
    head |= {"cp.resnet.conv1.weight": np.zeros((64, 1, 1, 1)), "conv_out.conv_out.weight": np.zeros((19, 1, 1, 1))}
    widths = {f"cp.resnet.layer{i}.0.conv1.weight": np.zeros((64 * 2 ** (i - 1), 1, 1, 1)) for i in range(1, 5)}
    numpy.save_file(head | widths, tmp_path / "w.safetensors", {"jsplat": text})
    with pytest.raises(InputError, match=r"metadata: wanted (JSON|format, architecture, labelset)"):
        read_parser(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 24]}, "wanted safetensors, whole"),
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 2400]}, "wanted safetensors, whole"),
        ({"dtype": "F8_E4M3", "shape": [24], "data_offsets": [0, 24]}, "x: wanted one of F64, F32, .* got F8_E4M3"),
    ],
)
def test_safetensors_that_lie(tmp_path, entry, message):
    pytest.importorskip("safetensors")
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(24))
    with pytest.raises(InputError, match=message):
        read_all(read_weights(tmp_path / "w.safetensors").tree)


def test_onnx_with_weights_elsewhere_or_strange(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra [export] is not installed")
    kernel = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "k")

    def written(tensor, inputs):
        node = onnx.helper.make_node("Conv", inputs, ["y"], name="/cp/conv1/Conv")
        graph = onnx.helper.make_graph([node], "g", [], [], [tensor])
        (tmp_path / "w.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        return tmp_path / "w.onnx"

    with pytest.raises(InputError, match="node /cp/conv1/Conv: wanted weight as a constant, got other"):
        read_weights(written(kernel, ["x", "other"]))
    short = onnx.TensorProto()
    short.CopyFrom(kernel)
    short.dims[0] = 10**15
    with pytest.raises(InputError, match=r"k: wanted data of shape \(1000000000000000, 1, 1, 1\)"):
        read_all(read_weights(written(short, ["x", "k"])).tree)
    words = onnx.helper.make_tensor("k", onnx.TensorProto.STRING, [1], [b"x"])
    with pytest.raises(InputError, match="k: wanted numbers, got ONNX type 8"):
        read_weights(written(words, ["x", "k"]))
    data = written(kernel, ["x", "k"]).read_bytes()
    (tmp_path / "w.onnx").write_bytes(data.replace(b"/cp/conv1", b"/cp/c\xff\xff\xff1"))
    with pytest.raises(InputError, match=r"UTF-8|an ONNX model, whole"):
        read_weights(tmp_path / "w.onnx")
    kernel.data_location = onnx.TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(InputError, match="wanted weights inside the file"):
        read_weights(written(kernel, ["x", "k"]))


OLD = legacy(
    pickled(mapping({"x": tensor(storage("7", "float32", 3), 0, (3,), (1,))})),
    pickle.dumps(["7"], 2),
    data=struct.pack("<q", 3) + np.arange(3, dtype="<f4").tobytes(),
)
FILES = {"zip": (checkpoint(SMALL), read_zip), "legacy": (OLD, read_legacy)}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_anywhere(kind):
    data, read = FILES[kind]
    assert len(read_all(read(data, "file", Limits()).tree)) == {"zip": 2, "legacy": 1}[kind]
    for end in range(0, len(data), 7):
        with pytest.raises(InputError):
            read_all(read(data[:end], "file", Limits()).tree)


@pytest.mark.parametrize("kind", FILES)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_file_with_other_bytes(kind, edits):
    """Either it still reads, or an InputError says why not."""
    data, read = bytearray(FILES[kind][0]), FILES[kind][1]
    for at, value in edits:
        data[at % len(data)] = value
    with contextlib.suppress(InputError):
        read_all(read(bytes(data), "file", Limits()).tree)


OPCODES = [b"N", b"}", b")", b"(", b"t", b"u", b"s", b"a", b"e", b"]", b"0", b"1", b"2", b"R", b"b", b"Q", b"q\x00"]
OPCODES += [b"h\x00", b"\x85", b"\x86", b"\x94", b"K\x01", b"d", b"l", text("a"), name("torch", "Size"), ONE]
OPCODES += [
    name("torch", "FloatStorage"),
    name("collections", "OrderedDict"),
    name("torch._utils", "_rebuild_tensor_v2"),
    name("argparse", "Namespace"),
    name("numpy", "dtype"),
    b"\x81",
    b"\x8f",
    b"\x90",
    b"\x91",
]


@given(st.lists(st.sampled_from(OPCODES), max_size=40))
def test_any_row_of_opcodes(opcodes):
    with contextlib.suppress(InputError):
        read_all(read_zip(archive(pickled(b"".join(opcodes)), {}), "file", Limits()).tree)
