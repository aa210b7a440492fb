"""Public checkpoints in, ours out: every key accounted for, the same logits as the PyTorch module, bits unchanged."""

import dataclasses
import functools
import json
import lzma
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.errors import InputError
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet
from jsplat.parser import load_parser
from jsplat.parser.bisenet import Architecture
from jsplat.parser.model import new_parser, with_variables
from jsplat.parser.resize import logits_to_pixels, normalise
from jsplat.parser.weights import convert, export, onnx_model, read_parser, to_torch
from jsplat.parser.weights.files import read_weights
from jsplat.parser.weights.keys import architecture_of, match
from jsplat.parser.weights.onnx_file import module_of
from jsplat.parser.weights.stored import Stored
from tests.torch_bytes import archive, checkpoint, dense, mapping, number, pickled, storage, tensor

GOLDEN = Path(__file__).parent / "golden"
FILES = ("zllrunning.pth", "legacy.pth", "lightning.ckpt", "yakhyo.onnx")
TWO = LabelSet(("background", "face"), ((0, 0, 0), (9, 9, 9)), ("background", "face"))


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """Name -> path of the checkpoint that torch wrote, unpacked."""
    folder = tmp_path_factory.mktemp("golden")
    for name in FILES:
        (folder / name).write_bytes(lzma.decompress((GOLDEN / f"bisenet_{name}.xz").read_bytes()))
    return {name: folder / name for name in FILES}


@pytest.fixture(scope="session")
def state(golden):
    """zllrunning's state dict as arrays."""
    tree = read_weights(golden["zllrunning.pth"]).tree
    return {key: value.read() for key, value in tree.items()}


@pytest.fixture
def written(tmp_path):
    """Writes a state dict as a checkpoint."""

    def write(values):
        path = tmp_path / "weights.pth"
        path.write_bytes(checkpoint(values))
        return path

    return write


def picture(height, width):
    """The picture of scripts/make_golden_bisenet.py, colours in [0, 1]."""
    random = np.random.default_rng(height * 1000 + width)
    coarse = random.integers(0, 200, (-(-height // 8), -(-width // 8), 3))
    rgb = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width] + random.integers(0, 56, (height, width, 3))
    return jnp.asarray(rgb[None] / 255, jnp.float32)


@functools.partial(jax.jit, static_argnames="architecture")
def logits(variables, rgb, architecture):
    sides = rgb.shape[1:3]
    return logits_to_pixels(with_variables(architecture, 19, variables)(normalise(rgb)), sides, sides, sides)[0]


def read_file(path):
    if path.suffix == ".onnx":
        pytest.importorskip("onnx", reason="the extra [export] is not installed")
    return read_parser(path)


@pytest.mark.parametrize(
    ("name", "kind", "family", "nested", "used", "folded", "explained"),
    [
        ("zllrunning.pth", "torch zip checkpoint", "zllrunning", "", 160, 0, 31),
        ("legacy.pth", "torch checkpoint from before 1.6", "zllrunning", "", 160, 0, 31),
        # 289 keys: 47 batch norms' counters and the two of the layer that is never called.
        ("lightning.ckpt", "torch zip checkpoint", "yakhyo", "state_dict model.module.", 240, 0, 49),
        ("yakhyo.onnx", "ONNX", "yakhyo", "", 52, 47, 42),
    ],
)
def test_every_key_is_used_or_explained(golden, name, kind, family, nested, used, folded, explained):
    parser, conversion = read_file(golden[name])
    assert (conversion.kind, conversion.family, conversion.nested) == (kind, family, nested)
    counts = len(conversion.used), len(conversion.folded), len(conversion.explained)
    assert counts == (used, folded, explained)
    assert parser.architecture.depth == (18 if family == "zllrunning" else 34)
    assert parser.labelset == CELEBAMASK_HQ
    assert conversion.converted == ()
    assert f"{used + folded} entries used, {explained} not needed, none missing" in conversion.summary()


@pytest.mark.parametrize(
    ("name", "torch_logits", "sizes"),
    [
        ("zllrunning.pth", "zllrunning", [(64, 64), (75, 53)]),
        ("lightning.ckpt", "yakhyo", [(75, 53)]),
        ("yakhyo.onnx", "yakhyo", [(75, 53)]),
    ],
)
def test_logits_are_those_of_the_pytorch_module(golden, name, torch_logits, sizes):
    parser, _ = read_file(golden[name])
    wanted = np.load(GOLDEN / f"bisenet_{torch_logits}_logits.npz")
    for height, width in sizes:
        got = np.asarray(logits(parser.variables, picture(height, width), parser.architecture))
        # The issue asks for 1e-3; float32 sums in another order at logits of size 10 differ by 1e-5.
        np.testing.assert_allclose(got[:, ::4, ::4], wanted[f"logits_{height}x{width}"], atol=1e-4)
        assert (got.argmax(0) == wanted[f"classes_{height}x{width}"]).mean() >= 0.9999


def test_a_zip_and_a_legacy_file_of_one_network_are_one_parser(golden):
    (new, _), (old, _) = read_parser(golden["zllrunning.pth"]), read_parser(golden["legacy.pth"])
    assert all(np.array_equal(new.variables[n], old.variables[n]) for n in new.variables)


@pytest.mark.parametrize(("name", "family"), [("zllrunning.pth", "zllrunning"), ("lightning.ckpt", "yakhyo")])
def test_the_state_dict_comes_back_bit_for_bit(golden, name, family):
    tree = read_weights(golden[name]).tree
    wanted = {key.removeprefix("model.module."): value for key, value in tree.get("state_dict", tree).items()}
    got = to_torch(read_parser(golden[name])[0], family)
    assert got.keys() == wanted.keys()
    dead = {"fpn.backbone.fc.weight": 0, "fpn.backbone.fc.bias": 0}
    for key, stored in wanted.items():
        assert (got[key].shape, got[key].dtype) == (stored.shape, stored.dtype)
        counter = key.endswith("num_batches_tracked")
        np.testing.assert_array_equal(got[key], 0 if counter or key in dead else stored.read(), err_msg=key)
    with pytest.raises(InputError, match="family: wanted one of zllrunning, yakhyo, got timm"):
        to_torch(read_parser(golden[name])[0], "timm")


@pytest.mark.parametrize(
    ("name", "count", "depth"),
    [("zllrunning_resnet18", 191, 18), ("yakhyo_resnet18", 193, 18), ("yakhyo_resnet34", 289, 34)],
)
def test_the_public_key_lists_are_covered(name, count, depth):
    entries, listed = {}, (GOLDEN / f"bisenet_{name}_keys.txt").read_text()
    for key, sizes in re.findall(r"^(\S+) \((.*)\)$", listed, re.MULTILINE):
        shape = tuple(int(s) for s in sizes.split(",") if s.strip())
        entries[key] = Stored(shape, np.dtype(np.float32), lambda: np.zeros(()))
    assert len(entries) == count
    family = name.split("_")[0]
    assert architecture_of(entries, family, "list") == (Architecture(depth), 19)
    matched = match(entries, Architecture(depth), 19, family, "list")
    assert matched.used.keys() | matched.explained.keys() == entries.keys()


def test_a_conversion_is_written_with_its_report(golden, tmp_path):
    conversion = convert(golden["zllrunning.pth"], tmp_path / "parser", input_size=64)
    parser, back = read_parser(golden["zllrunning.pth"])[0], load_parser(tmp_path / "parser", CELEBAMASK_HQ)
    assert all(np.array_equal(parser.variables[n], back.variables[n]) for n in parser.variables)
    assert back.architecture.input_size == 64
    report = json.loads((tmp_path / "parser/conversion.json").read_text())
    assert report["used"] == conversion.used
    assert set(report["explained"]) == {k for k in to_torch(parser) if k.endswith("num_batches_tracked")}
    assert "zllrunning" in report["labelset_from"]
    assert len(report["preprocessing"]) == 4


@pytest.mark.parametrize("family", ["zllrunning", "yakhyo"])
def test_safetensors_there_and_back(golden, tmp_path, family):
    pytest.importorskip("safetensors")
    parser, _ = read_parser(golden["zllrunning.pth"], input_size=96)
    export(parser, tmp_path / "out.safetensors", family)
    back, conversion = read_parser(tmp_path / "out.safetensors")
    assert (back.architecture, back.labelset) == (parser.architecture, parser.labelset)
    assert all(np.array_equal(parser.variables[n], back.variables[n]) for n in parser.variables)
    assert (conversion.kind, conversion.family, conversion.labelset_from) == (
        "safetensors",
        family,
        "written in the file",
    )
    with pytest.raises(InputError, match=r"labelset: wanted background, face, got"):
        read_parser(tmp_path / "out.safetensors", TWO)
    with pytest.raises(InputError, match=r"wanted a name that ends in .onnx or .safetensors, got out.pth"):
        export(parser, tmp_path / "out.pth")


def same_but_for_heads(read, parser):
    """The main network bit for bit; heads that only training needs as in a new parser, and the report says so."""
    back, conversion = read
    assert (back.architecture, back.labelset) == (parser.architecture, parser.labelset)
    fresh = {name for name in parser.variables if name.startswith(("conv_out16.", "conv_out32."))}
    assert set(conversion.fresh) == fresh
    assert len(fresh) == 12
    new = new_parser(parser.architecture, parser.labelset, seed=0).variables
    for name, value in back.variables.items():
        np.testing.assert_array_equal(value, (new if name in fresh else parser.variables)[name], err_msg=name)
    assert "without conv_out16 and conv_out32, which only training needs: begun anew" in conversion.summary()


@pytest.mark.parametrize("family", ["zllrunning", "yakhyo"])
def test_the_main_head_alone_comes_back(golden, written, tmp_path, family):
    """As networks are deployed: our own ONNX, and state dicts of any kind without the other heads."""
    pytest.importorskip("onnx", reason="the extra [export] is not installed")
    parser, _ = read_parser(golden["zllrunning.pth"])
    (tmp_path / "main.onnx").write_bytes(onnx_model(parser, family))
    same_but_for_heads(read_parser(tmp_path / "main.onnx"), parser)
    weights = {k: v for k, v in to_torch(parser, family).items() if not k.startswith(("conv_out16", "conv_out32"))}
    back, _ = read = read_parser(written(weights))
    same_but_for_heads(read, dataclasses.replace(parser, architecture=back.architecture))
    half = {k: v for k, v in to_torch(parser, family).items() if not k.startswith("conv_out16") or "running_var" in k}
    with pytest.raises(InputError, match=r"5 missing: conv_out16"):
        read_parser(written(half))
    one = {k: v for k, v in to_torch(parser, family).items() if not k.startswith("conv_out32")}
    assert {name.split(".")[0] for name in read_parser(written(one))[1].fresh} == {"conv_out32"}


def test_onnx_out(golden, tmp_path):
    """onnxruntime computes our logits, for any batch and size; weights keep their names and values."""
    onnx = pytest.importorskip("onnx", reason="the extra [export] is not installed")
    runtime = pytest.importorskip("onnxruntime")
    parser, _ = read_parser(golden["zllrunning.pth"])
    export(parser, tmp_path / "out.onnx")
    session = runtime.InferenceSession(tmp_path / "out.onnx")
    for height, width in ((64, 64), (75, 53)):
        rgb = picture(height, width)
        wanted = np.asarray(logits(parser.variables, rgb, parser.architecture))
        batch = np.concatenate([np.zeros_like(rgb), normalise(rgb)]).transpose(0, 3, 1, 2)
        (got,) = session.run(["output"], {"input": batch})
        assert got.shape == (2, 19, height, width)
        np.testing.assert_allclose(got[1], wanted, atol=1e-4)  # float32 in another order; the issue asks for 1e-3
        assert (got[1].argmax(0) == wanted.argmax(0)).mean() >= 0.9999
    model = onnx.load_model_from_string(onnx_model(parser, "yakhyo"))
    weights, stored = to_torch(parser, "yakhyo"), {t.name: t for t in model.graph.initializer}
    left_out = {
        key for key in weights if key.startswith(("conv_out16", "conv_out32")) or "tracked" in key or ".fc." in key
    }
    assert stored.keys() == weights.keys() - left_out
    assert all(np.array_equal(onnx.numpy_helper.to_array(t), weights[key]) for key, t in stored.items())
    metadata = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert metadata["names"] == list(CELEBAMASK_HQ.names)
    same_but_for_heads(read_parser(tmp_path / "out.onnx"), parser)


def test_modules_of_onnx_nodes():
    assert module_of("/fpn/backbone/layer1/layer1.0/conv1/Conv") == "fpn.backbone.layer1.0.conv1"
    assert module_of("/fpn/arm16/attention/attention.0/Conv") == "fpn.arm16.attention.0"
    assert module_of("Conv_12") == ""


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.net.module._orig_mod."])
def test_prefixes(state, written, prefix):
    _, conversion = read_parser(written({prefix + key: value for key, value in state.items()}))
    assert (conversion.nested, len(conversion.used)) == (prefix, 160)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_converted_and_said(state, written, dtype):
    kind = jnp.dtype(dtype)
    parser, conversion = read_parser(
        written({k: v if v.dtype == np.int64 else v.astype(kind) for k, v in state.items()})
    )
    assert conversion.converted == (dtype,)
    wanted = state["ffm.conv1.weight"].astype(kind).astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(parser.variables["ffm.conv1.kernel"], wanted)


def test_half_precision_in_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    values = np.asarray([1.5, -2.25, 3e38], jnp.bfloat16)
    numpy.save_file({"x": values}, tmp_path / "w.safetensors")
    stored = read_weights(tmp_path / "w.safetensors").tree["x"]
    assert (stored.shape, stored.dtype) == ((3,), values.dtype)
    np.testing.assert_array_equal(stored.read().astype(np.float32), values.astype(np.float32))


def test_windows_into_a_storage(tmp_path):
    """Offset, transposed strides, a tensor shared by two names, a parameter: as numpy reads the same memory."""
    values = np.arange(24, dtype=np.float32)
    whole = storage("0", "float32", 24)
    turned = tensor(whole, 4, (3, 2), (1, 5))
    tree = mapping({"turned": turned, "empty": tensor(whole, 24, (0, 3), (3, 1)), "scalar": tensor(whole, 7, (), ())})
    (tmp_path / "w.pth").write_bytes(archive(pickled(tree), {"0": values.tobytes()}))
    read = {key: stored.read() for key, stored in read_weights(tmp_path / "w.pth").tree.items()}
    np.testing.assert_array_equal(read["turned"], [[4, 9], [5, 10], [6, 11]])
    assert read["empty"].shape == (0, 3)
    assert read["scalar"] == 7


def test_the_classes_must_be_known(state, written):
    heads = [key for key in state if key.endswith("conv_out.weight")]
    assert len(heads) == 3
    path = written(state | {key: state[key][:2] for key in heads})
    with pytest.raises(
        InputError, match="label set: wanted to be told what the classes are, got 2 classes; `--labels`"
    ):
        read_parser(path)
    with pytest.raises(InputError, match="classes: wanted 19, as the label set has, got 2"):
        read_parser(path, CELEBAMASK_HQ)
    parser, conversion = read_parser(path, TWO)
    assert (parser.labelset, conversion.labelset_from) == (TWO, "as given")


KEY = "cp.arm16.conv.bn.running_var"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({KEY: None, "ffm.conv1.weight": None}, rf"2 missing: {re.escape(KEY)}, ffm\.conv1\.weight"),
        ({"ffm.conv3.weight": np.zeros(3, np.float32)}, r"only the weights .* 1 unknown: ffm\.conv3\.weight"),
        ({"cp.resnet.fc.weight": np.zeros((1, 8), np.float32)}, r"1 unknown: cp\.resnet\.fc\.weight"),
        ({KEY: np.ones(9, np.float32)}, rf"{re.escape(KEY)}: wanted shape \(8,\), got \(9,\)"),
        ({KEY: np.full(8, np.nan, np.float32)}, rf"{re.escape(KEY)}: wanted finite numbers, got 8 that are not"),
        ({KEY: np.full(8, 1e300)}, "wanted finite numbers, got 8"),
        ({KEY: np.full(8, -1, np.float32)}, "wanted variances, got -1.0"),
        ({KEY: np.ones(8, np.int64)}, "wanted floating point numbers, got int64"),
        ({"cp.resnet.layer3.2.bn1.bias": np.zeros(3, np.float32)}, r"blocks of cp\.resnet\.layer.* got \(2, 2, 3, 2\)"),
        ({"cp.resnet.layer4.0.conv1.weight": np.zeros((640, 1, 1, 1), np.float32)}, "channels: wanted 64, 128, 256"),
        ({"conv_out.conv_out.weight": None}, r"conv_out\.conv_out\.weight: wanted a convolution's kernel"),
        ({"cp.resnet.conv1.weight": None}, r"wanted a BiSeNet's weights \(cp\.resnet\.conv1\.weight or fpn"),
        ({"criterion.weight": np.zeros(3, np.float32)}, r"1 unknown: criterion\.weight"),
        ({"ema.cp.resnet.conv1.weight": np.zeros(3, np.float32)}, "wanted keys that begin with 'ema.'"),
    ],
)
def test_what_does_not_fit_is_named(state, written, change, message):
    values = {key: value for key, value in (state | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_parser(written(values))


def test_of_two_networks_one_must_be_named(state, tmp_path):
    network = mapping({key: dense(str(i), value) for i, (key, value) in enumerate(state.items())})
    tree = pickled(mapping({"model": network, "ema": mapping({"module": network}), "epoch": number(3)}))
    data = {str(i): value.tobytes() for i, value in enumerate(state.values())}
    (tmp_path / "w.pth").write_bytes(archive(tree, data))
    with pytest.raises(InputError, match=r"one network, got model, ema/module; `--inside model`"):
        read_parser(tmp_path / "w.pth")
    assert read_parser(tmp_path / "w.pth", inside="ema/module")[1].nested == "ema/module"
