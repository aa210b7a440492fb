"""Scenes as binary PLY in the layout of Kerbl et al. 2023 (3D Gaussian Splatting), which splat viewers open.

Per vertex float32: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* (all of red, then green, then blue), opacity (before the
sigmoid), scale_0..2 (logarithms), rot_0..3 (wxyz). Viewers show the world as it is stored; some turn it upside down.

What the splats are comes behind that: semantic_id (a class; exact in float32) and prob_0, prob_1, ... (of every class),
and a comment in the header, `classes` and a JSON object of names, colours and sides. Viewers pass over properties and
comments that they do not know; float32 throughout, for some take every property for one.
"""

import collections
import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jsplat.captures.pictures import AGAIN
from jsplat.errors import InputError
from jsplat.files.atomic import new_file
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.scene import SH_C0, Attributes, Gaussians, Scene

_MOST_HEADER = 1 << 16
_CLASSES = "comment classes "
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SplatLabels:
    """What splats are.

    Attributes:
        ids: class of each; IGNORE where nothing is known.
        probabilities: of every class, in [0, 1].
        labelset: what the ids mean.
    """

    ids: UInt8[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n k"]
    labelset: LabelSet

    def __post_init__(self):
        if self.probabilities.shape != (len(self.ids), len(self.labelset)):
            wanted = f"shape {(len(self.ids), len(self.labelset))} for these ids and classes"
            raise InputError("SplatLabels.probabilities", wanted=wanted, got=self.probabilities.shape)
        self.labelset.check(self.ids, "SplatLabels.ids")

    @staticmethod
    def likeliest(probabilities: Float[np.ndarray, "n k"], labelset: LabelSet) -> "SplatLabels":
        """Labels whose ids are the likeliest classes; IGNORE where all probabilities are 0."""
        ids = np.where(probabilities.any(-1), probabilities.argmax(-1), IGNORE).astype(np.uint8)
        return SplatLabels(ids, np.asarray(probabilities, np.float32), labelset)


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


def _write(path: Path, gaussians: Gaussians, sh: np.ndarray, labels: SplatLabels | None) -> None:
    means = np.asarray(gaussians.means, np.float32)
    if means.ndim != 2:
        raise InputError("write_ply: scene", wanted="one identity", got=f"leading axes {means.shape[:-2]}")
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    columns = [means, np.zeros_like(means), sh[:, 0], rest, np.asarray(gaussians.logit_opacities)[:, None]]
    columns += [np.asarray(gaussians.log_scales), np.asarray(gaussians.quats)]
    names, comments = _properties(rest.shape[1]), ""
    if labels is not None:
        if len(labels.ids) != len(means):
            raise InputError("write_ply: labels", wanted=f"{len(means)} splats, as the scene", got=len(labels.ids))
        columns += [labels.ids[:, None], labels.probabilities]
        names += _label_properties(labels.labelset)
        comments = f"{_CLASSES}{json.dumps(labels.labelset.to_json(), separators=(',', ':'))}\n"
    rows = np.concatenate(columns, 1).astype("<f4")
    _check_finite(rows, np.isin(names, "opacity"), "write_ply: scene")
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\n{comments}element vertex {len(rows)}\n{properties}end_header\n"
    with new_file(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + rows.tobytes())


def _label_properties(labelset: LabelSet) -> list[str]:
    return ["semantic_id", *(f"prob_{i}" for i in range(len(labelset)))]


def write_ply(path: Path, scene: Scene, labels: SplatLabels | None = None) -> None:
    """Writes one scene (no leading axes) in its colours into a new file, and what its splats are if that is given.

    Raises:
        InputError: a file that is there, more than one identity, labels of another number of splats, or numbers that
            are not finite (opacities may be infinite).
    """
    _write(path, scene.gaussians, np.asarray(scene.attributes.sh, np.float32), labels)


def write_label_ply(path: Path, scene: Scene, labels: SplatLabels) -> None:
    """`write_ply` in the colour of each splat's class; mixtures would look like third classes."""
    colors = labels.labelset.colorize(labels.ids[None])[0].astype(np.float32) / 255
    _write(path, scene.gaussians, ((colors - 0.5) / SH_C0).astype(np.float32)[..., None, :], labels)


@dataclasses.dataclass
class _Element:
    """One element of a header: how many rows, the numbers of a row; `lists` if rows have no fixed size."""

    name: str
    count: int
    numbers: list[tuple[str, str]]
    lists: bool = False


def _header(data: bytes, where: str) -> tuple[list[_Element], int, LabelSet | None]:
    """Elements in the order in which they are stored, where the numbers begin, and the classes that a comment names."""
    line = b"\r\n" if data.startswith(b"ply\r\n") else b"\n"
    end = data[:_MOST_HEADER].find(line + b"end_header" + line)
    if not data.startswith(b"ply" + line) or end < 0:
        raise InputError(where, wanted="a PLY file", got=f"{len(data)} bytes that begin with {data[:8]!r}")
    text = data[:end].decode("ascii", "replace").splitlines()[1:]
    classes = [comment.removeprefix(_CLASSES) for comment in text if comment.startswith(_CLASSES)]
    lines = [words.split() for words in text]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    form = lines[0] if lines else []
    if len(form) != 3 or form[0] != "format" or form[1] not in _ORDERS or form[2] != "1.0":
        wanted, hint = f"{' or '.join(_ORDERS)} 1.0", "save it as binary PLY"
        raise InputError(f"{where}: format", wanted=wanted, got=" ".join(form)[:100], hint=hint)
    elements: list[_Element] = []
    for words in lines[1:]:
        kind, text = words[0], " ".join(words)[:100]
        if kind == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) <= 12:
            elements.append(_Element(words[1], int(words[2]), []))
        elif kind == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].numbers.append((words[2], _ORDERS[form[1]] + _TYPES[words[1]]))
        elif kind == "property" and elements and len(words) == 5 and words[1] == "list":
            elements[-1].lists = True
        else:
            wanted = "an element with a number of rows, or a property of an element with a type of PLY"
            raise InputError(f"{where}: header", wanted=wanted, got=text)
    return elements, end + len(line + b"end_header" + line), _classes(classes, where)


def _classes(comments: list[str], where: str) -> LabelSet | None:
    try:
        return LabelSet.from_json(json.loads(comments[0])) if comments else None
    except (ValueError, TypeError, RecursionError) as error:  # an InputError is a ValueError
        raise InputError(f"{where}: comment classes", wanted="names, colors, mirror, rare", got=error) from error


def _vertices(data: bytes, where: str) -> tuple[np.ndarray, LabelSet | None]:
    """The rows of the one element "vertex", as records, and the classes that a comment names."""
    elements, start, labelset = _header(data, where)
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
        raise InputError(where, wanted=f"{what}, {wanted} bytes", got=f"{got} bytes", hint=AGAIN)
    return np.frombuffer(data[first : first + vertex.count * row.itemsize], row), labelset


def read_ply(path: Path) -> tuple[Scene, SplatLabels | None]:
    """Reads a splat PLY, binary of either byte order; normals, colours and what else it holds are passed over.

    An opacity may be infinite before the sigmoid: such a splat is quite opaque (or not there).

    Returns:
        the scene, bit for bit what `write_ply` got, without `label_logits` (of width 0); and what its splats are, None
        where the header names no classes.

    Raises:
        InputError: another kind of PLY, a property missing or of whole numbers, numbers missing or not finite, or ids
            that are no class of the header's.
    """
    where = path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(where, wanted="a readable file", got=error) from error
    rows, labelset = _vertices(data, where)
    names = rows.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = [p for p in _properties(rest) if p not in names and p not in ("nx", "ny", "nz")]
    if missing or rest not in (0, 9, 24, 45):
        wanted = "the properties of a splat, f_rest 0, 9, 24 or 45"
        got = f"no {missing[0]}" if missing else f"{rest} f_rest"
        hint = "a plain point cloud or mesh is none: export Gaussians as .ply" if missing else ""
        raise InputError(f"{where}: property", wanted=wanted, got=got, hint=hint)

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
    scene = Scene(gaussians, Attributes(jnp.concatenate([base, more], 1), jnp.zeros((n, 0), jnp.float32)))
    if labelset is None:
        return scene, None
    if absent := [name for name in _label_properties(labelset) if name not in names]:
        raise InputError(f"{where}: property", wanted="semantic_id and the header's classes", got=f"no {absent[0]}")
    ids, *of_class = _label_properties(labelset)
    given, probabilities = np.asarray(columns(ids))[:, 0], np.asarray(columns(*of_class))
    if ((given != given.round()) | (given < 0) | (given > IGNORE)).any():
        raise InputError(f"{where}: property semantic_id", wanted="whole numbers from 0 to 255", got="others")
    try:
        return scene, SplatLabels(given.astype(np.uint8), probabilities, labelset)
    except InputError as error:
        raise InputError(f"{where}: property semantic_id", wanted=error.wanted, got=error.got) from error
