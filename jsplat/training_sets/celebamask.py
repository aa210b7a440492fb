"""CelebAMask-HQ: one mask per part, painted over each other in an order that changes the scores."""

import math
import os
from pathlib import Path

from jsplat.errors import InputError
from jsplat.files.foreign import is_litter, kinds_of, text_of
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.labelsets.tables import CELEBAMASK_HQ_FARL, CELEBAMASK_HQ_OFFICIAL
from jsplat.training_sets.split_folders import Listing, Sample

# Name -> parts in painting order, later over earlier: each code base paints in the order of its own ids. The official
# one hides necklaces under the neck.
COMPOSITIONS = {
    "zllrunning": CELEBAMASK_HQ.names[1:],
    "official": CELEBAMASK_HQ_OFFICIAL.names[1:],
    "farl": CELEBAMASK_HQ_FARL.names[1:],
}

_IMAGES, _MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_MAPPING, _PARTITION, _POSE = (
    "CelebA-HQ-to-CelebA-mapping.txt",
    "list_eval_partition.txt",
    "CelebAMask-HQ-pose-anno.txt",
)


def _rows(path: Path, wanted: str) -> list[list[str]]:
    where = f"{path.parent.name}/{path.name}"
    try:
        return [line.split() for line in text_of(path.read_bytes(), where).splitlines() if line.strip()]
    except OSError as error:
        raise InputError(where, wanted=wanted, got=error) from error


def _masks(path: Path) -> tuple[dict[int, dict[str, Path]], list[Path]]:
    """Picture -> part -> file, from one look into each folder; and the other files."""
    found: dict[int, dict[str, Path]] = {}
    others = []
    for folder in sorted(path.iterdir()):
        if not folder.is_dir():
            others.append(folder)
            continue
        for entry in os.scandir(folder):
            number, _, part = entry.name.removesuffix(".png").partition("_")
            if not entry.name.endswith(".png") or is_litter(entry.name):
                others.append(Path(entry.path))
                continue
            if not number.isdecimal() or part not in CELEBAMASK_HQ.names[1:]:
                wanted = f"NUMBER_PART.png with a part among {', '.join(CELEBAMASK_HQ.names[1:])}"
                raise InputError(f"{_MASKS}/{folder.name}/{entry.name}", wanted=wanted, got=repr(part or number))
            found.setdefault(int(number), {})[part] = Path(entry.path)
    return found, others


def _partition(path: Path) -> dict[int, str]:
    """Picture -> split, through the numbers the pictures had in CelebA."""
    wanted = f"CelebA's {_PARTITION} beside {_MAPPING}, or dataset.split=all"
    split_of = {}
    for i, row in enumerate(_rows(path / _PARTITION, wanted)):
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise InputError(f"{path.name}/{_PARTITION}: line {i + 1}", wanted="FILE 0|1|2", got=" ".join(row))
        split_of[row[0]] = ("train", "val", "test")[int(row[1])]
    splits = {}
    for i, row in enumerate(_rows(path / _MAPPING, wanted)[1:]):
        where = f"{path.name}/{_MAPPING}: line {i + 2}"
        if len(row) != 3 or not row[0].isdecimal():
            raise InputError(where, wanted="INDEX ORIGINAL_INDEX ORIGINAL_FILE", got=" ".join(row))
        if row[2] not in split_of:
            raise InputError(where, wanted=f"a file that {_PARTITION} lists", got=row[2])
        splits[int(row[0])] = split_of[row[2]]
    return splits


def _poses(path: Path) -> dict[str, tuple[float, float]]:
    """Picture file -> (yaw, pitch) in degrees; empty without the file. Signs are the file's (HopeNet's)."""
    if not (path / _POSE).is_file():
        return {}
    where, rows = f"{path.name}/{_POSE}", _rows(path / _POSE, "a readable file")
    header = [name.lower() for name in rows[1]] if len(rows) > 1 else []
    if "yaw" not in header or "pitch" not in header:
        raise InputError(f"{where}: line 2", wanted="a header with Yaw and Pitch", got=" ".join(header) or "none")
    yaw, pitch, poses = header.index("yaw") + 1, header.index("pitch") + 1, {}
    for i, row in enumerate(rows[2:]):
        try:
            poses[row[0]] = (float(row[yaw]), float(row[pitch]))
        except (ValueError, IndexError):
            poses[row[0]] = (math.nan, math.nan)
        if not all(map(math.isfinite, poses[row[0]])):
            raise InputError(f"{where}: line {i + 3}", wanted="a file and three angles", got=" ".join(row))
    return poses


def list_celebamask(path: Path, split: str, composition: str) -> Listing:
    """Samples of CelebAMask-HQ.

    A part without a file is not in the picture; a picture without any is passed over. Splits are those of CelebA.

    Args:
        path: the folder with CelebA-HQ-img and CelebAMask-HQ-mask-anno.
        split: "train", "val" or "test", or "all", which needs no list.
        composition: a name in `COMPOSITIONS`.
    """
    if composition not in COMPOSITIONS:
        wanted = f"one of {', '.join(COMPOSITIONS)}"
        raise InputError("dataset.composition", wanted=wanted, got=repr(composition))
    splits = {} if split == "all" else _partition(path)
    poses, samples, missing = _poses(path), [], []
    masks, others = _masks(path / _MASKS)
    there = set(os.listdir(path / _IMAGES)) if (path / _IMAGES).is_dir() else set()
    others += [path / _IMAGES / name for name in there - {f"{number}.jpg" for number in masks}]
    for number, parts in sorted(masks.items()):
        if split != "all" and number not in splits:
            raise InputError(f"{path.name}/{_MAPPING}", wanted=f"a line for picture {number}", got="none")
        if split == "all" or splits[number] == split:
            image = path / _IMAGES / f"{number}.jpg"
            if image.name not in there:
                missing.append((f"{_IMAGES}/{image.name}", image.name))
                continue
            order = tuple((part, parts[part]) for part in COMPOSITIONS[composition] if part in parts)
            yaw, pitch = poses.get(image.name, (math.nan, math.nan))
            samples.append(Sample(str(number), image, order, yaw, pitch))
    if not samples and not missing:
        raise InputError(f"{path.name}/{_MASKS}", wanted=f"masks of pictures of split {split}", got="none")
    return Listing("celebamask-hq", CELEBAMASK_HQ, tuple(samples), tuple(missing), kinds_of(others))
