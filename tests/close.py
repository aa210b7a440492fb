"""Tolerances of the tests with their reasons, and the checks that use them (themselves tested in test_close.py)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

IMAGE = 1e-4
IMAGE_WHY = "colours in [0, 1], float32: some thousand roundings of 6e-8, and exp(-power) carries power's own 1e-6"
GRADIENT = 5e-3
GRADIENT_WHY = "float32 sums over all pixels of terms that largely cancel; a wrong term shows as 1e-1"
COSINE = 0.9999
COSINE_WHY = "an angle below 0.8 degrees: a missing term turns the gradient, rounding does not"
MISSING = 0.0
MISSING_WHY = "a Gaussian without any gradient is a dropped tile or block, never rounding"
BAND_SHARE = 0.02
BAND_SHARE_WHY = "cutoffs are met by chance; a band that covers more would hide a wrong image"
BAND = 1.0 / 255.0 + IMAGE
BAND_WHY = "at a cutoff one contribution comes or goes, and at the alpha floor it weighs 1/255 of a colour in [0, 1]"
DIFFERENCE_STEP = 1e-5
DIFFERENCE = 1e-6
DIFFERENCE_WHY = (
    "central differences in float64: truncation step^2 = 1e-10 and rounding 1e-16/step = 1e-11, times curvature"
)


def assert_close(got: Any, want: Any, tolerance: float, why: str, *, relative: bool = False) -> None:
    """Same shapes, nothing non-finite, and no entry further off than `tolerance`.

    Args:
        got, want: arrays, or pytrees of arrays with one structure.
        tolerance: absolute; 0 asks for the same values.
        why: where a deviation of that size may come from; part of the message.
        relative: `tolerance` is a share of the largest magnitude in each array of `want`.
    """
    for name, a, b in _pairs(got, want):
        assert np.isfinite(a).all(), f"{name}: {np.count_nonzero(~np.isfinite(a))} entries are not finite"
        assert np.isfinite(b).all(), f"{name}: the wanted array is not finite"
        allowed = tolerance * np.abs(b).max(initial=0.0) if relative else tolerance
        off = np.abs(a - b)
        if off.max(initial=0.0) > allowed:
            at = tuple(int(i) for i in np.unravel_index(off.argmax(), off.shape))
            raise AssertionError(
                f"{name}: off by {off[at]:.3g} at {at} (got {a[at]:.8g}, want {b[at]:.8g}), "
                f"{np.mean(off > allowed):.2%} of the entries beyond {allowed:.3g} ({why})"
            )


def near(values: Any, cutoff: float, width: float) -> np.ndarray:
    """The pixels where rounding may decide on which side of a cutoff a contribution falls.

    Args:
        values: `... m`, for each pixel the m quantities that are compared with the cutoff.
        cutoff: > 0.
        width: relative half width of the band around it.

    Returns:
        bool `...`.
    """
    return np.any(np.abs(np.asarray(values, np.float64) / cutoff - 1) < width, -1)


def assert_image_close(
    got: Any,
    want: Any,
    band: np.ndarray,
    *,
    tolerance: float = IMAGE,
    inside: float = BAND,
    fraction: float = BAND_SHARE,
) -> None:
    """Images agree tightly outside a band of pixels near a cutoff, loosely inside it, and the band is small.

    Args:
        got, want: `*b h w c`.
        band: bool `*b h w`, from the wanted image's own quantities (see `near`).
        tolerance, inside: absolute, outside and inside the band.
        fraction: the part of all pixels that the band may cover.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"image: shape {got.shape}, want {want.shape}"
    assert band.shape == want.shape[:-1], f"band: shape {band.shape}, want {want.shape[:-1]}"
    covered = float(np.mean(band))
    assert covered <= fraction, f"band: covers {covered:.2%} of the pixels, at most {fraction:.2%} ({BAND_SHARE_WHY})"
    outside = ~band[..., None]
    assert_close(np.where(outside, got, 0), np.where(outside, want, 0), tolerance, f"outside the band; {IMAGE_WHY}")
    assert_close(np.where(outside, 0, got), np.where(outside, 0, want), inside, f"inside the band; {BAND_WHY}")


def missing_fraction(got: Any, want: Any) -> float:
    """The share of rows (leading axis: Gaussians) that are all zero in one gradient and not in the other."""
    got, want = (np.any(np.asarray(x).reshape(len(x), -1) != 0, -1) for x in (got, want))
    return float(np.mean(got != want))


def cosine(got: Any, want: Any) -> float:
    """Cosine of the angle between two arrays seen as one vector each; 1 when both are zero, 0 when one is."""
    a, b = np.ravel(np.asarray(got, np.float64)), np.ravel(np.asarray(want, np.float64))
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else float(not a.any() and not b.any())


def relative_error(got: Any, want: Any) -> float:
    """Norm of the difference over the norm of what is wanted; infinite when only the latter is zero."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    off, length = np.linalg.norm(got - want), np.linalg.norm(want)
    return float(off / length) if length else (float("inf") if off else 0.0)


def assert_gradient_close(
    got: Any,
    want: Any,
    *,
    error: float = GRADIENT,
    angle: float = COSINE,
    missing: float = MISSING,
) -> None:
    """Per array: the rows that get a gradient are the same, its direction is right, and so is the whole of it.

    Args:
        got, want: gradients, pytrees of arrays with Gaussians first; at least one entry of each wanted array is not 0.
        error: bound of `relative_error`.
        angle: least `cosine`; binds where a caller has a reason for a larger `error`.
        missing: bound of `missing_share`.
    """
    for name, a, b in _pairs(got, want):
        assert b.any(), f"{name}: the wanted gradient is zero everywhere, which tests nothing"
        assert np.isfinite(a).all(), f"{name}: {np.count_nonzero(~np.isfinite(a))} entries are not finite"
        gone, aligned, off = missing_fraction(a, b), cosine(a, b), relative_error(a, b)
        measured = f"missing {gone:.3%}, cosine {aligned:.6f}, relative error {off:.3g}"
        assert gone <= missing, f"{name}: {measured}; missing at most {missing:.3%} ({MISSING_WHY})"
        assert aligned >= angle, f"{name}: {measured}; cosine at least {angle} ({COSINE_WHY})"
        assert off <= error, f"{name}: {measured}; relative error at most {error} ({GRADIENT_WHY})"


def assert_finite_differences(
    function: Callable[..., Any],
    *args: Any,
    directions: int = 3,
    step: float = DIFFERENCE_STEP,
    tolerance: float = DIFFERENCE,
    seed: int = 0,
) -> None:
    """The autodiff of a scalar function agrees with central differences in float64, along random directions.

    Every array is moved on its own, so that a large gradient cannot hide a small one. The caller keeps the arguments
    away from cutoffs.

    Args:
        function: of pytrees of floating arrays, to a scalar; must compute in its arguments' precision.
        directions: unit directions per array.
        step: length of half the difference.
        tolerance: relative to what a gradient of this norm gives along a random direction.
    """
    random = np.random.default_rng(seed)
    with jax.enable_x64(True):
        leaves, structure = jax.tree.flatten(args)
        leaves = [np.asarray(leaf, np.float64) for leaf in leaves]

        def at(*changed):
            return function(*jax.tree.unflatten(structure, changed))

        value, gradients = jax.jit(jax.value_and_grad(at, argnums=tuple(range(len(leaves)))))(*leaves)
        assert value.dtype == np.float64, f"the function computes in {value.dtype}, want float64"
        run = jax.jit(at)
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(args)]
        for i, (name, leaf, gradient) in enumerate(zip(names, leaves, gradients)):
            gradient = np.asarray(gradient)
            scale = np.linalg.norm(gradient) / np.sqrt(leaf.size)
            rounding = 100 * np.finfo(np.float64).eps * abs(float(value)) / step
            for _ in range(directions):
                direction = random.standard_normal(leaf.shape)
                direction /= np.linalg.norm(direction)
                ends = [run(*leaves[:i], leaf + sign * step * direction, *leaves[i + 1 :]) for sign in (1, -1)]
                want = float(ends[0] - ends[1]) / (2 * step)
                got = float(np.sum(gradient * direction))
                assert abs(got - want) <= tolerance * scale + rounding, (
                    f"{name}: autodiff {got:.10g}, differences {want:.10g}; allowed {tolerance} of {scale:.3g} "
                    f"({DIFFERENCE_WHY})"
                )


def _pairs(got: Any, want: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, got, want) in float64 for each array of two pytrees with one structure and equal shapes."""
    have, wish = jax.tree_util.tree_leaves_with_path(got), jax.tree_util.tree_leaves_with_path(want)
    names = [jax.tree_util.keystr(path) or "array" for path, _ in wish]
    assert [p for p, _ in have] == [p for p, _ in wish], (
        f"got {[jax.tree_util.keystr(p) for p, _ in have]}, want {names}"
    )
    pairs = []
    for name, (_, a), (_, b) in zip(names, have, wish):
        assert np.shape(a) == np.shape(b), f"{name}: shape {np.shape(a)}, want {np.shape(b)}"
        pairs.append((name, np.asarray(a, np.float64), np.asarray(b, np.float64)))
    return pairs
