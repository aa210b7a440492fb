"""The stages `masks` and `overlays`: masks of every original picture, under its name, and what they look like on it."""

import concurrent.futures
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.captures.own_pixels import OwnPixels, own_pixels
from jsplat.edit import UNTOUCHED, edits_on_disk
from jsplat.errors import InputError, Stopped
from jsplat.exchange import indexed
from jsplat.files.atomic import write_bytes
from jsplat.files.foreign import some_of
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels import MaskConfig
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.own_pixels import Painted, is_label_grid, on_label_grid, own_mask
from jsplat.pipeline.stages.identities import wait_for_all_hosts
from jsplat.pipeline.work_folder import leaving_out
from jsplat.raster.camera import Camera
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Scene
from jsplat.report.gallery import overlay
from jsplat.runtime.devices import cores, shard_of_host
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP

AT_ONCE = 4  # pictures in work: each takes memory in its own size
_ROWS = 256  # of an overlay at a time: it is blended in floating point
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


def write_own_masks(
    listed: list[Listed],
    fitted: Path,
    known: Callable[[str], dict[str, np.ndarray]],
    drawn: Callable[[str], dict[int, np.ndarray]],
    labelset: LabelSet,
    config: RunConfig,
    folder: Path,
) -> None:
    """IDENTITY/NAME.png of every original picture: an indexed PNG with the names and colours of the classes.

    Args:
        known: what the label stage knows of an identity, with what people corrected.
        drawn: what people drew on it, by view, on the grid of the label stage.
    """
    scenes, mine = saved_scenes(fitted), shard_of_host(listed)
    progress = Progress("masks in own pixels", sum(one.shape[0] for one in mine))
    for one in mine:
        with leaving_out(folder, one.identity):
            capture, own = one.unlabelled().read(), own_pixels(one.path)
            scene = scene_in(scenes, one.identity)
            head = OwnMasks(capture, known(one.identity), scene, labelset, config.mask)
            head.write_all(folder / one.identity, own, drawn(one.identity), progress)
    wait_for_all_hosts("masks", listed, folder)


class OwnMasks:
    """Masks of one head in its own pixels.

    Args:
        known: what the label stage knows of it, with what people corrected.
    """

    def __init__(
        self, capture: Capture, known: dict[str, np.ndarray], scene: Scene, labelset: LabelSet, config: MaskConfig
    ):
        self._cameras, self._refined, self._shared = capture.cameras, known["refined"], SharedCapacity()
        probabilities, focal = (
            jnp.asarray(known["rows_refined"], jnp.float32),
            float(capture.cameras.intrinsics[0, 0, 0]),
        )
        self._painted = Painted(scene.gaussians, probabilities, focal, labelset, config)

    def write_all(self, folder: Path, own: list[OwnPixels], layers: dict[int, np.ndarray], progress: Progress) -> None:
        """NAME.png of all views that have none yet, several at a time; `layers`: what people drew, by view."""

        def write(view: int) -> None:
            if STOP.is_set():
                raise Stopped(f"stopped at the masks of {folder.name}")
            path = folder / f"{own[view].name}.png"
            if not path.is_file():
                self.write(path, view, own[view], layers.get(view))

        with concurrent.futures.ThreadPoolExecutor(min(cores(), AT_ONCE)) as pool:
            for _ in pool.map(write, range(len(own))):
                progress.advance()

    def write(self, path: Path, view: int, own: OwnPixels, drawn: np.ndarray | None) -> None:
        """The mask of a view as an indexed PNG; `drawn`: what people drew on it, on the grid of the label stage."""
        camera = self._cameras[view]
        same = is_label_grid(own, camera)
        mask = self._refined[view] if same else own_mask(self._painted, camera, own, self._shared)
        if not same and drawn is not None:
            mask = _corrected(mask, own, camera, drawn)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, indexed.write({"": mask}, self._painted.labelset)[".png"])


def _corrected(mask: np.ndarray, own: OwnPixels, camera: Camera, layer: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """What a person said of this very view holds, whatever the vote made of it."""
    drawn = on_label_grid(own, camera, layer, UNTOUCHED)
    return np.where(drawn == UNTOUCHED, mask, drawn)


def write_overlays(listed: list[Listed], masks: Path, labelset: LabelSet, folder: Path) -> None:
    """IDENTITY/NAME.jpg of every original picture that is still there; the others are named on stderr, and counted."""
    mine = shard_of_host(listed)
    progress, gone = Progress("overlays", sum(one.shape[0] for one in mine)), []
    for one in mine:
        with leaving_out(folder, one.identity):
            (folder / one.identity).mkdir(exist_ok=True)
            for picture in own_pixels(one.path):
                if STOP.is_set():
                    raise Stopped(f"stopped at the overlays of {one.identity}")
                name, path = f"{one.identity}/{picture.name}", folder / one.identity / f"{picture.name}.jpg"
                if not path.is_file():
                    try:
                        write_overlay(path, picture, masks / f"{name}.png", labelset)
                    except InputError as error:
                        gone.append(f"{name} ({error})")
                progress.advance()
    if gone:
        print(f"overlays: {len(gone)} left out, their pictures cannot be read: {some_of(gone)}", file=sys.stderr)
    wait_for_all_hosts("overlays", listed, folder)


def write_overlay(path: Path, own: OwnPixels, mask_path: Path, labelset: LabelSet) -> None:
    """The picture under the colours of its mask; InputError where it is gone."""
    picture, mask = own.read(), indexed.read_one(mask_path.read_bytes(), str(mask_path), labelset, None)
    starts = range(0, len(picture), _ROWS)
    shown = np.concatenate([overlay(picture[i : i + _ROWS], mask[i : i + _ROWS], labelset) for i in starts])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), _QUALITY)[1].tobytes())


def layers_in(run: Path, labelset: LabelSet) -> Callable[[str], dict[int, np.ndarray]]:
    """What people drew on the heads of a run, at the size of its masks."""
    return lambda name: edits_on_disk.layers_of(run, name, labelset)
