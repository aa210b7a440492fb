"""The network: its layers against the reference's list, its arithmetic against slower ways to the same numbers."""

import dataclasses
import re
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jsplat.errors import InputError, Unusable
from jsplat.labels.opinions import dense, interpolation, most_probable, shape_of
from jsplat.labelsets.labelset import CELEBAMASK_HQ, LabelSet
from jsplat.parser import (
    Architecture,
    enlarged,
    load_parser,
    new_parser,
    opinions,
    predict,
    predict_labels,
    save_parser,
)
from jsplat.parser.bisenet import Conv, convolution, double, max_pool, stem_convolution
from jsplat.parser.model import parameter_count, variable_shapes
from jsplat.parser.resize import logits_to_pixels, network_size, to_network

KEYS = Path(__file__).parent / "golden/bisenet_zllrunning_resnet18_keys.txt"
TINY = Architecture(18, 0.05, 32)
THREE = LabelSet(
    ("background", "left", "right"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)), ("background", "right", "left")
)
# Two orders of summing a few hundred float32 products of size 1.
SUMS = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def tiny():
    return new_parser(TINY, THREE, seed=0)


@pytest.mark.parametrize(("depth", "count"), [(18, 13_300_416), (34, 23_408_576)])
def test_parameter_count_of_the_reference(depth, count):
    # 34: 13,300,416 plus 10,108,160, what ResNet-34's backbone (21,284,672) has above ResNet-18's (11,176,512).
    assert parameter_count(Architecture(depth), 19) == count


def test_variables_are_those_of_the_reference():
    ending = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
    wanted = {}
    for key, sizes in re.findall(r"^(\S+) \((.*)\)$", KEYS.read_text(), re.MULTILINE):
        name, kind = key.rsplit(".", 1)
        shape = tuple(int(s) for s in sizes.split(",") if s.strip())
        if kind == "num_batches_tracked":
            continue
        if len(shape) == 4:
            wanted[f"{name}.kernel"] = (*shape[2:], shape[1], shape[0])
        else:
            wanted[f"{name}.{ending.get(kind, 'scale')}"] = shape
    assert len(wanted) == 160
    assert variable_shapes(Architecture(18), 19) == wanted


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 9)])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolutions_pad_as_torch_does(size, stride, height, width):
    conv = Conv(3, 5, size, stride)
    kernel_key, x_key = jax.random.split(jax.random.key(0))
    conv.kernel[...] = jax.random.normal(kernel_key, (size, size, 3, 5))
    x = jax.random.normal(x_key, (2, height, width, 3))
    wanted = np.zeros((2, -(-height // stride), -(-width // stride), 5))
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    kernel = np.asarray(conv.kernel[...], np.float64)
    for i, j in np.ndindex(wanted.shape[1:3]):
        window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        wanted[:, i, j] = np.einsum("bhwi,hwio->bo", window, kernel)
    np.testing.assert_allclose(conv(x), wanted, **SUMS)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 8), (3, 2, 8), (3, 2, 7), (7, 2, 8), (7, 2, 7)])
def test_convolutions_have_the_gradients_of_the_plain_one(size, stride, side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4))

    def plain(x, kernel):
        dims, padding = ("NHWC", "HWIO", "NHWC"), [(size // 2, size // 2)] * 2
        return (lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims) ** 2).sum()

    def ours(x, kernel):
        return ((stem_convolution(x, kernel) if size == 7 else convolution(x, kernel, stride, (1, 1))) ** 2).sum()

    for got, wanted in zip(jax.jit(jax.grad(ours, (0, 1)))(x, kernel), jax.jit(jax.grad(plain, (0, 1)))(x, kernel)):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-2)  # float32 sums of up to 128 terms of size 100


def test_first_weights():
    """Variance 1 / fan_in, batch norms that change nothing, another seed another draw."""
    one, same, other = (new_parser(Architecture(18, 0.25), THREE, seed).variables for seed in (0, 0, 1))
    kernel = one["cp.resnet.layer4.0.conv1.kernel"]  # 64 -> 128 channels: 73,728 draws
    assert float(kernel.std()) == pytest.approx((9 * 64) ** -0.5, rel=0.02)  # 7 standard errors
    assert all(
        bool((one[f"ffm.convblk.bn.{n}"] == v).all()) for n, v in [("scale", 1), ("var", 1), ("bias", 0), ("mean", 0)]
    )
    assert all(np.array_equal(one[n], same[n]) for n in one)
    assert not np.array_equal(kernel, other["cp.resnet.layer4.0.conv1.kernel"])


def test_max_pool_and_double():
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    for sides in ((8, 6), (7, 5)):
        x = jax.random.normal(jax.random.key(0), (2, *sides, 3))
        window = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
        np.testing.assert_array_equal(max_pool(x), window)
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    np.testing.assert_array_equal(double(x, jnp.zeros((2, 16, 12, 1))), np.repeat(np.repeat(x, 2, 1), 2, 2))
    # torch's nearest neighbour to 15 x 11: row i reads row floor(i * 8 / 15).
    rows, columns = np.arange(15) * 8 // 15, np.arange(11) * 6 // 11
    np.testing.assert_array_equal(double(x, jnp.zeros((2, 15, 11, 1))), x[:, rows][:, :, columns])


def test_logits_reach_pixels_with_aligned_corners():
    """The four corners keep their values, and a plane stays the plane of align_corners=True."""
    y, x = np.mgrid[:4, :6].astype(np.float32)
    logits = jnp.asarray((2 * y + 3 * x)[None, :, :, None])
    got = logits_to_pixels(logits, (32, 48), (32, 48), (32, 48))[0, 0]
    rows, columns = np.arange(32)[:, None] * 3 / 31, np.arange(48)[None] * 5 / 47
    np.testing.assert_allclose(got, 2 * rows + 3 * columns, rtol=1e-5, atol=1e-5)  # float32 at size 20
    assert [float(got[i, j]) for i in (0, -1) for j in (0, -1)] == [0, 15, 6, 21]


def test_padding_is_left_out_on_the_way_back():
    """A picture of 10 x 20 in an input of 32: the 8 rows above and below its own 16 are padding."""
    content, network = network_size(10, 20, 32)
    assert (content, network) == ((16, 32), (32, 32))
    logits = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 4, 1))
    rows = logits_to_pixels(logits, network, content, (10, 20))[0, 0, :, 0]
    at_input = 8 + (np.arange(10) + 0.5) * 1.6 - 0.5
    np.testing.assert_allclose(rows, at_input * 3 / 31, rtol=1e-5)  # float32


def test_pictures_reach_the_network_by_half_pixels_and_edges():
    picture = jnp.arange(4.0)[None, None, :, None] * jnp.ones((1, 2, 4, 3))
    got = to_network(picture, (4, 8), (6, 10))
    np.testing.assert_allclose(got[0, 0, :, 0], [0, 0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3, 3], atol=1e-6)  # float32
    np.testing.assert_array_equal(got[0, 0], got[0, 1])
    np.testing.assert_array_equal(got[0, 4], got[0, 5])


def test_larger_pictures_reach_the_network_by_area_as_opencv_does():
    picture = np.random.default_rng(0).random((37, 53, 3)).astype(np.float32)
    got = to_network(jnp.asarray(picture)[None], (14, 20), (20, 20))[0]
    wanted = cv2.resize(picture, (20, 14), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(got[3:17], wanted, atol=1e-6)  # float32
    np.testing.assert_array_equal(got[0], got[3])
    assert interpolation(1, np.asarray([0.0, 3.0])).tolist() == [[1.0], [1.0]]


def test_probabilities_at_the_pictures_size(tiny):
    images = np.random.default_rng(0).integers(0, 256, (5, 21, 33, 3)).astype(np.uint8)
    seen = predict(tiny, images, batch=2)
    assert seen.shape == (5, 21, 33, 3)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.sum(-1), 1, atol=1e-6)  # float32 softmax
    np.testing.assert_array_equal(predict_labels(tiny, images, batch=2), seen.argmax(-1))
    # The batch a picture travels in must not matter; XLA may sum another order for another batch size.
    np.testing.assert_allclose(predict(tiny, images[4:]), seen[4:], atol=1e-5)


@pytest.mark.parametrize(("factor", "side"), [(1.0, 64), (1.1, 64), (1.3, 96), (1.5, 96), (0.1, 32)])
def test_an_enlarged_parser_sees_the_nearest_size(tiny, factor, side):
    tiny = dataclasses.replace(tiny, architecture=dataclasses.replace(tiny.architecture, input_size=64))
    large = enlarged(tiny, factor)
    assert large.architecture.input_size == side
    assert large.variables is tiny.variables
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), np.uint8)
    assert (predict(large, images) != predict(tiny, images)).any() == (side != 64)


def test_flip_averaging_is_equivariant(tiny):
    """Averaged predictions of a picture and of its mirror image are mirror images, left and right exchanged."""
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    straight, mirrored = predict(tiny, images, flip=True), predict(tiny, images[:, :, ::-1], flip=True)
    np.testing.assert_allclose(mirrored[:, :, ::-1][..., [0, 2, 1]], straight, atol=1e-6)  # float32
    assert np.abs(straight - predict(tiny, images)).max() > 1e-4


@pytest.mark.parametrize(
    ("images", "message"),
    [(np.zeros((1, 8, 8), np.uint8), r"uint8 of shape \(n, h, w, 3\)"), (np.zeros((1, 8, 8, 3)), "got float64")],
)
def test_predict_refuses(tiny, images, message):
    with pytest.raises(InputError, match=message):
        predict(tiny, images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((50,), "one of \\(18, 34\\)"), ((18, 0.0), "width"), ((18, 1.0, 100), "positive multiple of 32, got 100")],
)
def test_architecture_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        Architecture(*arguments)


def test_network_takes_any_size_of_rgb(tiny):
    assert tiny.network(jnp.zeros((1, 41, 33, 3))).shape == (1, 6, 5, 3)
    with pytest.raises(InputError, match=r"RGB \(b, h, w, 3\), got \(1, 0, 32, 3\)"):
        tiny.network(jnp.zeros((1, 0, 32, 3)))


def test_a_parser_survives_the_disk(tiny, tmp_path):
    save_parser(tmp_path / "parser", tiny)
    back = load_parser(tmp_path / "parser", THREE)
    assert (back.architecture, back.labelset) == (tiny.architecture, tiny.labelset)
    for name, value in tiny.variables.items():
        np.testing.assert_array_equal(back.variables[name], value)


def test_checkpoints_refuse_what_does_not_fit(tiny, tmp_path):
    save_parser(tmp_path / "parser", tiny)
    with pytest.raises(InputError, match=r"labelset: wanted .*l_brow.* got .*left"):
        load_parser(tmp_path / "parser", CELEBAMASK_HQ)
    with pytest.raises(InputError, match=r"wanted a parser \(parser.json, variables\)"):
        load_parser(tmp_path)
    text = (tmp_path / "parser/parser.json").read_text()
    (tmp_path / "parser/parser.json").write_text(text.replace('"depth": 18', '"depth": 34'))
    with pytest.raises(InputError, match=r"cp\.resnet\.layer1\.2.*wanted shape .* got none"):
        load_parser(tmp_path / "parser")
    (tmp_path / "parser/parser.json").write_text(text.replace("parser 1", "parser 0"))
    with pytest.raises(InputError, match="wanted 'jsplat parser 1'"):
        load_parser(tmp_path / "parser")


@pytest.mark.parametrize("flip", [False, True])
def test_logits_at_their_stride_say_what_predict_says(tiny, flip):
    """Up to the rounding of logits to 16 bits; sides that the network pads, and one that it mirrors with them."""
    images = np.random.default_rng(2).integers(0, 256, (5, 21, 40, 3)).astype(np.uint8)
    logits, wanted = opinions(tiny, images, batch=2, flip=flip), predict(tiny, images, batch=2, flip=flip)
    assert shape_of(logits) == wanted.shape
    got = np.stack([dense(logits, view) for view in range(5)])
    most = max(float(np.max(look.steps)) for look in logits.looks)
    # A probability moves by at most a quarter of what the difference of two logits does: half a step each.
    np.testing.assert_allclose(got, wanted, atol=most / 4 + 1e-6)
    assert [look.levels.shape for look in logits.looks] == [(5, 4, 4, 3)] * (1 + flip)
    np.testing.assert_array_equal(most_probable(logits), got.argmax(-1))


def test_logits_that_are_not_finite_are_refused(tiny):
    broken = dataclasses.replace(tiny, variables={n: x * jnp.nan for n, x in tiny.variables.items()})
    with pytest.raises(Unusable, match="the parser's logits: wanted finite numbers, got NaN or infinity"):
        opinions(broken, np.zeros((1, 32, 32, 3), np.uint8))
