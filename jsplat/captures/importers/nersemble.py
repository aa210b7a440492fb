"""NeRSemble, version 2: `calibration/camera_params.json` and `sequences/NAME/images/cam_SERIAL.mp4` of one person, or
`cam_SERIAL_TIMESTEP.jpg` where the videos were unpacked, with mattes `alpha_maps/cam_SERIAL_TIMESTEP.png`. Version 1
holds all people: `camera_params/PERSON/camera_params.json` and `PERSON/NAME/images/...`.

Facts: the dataset's download toolkit (README, section 4) and VHAP's description of the unpacked layouts. The colour
calibration is not applied.
"""

import re
from pathlib import Path

from jsplat.captures.capture import read_json
from jsplat.captures.importers.lens import Lens
from jsplat.captures.importers.source import ImportConfig, Photo, Source
from jsplat.errors import InputError
from jsplat.files.foreign import some_of, without_litter
from jsplat.files.json_fields import matrix, number, rigid

LOOKS_FOR = "calibration/camera_params.json or camera_params/*/camera_params.json (NeRSemble)"
_SIZE = (2200.0, 3208.0)  # what all cameras deliver; the file may say otherwise


def matches(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return bool(_calibrations(folder))


def read(folder: Path, config: ImportConfig) -> Source:
    """One moment (`config.timestep`) of one sequence (`config.sequence`).

    Raises:
        InputError: naming the file or field that is wrong.
    """
    calibration, sequence = _chosen(folder, config)
    where = f"{folder.name}/{calibration.relative_to(folder)}"
    data = read_json(calibration)
    poses = data.get("world_2_cam")
    if not isinstance(poses, dict):
        raise InputError(f"{where}: world_2_cam", wanted="an object of 4x4 matrices", got=repr(poses)[:80])
    intrinsics = matrix(data.get("intrinsics"), (3, 3), f"{where}: intrinsics")
    width, height = (number(data, key, where, size) for key, size in zip(("width", "height"), _SIZE))
    if not (width.is_integer() and height.is_integer() and 0 < min(width, height) <= max(width, height) < 1e6):
        raise InputError(f"{where}: width, height", wanted="whole pixels, above 0", got=(width, height))
    try:
        lens = Lens(intrinsics, int(width), int(height))
    except InputError as error:
        raise error.at(f"{where}: intrinsics") from error

    files = {}
    for path in sorted((sequence / "images").glob("cam_*")):
        found = re.fullmatch(r"cam_([0-9]+)(?:_([0-9]{1,9}))?\.(mp4|jpg|jpeg|png)", path.name)
        if found and (found[3] == "mp4") == (found[2] is None) and int(found[2] or config.timestep) == config.timestep:
            files.setdefault(found[1], path)
    photos, mattes = [], []
    missing = [(f"{where}: world_2_cam.{serial}", f"cam_{serial}*") for serial in sorted(set(poses) - set(files))]
    for serial, path in sorted(files.items()):
        name = f"{where}: world_2_cam.{serial}"
        video = path.suffix == ".mp4"
        matte = sequence / "alpha_maps" / f"{path.stem}.png"
        mattes.append(not video and matte.is_file())
        frame = config.timestep if video else None
        pose = rigid(poses.get(serial), name)
        photos.append(Photo(name, path, lens, pose, matte=matte if mattes[-1] else None, frame=frame))
    if any(mattes) and not all(mattes):
        got = f"none for {photos[mattes.index(False)].path.name}"
        hint = "add the missing ones, or move the folder away"
        raise InputError(f"{sequence.name}/alpha_maps", wanted="mattes for all photographs or none", got=got, hint=hint)
    person = folder.name if sequence.parent.name == "sequences" else sequence.parent.name
    identity = f"{person}_{sequence.name}"
    return Source("nersemble", identity, tuple(photos), (calibration,), tuple(missing), metres=1.0)


def _calibrations(folder: Path) -> dict[Path, Path]:
    """Calibration -> the folder of the sequences it is for."""
    if (folder / "calibration" / "camera_params.json").is_file():
        return {folder / "calibration" / "camera_params.json": folder / "sequences"}
    found = sorted((folder / "camera_params").glob("*/camera_params.json"))
    return {path: folder / path.parent.name for path in found if path.is_file()}


def _chosen(folder: Path, config: ImportConfig) -> tuple[Path, Path]:
    found = {}
    for calibration, parent in _calibrations(folder).items():
        for path in (p for p in without_litter(parent.glob("*")) if (p / "images").is_dir()):
            name = path.name if parent.name == "sequences" else f"{parent.name}/{path.name}"
            found[name] = (calibration, path)
    if config.sequence in found:
        return found[config.sequence]
    if config.sequence is not None or len(found) != 1:
        if not found:
            raise InputError(str(folder), wanted="a sequence: a folder that holds images/", got="none")
        got = "none" if config.sequence is None else repr(config.sequence)
        hint = f"`--set capture.sequence={next(iter(found))}` takes the first"
        raise InputError("--set capture.sequence", wanted=f"one of {some_of([*found])}", got=got, hint=hint)
    return next(iter(found.values()))
