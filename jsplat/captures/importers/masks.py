"""Masks that lie beside photographs without being listed anywhere, under the names that are common for them. In all of
these 0 means that the pixel says nothing."""

import re
from collections.abc import Iterable
from pathlib import Path

# Of the picture sub/000.jpg; COLMAP's own name first. Elsewhere masks have other meanings (instant-ngp's
# dynamic_mask_000.png marks what is to be left out), so nothing else is taken.
_BESIDE = ("masks", "mask")


def _names(picture: Path) -> tuple[Path, ...]:
    parts = (f"{picture.name}.png", f"{picture.stem}.png", f"{picture.stem}_mask.png")
    return tuple(picture.with_name(name) for name in parts)


def find_mask(folder: Path, images: Path, picture: Path) -> Path | None:
    """The mask of a picture, if there is one.

    Args:
        folder: of the capture; masks lie in its `masks` or `mask`, under the picture's place and name with `.png`
            behind it, or instead of its ending, or `_mask.png`.
        images: the folder of pictures, where `_mask.png` may lie beside its picture.
        picture: its path below `images`.
    """
    candidates = [folder / kind / name for kind in _BESIDE for name in _names(picture)]
    candidates.append(images / _names(picture)[-1])
    return next((path for path in candidates if path != images / picture and path.is_file()), None)


def without_masks(pictures: Iterable[Path]) -> list[Path]:
    """The pictures of a folder that are no masks of another one, going by their names."""
    pictures = list(pictures)
    known = {name for p in pictures for name in (p.name, p.stem)}
    base = re.compile(r"(?:dynamic_)?mask_(.+)|(.+)[_.]mask", re.IGNORECASE)
    found = [(p, base.fullmatch(p.stem)) for p in pictures]
    return [p for p, match in found if match is None or (match[1] or match[2]) not in known]
