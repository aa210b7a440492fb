"""NeRSemble, version 2: `calibration/camera_params.json` and `sequences/NAME/images/cam_SERIAL.mp4` of one person, or
`cam_SERIAL_TIMESTEP.jpg` where the videos were unpacked, with mattes `alpha_maps/cam_SERIAL_TIMESTEP.png`.

Facts: the dataset's download toolkit (README, section 4) and VHAP's description of the unpacked layout.
"""

import re
from pathlib import Path

from jsplat.capture import matrix, number, read_json, rigid
from jsplat.errors import InputError
from jsplat.readers.lens import Lens
from jsplat.readers.source import ImportConfig, Photo, Source

LOOKS_FOR = "calibration/camera_params.json (NeRSemble)"
_SIZE = (2200.0, 3208.0)  # what all cameras deliver; the file may say otherwise


def matches(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / "calibration" / "camera_params.json").is_file()


def read(folder: Path, config: ImportConfig) -> Source:
    """One moment (`config.timestep`) of one sequence (`config.sequence`).

    Raises:
        InputError: naming the file or field that is wrong.
    """
    where = f"{folder.name}/calibration/camera_params.json"
    data = read_json(folder / "calibration" / "camera_params.json")
    poses = data.get("world_2_cam")
    if not isinstance(poses, dict):
        raise InputError(f"{where}: world_2_cam", wanted="an object of 4x4 matrices", got=repr(poses)[:80])
    intrinsics = matrix(data.get("intrinsics"), (3, 3), f"{where}: intrinsics")
    width, height = (number(data, key, where, size) for key, size in zip(("width", "height"), _SIZE))
    if not (width.is_integer() and height.is_integer() and 0 < min(width, height) <= max(width, height) < 1e6):
        raise InputError(f"{where}: width, height", wanted="whole pixels", got=(width, height))
    try:
        lens = Lens(intrinsics, int(width), int(height))
    except InputError as error:
        raise InputError(f"{where}: intrinsics", wanted=error.wanted, got=error.got) from error

    sequence = _sequence(folder, config)
    files = {}
    for path in sorted((sequence / "images").glob("cam_*")):
        found = re.fullmatch(r"cam_([0-9]+)(?:_([0-9]{1,9}))?\.(mp4|jpg|jpeg|png)", path.name)
        if found and (found[3] == "mp4") == (found[2] is None) and int(found[2] or config.timestep) == config.timestep:
            files.setdefault(found[1], path)
    photos, mattes = [], []
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
        raise InputError(f"{sequence.name}/alpha_maps", wanted="mattes for all photographs or none", got=got)
    return Source("nersemble", f"{folder.name}_{sequence.name}", tuple(photos), metres=1.0)


def _sequence(folder: Path, config: ImportConfig) -> Path:
    found = sorted(p for p in (folder / "sequences").glob("*") if (p / "images").is_dir())
    names = [p.name for p in found]
    if config.sequence is not None and config.sequence in names:
        return found[names.index(config.sequence)]
    if config.sequence is not None or len(found) != 1:
        wanted = f"one of {', '.join(names) or 'the folders in sequences/ (there are none)'}"
        raise InputError("ImportConfig.sequence", wanted=wanted, got=repr(config.sequence))
    return found[0]
