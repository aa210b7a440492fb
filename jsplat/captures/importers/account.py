"""What became of everything that lies in a source or is listed by it: used, missing, unusable, passed over."""

import os
from pathlib import Path

from jsplat.captures.importers.source import Source
from jsplat.files.foreign import log_missing, log_once, log_skipped, skipped_files, some_of


def used_files(folder: Path, source: Source) -> set[Path]:
    """All files that a source is read from; pictures that it calls unusable count."""
    pictures = {path for p in source.photos for path in (p.path, p.mask, p.matte, p.labels) if path is not None}
    return pictures | set(source.files) | {folder / name for name in source.dropped}


def log_files(folder: Path, source: Source) -> dict[str, int]:
    """Says on stderr, once, what is missing, unusable, masked, read from outside the folder, and passed over.

    Returns:
        how many files of what kind are passed over (see `skipped_files`).
    """
    where, photos = folder.name, source.photos
    log_missing(where, source.missing, len(photos))
    if source.dropped:
        line = f"left out as unusable: {len(source.dropped)} pictures: {some_of(source.dropped)}"
        log_once("unusable", where, line, names=list(source.dropped))
    masks = [photo.mask for photo in photos if photo.mask is not None]
    if masks:
        names = [mask.name for mask in masks]
        line = f"masks of {len(masks)} of {len(photos)} pictures, in which 0 says nothing: {some_of(names)}"
        log_once("masks", where, line, names=names)
    used = used_files(folder, source)
    outside = sorted({os.path.relpath(p.parent, folder) for p in used if not p.is_relative_to(folder)})
    if outside:
        log_once("outside", where, f"pictures are read from outside the folder: {some_of(outside)}", folders=outside)
    kinds = skipped_files(folder, used)
    log_skipped(where, kinds)
    return kinds
