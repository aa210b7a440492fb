"""Plain folders of pictures and masks, paired by name: what `predict` writes and people correct.

    images/ADA/7.jpg  labels/ADA/7.png     or     7.jpg  7.png

A mask is an indexed PNG that names its classes, as `export-masks` and `predict` write them. Where one does not,
labels.json or labelset.json beside it, or in a folder above it, says what colours and ids mean; either may be a table
(`jsplat.labelsets.vocabulary.read_table`). A table by name or file goes before all of them.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jsplat.captures import label_png
from jsplat.captures.capture import labelset_of
from jsplat.captures.upright import ENDINGS
from jsplat.errors import InputError
from jsplat.exchange import indexed
from jsplat.exchange.colors import Painted, distinct
from jsplat.files.foreign import read_text, skipped_files, without_litter
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.labelsets.vocabulary import Vocabulary, known_table, read_table, table_names
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
                f"{folder.name}/{stem}",
                wanted="one file of that name",
                got=f"{found[stem].name}, {path.name}",
                hint="move one of them out of the folder",
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


def list_plain(path: Path, table: str = "") -> Listing:
    """The samples of a plain folder.

    Args:
        table: what masks mean: the name of a known table, or its file; empty: as the folder says.

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
            str(path),
            wanted="pictures and masks of the same names",
            got=f"none, {len(missing)} without the other",
            hint="call the mask of 7.jpg 7.png",
        )
    first = samples[0].parts[0][1]
    sidecar = sidecar_file(first.parent, path)
    used = {sidecar, *(s.image for s in samples), *(s.parts[0][1] for s in samples)} - {None}
    vocabulary = open_table(table) if table else table_in(sidecar) if sidecar is not None else None
    if vocabulary is not None:
        vocabulary = dataclasses.replace(vocabulary, labelset=_with_sides(vocabulary.labelset))
        labelset, read = vocabulary.labelset, functools.partial(read_by_table, vocabulary=vocabulary)
    else:
        meaning = None if sidecar is None else sidecar_meaning(sidecar)
        found = meaning.labelset if meaning is not None else indexed.named_in(first.read_bytes(), first.name)
        if found is None:
            where = f"{path.name}/{first.relative_to(path).as_posix()}"
            hint = f"`--set dataset.table=TABLE` says them: a JSON file, or one of {table_names()}"
            raise InputError(where, wanted=f"class names in its text or in {indexed.SIDECAR}", got="none", hint=hint)
        labelset, read = found, functools.partial(indexed.read_one, labelset=found, sidecar=meaning)
    return Listing(PLAIN, labelset, tuple(samples), tuple(missing), skipped_files(path, used), read, vocabulary)


def open_table(given: str) -> Vocabulary:
    """A table by its name or file; InputError where there is none."""
    found = read_table(_json(Path(given)), given) if Path(given).is_file() else known_table(given)
    if found is None:
        raise InputError("table", wanted=f"a table file, or one of {table_names()}", got=repr(given))
    return found


def table_in(sidecar: Path) -> Vocabulary | None:
    """The table that such a file holds; None if it is what programs of ours write, which says how labels mirror."""
    content = _json(sidecar)
    table = isinstance(content, dict) and "names" in content and "mirror" not in content
    return read_table(content, f"{sidecar.parent.name}/{sidecar.name}") if table else None


def read_by_table(data: bytes, where: str, vocabulary: Vocabulary) -> UInt8[np.ndarray, "h w"]:
    """A mask in the numbers of a table: by colours, if it has some, else by numbers.

    Raises:
        InputError: (`where`: the file) colours or numbers that the table does not know.
    """
    own, numbered = vocabulary.labelset, vocabulary.numbered
    if numbered is None:
        return indexed.read_one(data, where, own, distinct(own))
    stored = label_png.read(data, where)
    if not numbered:
        levels = None if isinstance(stored, label_png.Colors) or stored.palette is not None else stored.ids
        painted = None if levels is None else _by_levels(levels, own)
        return indexed.read_one(data, where, own, distinct(own)) if painted is None else painted
    if isinstance(stored, label_png.Colors):
        hint = "`colors` in the table file say what they mean"
        raise InputError(where, wanted="numbers, as the table has no colours", got="colours", hint=hint)
    if len(own) == 2 and stored.ids.max() == IGNORE and not (stored.ids == 1).any():
        hint = '"colors": [[0, 0, 0], [255, 255, 255]] in the table file says that white is the second label'
        raise InputError(where, wanted="numbers 0 and 1", got=f"0 and {IGNORE}: black and white?", hint=hint)
    own.check(stored.ids, where)
    return stored.ids


def _by_levels(ids: UInt8[np.ndarray, "h w"], own: LabelSet) -> UInt8[np.ndarray, "h w"] | None:
    """The labels of a grey picture whose levels are all colours of labels (black and white); None: they are not."""
    table, levels = np.full(256, IGNORE, np.uint8), np.unique(ids)
    for i, color in enumerate(own.colors):
        if len(set(color)) == 1:
            table[color[0]] = i
    return table[ids] if (table[levels] != IGNORE).all() else None


def _with_sides(labelset: LabelSet) -> LabelSet:
    """The same where names say which are a pair: l_eye and r_eye."""
    other = {n: f"{'r' if n[0] == 'l' else 'l'}{n[1:]}" for n in labelset.names if n[:2] in ("l_", "r_")}
    mirror = tuple(other[n] if other.get(n) in labelset.names else m for n, m in zip(labelset.names, labelset.mirror))
    return dataclasses.replace(labelset, mirror=mirror)


def _json(path: Path) -> object:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise InputError(str(path), wanted="JSON", got=error) from error


def sidecar_file(folder: Path, root: Path) -> Path | None:
    """The nearest file that says what masks mean, from `folder` up to `root`."""
    above = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
    return next((path for path in (place / name for place in above for name in _SIDECARS) if path.is_file()), None)


def sidecar_meaning(path: Path) -> Painted:
    """What such a file says."""
    data, where = path.read_bytes(), f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InputError(where, wanted="JSON", got=error) from error
    if path.name == indexed.SIDECAR and isinstance(content, dict) and "names" in content:
        return indexed.meaning(data, where)
    # As parsers and captures say it: no colour of ignored pixels, and perhaps one for two classes.
    content = (
        content if isinstance(content, dict) and {"labelset", "classes"} & content.keys() else {"labelset": content}
    )
    return distinct(labelset_of(content, where))
