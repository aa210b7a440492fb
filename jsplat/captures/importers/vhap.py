"""What VHAP exports for GaussianAvatars: `transforms.json` whose frames carry `timestep_index` and a lens each,
`images/TIMESTEP_CAMERA.png`, mattes `fg_masks/TIMESTEP_CAMERA.png`; metres. The union of a person's sequences names
pictures of the folders beside it.

Facts: VHAP's export and its conversion to OpenGL axes, which measures `cy` from the picture's lower edge.
"""

from pathlib import Path

from jsplat.captures.importers import nerfstudio
from jsplat.captures.importers.source import ImportConfig, Photo, Source, reachable
from jsplat.errors import InputError
from jsplat.files.json_fields import number

LOOKS_FOR = "transforms.json with timestep_index (VHAP)"


def matches(folder: Path) -> bool:
    """Whether the folder has this layout; a damaged file has none."""
    try:
        return nerfstudio.matches(folder) and any("timestep_index" in f for _, f in nerfstudio.frames_of(folder))
    except InputError:
        return False


def read(folder: Path, config: ImportConfig) -> Source:
    """The views of one moment (`config.timestep`, counted among the timesteps there are).

    Raises:
        InputError: naming the file and field that is wrong.
    """
    frames = nerfstudio.frames_of(folder)
    steps = [number(frame, "timestep_index", where) for where, frame in frames]
    moments = sorted(set(steps))
    if config.timestep >= len(moments):
        wanted = f"0 to {len(moments) - 1}, as there are {len(moments)} moments"
        raise InputError("--set capture.timestep", wanted=wanted, got=config.timestep)
    now = [pair for pair, step in zip(frames, steps) if step == moments[config.timestep]]
    matted = ["fg_mask_path" in frame for _, frame in now]
    if any(matted) and not all(matted):
        raise InputError(now[matted.index(False)][0], wanted="fg_mask_path for all frames or none", got="none")
    photos, missing = [], []
    for where, frame in now:
        path = nerfstudio.picture_path(folder, frame, where, config)
        if not path.is_file():
            missing.append((f"{where}.file_path", path.name))
            continue
        height = number(frame, "h", where)
        frame = frame | {"cy": height - number(frame, "cy", where, height / 2)}
        matte = reachable(folder, frame["fg_mask_path"], f"{where}.fg_mask_path", config) if matted[0] else None
        lens = nerfstudio.lens_of(frame, path, where)
        photos.append(Photo(f"{where}.file_path", path, lens, nerfstudio.pose_of(frame, where), matte=matte))
    files = nerfstudio.files_of(folder)
    return Source("vhap", folder.name, tuple(photos), tuple(files), tuple(missing), metres=1.0)
