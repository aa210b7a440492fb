"""Scenes as binary PLY in the layout of Kerbl et al. 2023 (3D Gaussian Splatting), which splat viewers open.

Per vertex float32: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* (all of red, then green, then blue), opacity (before the
sigmoid), scale_0..2 (logarithms), rot_0..3 (wxyz). Viewers show the world as it is stored; some turn it upside down.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jsplat.errors import InputError
from jsplat.folder import write_bytes
from jsplat.labelset import LabelSet
from jsplat.scene import SH_C0, Attributes, Gaussians, Scene

_MOST_HEADER = 1 << 16


def _properties(rest: int) -> list[str]:
    first = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    shape = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return first + [f"f_rest_{i}" for i in range(rest)] + shape


def _write(path: Path, gaussians: Gaussians, sh: np.ndarray) -> None:
    means = np.asarray(gaussians.means, np.float32)
    if means.ndim != 2:
        raise InputError("write_ply: scene", wanted="one identity", got=f"leading axes {means.shape[:-2]}")
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    columns = [means, np.zeros_like(means), sh[:, 0], rest, np.asarray(gaussians.logit_opacities)[:, None]]
    columns += [np.asarray(gaussians.log_scales), np.asarray(gaussians.quats)]
    rows = np.concatenate(columns, 1).astype("<f4")
    if not np.isfinite(rows).all():
        raise InputError("write_ply: scene", wanted="finite numbers", got="NaN or infinity")
    properties = "".join(f"property float {name}\n" for name in _properties(rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    write_bytes(path, header.encode("ascii") + rows.tobytes())


def write_ply(path: Path, scene: Scene) -> None:
    """Writes the RGB of one scene (no leading axes).

    Raises:
        InputError: more than one identity, or numbers that are not finite.
    """
    _write(path, scene.gaussians, np.asarray(scene.attributes.sh, np.float32))


def write_label_ply(path: Path, scene: Scene, labelset: LabelSet) -> None:
    """Writes one scene in the colour of each Gaussian's likeliest class; mixtures would look like third classes."""
    k = scene.attributes.label_logits.shape[-1]
    if k != len(labelset):
        raise InputError("write_label_ply: labelset", wanted=f"{k} classes, as the scene", got=len(labelset))
    best = np.asarray(scene.attributes.label_logits).argmax(-1)
    colors = np.asarray(labelset.colors, np.float32)[best] / 255
    _write(path, scene.gaussians, ((colors - 0.5) / SH_C0).astype(np.float32)[..., None, :])


def _header(data: bytes, where: str) -> tuple[int, list[str], int]:
    """Number of vertices, properties, and where the numbers begin."""
    end = data[:_MOST_HEADER].find(b"end_header\n")
    if not data.startswith(b"ply\n") or end < 0:
        raise InputError(where, wanted="a PLY file", got=f"{len(data)} bytes that begin with {data[:8]!r}")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    first, element, properties = lines[:1], lines[1:2], lines[2:]
    if first != [["format", "binary_little_endian", "1.0"]]:
        raise InputError(f"{where}: format", wanted="binary_little_endian 1.0", got=first)
    count = element[0][2] if element and len(element[0]) == 3 and element[0][:2] == ["element", "vertex"] else ""
    if not count.isdecimal() or len(count) > 12:
        raise InputError(f"{where}: element", wanted="vertex and their number", got=element)
    odd = [p for p in properties if len(p) != 3 or p[0] != "property" or p[1] not in ("float", "float32")]
    names = [p[-1] for p in properties]
    if odd or len(set(names)) < len(names):
        got = " ".join(odd[0]) if odd else "a name twice"
        raise InputError(f"{where}: property", wanted="float properties of vertices only", got=got)
    return int(count), names, end + len(b"end_header\n")


def read_ply(path: Path) -> Scene:
    """Reads a splat PLY of float properties in any order; normals and what else it holds are passed over.

    Returns:
        the scene, bit for bit what `write_ply` got; it has no classes (`label_logits` of width 0).

    Raises:
        InputError: another kind of PLY, a property missing, numbers missing or not finite.
    """
    where = path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(where, wanted="a readable file", got=error.strerror) from error
    n, names, start = _header(data, where)
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = [p for p in _properties(rest) if p not in names and p not in ("nx", "ny", "nz")]
    if missing or rest not in (0, 9, 24, 45):
        wanted = "the properties of a splat, f_rest 0, 9, 24 or 45"
        raise InputError(f"{where}: property", wanted=wanted, got=f"no {missing[0]}" if missing else f"{rest} f_rest")
    if len(data) - start != n * 4 * len(names):
        got = f"{len(data) - start} bytes"
        raise InputError(where, wanted=f"{n} vertices of {len(names)} numbers, {n * 4 * len(names)} bytes", got=got)
    rows = np.frombuffer(data, "<f4", offset=start).reshape(n, len(names))
    if not np.isfinite(rows).all():
        raise InputError(where, wanted="finite numbers", got="NaN or infinity")

    def columns(*wanted: str) -> jnp.ndarray:
        return jnp.asarray(rows[:, [names.index(name) for name in wanted]])

    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    more = columns(*[f"f_rest_{i}" for i in range(rest)]).reshape(n, 3, rest // 3).transpose(0, 2, 1)
    gaussians = Gaussians(
        columns("x", "y", "z"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("scale_0", "scale_1", "scale_2"),
        columns("opacity")[:, 0],
    )
    return Scene(gaussians, Attributes(jnp.concatenate([base, more], 1), jnp.zeros((n, 0), jnp.float32)))
