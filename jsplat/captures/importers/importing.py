"""From any of the layouts to the project's own: lenses undone, one size, the head's frame found."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np

from jsplat.captures.capture import Capture, fill_capture, picture_name
from jsplat.captures.importers import colmap, facescape, nerfstudio, nersemble, photographs, vhap, video
from jsplat.captures.importers.account import log_files
from jsplat.captures.importers.headframe import HeadFrame, find_head
from jsplat.captures.importers.rectify import Rectifier, common_lens, imported_cameras
from jsplat.captures.importers.source import (
    AS_CALIBRATED,
    ImportConfig,
    Photo,
    Source,
    refuse_other_pictures,
    stored_size,
)
from jsplat.errors import InputError
from jsplat.files.atomic import check_free, new_folder, write_json
from jsplat.files.foreign import check_missing
from jsplat.runtime.devices import cores
from jsplat.runtime.progress import Progress

# In the order in which they are asked: VHAP's layout is a special case of nerfstudio's.
LAYOUTS: dict[str, ModuleType] = {
    "facescape": facescape,
    "nersemble": nersemble,
    "vhap": vhap,
    "nerfstudio": nerfstudio,
    "colmap": colmap,
    "photographs": photographs,
}


def detect(folder: Path) -> str:
    """The name of the layout that lies in a folder (see `LAYOUTS`), or "video" for one.

    Raises:
        InputError: no folder (archives are to be unpacked first), or none of the layouts.
    """
    if video.is_video(folder):
        return "video"
    if not folder.is_dir():
        if folder.exists():
            wanted = f"a folder, or {video.LOOKS_FOR}"
            raise InputError(str(folder), wanted=wanted, got="a file", hint="unpack an archive first")
        raise InputError(str(folder), wanted="a folder or a video", got="nothing there")
    for name, reader in LAYOUTS.items():
        if reader.matches(folder):
            return name
    looked = "; ".join(reader.LOOKS_FOR for reader in LAYOUTS.values())
    refuse_other_pictures(folder)
    if (folder / "run.json").is_file() or any(folder.glob("*/transforms.json")):
        hint = "name one person's folder; `jsplat run` takes a folder of captures as it is"
    elif any(map(video.is_video, folder.iterdir())):
        hint = "name the video itself; `jsplat run` takes a folder of videos as it is"
    else:
        hint = "name the folder that holds that file, of one person, and not one above or below it"
    raise InputError(str(folder), wanted=f"one of: {looked}", got="none of them", hint=hint)


def read_source(folder: Path, config: ImportConfig) -> Source:
    """A capture as its makers left it; pictures are not read yet.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    layout, folder = detect(folder), folder.resolve()  # "." has no name
    source = LAYOUTS[layout].read(folder, config)
    check_missing(source.missing, len(source.photos), config.max_missing, "capture.max_missing")
    if len(source.photos) < 2:
        missing = f", {len(source.missing)} missing, as {source.missing[0][1]} is" if source.missing else ""
        got = f"{len(source.photos)} ({len(source.dropped)} marked as unusable{missing})"
        hint = "put the missing pictures where the others are" if source.missing else ""
        raise InputError(str(folder), wanted="at least 2 usable views", got=got, hint=hint)
    return source


def import_capture(folder: Path, out: Path, config: ImportConfig, size: int = 0) -> Capture:
    """Brings a capture, or a video, into the project's own format, in a new folder (see `fill_import`).

    Raises:
        InputError: naming the file and field that is wrong, or something that lies at `out` already.
    """
    check_free(out)
    with new_folder(out) as temporary:
        return fill_import(temporary, folder, config, size)


def fill_import(folder: Path, source: Path, config: ImportConfig, size: int = 0) -> Capture:
    """Writes what `read_import` finds into a folder, and what is known of its origin as `import.json`.

    Of a video, `config.frames` frames (see `write_frames`) are kept in frames/NAME, and are read as photographs.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    if video.is_video(source):
        photographs.camera_finder(str(source))  # before minutes of decoding
        frames = Path("frames", source.stem)
        video.write_frames(source, folder / frames, config.frames)
        capture, record = read_import(folder / frames, config, size)
        # Relative: the frames go where the capture goes.
        record |= {"layout": "video", "video": str(source.resolve()), "folder": frames.as_posix()}
    else:
        capture, record = read_import(source, config, size)
    fill_capture(folder, capture)
    write_json(folder / "import.json", record)
    return capture


def read_import(folder: Path, config: ImportConfig, size: int = 0) -> tuple[Capture, dict]:
    """A capture in one of the `LAYOUTS`: lenses undone, one size, in the head's frame.

    Args:
        size: pixels of the longer side; 0: the photographs' own, up to 512.

    Returns:
        the capture; and layout, the pictures' original names, lenses and turns (`jsplat.captures.own_pixels` reads
        them), views left out, files passed over, and the way from the source's world to the head's. What is left out or
        passed over is said on stderr too.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    source, folder = read_source(folder, config), folder.resolve()
    kinds = log_files(folder, source)
    with ThreadPoolExecutor(cores()) as threads:
        orientations = list(threads.map(_orientation, source.photos))
        head = find_head(source, orientations, config)
        intrinsics, width, height = common_lens(source.photos, head.turns, config, size)
        pairs = list(zip(source.photos, head.turns.tolist()))
        rectifier, progress = Rectifier(pairs, (intrinsics, width, height), config), Progress("import", len(pairs))
        views = []
        for seen in threads.map(lambda photo, turn: rectifier(photo, turn, source.labelset), *zip(*pairs)):
            views.append(seen)
            progress.advance()
    matted = [v.matted for v in views]
    if any(matted) and not all(matted):
        where = source.photos[matted.index(False)].where
        hint = "add the missing mattes, or move those that are there out of the folder"
        raise InputError(where, wanted="a matte or transparency in all photographs or none", got="none", hint=hint)
    valid = np.stack([v.valid for v in views])
    poses = head.camera_from_head(np.stack([p.camera_from_world for p in source.photos]))
    capture = Capture(
        identity=source.identity,
        images=np.stack([v.image for v in views]),
        labels=None,
        cameras=imported_cameras(poses, intrinsics, width, height),
        labelset=None,
        head_from_world=np.eye(4),
        background=config.background if matted[0] else source.background,
        valid=None if valid.all() else valid,
    )
    if source.labelset is not None:
        capture = capture.with_labels(np.stack([v.labels for v in views]), source.labelset)
    return capture, _record(folder, source, head, orientations, capture) | {"passed_over": kinds}


def _orientation(photo: Photo) -> int:
    if photo.frame is not None:
        return 1
    width, height, orientation = stored_size(photo.path, photo.where)
    if (width, height) != (photo.lens.width, photo.lens.height):
        turned = ", which its Exif tag turns" if orientation > 4 else ""
        got = f"{photo.path.name} with {width}x{height}{turned}"
        wanted = f"{photo.lens.width}x{photo.lens.height} pixels as calibrated"
        hint = "calibrate on stored pixels, before any turn" if turned else AS_CALIBRATED
        raise InputError(photo.where, wanted=wanted, got=got, hint=hint)
    return orientation


def _below(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _record(folder: Path, source: Source, head: HeadFrame, orientations: list[int], capture: Capture) -> dict:
    return {
        "layout": source.layout,
        "folder": str(folder),
        "views": [
            {
                "picture": picture_name(i),
                "source": _below(photo.path, folder),
                "frame": photo.frame,
                "orientation": orientation,
                "lens": photo.lens.to_json(),
                "mask": None if photo.mask is None else _below(photo.mask, folder),
                "quarter_turns": int(turn),
                "yaw": float(yaw),
                "pitch": float(pitch),
            }
            for i, (photo, orientation, turn, yaw, pitch) in enumerate(
                zip(source.photos, orientations, head.turns, capture.yaw, capture.pitch)
            )
        ],
        "dropped": [*source.dropped, *(name for _, name in source.missing)],
        "missing": [name for _, name in source.missing],
        "head_from_source": {
            "rotation": head.rotation.tolist(),
            "center": head.center.tolist(),
            "metres_per_unit": head.scale,
            "scale_known": source.metres is not None,
        },
    }
