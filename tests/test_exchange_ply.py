"""Scenes as PLY: the public layout byte by byte, and back bit by bit."""

import contextlib
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsplat.errors import InputError
from jsplat.exchange import SplatLabels, read_ply, write_label_ply, write_ply
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.scene import Attributes, Gaussians, Scene

THREE = LabelSet(
    ("background", "skin", "hair"), ((0, 0, 0), (255, 128, 0), (0, 0, 255)), ("background", "skin", "hair")
)


def scene(n: int = 5, degree: int = 1, k: int = 3) -> Scene:
    rng = np.random.default_rng(n + degree)

    def draw(*shape: int) -> jnp.ndarray:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    gaussians = Gaussians(draw(n, 3), draw(n, 4), draw(n, 3), draw(n))
    return Scene(gaussians, Attributes(draw(n, (degree + 1) ** 2, 3), draw(n, k)))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [1, 7])
def test_a_scene_comes_back_bit_by_bit(tmp_path, n, degree):
    wanted = scene(n, degree)
    write_ply(tmp_path / "s.ply", wanted)
    got, labels = read_ply(tmp_path / "s.ply")
    assert labels is None
    for name in ("means", "quats", "log_scales", "logit_opacities"):
        np.testing.assert_array_equal(getattr(got.gaussians, name), getattr(wanted.gaussians, name))
    np.testing.assert_array_equal(got.attributes.sh, wanted.attributes.sh)
    assert got.attributes.label_logits.shape == (n, 0)


def test_the_file_is_laid_out_as_viewers_expect(tmp_path):
    """Kerbl et al. 2023: 62 floats a splat at degree 3; the rest of the harmonics goes channel by channel."""
    one = scene(1, 3)
    write_ply(tmp_path / "s.ply", one)
    header, _, body = (tmp_path / "s.ply").read_bytes().partition(b"end_header\n")
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    first = ["ply", "format binary_little_endian 1.0", "element vertex 1"]
    assert header.decode().splitlines() == first + [f"property float {name}" for name in names]
    row = dict(zip(names, struct.unpack("<62f", body), strict=True))
    sh = np.asarray(one.attributes.sh)[0]
    assert [row[f"f_dc_{i}"] for i in range(3)] == sh[0].tolist()
    assert [row[f"f_rest_{i}"] for i in (0, 14, 15, 44)] == [sh[1, 0], sh[15, 0], sh[1, 1], sh[15, 2]]
    assert row["rot_0"] == one.gaussians.quats[0, 0]
    assert row["opacity"] == one.gaussians.logit_opacities[0]
    assert (row["nx"], row["ny"], row["nz"]) == (0, 0, 0)


def labelled(n: int) -> SplatLabels:
    probabilities = np.random.default_rng(n).dirichlet(np.ones(3), n).astype(np.float32)
    probabilities[0] = 0  # of which nothing is known
    return SplatLabels.likeliest(probabilities, THREE)


def test_labels_are_shown_in_their_classs_colour(tmp_path):
    one, labels = scene(20), labelled(20)
    write_label_ply(tmp_path / "l.ply", one, labels)
    got, _ = read_ply(tmp_path / "l.ply")
    shown = 0.5 + 0.28209479177387814 * np.asarray(got.attributes.sh)
    assert got.attributes.sh.shape == (20, 1, 3)
    np.testing.assert_array_equal(np.round(shown[:, 0] * 255), THREE.colorize(labels.ids[None])[0])
    np.testing.assert_array_equal(got.gaussians.means, one.gaussians.means)


def test_what_splats_are_stays_with_them_bit_by_bit(tmp_path):
    one, labels = scene(9, 3), labelled(9)
    assert labels.ids[0] == IGNORE
    assert {*labels.ids[1:].tolist()} == {0, 1, 2}
    write_ply(tmp_path / "s.ply", one, labels)
    got, back = read_ply(tmp_path / "s.ply")
    assert back.labelset == THREE
    np.testing.assert_array_equal(back.ids, labels.ids)
    np.testing.assert_array_equal(back.probabilities, labels.probabilities)
    np.testing.assert_array_equal(got.attributes.sh, one.attributes.sh)
    header = (tmp_path / "s.ply").read_bytes().partition(b"end_header\n")[0].decode().splitlines()
    # Behind what viewers know, of the same type; some count every property as four bytes.
    assert header[-5:] == [f"property float {name}" for name in ("rot_3", "semantic_id", "prob_0", "prob_1", "prob_2")]
    (comment,) = (line for line in header if line.startswith("comment"))
    assert '"names":["background","skin","hair"]' in comment


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"float prob_1", b"float probe1", "property: wanted semantic_id and the header's classes, got no prob_1"),
        (b'"names":', b'"nemes":', "comment classes: wanted names, colors, mirror, rare"),
        (b"comment classes {", b"comment classes !", "comment classes: wanted names, colors, mirror, rare"),
        (struct.pack("<f", IGNORE), struct.pack("<f", 7.0), r"semantic_id: wanted class ids below 3 or 255, got \[7\]"),
        (struct.pack("<f", IGNORE), struct.pack("<f", 0.5), "semantic_id: wanted whole numbers from 0 to 255"),
    ],
)
def test_labels_that_mean_nothing(tmp_path, old, new, message):
    write_ply(tmp_path / "s.ply", scene(4, 0), labelled(4))
    data = (tmp_path / "s.ply").read_bytes()
    assert old in data
    (tmp_path / "s.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_ply(tmp_path / "s.ply")


def test_labels_of_other_splats_are_refused(tmp_path):
    with pytest.raises(InputError, match="write_ply: labels: wanted 3 splats, as the scene, got 4"):
        write_ply(tmp_path / "s.ply", scene(3), labelled(4))
    with pytest.raises(InputError, match=r"probabilities: wanted shape \(2, 3\) for these ids and classes"):
        SplatLabels(np.zeros(2, np.uint8), np.zeros((2, 4), np.float32), THREE)


def test_only_one_identity_and_finite_numbers_are_written(tmp_path):
    one = scene(2)
    means = one.gaussians.means.at[0, 0].set(np.nan)
    broken = Gaussians(means, one.gaussians.quats, one.gaussians.log_scales, one.gaussians.logit_opacities)
    with pytest.raises(InputError, match="write_ply: scene: wanted finite numbers"):
        write_ply(tmp_path / "s.ply", Scene(broken, one.attributes))
    parts = (one.gaussians.means, one.gaussians.quats, one.gaussians.log_scales, one.gaussians.logit_opacities)
    batch = Gaussians(*(x[None] for x in parts))
    with pytest.raises(InputError, match=r"wanted one identity, got leading axes \(1,\)"):
        write_ply(
            tmp_path / "s.ply", Scene(batch, Attributes(one.attributes.sh[None], one.attributes.label_logits[None]))
        )


def test_properties_may_come_in_another_order_and_with_others(tmp_path):
    write_ply(tmp_path / "s.ply", scene(3, 0))
    header, _, body = (tmp_path / "s.ply").read_bytes().partition(b"end_header\n")
    lines, rows = header.decode().splitlines(), np.frombuffer(body, "<f4").reshape(3, 17)
    order = [*reversed(range(6, 17)), 0, 1, 2]
    text = [*lines[:2], "comment from elsewhere", lines[2], *(lines[3 + i] for i in order), "property float32 extra"]
    data = np.concatenate([rows[:, order], np.ones((3, 1), np.float32)], 1).astype("<f4").tobytes()
    (tmp_path / "t.ply").write_bytes(("\n".join(text) + "\nend_header\n").encode() + data)
    (got, _), wanted = read_ply(tmp_path / "t.ply"), scene(3, 0)
    np.testing.assert_array_equal(got.gaussians.quats, wanted.gaussians.quats)
    np.testing.assert_array_equal(got.attributes.sh, wanted.attributes.sh)


def elsewhere(one: Scene, order: str, line: str, kinds: dict[str, str], more: list[tuple[str, bytes, bool]]) -> bytes:
    """A PLY as other programs write it: byte order, line ends, other types and properties, and other elements.

    `more`: header, numbers, and whether they stand before the vertices.
    """
    types = {"<f4": "float", "f8": "double", "u1": "uchar", "i4": "int"}
    names = ["x", "y", "z", "red", "green", "blue", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9))]
    names += ["flag", "opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    g, sh = one.gaussians, np.asarray(one.attributes.sh)
    columns = {n: np.asarray(g.means)[:, i] for i, n in enumerate("xyz")}
    columns |= {f"f_dc_{i}": sh[:, 0, i] for i in range(3)} | {"opacity": np.asarray(g.logit_opacities)}
    columns |= {f"f_rest_{i}": sh[:, 1 + i % 3, i // 3] for i in range(9)}
    columns |= {f"scale_{i}": np.asarray(g.log_scales)[:, i] for i in range(3)}
    columns |= {f"rot_{i}": np.asarray(g.quats)[:, i] for i in range(4)}
    kinds = dict.fromkeys(("red", "green", "blue"), "u1") | {"flag": "i4"} | kinds
    rows = np.zeros(len(sh), [(name, order + kinds.get(name, "f4")) for name in names])
    for name in names:
        rows[name] = columns.get(name, 200)
    form = {">": "binary_big_endian", "<": "binary_little_endian"}[order]
    vertex = [f"element vertex {len(sh)}"]
    vertex += [f"property {types.get(kinds.get(name, ''), 'float')} {name}" for name in names]
    first, last = ([m for m in more if m[2] == before] for before in (True, False))
    header = ["ply", f"format {form} 1.0", "comment of others", *(m[0] for m in first), *vertex, *(m[0] for m in last)]
    text = line.join("\n".join([*header, "end_header", ""]).split("\n"))
    return text.encode() + b"".join(m[1] for m in first) + rows.tobytes() + b"".join(m[1] for m in last)


CAMERA = ("element camera 2\nproperty float a\nproperty uchar b", bytes(10), True)
FACES = ("element face 2\nproperty list uchar int vertex_indices", b"\x01\0\0\0\0\0", False)
NUMBERS = ("element extra 3\nproperty short s", bytes(6), False)


@pytest.mark.parametrize(
    ("order", "line", "kinds", "more"),
    [
        ("<", "\n", {}, []),
        (">", "\n", {}, []),
        ("<", "\r\n", {}, []),
        ("<", "\n", {"x": "f8", "rot_3": "f8", "opacity": "f8"}, []),
        (">", "\r\n", {"x": "f8"}, [CAMERA, NUMBERS]),
        ("<", "\n", {}, [CAMERA, FACES]),
    ],
)
def test_splats_of_other_programs(tmp_path, order, line, kinds, more):
    """Colours and flags beside the splat's numbers, other elements, either byte order: the same scene, bit by bit."""
    one = scene(4)
    opacities = one.gaussians.logit_opacities.at[:2].set(jnp.array([np.inf, -np.inf]))
    g = Gaussians(one.gaussians.means, one.gaussians.quats, one.gaussians.log_scales, opacities)
    one = Scene(g, one.attributes)
    (tmp_path / "s.ply").write_bytes(elsewhere(one, order, line, kinds, more))
    read, _ = read_ply(tmp_path / "s.ply")
    write_ply(tmp_path / "t.ply", read)
    for got in (read, read_ply(tmp_path / "t.ply")[0]):
        for name in ("means", "quats", "log_scales", "logit_opacities"):
            np.testing.assert_array_equal(getattr(got.gaussians, name), getattr(g, name), err_msg=name)
        np.testing.assert_array_equal(got.attributes.sh, one.attributes.sh)


@pytest.mark.parametrize(
    ("kinds", "value", "message"),
    [
        ({"opacity": "u1"}, 0, "property opacity: wanted float or double, got uint8"),
        ({"x": "f8"}, 1e300, "wanted finite numbers"),
        ({}, np.nan, "wanted finite numbers"),
    ],
)
def test_splats_whose_numbers_mean_nothing(tmp_path, kinds, value, message):
    data = elsewhere(scene(1), "<", "\n", {"opacity": "f4"} | kinds, [])
    start = data.index(b"end_header\n") + len(b"end_header\n")
    first = struct.pack("<d" if "x" in kinds else "<f", value)
    (tmp_path / "s.ply").write_bytes(data[:start] + first + data[start + len(first) :])
    with pytest.raises(InputError, match=message):
        read_ply(tmp_path / "s.ply")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ply\n", b"plx\n", r"s\.ply: wanted a PLY file, got \d+ bytes that begin with b'plx"),
        (b"end_header\n", b"end_header ", "wanted a PLY file"),
        (
            b"binary_little_endian",
            b"ascii",
            "format: wanted binary_little_endian or binary_big_endian 1.0, got format asc",
        ),
        (b"vertex 2", b"vertex 999999999999", r"wanted 999999999999 vertices of 104 bytes"),
        (b"vertex 2", b"vertex -2", "header: wanted an element with a number of rows"),
        (b"vertex 2", b"face 2", "element: wanted one called vertex, got face"),
        (b"element vertex 2\n", b"", "header: wanted .*, got property float x"),
        (b"float opacity", b"real opacity", "header: wanted .* a type of PLY, got property real opacity"),
        (b"float opacity", b"list uchar int opacity", "element vertex: wanted no lists in it"),
        (
            b"element",
            b"element face 1\nproperty list uchar int a\nelement",
            "element face: wanted no lists in it or bef",
        ),
        (b"property float opacity", b"property float x", "property: wanted names that differ, got x twice"),
        (b"opacity", b"capacity", "property: wanted the properties of a splat.*, got no opacity"),
        (b"f_rest_8", b"f_rezt_8", "got 8 f_rest"),
        (b"float rot_3", b"float rot_9", "got no rot_3"),
    ],
)
def test_other_files_are_refused(tmp_path, old, new, message):
    path = tmp_path / "s.ply"
    write_ply(path, scene(2))
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_ply(path)


def test_cut_files_and_numbers_that_are_none(tmp_path):
    path = tmp_path / "s.ply"
    write_ply(path, scene(2))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"s\.ply: wanted 2 vertices of 104 bytes, 208 bytes, got 207 bytes"):
        read_ply(path)
    path.write_bytes(data + b"x")
    with pytest.raises(InputError, match=r"s\.ply: wanted 2 vertices of 104 bytes, 208 bytes, got 209 bytes"):
        read_ply(path)
    path.write_bytes(data[:-4] + struct.pack("<f", np.inf))
    with pytest.raises(InputError, match=r"s\.ply: wanted finite numbers \(.*\), got NaN or infinity"):
        read_ply(path)
    with pytest.raises(InputError, match=r"none\.ply: wanted a readable file"):
        read_ply(tmp_path / "none.ply")


@given(data=st.data())
def test_only_input_errors_escape(tmp_path_factory, data):
    """Bytes of a good file are changed, cut or repeated."""
    path = tmp_path_factory.mktemp("fuzz") / "s.ply"
    write_ply(path, scene(2), labelled(2))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path.write_bytes(bytes(content))
    with contextlib.suppress(InputError):
        assert np.isfinite(read_ply(path)[0].gaussians.means).all()
