"""The stage `render`: pictures and masks from poses that nobody photographed."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.errors import Unusable
from jsplat.files.atomic import write_json
from jsplat.fitting.scenes_on_disk import saved_scenes, scene_in
from jsplat.labels import render_masks
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.stages.identities import each_identity, succeeded
from jsplat.pipeline.students import RECIPES
from jsplat.pipeline.work_folder import (
    load_arrays,
)
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Scene
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.view_blocks import Devices
from jsplat.views import novel_cameras, photographs


@dataclasses.dataclass(frozen=True)
class Novel:
    """Renders of one head from poses nobody photographed."""

    images: np.ndarray
    alpha: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    left_out: list[tuple[float, float]]
    masks: dict[str, np.ndarray]


def tables_of(known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The table that paints the novel views of each training set, as far as the stage "label" made it."""
    return {r.set: known[r.rows] for r in RECIPES.values() if r.set and r.rows and r.rows in known}


def render_novel(
    capture: Capture,
    scene: Scene,
    seen: np.ndarray,
    probabilities: dict[str, np.ndarray],
    labelset: LabelSet,
    config: RunConfig,
    shared: SharedCapacity,
    devices: Devices = (),
) -> Novel:
    """Novel views with the masks that each table of class probabilities gives them; views that no camera covers are
    left out.

    `devices` share the views.
    """
    cameras = novel_cameras(capture, config.views, config.seed + sum(capture.identity.encode()))
    where = {"capacity": shared.for_views(scene.gaussians, cameras), "devices": devices}
    known = jnp.asarray(seen >= config.views.seen_weight)
    images, covered = photographs(scene, known, cameras, capture.behind, **where)
    kept = np.flatnonzero(covered >= config.views.min_coverage)
    moved = dataclasses.replace(capture, cameras=cameras)
    omitted = [(float(moved.yaw[i]), float(moved.pitch[i])) for i in np.setdiff1d(np.arange(len(covered)), kept)]
    if not len(kept):
        wanted = f"a view that shows at least {config.views.min_coverage:.0%} of what was photographed"
        hint = "a lower `--set views.min_coverage=SHARE` takes it, and angles nearer to the photographs' show more"
        got = f"{float(covered.max()):.0%} at most"
        raise Unusable(f"novel views of {capture.identity}", wanted=wanted, got=got, hint=hint)
    masks, alpha = {}, np.zeros(0)
    for name, table in probabilities.items():
        shown = render_masks(scene.gaussians, table, cameras[kept], labelset, config.mask, **where)
        masks[name], alpha = shown.labels, shown.alpha
    return Novel(images[kept], alpha, moved.yaw[kept], moved.pitch[kept], omitted, masks)


def render_novel_views(
    listed: list[Listed],
    fitted: Path,
    known: Callable[[str], dict[str, np.ndarray]],
    labelset: LabelSet,
    config: RunConfig,
    folder: Path,
) -> None:
    """`render_novel` of all, each into its own file: pictures, poses, the poses left out, and masks by student.

    Args:
        known: what the label stage knows about an identity.
    """
    scenes, shared = saved_scenes(fitted), SharedCapacity()

    def make(one: Listed, devices: Devices) -> dict[str, np.ndarray]:
        arrays = known(one.identity)
        probabilities = tables_of(arrays)
        scene = scene_in(scenes, one.identity)
        novel = render_novel(
            one.unlabelled().read(), scene, arrays["seen"], probabilities, labelset, config, shared, devices
        )
        shown = {"yaw": novel.yaw, "pitch": novel.pitch, "images": novel.images}
        omitted = np.asarray(novel.left_out, np.float64).reshape(-1, 2)
        return {**shown, "left_out": omitted, **{f"labels_{name}": of for name, of in novel.masks.items()}}

    each_identity("render", listed, folder, make)
    if is_first_host():
        names = [one.identity for one in succeeded(listed, folder)]
        omitted = {name: load_arrays(folder / f"{name}.npz", "left_out")["left_out"].tolist() for name in names}
        write_json(folder / "left_out.json", omitted)
