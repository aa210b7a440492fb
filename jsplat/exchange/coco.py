"""COCO's JSON: one file for all pictures, an annotation per class and picture with a run-length encoded mask."""

import json
import typing
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

from jsplat.captures.pictures import check_size
from jsplat.errors import InputError
from jsplat.exchange import rle
from jsplat.exchange.shapes import Budget, id_of, name_of, objects, polygon, present, text, whole
from jsplat.exchange.store import Bundle, check_name, stem
from jsplat.files.foreign import with_slashes
from jsplat.labelsets.labelset import IGNORE, LabelSet

_FILE = "annotations/instances_default.json"


def write(masks: Mapping[str, UInt8[np.ndarray, "h w"]], labelset: LabelSet) -> dict[str, bytes]:
    """Files of the format. Category ids are class ids plus one, since many readers take 0 for nothing."""
    images, annotations = [], []
    for number, (name, mask) in enumerate(masks.items(), 1):
        images.append({"id": number, "file_name": f"{name}.png", "height": mask.shape[0], "width": mask.shape[1]})
        for i in present(mask):
            part = mask == i
            y, x = np.nonzero(part)
            box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": i + 1,
                    "segmentation": {"size": list(mask.shape), "counts": rle.compress(rle.encode(part))},
                    "area": len(x),
                    "bbox": box,
                    "iscrowd": 1,
                }
            )
    ids = [*range(len(labelset)), IGNORE]
    categories = [{"id": i + 1, "name": name_of(i, labelset), "supercategory": ""} for i in ids]
    data = {"licenses": [], "info": {}, "categories": categories, "images": images, "annotations": annotations}
    return {_FILE: json.dumps(data).encode()}


def _draw(segmentation: object, size: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    if isinstance(segmentation, list):
        drawn = np.zeros(size, bool)
        for i, flat in enumerate(segmentation):
            if not isinstance(flat, list) or len(flat) % 2:
                raise InputError(f"{where}[{i}]", wanted="x, y, x, y, ...", got=repr(flat)[:100])
            drawn |= polygon(list(zip(flat[::2], flat[1::2])), size, f"{where}[{i}]")
        return drawn
    if not isinstance(segmentation, dict) or segmentation.get("size") != list(size):
        got = segmentation.get("size") if isinstance(segmentation, dict) else type(segmentation).__name__
        raise InputError(f"{where}.size", wanted=f"{list(size)}, as the picture", got=got)
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = rle.decompress(counts, f"{where}.counts")
    if not isinstance(counts, list):
        raise InputError(f"{where}.counts", wanted="runs or a text", got=type(counts).__name__)
    return rle.decode(counts, size, f"{where}.counts")


def tables(data: dict, file: str) -> tuple[dict[int, str], dict[int, tuple[str, tuple[int, int]]]]:
    """Class names by id, and by id the pictures: name without ending, (height, width)."""
    classes, pictures = {}, {}
    for i, category in enumerate(objects(data, "categories", file)):
        where = f"{file}: categories[{i}]"
        number, name = whole(category, "id", where), text(category, "name", where)
        if classes.setdefault(number, name) != name:
            raise InputError(
                f"{where}.id", wanted="an id of its own", got=f"{number} for {classes[number]} and {name}"[:100]
            )
    for i, image in enumerate(objects(data, "images", file)):
        where = f"{file}: images[{i}]"
        name = with_slashes(text(image, "file_name", where)).removeprefix("./")
        check_name(name, f"{where}.file_name")
        h, w = whole(image, "height", where), whole(image, "width", where)
        check_size(w, h, f"{where}.width, height")
        if whole(image, "id", where) in pictures:
            raise InputError(where, wanted="a picture of its own", got=f"the id {image['id']} again")
        pictures[image["id"]] = stem(name), (h, w)
    return classes, pictures


def canvas(
    masks: dict[str, UInt8[np.ndarray, "_ _"]], name: str, size: tuple[int, int], budget: Budget, where: str
) -> UInt8[np.ndarray, "h w"]:
    """A new mask among the masks."""
    budget.take(size[0] * size[1], where)
    if name in masks:
        raise InputError(where, wanted="a picture of its own", got=f"{name} again")
    masks[name] = np.zeros(size, np.uint8)
    return masks[name]


def named(annotation: dict, key: str, table: dict[int, typing.Any], where: str) -> typing.Any:
    """What an annotation's id stands for."""
    number = whole(annotation, key, where)
    if number not in table:
        raise InputError(f"{where}.{key}", wanted=f"{key} that the file lists", got=number)
    return table[number]


def _refuse_empty(annotations: list[dict], file: str) -> None:
    """A rectangle is no outline of anything on a face: drawn as one it would cover what is around."""
    empty = [i for i, annotation in enumerate(annotations) if annotation.get("segmentation") in (None, [])]
    if empty:
        boxes = sum("bbox" in annotations[i] for i in empty)
        got = f"none in {len(empty)} of {len(annotations)} annotations, of which {boxes} are rectangles (bbox)"
        wanted = "an outline or run lengths, since a rectangle is no mask"
        hint = "draw an outline, or delete the annotation"
        raise InputError(f"{file}: annotations[{empty[0]}].segmentation", wanted=wanted, got=got, hint=hint)


def read(bundle: Bundle, labelset: LabelSet) -> tuple[dict[str, UInt8[np.ndarray, "h w"]], set[str]]:
    """Masks of the files, later annotations covering earlier ones, crowd or not; and the files that belong to them."""
    masks, budget = {}, Budget()
    for file, data in sorted(bundle.documents.items()):
        classes, pictures = tables(data, file)
        drawn_on = {i: canvas(masks, *picture, budget, file) for i, picture in pictures.items()}
        annotations = objects(data, "annotations", file)
        for i, annotation in enumerate(annotations):
            where = f"{file}: annotations[{i}]"
            mask, name = (
                named(annotation, "image_id", drawn_on, where),
                named(annotation, "category_id", classes, where),
            )
            number = id_of(name, labelset, f"{where}.category_id")
            if annotation.get("segmentation") in (None, []):
                _refuse_empty(annotations, file)
            mask[_draw(annotation.get("segmentation"), mask.shape, f"{where}.segmentation")] = number
    return masks, {*bundle.documents, *bundle.named_like(masks)}
