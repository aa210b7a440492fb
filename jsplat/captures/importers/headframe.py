"""The head's frame, found from the cameras around it: they meet inside the head, and know where up is."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jsplat.captures.importers.source import ImportConfig, Source
from jsplat.errors import InputError
from jsplat.files.foreign import some_of
from jsplat.raster.camera import Camera, meeting_point

_AROUND = 0.15  # mean length of unit directions below which cameras stand all around and name no front
_NAME_FRONT = "`--set capture.front=FILE` names the photograph that was taken most nearly from the front"
_LEVEL = 1e-3  # variance of the sideways axes, in radians squared, above which they decide about up

# The stored picture's edge that is up for the viewer, per Exif orientation (2, 4, 5 and 7 are mirror images).
_EXIF_UP = {1: "top", 3: "bottom", 6: "left", 8: "right"}
_EDGES = {
    "top": np.asarray([0.0, -1.0, 0.0]),
    "bottom": np.asarray([0.0, 1.0, 0.0]),
    "left": np.asarray([-1.0, 0.0, 0.0]),
    "right": np.asarray([1.0, 0.0, 0.0]),
}


@dataclasses.dataclass(frozen=True)
class HeadFrame:
    """From the source's world to the head's: `scale * rotation @ (x - center)`, in metres.

    Attributes:
        rotation: rows are the person's left, up and front, as source directions.
        center: where the cameras meet, source units.
        scale: metres per source unit.
        turns: per view, quarter turns that bring the head upright (see `turn_matrix`).
    """

    rotation: Float[np.ndarray, "3 3"]
    center: Float[np.ndarray, " 3"]
    scale: float
    turns: Int[np.ndarray, " v"]

    def camera_from_head(self, camera_from_world: Float[np.ndarray, "v 4 4"]) -> Float[np.ndarray, "v 4 4"]:
        """Cameras in the head's frame, turned upright."""
        turned = np.stack([turn_matrix(t) for t in self.turns.tolist()]) @ camera_from_world[:, :3]
        moved = np.tile(np.eye(4), (len(turned), 1, 1))
        moved[:, :3, :3] = turned[:, :, :3] @ self.rotation.T
        moved[:, :3, 3] = self.scale * (turned[:, :, :3] @ self.center + turned[:, :, 3])
        return moved


def turn_matrix(quarters: int) -> Float[np.ndarray, "3 3"]:
    """Upright camera from stored camera: the stored picture turned clockwise by quarters."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    return np.asarray([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def find_head(source: Source, orientations: list[int], config: ImportConfig) -> HeadFrame:
    """The head's frame.

    Args:
        source: its own up, front and scale are taken where it has them.
        orientations: Exif orientation of each photograph.
        config: says which edge is up, which view is frontal, and the distance.

    Raises:
        InputError: cameras that do not look at one head, that have no common up, or that name no front.
    """
    poses = np.stack([p.camera_from_world for p in source.photos])
    with np.errstate(over="ignore", invalid="ignore"):
        matrices = jnp.asarray(poses, jnp.float32)
        lens = jnp.tile(jnp.eye(3), (len(poses), 1, 1))
        center = meeting_point(Camera(matrices, lens, 1, 1)) if np.isfinite(np.asarray(matrices)).all() else None
    if center is None or not np.isfinite(center).all():
        raise InputError(source.identity, wanted="cameras around one head", got="poses too large for float32")
    rotations, offsets = poses[:, :3, :3], poses[:, :3, 3]
    toward = -np.einsum("vji,vj->vi", rotations, offsets) - center
    distance = np.linalg.norm(toward, axis=-1)
    depth = -np.einsum("vi,vi->v", rotations[:, 2], toward)
    for photo, d, far in zip(source.photos, depth, distance):
        if not d > 1e-3 * far or not far < 1e6 * np.median(distance):
            wanted, got = "a camera that looks where the others look", "one that looks away"
            hint = "leave this picture out, or check which way the axes of its pose point"
            raise InputError(photo.where, wanted=wanted, got=got, hint=hint)

    up = _up(source, rotations, orientations, config)
    flat = toward - np.outer(toward @ up, up)
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    front = _front(source, flat, config)
    front = front - up * (front @ up)
    if np.linalg.norm(front) < 1e-3:
        wanted, got = "a front that is not up", f"front {front}, up {up}"
        raise InputError(source.identity, wanted=wanted, got=got, hint=_NAME_FRONT)
    front /= np.linalg.norm(front)
    in_camera = np.einsum("vij,j->vi", rotations, up)
    # The turn after which up points most nearly to the top of the picture.
    tops = np.stack([-(in_camera @ turn_matrix(q).T)[:, 1] for q in range(4)])
    scale = config.distance / float(np.median(distance)) if source.metres is None else source.metres
    return HeadFrame(np.stack([np.cross(up, front), up, front]), center, scale, np.argmax(tops, 0))


def _up(source: Source, rotations: np.ndarray, orientations: list[int], config: ImportConfig) -> np.ndarray:
    if source.up is not None:
        return source.up / np.linalg.norm(source.up)
    edges = []
    for photo, orientation in zip(source.photos, orientations):
        if config.up == "exif" and orientation not in _EXIF_UP:
            raise InputError(
                photo.where,
                wanted="a picture that is not mirrored",
                got=f"Exif orientation {orientation}",
                hint="`--set capture.up=top` goes by the stored pixels instead",
            )
        edges.append(_EDGES[_EXIF_UP[orientation] if config.up == "exif" else config.up])
    edges = np.stack(edges)
    mean = np.einsum("vji,vj->i", rotations, edges) / len(edges)
    if np.linalg.norm(mean) < 0.3:
        got = f"a mean up direction of length {np.linalg.norm(mean):.2f}"
        hint = "`--set capture.up=top|right|bottom|left` says which edge of the stored pictures is up"
        raise InputError(source.identity, wanted="pictures that agree on up", got=got, hint=hint)
    # People hold cameras level and tilt them: sideways axes are horizontal, while up axes lean with the pitch. The mean
    # is kept where the sideways axes, all alike, say nothing.
    sideways = np.einsum("vji,vj->vi", rotations, edges @ turn_matrix(1).T)
    level = np.linalg.solve(sideways.T @ sideways / len(edges) + _LEVEL * np.eye(3), mean)
    return level / np.linalg.norm(level)


def _front(source: Source, flat: np.ndarray, config: ImportConfig) -> np.ndarray:
    if config.front is not None:
        found = [p.path.as_posix().endswith(f"/{config.front}") for p in source.photos]
        if sum(found) != 1:
            wanted = f"the name of one photograph (they are {some_of([p.path.name for p in source.photos])})"
            got = f"{config.front!r}, of which there are {sum(found)}"
            hint = "put its folder in front of the name, as FOLDER/NAME" if sum(found) else ""
            raise InputError("--set capture.front", wanted=wanted, got=got, hint=hint)
        return flat[found.index(True)]
    if source.front is not None:
        return source.front / np.linalg.norm(source.front)
    if np.linalg.norm(flat.mean(0)) < _AROUND:
        wanted, got = "a photograph from the front, because cameras stand all around", "none"
        raise InputError(source.identity, wanted=wanted, got=got, hint=_NAME_FRONT)
    return flat.mean(0)
