"""Which pictures and masks a folder of public face-parsing data holds, without reading any of them."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.files.foreign import skipped_files, without_litter
from jsplat.labelsets.labelset import LabelSet
from jsplat.labelsets.tables import LABEL_SETS
from jsplat.labelsets.vocabulary import Vocabulary

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
    """A set before its pictures are read.

    Attributes:
        kind: which.
        labelset: what its ids mean.
        samples: sorted by name.
        missing: (the file that asks for it, file name) of label maps without a photograph, and the other way round.
        passed_over: how many other files of what kind lie there.
        read_labels: reads a label map (its bytes; file and field for messages) whose names and colours decide what it
            means; None: its numbers are ids.
        vocabulary: the table that says what its labels may mean, if one does.
    """

    kind: str
    labelset: LabelSet
    samples: tuple[Sample, ...]
    missing: tuple[tuple[str, str], ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)
    read_labels: Callable[[bytes, str], UInt8[np.ndarray, "_ _"]] | None = None
    vocabulary: Vocabulary | None = None


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """How photographs and label maps of one stem are called.

    Attributes:
        looks: whether one folder of a set looks like this; a set has such folders for its splits, or is one.
        image, label: ends of the files' names.
        images, labels: folders; none is the one itself.
    """

    looks: Callable[[Path], bool]
    image: str
    label: str
    images: str = ""
    labels: str = ""

    def stems(self, folder: Path) -> tuple[set[str], set[str]]:
        """Of photographs and of label maps."""
        labels = {p.name.removesuffix(self.label) for p in _files(folder / self.labels, f"*{self.label}")}
        images = {p.name.removesuffix(self.image) for p in _files(folder / self.images, f"*{self.image}")}
        if self.label.endswith(self.image) and not self.images:
            # Other pictures may lie between those of FaceSynthetics, whose names are numbers.
            images = {x for x in images if x in labels or x.isdigit()}
        return images, labels


def _files(path: Path, pattern: str) -> list[Path]:
    return without_litter(path.glob(pattern))


# Folders of images and labels, and pictures beside masks, are common: LaPa's and iBugMask's must also be named a split.
def _is_lapa(path: Path) -> bool:
    return path.name in SPLITS[:3] and (path / "images").is_dir() and (path / "labels").is_dir()


def _is_helen(path: Path) -> bool:
    return bool(_files(path, "*_label.png"))


def _is_facesynthetics(path: Path) -> bool:
    return bool(_files(path, "*_seg.png"))


def _is_ibug(path: Path) -> bool:
    pictures = bool(_files(path, "*.jpg") and _files(path, "*.png"))
    return path.name in SPLITS[:3] and pictures and not _is_helen(path)


_FOLDERS = {
    "lapa": _Pairs(_is_lapa, ".jpg", ".png", "images", "labels"),
    "helen": _Pairs(_is_helen, "_image.jpg", "_label.png"),
    "facesynthetics": _Pairs(_is_facesynthetics, ".png", "_seg.png"),
    "ibugmask": _Pairs(_is_ibug, ".jpg", ".png"),
}


def _like(kind: str) -> str:
    return "ibugmask" if kind == "ibugmask-14" else kind


def kind_of(path: Path) -> str | None:
    """The public set whose layout a folder (or one of its splits) has; None if it has none of them."""
    if (path / "CelebAMask-HQ-mask-anno").is_dir():
        return "celebamask-hq"
    for folder in (path, *(path / split for split in SPLITS[:3])):
        found = next((kind for kind, one in _FOLDERS.items() if folder.is_dir() and one.looks(folder)), None)
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
        InputError: there is no such split, or it is empty.
    """
    pairs = _FOLDERS[_like(kind)]
    if pairs.looks(path):
        folders = [(path, "")]
    else:
        there = [s for s in SPLITS[:3] if (path / s).is_dir()]
        chosen = there if split == "all" else [split] if split in there else []
        if not chosen:
            raise InputError(f"{path.name}: split", wanted=f"one of {', '.join([*there, 'all'])}", got=repr(split))
        folders = [(path / s, f"{s}/") for s in chosen]
    samples, missing, kinds = [], [], collections.Counter()
    for folder, prefix in folders:
        images, labels = pairs.stems(folder)
        used = set()
        for stem in sorted(labels.union(images)):
            image, label = (
                folder / pairs.images / f"{stem}{pairs.image}",
                folder / pairs.labels / f"{stem}{pairs.label}",
            )
            used |= {image, label}
            if stem not in labels:
                missing.append((f"{image.parent.name}/{image.name}", label.name))
            elif stem not in images:
                missing.append((f"{label.parent.name}/{label.name}", image.name))
            else:
                samples.append(Sample(f"{prefix}{image.stem}", image, (("", label),)))
        kinds.update(skipped_files(folder, used))
    if not samples and not missing:
        raise InputError(str(path), wanted=f"labelled pictures laid out as {kind}", got="none")
    return Listing(kind, LABEL_SETS[kind], tuple(samples), tuple(missing), dict(kinds.most_common()))
