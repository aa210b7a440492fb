"""Which pictures and masks a folder of public face-parsing data holds, without reading any of them."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from jsplat.errors import InputError
from jsplat.labelset import LabelSet
from jsplat.labeltables import LABEL_SETS

SPLITS = ("train", "val", "test", "all")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One labelled picture on disk.

    Attributes:
        name: of the picture, unique in its set.
        image: the photograph.
        parts: (class name, mask) in the order in which they are painted over each other; a whole label map has the
            name "".
        yaw, pitch: degrees, NaN where the data do not say.
    """

    name: str
    image: Path
    parts: tuple[tuple[str, Path], ...]
    yaw: float = math.nan
    pitch: float = math.nan


@dataclasses.dataclass(frozen=True)
class Listing:
    """A set before its pictures are read: what its ids mean, and its samples sorted by name."""

    kind: str
    labelset: LabelSet
    samples: tuple[Sample, ...]


def _pairs(images: list[Path], mask_of: Callable[[Path], Path], prefix: str = "") -> list[Sample]:
    found = []
    for image in sorted(images):
        mask = mask_of(image)
        if not mask.is_file():
            raise InputError(
                f"{image.parent.name}/{image.name}", wanted=f"its label map {mask.name}", got="no such file"
            )
        found.append(Sample(f"{prefix}{image.stem}", image, (("", mask),)))
    return found


def _numbered(path: Path) -> list[Path]:
    return [p for p in path.glob("*.png") if p.with_name(f"{p.stem}_seg.png").is_file() or p.stem.isdigit()]


def _lapa(path: Path, prefix: str) -> list[Sample]:
    return _pairs(list((path / "images").glob("*.jpg")), lambda p: path / "labels" / f"{p.stem}.png", prefix)


def _helen(path: Path, prefix: str) -> list[Sample]:
    def mask(p: Path) -> Path:
        return p.with_name(p.name.replace("_image.jpg", "_label.png"))

    return _pairs(list(path.glob("*_image.jpg")), mask, prefix)


def _ibug(path: Path, prefix: str) -> list[Sample]:
    return _pairs(list(path.glob("*.jpg")), lambda p: p.with_suffix(".png"), prefix)


def _facesynthetics(path: Path, prefix: str) -> list[Sample]:
    return _pairs(_numbered(path), lambda p: p.with_name(f"{p.stem}_seg.png"), prefix)


# Folders of images and labels, and pictures beside masks, are common: LaPa's and iBugMask's must also be named a split.
def _is_lapa(path: Path) -> bool:
    return path.name in SPLITS[:3] and (path / "images").is_dir() and (path / "labels").is_dir()


def _is_helen(path: Path) -> bool:
    return any(path.glob("*_label.png"))


def _is_facesynthetics(path: Path) -> bool:
    return any(path.glob("*_seg.png"))


def _is_ibug(path: Path) -> bool:
    pictures = any(path.glob("*.jpg")) and any(path.glob("*.png"))
    return path.name in SPLITS[:3] and pictures and not _is_helen(path)


# Kind -> (does one folder of it look like this, its samples); a set has such folders for its splits, or is one.
_FOLDERS = {
    "lapa": (_is_lapa, _lapa),
    "helen": (_is_helen, _helen),
    "facesynthetics": (_is_facesynthetics, _facesynthetics),
    "ibugmask": (_is_ibug, _ibug),
}


def _like(kind: str) -> str:
    return "ibugmask" if kind == "ibugmask-14" else kind


def kind_of(path: Path) -> str | None:
    """The public set whose layout a folder (or one of its splits) has; None if it has none of them."""
    if (path / "CelebAMask-HQ-mask-anno").is_dir():
        return "celebamask-hq"
    for folder in (path, *(path / split for split in SPLITS[:3])):
        found = next((kind for kind, (looks, _) in _FOLDERS.items() if folder.is_dir() and looks(folder)), None)
        if found:
            return found
    return None


def list_split_folders(path: Path, kind: str, split: str) -> Listing:
    """Samples of LaPa, HELEN*, iBugMask or FaceSynthetics.

    Args:
        path: the set with its split folders, or one such folder, which is then all there is.
        kind: "lapa", "helen", "ibugmask", "ibugmask-14" or "facesynthetics".
        split: one of `SPLITS`.

    Raises:
        InputError: there is no such split, it is empty, or a picture has no label map.
    """
    looks, samples = _FOLDERS[_like(kind)]
    if looks(path):
        folders = [(path, "")]
    else:
        there = [s for s in SPLITS[:3] if (path / s).is_dir()]
        chosen = there if split == "all" else [split] if split in there else []
        if not chosen:
            raise InputError(f"{path.name}: split", wanted=f"one of {', '.join([*there, 'all'])}", got=repr(split))
        folders = [(path / s, f"{s}/") for s in chosen]
    found = [sample for folder, prefix in folders for sample in samples(folder, prefix)]
    if not found:
        raise InputError(str(path), wanted=f"labelled pictures laid out as {kind}", got="none")
    return Listing(kind, LABEL_SETS[kind], tuple(found))
