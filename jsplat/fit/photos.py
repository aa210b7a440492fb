"""The photographs of a batch of identities, as arrays on the device."""

import zlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jsplat.camera import Camera
from jsplat.capture import Capture
from jsplat.errors import InputError
from jsplat.fit.config import FitConfig
from jsplat.fit.start import scene_sphere
from jsplat.labelset import IGNORE
from jsplat.pytree import pytree


@pytree
class Photos:
    """The pictures of all identities, resident on the device; identities with fewer views are padded.

    Attributes:
        images, labels: sRGB and class ids (IGNORE where there are none).
        valid: False where a photograph says nothing.
        cameras: of each view.
        background: colour in [0, 1] behind each view.
        train: the views to fit, padded by repetition; train_count says how many there are.
        radius: of the scene, world units.
        seed: a number of each identity's own, so that its result does not depend on its neighbours.
    """

    images: UInt8[Array, "b v h w 3"]
    labels: UInt8[Array, "b v h w"]
    valid: Bool[Array, "b v h w"]
    cameras: Camera
    background: Float[Array, "b v 3"]
    train: Int[Array, "b t"]
    train_count: Int[Array, " b"]
    radius: Float[Array, " b"]
    seed: Int[Array, " b"]


def held_out(views: int, every: int) -> np.ndarray:
    """Indices of the views kept from the fit, spread evenly."""
    return np.arange(every // 2, views, every) if every else np.arange(0)


def fitted_views(capture: Capture, config: FitConfig) -> np.ndarray:
    """Indices of the views that are not held out."""
    views = len(capture.images)
    return np.setdiff1d(np.arange(views), held_out(views, config.hold_out))


def backgrounds(capture: Capture) -> Float[np.ndarray, "v 3"]:
    """The colour behind the head in [0, 1]: known, or the median of what the labels call background."""
    if capture.background is not None:
        return np.tile(np.asarray(capture.background, np.float32) / 255, (len(capture.images), 1))
    if capture.labels is None:
        raise InputError(f"capture {capture.identity}", wanted="labels or a known background", got="neither")
    colors = [image[label == 0] for image, label in zip(capture.images, capture.labels)]
    everywhere = np.concatenate(colors)
    if not everywhere.size:
        raise InputError(f"capture {capture.identity}: labels", wanted="some background", got="none in any view")
    return np.stack([np.median(c if len(c) else everywhere, 0) for c in colors]).astype(np.float32) / 255


def stack_photos(captures: list[Capture], config: FitConfig) -> Photos:
    """All captures as one batch.

    Raises:
        InputError: when image sizes differ.
    """
    sizes = {c.images.shape[1:3] for c in captures}
    if len(sizes) != 1:
        raise InputError("fit: captures", wanted="images of one size", got=sorted(sizes))
    views = max(len(c.images) for c in captures)

    def pad(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, np.repeat(x[-1:], views - len(x), 0)])

    kept = [fitted_views(c, config) for c in captures]
    longest = max(map(len, kept))
    blank = [np.full(c.images.shape[:3], IGNORE, np.uint8) if c.labels is None else c.labels for c in captures]
    known = [np.ones(c.images.shape[:3], bool) if c.valid is None else c.valid for c in captures]
    first = captures[0].cameras
    matrices, intrinsics = (
        jnp.asarray(np.stack([pad(np.asarray(getattr(c.cameras, name))) for c in captures]))
        for name in ("camera_from_world", "intrinsics")
    )
    return Photos(
        images=jnp.asarray(np.stack([pad(c.images) for c in captures])),
        labels=jnp.asarray(np.stack([pad(b) for b in blank])),
        valid=jnp.asarray(np.stack([pad(k) for k in known])),
        cameras=Camera(matrices, intrinsics, first.width, first.height),
        background=jnp.asarray(np.stack([pad(backgrounds(c)) for c in captures])),
        train=jnp.asarray(np.stack([np.resize(k, longest) for k in kept])),
        train_count=jnp.asarray([len(k) for k in kept]),
        radius=jnp.asarray([scene_sphere(c.cameras)[1] for c in captures], jnp.float32),
        seed=jnp.asarray([zlib.crc32(c.identity.encode()) & 0x7FFFFFFF for c in captures]),
    )
