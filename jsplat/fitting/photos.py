"""The photographs of a batch of identities, as arrays on the device."""

import zlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jsplat.captures.capture import Capture
from jsplat.errors import InputError
from jsplat.fitting.config import FitConfig
from jsplat.fitting.start import LABELS_OR_BACKGROUND, scene_sphere
from jsplat.labelsets.labelset import IGNORE
from jsplat.raster.camera import Camera
from jsplat.raster.pytree import pytree

EDGE = 16  # pixels


@pytree
class Photos:
    """The pictures of a batch of identities, resident on the devices; fewer views and smaller pictures are padded.

    Attributes:
        images, labels: sRGB and class ids (IGNORE where there are none).
        valid: False where a photograph says nothing, and in the padding.
        cameras: of each view.
        background: colour in [0, 1] behind each view.
        train: the views to fit, padded by repetition; train_count says how many there are.
        radius: of the scene, world units.
        seed: a number of each identity's own, so that its result does not depend on its neighbours.
    """

    images: UInt8[Array | np.ndarray, "*b v h w 3"]
    labels: UInt8[Array | np.ndarray, "*b v h w"]
    valid: Bool[Array | np.ndarray, "*b v h w"]
    cameras: Camera
    background: Float[Array, "*b v 3"]
    train: Int[Array, "*b v"]
    train_count: Int[Array, "*b"]
    radius: Float[Array, "*b"]
    seed: Int[Array, "*b"]


def held_out(views: int, every: int) -> np.ndarray:
    """Indices of the views kept from the fit, spread evenly."""
    return np.arange(every // 2, views, every) if every else np.arange(0)


def fitted_views(capture: Capture, config: FitConfig) -> np.ndarray:
    """Indices of the views that are not held out."""
    views = len(capture.images)
    return np.setdiff1d(np.arange(views), held_out(views, config.hold_out))


def number_of(identity: str) -> int:
    """A number of 31 bits that a name always has."""
    return zlib.crc32(identity.encode()) & 0x7FFFFFFF


def backgrounds(capture: Capture) -> Float[np.ndarray, "v 3"]:
    """The colour behind the head in [0, 1]: known, or the median of what the labels call background."""
    if capture.background is not None:
        return np.tile(np.asarray(capture.background, np.float32) / 255, (len(capture.images), 1))
    if capture.labels is None:
        what = f"capture {capture.identity}"
        raise InputError(what, wanted="labels or a known background", got="neither", hint=LABELS_OR_BACKGROUND)
    colors = [image[label == 0] for image, label in zip(capture.images, capture.labels)]
    everywhere = np.concatenate(colors)
    if not everywhere.size:
        what, hint = f"capture {capture.identity}: labels", "`background` in transforms.json says its colour"
        raise InputError(what, wanted="some background", got="none in any view", hint=hint)
    return np.stack([np.median(c if len(c) else everywhere, 0) for c in colors]).astype(np.float32) / 255


def bucket(views: int) -> int:
    """So many views have room in the arrays: the next of 8, 12, 16, 24, 32, 48, ...

    Few shapes serve captures of any number of views, and at most a third is padding.
    """
    size = 8
    while size < views:
        size *= 2
    return size * 3 // 4 if size > 8 and views <= size * 3 // 4 else size


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Pictures are filled up to multiples of `EDGE` pixels that say nothing, for the same reason."""
    return -(-height // EDGE) * EDGE, -(-width // EDGE) * EDGE


def photos_of(capture: Capture, config: FitConfig, seed: int) -> Photos:
    """One capture's row of a batch, without the leading axis; the pictures stay on the host.

    Raises:
        InputError: the colour behind the head is not known, or the cameras do not look at it.
    """
    views = len(capture.images)
    height, width = padded_size(*capture.images.shape[1:3])
    padded = bucket(views)

    def fill(x: Array | np.ndarray, *, edges: int | None = None) -> np.ndarray:
        """More views, by repetition, and more pixels, which hold `edges`."""
        x = np.asarray(x)
        x = np.concatenate([x, np.repeat(x[-1:], padded - views, 0)])
        if edges is None:
            return x
        pad = [(0, 0), (0, height - x.shape[1]), (0, width - x.shape[2])] + [(0, 0)] * (x.ndim - 3)
        return np.pad(x, pad, constant_values=edges)

    kept, shape = fitted_views(capture, config), capture.images.shape[:3]
    labels = np.full(shape, IGNORE, np.uint8) if capture.labels is None else capture.labels
    valid = np.ones(shape, bool) if capture.valid is None else capture.valid
    matrices, intrinsics = capture.cameras.camera_from_world, capture.cameras.intrinsics
    return Photos(
        images=fill(capture.images, edges=0),
        labels=fill(labels, edges=IGNORE),
        valid=fill(valid, edges=False),
        cameras=Camera(jnp.asarray(fill(matrices)), jnp.asarray(fill(intrinsics)), width, height),
        background=jnp.asarray(fill(backgrounds(capture))),
        train=jnp.asarray(np.resize(kept, padded), jnp.int32),
        train_count=jnp.asarray(len(kept), jnp.int32),
        radius=jnp.asarray(scene_sphere(capture.cameras)[1], jnp.float32),
        seed=jnp.asarray(number_of(capture.identity) ^ seed, jnp.int32),
    )
