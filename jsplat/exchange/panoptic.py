"""COCO's panoptic JSON, read only: a PNG per picture whose colours number segments, and their classes in the file.

A pixel's number is red + 256 green + 65536 blue; 0 is no segment. The PNGs lie in a folder with the name of the JSON.
"""

import posixpath

import numpy as np
from jaxtyping import UInt8

from jsplat.captures import label_png
from jsplat.errors import InputError
from jsplat.exchange.coco import canvas, named, tables
from jsplat.exchange.shapes import Budget, id_of, objects, text, whole
from jsplat.exchange.store import Bundle, stem
from jsplat.files.foreign import with_slashes
from jsplat.labelsets.labelset import LabelSet


def _segments(bundle: Bundle, file: str, name: str, where: str) -> str:
    """The PNG of an annotation: in the folder that is called as the JSON, or beside it."""
    places = [posixpath.normpath(posixpath.join(folder, name)) for folder in (stem(file), posixpath.dirname(file))]
    there = [place for place in places if place in bundle.files]
    if not there:
        hint = "put the PNGs into a folder that is called as the JSON, beside it"
        wanted = f"a PNG of segments, {places[0]}"
        raise InputError(f"{where}.file_name", wanted=wanted, got="no such file", hint=hint)
    return there[0]


def read(bundle: Bundle, labelset: LabelSet) -> tuple[dict[str, UInt8[np.ndarray, "h w"]], set[str]]:
    """Masks of the files; and the files that belong to them."""
    masks, used, budget = {}, set(bundle.documents), Budget()
    for file, data in sorted(bundle.documents.items()):
        classes, pictures = tables(data, file)
        drawn_on = {i: canvas(masks, *picture, budget, file) for i, picture in pictures.items()}
        for i, annotation in enumerate(objects(data, "annotations", file)):
            where = f"{file}: annotations[{i}]"
            mask = named(annotation, "image_id", drawn_on, where)
            source = _segments(bundle, file, with_slashes(text(annotation, "file_name", where)), where)
            rgb = label_png.colors_of(label_png.read(bundle.files[source], source), source).astype(np.int32)
            if rgb.shape[:2] != mask.shape:
                got = f"{rgb.shape[1]}x{rgb.shape[0]}"
                raise InputError(source, wanted=f"{mask.shape[1]}x{mask.shape[0]} pixels, as the picture", got=got)
            numbers, at = np.unique(rgb @ np.array([1, 1 << 8, 1 << 16]), return_inverse=True)
            ids = {0: 0}
            for j, segment in enumerate(objects(annotation, "segments_info", where)):
                place = f"{where}.segments_info[{j}]"
                name = named(segment, "category_id", classes, place)
                ids[whole(segment, "id", place)] = id_of(name, labelset, f"{place}.category_id")
            strange = [int(n) for n in numbers if int(n) not in ids]
            if strange:
                raise InputError(source, wanted="segments that segments_info lists", got=f"{strange[:5]}")
            mask[:] = np.asarray([ids[int(n)] for n in numbers], np.uint8)[at].reshape(mask.shape)
            used.add(source)
    return masks, {*used, *bundle.named_like(masks)}
