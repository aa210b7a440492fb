"""Plain folders of pictures and masks, paired by name: what `predict` writes and people correct.

    images/ADA/7.jpg  labels/ADA/7.png     or     7.jpg  7.png

A mask is an indexed PNG that names its classes, as `export-masks` and `predict` write them. Where one does not,
labels.json or labelset.json beside it, or in a folder above it, says what colours and ids mean.
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path

from jsplat.captures.capture import labelset_of
from jsplat.captures.upright import ENDINGS
from jsplat.errors import InputError
from jsplat.exchange import indexed
from jsplat.exchange.colors import Painted, distinct
from jsplat.files.foreign import passed_over, without_litter
from jsplat.training_sets.split_folders import Listing, Sample

PLAIN = "plain"
_PHOTOGRAPHS = tuple(ending for ending in ENDINGS if ending != ".png")  # beside which a PNG is a mask
_SIDECARS = (indexed.SIDECAR, "labelset.json")


def _below(folder: Path) -> list[Path]:
    return [p for p in without_litter(folder.rglob("*"), folder) if p.is_file()]


def _by_stem(files: Iterable[Path], folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files by relative name without ending; InputError for two of one name."""
    found: dict[str, Path] = {}
    for path in (p for p in files if p.suffix.lower() in endings):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise InputError(
                f"{folder.name}/{stem}", wanted="one file of that name", got=f"{found[stem].name}, {path.name}"
            )
        found[stem] = path
    return found


def is_plain(path: Path) -> bool:
    """Whether a folder looks like one: images/ and labels/, or a photograph beside a PNG of its name."""
    if (path / "images").is_dir() and (path / "labels").is_dir():
        return True
    names = {p.name.lower() for p in without_litter(path.glob("*"))}
    return any(
        Path(name).with_suffix(ending).name in names
        for name in names
        if name.endswith(".png")
        for ending in _PHOTOGRAPHS
    )


def list_plain(path: Path) -> Listing:
    """The samples of a plain folder.

    Raises:
        InputError: nothing says what the masks mean, or two files bear one name.
    """
    if (path / "images").is_dir() and (path / "labels").is_dir():
        images = _by_stem(_below(path / "images"), path / "images", ENDINGS)
        labels = _by_stem(_below(path / "labels"), path / "labels", (".png",))
    else:
        files = [p for p in without_litter(path.glob("*")) if p.is_file()]
        images, labels = (_by_stem(files, path, endings) for endings in (_PHOTOGRAPHS, (".png",)))
    samples, missing = [], []
    for stem in sorted(images.keys() | labels.keys()):
        if stem not in labels:
            missing.append((f"{images[stem].parent.name}/{images[stem].name}", f"{stem}.png"))
        elif stem not in images:
            missing.append((f"{labels[stem].parent.name}/{labels[stem].name}", f"{stem}.jpg"))
        else:
            samples.append(Sample(stem, images[stem], (("", labels[stem]),)))
    if not samples:
        raise InputError(
            str(path), wanted="pictures and masks of the same names", got=f"none, {len(missing)} without the other"
        )
    first = samples[0].parts[0][1]
    sidecar = sidecar_file(first.parent, path)
    beside = None if sidecar is None else sidecar_meaning(sidecar)
    labelset = beside.labelset if beside is not None else indexed.named_in(first.read_bytes(), first.name)
    if labelset is None:
        where = f"{path.name}/{first.relative_to(path).as_posix()}"
        raise InputError(where, wanted=f"class names in its text or in {indexed.SIDECAR}", got="none")
    used = {sidecar, *(s.image for s in samples), *(s.parts[0][1] for s in samples)} - {None}
    read = functools.partial(indexed.read_one, labelset=labelset, beside=beside)
    return Listing(PLAIN, labelset, tuple(samples), tuple(missing), passed_over(path, used), read)


def sidecar_file(folder: Path, root: Path) -> Path | None:
    """The nearest file that says what masks mean, from `folder` up to `root`."""
    above = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
    return next((path for path in (place / name for place in above for name in _SIDECARS) if path.is_file()), None)


def sidecar_meaning(path: Path) -> Painted:
    """What such a file says."""
    data, where = path.read_bytes(), f"{path.parent.name}/{path.name}"
    try:
        said = json.loads(data)
    except ValueError as error:
        raise InputError(where, wanted="JSON", got=error) from error
    if path.name == indexed.SIDECAR and isinstance(said, dict) and "names" in said:
        return indexed.meaning(data, where)
    # As parsers and captures say it: no colour of ignored pixels, and perhaps one for two classes.
    said = said if isinstance(said, dict) and {"labelset", "classes"} & said.keys() else {"labelset": said}
    return distinct(labelset_of(said, where))
