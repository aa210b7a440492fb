"""What every reader finds: photographs with a lens and a pose each, in the source's own world."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jsplat.captures.capture import inside
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.tiff import decode_tiff, is_tiff, open_tiff
from jsplat.captures.pictures import picture_file, read_mask, read_pixels
from jsplat.errors import InputError
from jsplat.files.foreign import with_slashes, without_litter
from jsplat.labelsets.labelset import LabelSet

# Endings, to be compared in small letters: what can be read, and photographs that cannot.
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_PICTURES = (".heic", ".heif", ".hif", ".avif", ".webp", ".jxl", ".jp2", ".jfif", ".bmp", ".gif", ".exr")
OTHER_PICTURES += (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")  # raw
_LEVELS = "multiply them by 16 (of 12 bits) or 64 (of 10), or save it with 8 bits"
TO_JPEG = "convert it to JPEG, as `heif-convert` does with what phones make"
AS_CALIBRATED = "take the pictures that were calibrated, neither scaled nor cropped since"
_WANTED = "PNG, JPEG or TIFF"


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """How a capture is brought in.

    Attributes:
        edges: "keep" shows all that any photograph shows, and marks what a photograph lacks as invalid; "crop" shows
            only what all of them show.
        max_ray_angle: degrees from the optical axis beyond which wide lenses are cut off.
        up: the edge of the stored pictures where up is; "exif" asks each picture's orientation tag.
        front: file name of the photograph taken most nearly from the front, with folders in front of it where needed
            to tell it from others; none asks where most cameras stand.
        distance: metres from the head to its cameras (median), where the source has no scale.
        background: the colour laid behind photographs that have a matte.
        sequence: which sequence, where a folder holds several; PERSON/SEQUENCE where it holds several people.
        timestep: which moment of a sequence.
        max_missing: largest share of the listed pictures that may be missing, 0 to 1; they are left out, counted and
            named.
        frames: how many frames of a video are used, at least 3: the sharpest of as many equal parts of it.
        root: folder in which all that a transforms.json names must lie; none: the one that holds the capture's.
    """

    edges: Literal["keep", "crop"] = "keep"
    max_ray_angle: float = 50.0
    up: Literal["exif", "top", "right", "bottom", "left"] = "exif"
    front: str | None = None
    distance: float = 1.0
    background: tuple[int, int, int] = (255, 255, 255)
    sequence: str | None = None
    timestep: int = 0
    max_missing: float = 0.3  # instant-ngp's fox, the best known capture of all, lacks a quarter
    frames: int = 64
    root: str | None = None

    def __post_init__(self):
        if not 1 <= self.max_ray_angle <= 80:
            raise InputError("ImportConfig.max_ray_angle", wanted="1 to 80 degrees", got=self.max_ray_angle)
        if not 0 < self.distance < 1e6:
            raise InputError("ImportConfig.distance", wanted="metres above 0", got=self.distance)
        if not all(0 <= c <= 255 for c in self.background):
            raise InputError("ImportConfig.background", wanted="three numbers in 0..255", got=self.background)
        if self.timestep < 0:
            raise InputError("ImportConfig.timestep", wanted="at least 0", got=self.timestep)
        if self.frames < 3:
            raise InputError("ImportConfig.frames", wanted="at least 3", got=self.frames)
        if not 0 <= self.max_missing <= 1:
            raise InputError("ImportConfig.max_missing", wanted="a share from 0 to 1", got=self.max_missing)


@dataclasses.dataclass(frozen=True)
class Photo:
    """One view.

    Attributes:
        where: the file and field it comes from, for messages.
        path: a picture, or a video of which `frame` is meant.
        lens: of the picture as it is stored.
        camera_from_world: rigid, OpenCV axes, source units.
        mask: 0 = the pixel says nothing.
        matte: 0 = background, 255 = head.
        labels: class ids.
        frame: number of the frame in a video.
    """

    where: str
    path: Path
    lens: Lens
    camera_from_world: Float[np.ndarray, "4 4"]
    mask: Path | None = None
    matte: Path | None = None
    labels: Path | None = None
    frame: int | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A capture as its makers left it.

    Attributes:
        layout: which reader found it.
        identity: a name.
        photos: the views.
        files: those that say what is there.
        missing: (file and field that lists it, file name) of pictures that are not there.
        dropped: names of pictures in the folder that the source itself calls unusable.
        labelset: what label maps mean, if there are any.
        background: the flat colour behind the head, if it is known.
        metres: length of the world's unit; None when nothing is known.
        up, front: world directions, if the source's world has them.
    """

    layout: str
    identity: str
    photos: tuple[Photo, ...]
    files: tuple[Path, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    labelset: LabelSet | None = None
    background: tuple[int, int, int] | None = None
    metres: float | None = None
    up: Float[np.ndarray, " 3"] | None = None
    front: Float[np.ndarray, " 3"] | None = None


def reachable(folder: Path, name: object, where: str, config: ImportConfig) -> Path:
    """The file that a capture's own list names.

    It lies in `folder`, or in `config.root`: VHAP's union of sequences names pictures of the folders beside it. It is
    only ever read, as a picture.

    Args:
        folder: of the capture, resolved.
        where: file and field, for messages.

    Raises:
        InputError: a name that is none, or leads elsewhere.
    """
    path = with_slashes(name) if isinstance(name, str) else ""
    if "\0" in path or not (".." in Path(path).parts or os.path.isabs(path)):
        return inside(folder, name, where)
    # Nobody points at a whole file system.
    root = folder.parent if folder.parent.parent != folder.parent else folder
    root = root if config.root is None else Path(config.root).resolve()
    try:
        return inside(root, os.path.relpath(os.path.normpath(folder / path), root), where)
    except InputError as error:
        wanted, hint = f"a path inside the folder or {root}", "`--set capture.root=FOLDER` names another"
        raise InputError(where, wanted=wanted, got=repr(name)[:80], hint=hint) from error


def stored_size(path: Path, where: str) -> tuple[int, int, int]:
    """Width and height of a stored picture and its Exif orientation, from its header.

    Raises:
        InputError: no PNG, JPEG or TIFF, or one that cannot be used.
    """
    if is_tiff(path):
        tiff = open_tiff(path, where)
        return tiff.width, tiff.height, tiff.orientation
    if path.suffix.lower() in OTHER_PICTURES and path.is_file():
        raise InputError(where, wanted=_WANTED, got=path.name, hint=TO_JPEG)
    width, height, _, orientation = picture_file(path, where)[1]
    return width, height, orientation


def unconverted(files: Iterable[Path]) -> list[Path]:
    """The photographs among some files which no reader can read and nobody has converted, sorted."""
    files = list(files)
    readable = {p.with_suffix("") for p in files if p.suffix.lower() in PICTURES}
    return sorted(p for p in files if p.suffix.lower() in OTHER_PICTURES and p.with_suffix("") not in readable)


def refuse_other_pictures(folder: Path) -> None:
    """InputError that names the photographs of a folder which are `unconverted`."""
    others = [p.name for p in unconverted(p for p in without_litter(folder.iterdir()) if p.is_file())]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise InputError(str(folder), wanted=_WANTED, got=", ".join(others[:5]) + more, hint=TO_JPEG)


def read_photo(
    photo: Photo,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None, UInt8[np.ndarray, "h w"] | None]:
    """Pixels of a photograph in sRGB, its mask and its matte; 16 bits are rounded to 8.

    Raises:
        InputError: of another size than its lens says, or neither 8 nor 16 bits deep.
    """
    pixels = video_frame(photo) if photo.frame is not None else stored_pixels(photo.path, photo.where)
    size, name = (photo.lens.width, photo.lens.height), photo.path.name
    if pixels.dtype == np.uint16:
        pixels = eight_bits(pixels, name, photo.where)
    if pixels.dtype != np.uint8 or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(photo.where, wanted="an 8-bit picture", got=f"{name}, {pixels.dtype} {pixels.shape}")
    if pixels.shape[1::-1] != size:
        got = f"{name} with {pixels.shape[1]}x{pixels.shape[0]}"
        raise InputError(photo.where, wanted=f"{size[0]}x{size[1]} pixels as calibrated", got=got, hint=AS_CALIBRATED)
    matte = None
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        matte = np.ascontiguousarray(pixels[..., 3])
    if photo.matte is not None:
        matte = read_pixels(photo.matte, photo.where)
        matte = matte[..., 0] if matte.ndim == 3 else matte  # colour copies of one grey channel occur
        if matte.shape != size[::-1] or matte.dtype != np.uint8:
            got = f"{photo.matte.name}, {matte.dtype} {matte.shape}"
            raise InputError(photo.where, wanted=f"an 8-bit matte of {size[0]}x{size[1]} pixels", got=got)
    mask = None if photo.mask is None else read_mask(photo.mask, photo.where, size)
    to_rgb = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    image = cv2.cvtColor(pixels, to_rgb[2 if pixels.ndim == 2 else pixels.shape[2]])
    return image, mask, matte


def stored_pixels(path: Path, where: str) -> np.ndarray:
    """Decodes a PNG, JPEG or TIFF as it is stored, not turned, uint8 or uint16: grey, or OpenCV's order of channels."""
    return decode_tiff(open_tiff(path, where), path.name, where) if is_tiff(path) else read_pixels(path, where)


def eight_bits(pixels: np.ndarray, name: str, where: str) -> np.ndarray:
    """16-bit levels rounded to 8; InputError (`where`: file and field) for numbers of 12 bits or fewer."""
    # Cameras of 10 or 12 bits may store their numbers as they are, which would be read as a nearly black picture.
    if (largest := int(pixels[..., :3].max() if pixels.ndim == 3 else pixels.max())) < 4096:
        raise InputError(
            where, wanted="16-bit levels from 0 to 65535", got=f"{name} with levels up to {largest}", hint=_LEVELS
        )
    return cv2.convertScaleAbs(pixels, alpha=255 / 65535)  # rounds


def video_frame(photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
    """The frame of a video that a photo names, as stored, in OpenCV's order of colours; InputError if it has none."""
    if not photo.path.is_file():
        raise InputError(photo.where, wanted="a video", got=f"no file {photo.path.name}")
    video = cv2.VideoCapture(str(photo.path))
    try:
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        size = (int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if not video.isOpened() or size != (photo.lens.width, photo.lens.height):
            wanted = f"a readable video of {photo.lens.width}x{photo.lens.height} pixels"
            got = (
                f"{photo.path.name} with {size[0]}x{size[1]}" if video.isOpened() else f"{photo.path.name}, unreadable"
            )
            raise InputError(photo.where, wanted=wanted, got=got)
        # Frames are counted by decoding: seeking lands on key frames in some files.
        found = all(video.grab() for _ in range((photo.frame or 0) + 1))
        image = video.retrieve()[1] if found else None
    finally:
        video.release()
    if image is None:
        got, hint = f"{photo.path.name} ends before", "`--set capture.timestep=N` takes an earlier one"
        raise InputError(photo.where, wanted=f"a frame {photo.frame}", got=got, hint=hint)
    return image
