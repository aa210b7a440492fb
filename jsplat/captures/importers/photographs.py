"""A plain folder of photographs: cameras are found by COLMAP's structure from motion, through the extra `[sfm]`."""

import importlib
import tempfile
from pathlib import Path
from typing import Any

from jsplat.captures.importers.colmap import read_model
from jsplat.captures.importers.masks import without_masks
from jsplat.captures.importers.source import (
    OTHER_PICTURES,
    PICTURES,
    ImportConfig,
    Source,
    refuse_other_pictures,
    stored_size,
)
from jsplat.errors import InputError
from jsplat.files.foreign import without_litter

LOOKS_FOR = "at least 3 photographs (PNG, JPEG or TIFF)"
_SEED = 0


def _pictures(folder: Path, endings: tuple[str, ...] = PICTURES) -> list[Path]:
    found = (p for p in without_litter(folder.iterdir()) if p.suffix.lower() in endings and p.is_file())
    return sorted(without_masks(found))


def camera_finder(where: str) -> Any:
    """The package pycolmap; InputError (`where`: what it is needed for) if it is not installed."""
    try:
        return importlib.import_module("pycolmap")
    except ImportError as error:
        hint = "`pip install 'jsplat[sfm]'`, or bring cameras that COLMAP found elsewhere (sparse/ beside images/)"
        wanted = "the package pycolmap, to find the cameras of plain photographs"
        raise InputError(where, wanted=wanted, got="none installed", hint=hint) from error


def matches(folder: Path) -> bool:
    """Whether the folder has this layout; photographs that cannot be read count, so that `read` says which."""
    return len(_pictures(folder, PICTURES + OTHER_PICTURES)) >= 3


def read(folder: Path, config: ImportConfig) -> Source:
    """The photographs whose cameras were found; the names of the others are kept in `dropped`.

    Raises:
        InputError: photographs of a kind that cannot be read, pycolmap is missing, or it finds no model.
    """
    refuse_other_pictures(folder)
    pycolmap = camera_finder(str(folder))
    pictures = _pictures(folder)
    names = [p.name for p in pictures]
    # COLMAP reads stored pixels too. One lens is far better determined than one for each photograph.
    alike = len({stored_size(p, f"{folder.name}/{p.name}")[:2] for p in pictures}) == 1
    mode = pycolmap.CameraMode.SINGLE if alike else pycolmap.CameraMode.AUTO
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        database = work / "database.db"
        pycolmap.set_random_seed(_SEED)
        pycolmap.extract_features(database, folder, image_names=names, camera_mode=mode)
        pycolmap.match_exhaustive(database)
        models = pycolmap.incremental_mapping(database, folder, work)
        if not models:
            raise InputError(
                str(folder),
                wanted="photographs that overlap",
                got="no cameras found",
                hint="take more of them, each from near the one before, with some background that stays as it is",
            )
        best = max(models, key=lambda i: models[i].num_reg_images())
        photos, _ = read_model(work / str(best), folder, folder)
    found = {p.path.name for p in photos}
    return Source("photographs", folder.name, photos, dropped=tuple(n for n in names if n not in found))
