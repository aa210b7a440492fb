"""Training sets of labelled faces, whatever public set, auxiliary set or captures a folder holds."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import NO_CAPTURES, capture_folders, read_capture, resize_labels
from jsplat.captures.index import MOST, list_captures
from jsplat.captures.label_png import decode
from jsplat.captures.pictures import read_image
from jsplat.captures.upright import read_upright
from jsplat.errors import InputError
from jsplat.files.foreign import check_missing, log_missing, log_once, log_skipped
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.labelsets.tables import LABEL_SETS, label_set, relabel, swapped, usual_choices
from jsplat.training_sets.auxiliary import ONE_SIZE, AuxiliarySet, from_captures, read_auxiliary
from jsplat.training_sets.celebamask import COMPOSITIONS, list_celebamask
from jsplat.training_sets.plain import PLAIN, is_plain, list_plain
from jsplat.training_sets.sides import Sides, SidesConfig, doubled, opinions, side_convention, vote
from jsplat.training_sets.split_folders import SPLITS, Listing, Sample, kind_of, list_split_folders

T = TypeVar("T")

LOOKED_AT = 16  # pictures of a set whose size is asked for

__all__ = [
    "COMPOSITIONS",
    "DatasetConfig",
    "Listing",
    "Sample",
    "Sides",
    "SidesConfig",
    "check_sides",
    "doubled",
    "is_listed",
    "list_dataset",
    "longer_side",
    "opinions",
    "read_sample",
    "read_training_set",
    "side_convention",
    "spread",
    "vote",
    "with_labelset",
]


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """How a public training set is read; captures and auxiliary sets are read whole.

    Attributes:
        kind: "auto" (by what lies in the folder), a name in `LABEL_SETS` that is a set on disk, or "plain": pictures
            and masks that say what they mean (see `jsplat.training_sets.plain`).
        split: "train", "val", "test" or "all"; a set without splits, or the folder of one split, is always read whole.
        limit: at most so many pictures, spread evenly over the set; 0 for all.
        composition: which masks of CelebAMask-HQ cover which: "zllrunning", "official" or "farl".
        labels: "own", or a name in `LABEL_SETS` whose classes the set is given, so that it can be mixed with others;
            what has no place there goes as `jsplat.labelsets.tables.usual_choices` says.
        sides: "named" (as `jsplat.labelsets.tables` names them) or "swapped" (the files say it the other way round).
        side_checks: pictures whose sides are compared with the names before training starts; 0 for none.
        max_gigabytes: what the set may take in memory.
        max_missing: largest share of the listed pictures whose photograph or label map may be missing, 0 to 1; they are
            left out, counted and named.
        table: what the masks of a plain folder mean, where they do not say: a table's name, or a JSON file.
    """

    kind: str = "auto"
    split: str = "train"
    limit: int = 0
    composition: str = "zllrunning"
    labels: str = "own"
    sides: str = "named"
    side_checks: int = 200
    max_gigabytes: float = 8.0
    max_missing: float = 0.0
    table: str = ""

    def __post_init__(self):
        kinds = ("auto", *(k for k in LABEL_SETS if not k.startswith("celebamask-hq-")), PLAIN)
        choices = {"kind": kinds, "split": SPLITS, "labels": ("own", *LABEL_SETS), "sides": ("named", "swapped")}
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                wanted = f"one of {', '.join(allowed)}"
                raise InputError(f"dataset.{field}", wanted=wanted, got=repr(getattr(self, field)))
        if self.limit < 0 or self.side_checks < 0 or self.max_gigabytes <= 0:
            got = (self.limit, self.side_checks, self.max_gigabytes)
            raise InputError("dataset.limit, side_checks, max_gigabytes", wanted=">= 0, >= 0, > 0", got=got)
        if not 0 <= self.max_missing <= 1:
            raise InputError("dataset.max_missing", wanted="a share from 0 to 1", got=self.max_missing)


def list_dataset(path: Path, config: DatasetConfig = DatasetConfig()) -> Listing:
    """The samples of a public set, none of them read yet; what is missing or passed over is said on stderr.

    Raises:
        InputError: the folder has no layout that is known, or names what is wrong with it.
    """
    kind = _kind(path) if config.kind == "auto" else config.kind
    if config.table and kind not in (PLAIN, None):
        raise InputError("dataset.table", wanted="a plain folder, whose masks may mean anything", got=kind)
    if kind is None:
        wanted = (
            "captures, an auxiliary set, CelebAMask-HQ, LaPa, HELEN*, iBugMask or FaceSynthetics as its authors lay it"
            " out, or pictures with masks (images/ and labels/, or 7.jpg beside 7.png)"
        )
        if not path.is_dir():
            raise InputError(str(path), wanted=wanted, got="a file" if path.exists() else "nothing there")
        raise InputError(str(path), wanted=wanted, got="none of them", hint=NO_CAPTURES)
    if kind == "celebamask-hq":
        listing = list_celebamask(path, config.split, config.composition)
    elif kind == PLAIN:
        listing = list_plain(path, config.table)
    else:
        listing = list_split_folders(path, kind, config.split)
    check_missing(listing.missing, len(listing.samples), config.max_missing, "dataset.max_missing")
    if not listing.samples:
        got, hint = f"none, {len(listing.missing)} are missing", "unpack all parts of the set into one folder"
        raise InputError(str(path), wanted="labelled pictures", got=got, hint=hint)
    log_missing(path.name, listing.missing, len(listing.samples))
    log_skipped(path.name, listing.passed_over)
    listing = dataclasses.replace(listing, samples=tuple(spread(listing.samples, config.limit)))
    return _swapped(listing) if config.sides == "swapped" else listing


def _kind(path: Path) -> str | None:
    return kind_of(path) or (PLAIN if is_plain(path) else None)


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, spread evenly; 0 for all."""
    return [items[i * len(items) // most] for i in range(most)] if 0 < most < len(items) else items


def _swapped(listing: Listing) -> Listing:
    """Left and right exchanged: in what ids mean, or in which id a part gets where parts come by name."""
    if not listing.samples[0].parts[0][0]:
        return dataclasses.replace(listing, labelset=swapped(listing.labelset))
    other = dict(zip(listing.labelset.names, listing.labelset.mirror))
    parts = [tuple((other[name], path) for name, path in s.parts) for s in listing.samples]
    samples = tuple(dataclasses.replace(s, parts=p) for s, p in zip(listing.samples, parts))
    return dataclasses.replace(listing, samples=samples)


def _part(path: Path, where: str) -> UInt8[np.ndarray, "h w"]:
    """A mask of one part, not 0 where any channel is not: parts are stored as grey, RGB or indexed pictures."""
    image = read_image(path, where)
    return image[..., 0] | image[..., 1] | image[..., 2]


def _label_map(sample: Sample, listing: Listing, where: str) -> UInt8[np.ndarray, "h w"]:
    labelset = listing.labelset
    if sample.parts[0][0] == "":
        path = sample.parts[0][1]
        if listing.read_labels is not None:
            return listing.read_labels(path.read_bytes(), f"{where}, {path.name}")
        labels = decode(path.read_bytes(), f"{where}, {path.name}").ids
        labelset.check(labels, f"{where}, {path.name}")
        return labels
    labels = np.zeros((0, 0), np.uint8)
    for name, path in sample.parts:
        mask = _part(path, f"{where}, {path.name}")
        if not labels.size:
            labels = np.zeros_like(mask)
        if mask.shape != labels.shape:
            wanted = f"{labels.shape[1]}x{labels.shape[0]} pixels, as the other parts"
            raise InputError(f"{where}, {path.name}", wanted=wanted, got=f"{mask.shape[1]}x{mask.shape[0]}")
        labels[mask > 0] = labelset.id(name)
    return labels


def read_sample(
    sample: Sample, listing: Listing, size: int | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Photograph and label map of one sample.

    Args:
        sample: one of `listing.samples`.
        listing: of its set.
        size: pixels per side: the longer side gets so many, the rest is black and IGNORE. None keeps the label map's
            size (CelebAMask-HQ's photographs are twice as large as its masks; in plain folders any size of the
            picture's shape will do).

    Raises:
        InputError: naming set, sample and file.
    """
    where = f"{listing.kind}: {sample.name}"
    read = read_image if listing.read_labels is None else read_upright
    image = read(sample.image, f"{where}, {sample.image.name}")
    labels = _label_map(sample, listing, where)
    h, w = labels.shape
    _check_shape(listing.kind, image.shape[:2], (h, w), f"{where}, {sample.image.name}")
    scale = 1.0 if size is None else size / max(h, w)
    out = (max(round(w * scale), 1), max(round(h * scale), 1))
    smaller = out[0] < image.shape[1]
    image = cv2.resize(image, out, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    labels = resize_labels(labels, out)
    if size is None:
        return image, labels
    top, left = (size - out[1]) // 2, (size - out[0]) // 2
    frame = np.zeros((size, size, 3), np.uint8)
    ids = np.full((size, size), IGNORE, np.uint8)
    frame[top : top + out[1], left : left + out[0]] = image
    ids[top : top + out[1], left : left + out[0]] = labels
    return frame, ids


def _check_shape(kind: str, picture: tuple[int, int], mask: tuple[int, int], where: str) -> None:
    """InputError unless a picture and its label map may be of different sizes as they are."""
    (h, w), (height, width) = mask, picture
    got = f"{width}x{height} for a {w}x{h} label map"
    if kind == PLAIN and picture != mask:
        if abs(h * width - w * height) > max(*mask, *picture):
            hint = "masks are of the upright picture, as Exif turns it"
            raise InputError(where, wanted="picture and label map of one shape", got=got, hint=hint)
        log_once("sizes differ", kind, "masks and pictures differ in size: those of the masks count")
        return
    times = height // h if kind == "celebamask-hq" else 1
    if times < 1 or picture != (h * times, w * times):
        raise InputError(where, wanted="picture and label map of one size", got=got)


def check_sides(labels: np.ndarray | Sequence[np.ndarray], listing: Listing, config: DatasetConfig) -> None:
    """InputError if left and right are the other way round in the label maps of a listing, of which a few are asked."""
    if not config.side_checks or listing.labelset.names == listing.labelset.mirror or not len(labels):
        return
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(config.side_checks, len(labels))).astype(int))
    seen = side_convention([labels[i] for i in chosen], listing.labelset)
    if seen.convention in ("viewer", "mixed"):
        n = sum(v != 0 for v in seen.votes)
        opposed = sum(v < 0 for v in seen.votes)
        got = f"the opposite on {opposed} of {n} pictures"
        hint = "`--set dataset.sides=swapped` turns all of them, `--set dataset.side_checks=0` takes them as they are"
        wanted = "left and right as the person has them"
        raise InputError(f"{listing.kind}: sides", wanted=wanted, got=got, hint=hint)


def _load(listing: Listing, size: int | None, config: DatasetConfig) -> AuxiliarySet:
    n, first = len(listing.samples), read_sample(listing.samples[0], listing, size)
    need = n * 4 * first[1].size / 1e9
    if need > config.max_gigabytes:
        hint = "`--set dataset.limit=N` takes fewer, a smaller `--set size=PIXELS` needs less"
        hint += ", `--set dataset.max_gigabytes=N` allows more"
        what, wanted = f"{listing.kind}: {n} pictures", f"at most {config.max_gigabytes} GB"
        raise InputError(what, wanted=wanted, got=f"{need:.1f} GB", hint=hint)
    images, labels = np.empty((n, *first[0].shape), np.uint8), np.empty((n, *first[1].shape), np.uint8)

    def fill(i: int) -> None:
        image, ids = read_sample(listing.samples[i], listing, size)
        if ids.shape != labels.shape[1:]:
            where = f"{listing.kind}: {listing.samples[i].name}"
            wanted = f"{first[1].shape[1]}x{first[1].shape[0]} pixels, as the first"
            raise InputError(where, wanted=wanted, got=f"{ids.shape[1]}x{ids.shape[0]}", hint=ONE_SIZE)
        images[i], labels[i] = image, ids

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(n)))
    check_sides(labels, listing, config)
    return AuxiliarySet(
        images=images,
        labels=labels,
        weights=np.ones(n, np.float32),
        identity=tuple(s.name for s in listing.samples),
        yaw=np.asarray([s.yaw for s in listing.samples], np.float32),
        pitch=np.asarray([s.pitch for s in listing.samples], np.float32),
        source=("photo",) * n,
        labelset=listing.labelset,
    )


def longer_side(path: Path, config: DatasetConfig = DatasetConfig()) -> int:
    """The size at which a training set is read where nobody says one: its own longer side, at most `MOST` pixels.

    Of captures the largest counts; of public sets and plain folders the largest of a few, spread over the set.

    Raises:
        InputError: as of `read_training_set`, for what it looks at.
    """
    if (path / "samples.jsonl").is_file():
        return max(read_auxiliary(path, most=1).images.shape[1:3])
    if _holds_captures(path, config):
        return max(max(one.shape[1:]) for one in list_captures(path, 0))
    listing = list_dataset(path, config)
    return min(max(max(read_sample(s, listing)[1].shape) for s in spread(listing.samples, LOOKED_AT)), MOST)


def is_listed(path: Path, config: DatasetConfig = DatasetConfig()) -> bool:
    """Whether a training set is a public one or a plain folder, which `list_dataset` lists."""
    return not (path / "samples.jsonl").is_file() and not _holds_captures(path, config)


def _holds_captures(path: Path, config: DatasetConfig) -> bool:
    captures = (path / "transforms.json").is_file() or any(path.glob("*/transforms.json"))
    return config.kind == "auto" and captures


def read_training_set(path: Path, size: int | None = None, config: DatasetConfig = DatasetConfig()) -> AuxiliarySet:
    """Reads a public set, an auxiliary set, a capture, a folder of captures, or a plain folder of pictures and masks.

    Public sets and plain folders say nothing of who is shown, so every picture is its own identity; yaw and pitch are
    NaN where unknown.

    Args:
        size: pixels of the longer side for captures, per side (padded) for other sets; None keeps the files'.
    """
    if (path / "samples.jsonl").is_file():
        return read_auxiliary(path)
    if _holds_captures(path, config):
        return from_captures([read_capture(p, size) for p in capture_folders(path)])
    if size is not None and size < 1:
        raise InputError("read_training_set: size", wanted="at least 1 pixel", got=size)
    data = _load(list_dataset(path, config), size, config)
    return data if config.labels == "own" else with_labelset(data, label_set(config.labels))


def with_labelset(data: AuxiliarySet, target: LabelSet) -> AuxiliarySet:
    """The same pictures in another label set, by name and side, the rest as `usual_choices` says."""
    labels = relabel(data.labels, data.labelset, target, usual_choices(data.labelset, target))
    return dataclasses.replace(data, labels=labels, labelset=target)
