"""Numbers and matrices from the fields of other people's JSON, checked."""

import numpy as np

from jsplat.errors import InputError

_ROUNDED = 1.8e-3  # numbers rounded to three decimals change a product of two unit rows by 2 sqrt(3) 5e-4 at most


def number(data: dict, key: str, where: str, default: float | None = None) -> float:
    """A finite number from a JSON object; InputError (`where`: the file) for anything else."""
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise InputError(f"{where}: {key}", wanted="a finite number", got=repr(value)[:80])
    return float(value)


def matrix(value: object, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A finite float64 array of that shape from nested JSON lists; InputError (`where`: file and field) otherwise."""
    size = "x".join(map(str, shape))
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(where, wanted=f"a {size} matrix of numbers", got=error) from error
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(where, wanted=f"a finite {size} matrix", got=str(array.tolist())[:200])
    return array


def rigid(value: object, where: str) -> np.ndarray:
    """A rigid transform `4 4` from nested JSON lists, whose last row may be left out; InputError (`where`: file and
    field) for anything else."""
    if isinstance(value, list) and len(value) == 3:
        value = [*value, [0.0, 0.0, 0.0, 1.0]]
    array = matrix(value, (4, 4), where)
    rotation = array[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROUNDED) and np.linalg.det(rotation) > 0
    if not square or not np.allclose(array[3], [0, 0, 0, 1], atol=1e-6):
        why, hint = _bent(array)
        raise InputError(where, wanted="a rigid transform", got=f"{why}: {array.tolist()}"[:300], hint=hint)
    return array


def _bent(array: np.ndarray) -> tuple[str, str]:
    """Why a matrix is no rigid transform, and what to do, where that can be said."""
    if not np.allclose(array[3], [0, 0, 0, 1], atol=1e-6):
        return "one whose last row is not 0 0 0 1", "transpose it if its last column is"
    rotation = array[:3, :3]
    if not np.abs(rotation).max() < 1e6:
        return "endless numbers", ""
    stretch = np.linalg.svd(rotation, compute_uv=False)
    if np.linalg.det(rotation) <= 0:
        return ("one that mirrors", "swap or negate an axis") if stretch[2] > 1e-3 else ("one without a rotation", "")
    if stretch[0] - stretch[2] < 2e-3 * stretch[0]:
        return f"a rotation scaled by {stretch.mean():.4g}", "divide its 3x3 part by that"
    if np.abs(stretch - 1).max() < 0.02:
        off = np.abs(rotation @ rotation.T - np.eye(3)).max()
        return f"a rotation that is off by {off:.2g}, as after rounding", "write 3 decimals or more"
    return f"one that stretches by {stretch[2]:.4g} to {stretch[0]:.4g}", ""
