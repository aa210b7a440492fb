"""What became of everything that lies in a source or is listed by it: used, missing, unusable, passed over."""

import collections
import math
import os
from collections.abc import Iterable
from pathlib import Path

from jsplat.errors import InputError
from jsplat.foreign import is_litter, kind_of, some_of, tell, tell_passed_over
from jsplat.readers.source import ImportConfig, Source


def check_missing(source: Source, config: ImportConfig) -> None:
    """InputError if more of the listed pictures are missing than `config` allows."""
    gone, listed = len(source.missing), len(source.missing) + len(source.photos)
    if not gone or (gone <= config.missing * listed and len(source.photos) >= 2):
        return
    where, name = source.missing[0]
    advice = f"; `--set capture.missing={math.ceil(100 * gone / listed) / 100:g}` goes on without them"
    got = f"no file {name} ({gone} of {listed} listed pictures are missing{advice if len(source.photos) >= 2 else ''})"
    raise InputError(where, wanted="an image", got=got)


def used_files(folder: Path, source: Source) -> set[Path]:
    """All files that a source is read from; pictures that it calls unusable count."""
    pictures = {path for p in source.photos for path in (p.path, p.mask, p.matte, p.labels) if path is not None}
    return pictures | set(source.files) | {folder / name for name in source.dropped}


def passed_over(folder: Path, used: Iterable[Path]) -> dict[str, int]:
    """How many files of what kind are not used, the most frequent first.

    Looked at are the folders that hold something used, those above them up to `folder`, and the files directly in
    their other subfolders, which are named; hidden folders count as one.
    """
    used = set(used)
    near = {folder} | {above for path in used for above in path.parents if above.is_relative_to(folder)}
    busy = {path.parent for path in used} | {folder}
    kinds: collections.Counter[str] = collections.Counter()
    for directory in sorted(near):
        for path in _entries(directory):
            if not path.is_dir():
                place = "" if directory in busy else f" in {directory.relative_to(folder).as_posix()}"
                kinds[kind_of(path) + place] += path not in used
            elif path.name.startswith(".") or is_litter(path.name):
                kinds[f"folder {path.name}"] += 1
            elif path not in near:
                place = path.relative_to(folder).as_posix()
                kinds.update(f"{kind_of(below)} in {place}" for below in _entries(path) if not below.is_dir())
    return {kind: count for kind, count in kinds.most_common() if count}


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(map(directory.joinpath, os.listdir(directory)))
    except OSError:  # not ours to read; what lies there is not used either
        return []


def tell_account(folder: Path, source: Source) -> dict[str, int]:
    """Says on stderr, once, what is missing, unusable, masked, read from outside the folder, and passed over.

    Returns:
        how many files of what kind are passed over (see `passed_over`).
    """
    where, photos = folder.name, source.photos
    if source.missing:
        names = [name for _, name in source.missing]
        listed = len(photos) + len(names)
        line = f"missing and left out: {len(names)} of {listed} listed pictures: {some_of(names)}"
        tell("missing", where, line, names=names)
    if source.dropped:
        line = f"left out as unusable: {len(source.dropped)} pictures: {some_of(source.dropped)}"
        tell("unusable", where, line, names=list(source.dropped))
    masks = [photo.mask for photo in photos if photo.mask is not None]
    if masks:
        names = [mask.name for mask in masks]
        line = f"masks of {len(masks)} of {len(photos)} pictures, in which 0 says nothing: {some_of(names)}"
        tell("masks", where, line, names=names)
    used = used_files(folder, source)
    outside = sorted({os.path.relpath(p.parent, folder) for p in used if not p.is_relative_to(folder)})
    if outside:
        tell("outside", where, f"pictures are read from outside the folder: {some_of(outside)}", folders=outside)
    kinds = passed_over(folder, used)
    tell_passed_over(where, kinds)
    return kinds
