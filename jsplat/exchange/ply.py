"""Scenes as binary PLY in the layout of Kerbl et al. 2023 (3D Gaussian Splatting), which splat viewers open.

Per vertex float32: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* (all of red, then green, then blue), opacity (before the
sigmoid), scale_0..2 (logarithms), rot_0..3 (wxyz). Viewers show the world as it is stored; some turn it upside down.
"""

import collections
import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jsplat.errors import InputError
from jsplat.files.atomic import new_file
from jsplat.labelsets.labelset import LabelSet
from jsplat.raster.scene import SH_C0, Attributes, Gaussians, Scene

_MOST_HEADER = 1 << 16
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def _properties(rest: int) -> list[str]:
    first = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    shape = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return first + [f"f_rest_{i}" for i in range(rest)] + shape


def _check_finite(
    values: Float[np.ndarray, "n columns"], may_be_infinite: Bool[np.ndarray, " columns"], where: str
) -> None:
    odd = np.isnan(values) | (np.isinf(values) & ~may_be_infinite)
    if odd.any():
        raise InputError(where, wanted="finite numbers (opacities may be infinite)", got="NaN or infinity")


def _write(path: Path, gaussians: Gaussians, sh: np.ndarray) -> None:
    means = np.asarray(gaussians.means, np.float32)
    if means.ndim != 2:
        raise InputError("write_ply: scene", wanted="one identity", got=f"leading axes {means.shape[:-2]}")
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    columns = [means, np.zeros_like(means), sh[:, 0], rest, np.asarray(gaussians.logit_opacities)[:, None]]
    columns += [np.asarray(gaussians.log_scales), np.asarray(gaussians.quats)]
    rows = np.concatenate(columns, 1).astype("<f4")
    names = _properties(rest.shape[1])
    _check_finite(rows, np.isin(names, "opacity"), "write_ply: scene")
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    with new_file(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + rows.tobytes())


def write_ply(path: Path, scene: Scene) -> None:
    """Writes the RGB of one scene (no leading axes) into a new file.

    Raises:
        InputError: a file that is there, more than one identity, or numbers that are not finite (opacities may be
            infinite).
    """
    _write(path, scene.gaussians, np.asarray(scene.attributes.sh, np.float32))


def write_label_ply(path: Path, scene: Scene, labelset: LabelSet) -> None:
    """`write_ply` in the colour of each Gaussian's likeliest class; mixtures would look like third classes."""
    k = scene.attributes.label_logits.shape[-1]
    if k != len(labelset):
        raise InputError("write_label_ply: labelset", wanted=f"{k} classes, as the scene", got=len(labelset))
    best = np.asarray(scene.attributes.label_logits).argmax(-1)
    colors = np.asarray(labelset.colors, np.float32)[best] / 255
    _write(path, scene.gaussians, ((colors - 0.5) / SH_C0).astype(np.float32)[..., None, :])


@dataclasses.dataclass
class _Element:
    """One element of a header: how many rows, the numbers of a row; `lists` if rows have no fixed size."""

    name: str
    count: int
    numbers: list[tuple[str, str]]
    lists: bool = False


def _header(data: bytes, where: str) -> tuple[list[_Element], int]:
    """Elements in the order in which they are stored, and where the numbers begin."""
    line = b"\r\n" if data.startswith(b"ply\r\n") else b"\n"
    end = data[:_MOST_HEADER].find(line + b"end_header" + line)
    if not data.startswith(b"ply" + line) or end < 0:
        raise InputError(where, wanted="a PLY file", got=f"{len(data)} bytes that begin with {data[:8]!r}")
    lines = [words.split() for words in data[:end].decode("ascii", "replace").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    form = lines[0] if lines else []
    if len(form) != 3 or form[0] != "format" or form[1] not in _ORDERS or form[2] != "1.0":
        raise InputError(f"{where}: format", wanted=f"{' or '.join(_ORDERS)} 1.0", got=" ".join(form)[:100])
    elements: list[_Element] = []
    for words in lines[1:]:
        kind, said = words[0], " ".join(words)[:100]
        if kind == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) <= 12:
            elements.append(_Element(words[1], int(words[2]), []))
        elif kind == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].numbers.append((words[2], _ORDERS[form[1]] + _TYPES[words[1]]))
        elif kind == "property" and elements and len(words) == 5 and words[1] == "list":
            elements[-1].lists = True
        else:
            wanted = "an element with a number of rows, or a property of an element with a type of PLY"
            raise InputError(f"{where}: header", wanted=wanted, got=said)
    return elements, end + len(line + b"end_header" + line)


def _vertices(data: bytes, where: str) -> np.ndarray:
    """The rows of the one element "vertex", as records."""
    elements, start = _header(data, where)
    names = [element.name for element in elements]
    if names.count("vertex") != 1:
        raise InputError(f"{where}: element", wanted="one called vertex", got=", ".join(names)[:100] or "none")
    before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
    lists = [element.name for element in [*before, vertex] if element.lists]
    if lists:
        raise InputError(f"{where}: element {lists[0][:80]}", wanted="no lists in it or before vertices", got="a list")
    twice = [n for n, times in collections.Counter(n for n, _ in vertex.numbers).items() if times > 1]
    if twice:
        raise InputError(f"{where}: property", wanted="names that differ", got=f"{twice[0][:80]} twice")
    sizes = [e.count * sum(np.dtype(kind).itemsize for _, kind in e.numbers) for e in elements]
    row, first = np.dtype(vertex.numbers), start + sum(sizes[: len(before)])
    wanted, got = sum(sizes), len(data) - start
    if got < wanted or (got > wanted and not any(e.lists for e in elements)):
        what = f"{vertex.count} vertices of {row.itemsize} bytes" + (" and other elements" if len(names) > 1 else "")
        raise InputError(where, wanted=f"{what}, {wanted} bytes", got=f"{got} bytes")
    return np.frombuffer(data[first : first + vertex.count * row.itemsize], row)


def read_ply(path: Path) -> Scene:
    """Reads a splat PLY, binary of either byte order; normals, colours and what else it holds are passed over.

    An opacity may be infinite before the sigmoid: such a splat is quite opaque (or not there).

    Returns:
        the scene, bit for bit what `write_ply` got; it has no classes (`label_logits` of width 0).

    Raises:
        InputError: another kind of PLY, a property missing or of whole numbers, numbers missing or not finite.
    """
    where = path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(where, wanted="a readable file", got=error.strerror) from error
    rows = _vertices(data, where)
    names = rows.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = [p for p in _properties(rest) if p not in names and p not in ("nx", "ny", "nz")]
    if missing or rest not in (0, 9, 24, 45):
        wanted = "the properties of a splat, f_rest 0, 9, 24 or 45"
        raise InputError(f"{where}: property", wanted=wanted, got=f"no {missing[0]}" if missing else f"{rest} f_rest")

    def columns(*wanted: str) -> jnp.ndarray:
        whole = [name for name in wanted if rows.dtype[name].kind != "f"]
        if whole:
            raise InputError(f"{where}: property {whole[0]}", wanted="float or double", got=rows.dtype[whole[0]].name)
        with np.errstate(over="ignore"):
            values = np.stack([rows[name].astype(np.float32) for name in wanted], -1) if wanted else np.zeros((n, 0))
        _check_finite(values, np.isin(wanted, "opacity"), where)
        return jnp.asarray(values, jnp.float32)

    n = len(rows)
    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    more = columns(*[f"f_rest_{i}" for i in range(rest)]).reshape(n, 3, rest // 3).transpose(0, 2, 1)
    gaussians = Gaussians(
        columns("x", "y", "z"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("scale_0", "scale_1", "scale_2"),
        columns("opacity")[:, 0],
    )
    return Scene(gaussians, Attributes(jnp.concatenate([base, more], 1), jnp.zeros((n, 0), jnp.float32)))
