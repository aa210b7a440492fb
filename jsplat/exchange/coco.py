"""COCO's JSON: one file for all pictures, an annotation per class and picture with a run-length encoded mask."""

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

from jsplat.errors import InputError
from jsplat.exchange import rle
from jsplat.exchange.shapes import Budget, id_of, name_of, objects, parse, polygon, present, text, whole
from jsplat.exchange.store import check_name
from jsplat.labelset import IGNORE, LabelSet
from jsplat.png import check_size

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


def read(files: Mapping[str, bytes], labelset: LabelSet) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """Masks of the files; later annotations cover earlier ones. Crowd or not makes no difference."""
    masks, budget = {}, Budget()
    for file in sorted(n for n in files if n.endswith(".json")):
        data = parse(files[file], file)
        classes, pictures = {}, {}
        for i, category in enumerate(objects(data, "categories", file)):
            where = f"{file}: categories[{i}]"
            classes[whole(category, "id", where)] = text(category, "name", where)
        for i, image in enumerate(objects(data, "images", file)):
            where = f"{file}: images[{i}]"
            name = text(image, "file_name", where)
            check_name(name, f"{where}.file_name")
            name = name.rsplit(".", 1)[0] if "." in name.rsplit("/", 1)[-1] else name
            h, w = whole(image, "height", where), whole(image, "width", where)
            check_size(w, h, f"{where}.width, height")
            budget.take(w * h, where)
            if name in masks or whole(image, "id", where) in pictures:
                raise InputError(where, wanted="a picture of its own", got=f"{name} or its id again")
            masks[name] = pictures[image["id"]] = np.zeros((h, w), np.uint8)
        for i, annotation in enumerate(objects(data, "annotations", file)):
            where = f"{file}: annotations[{i}]"
            mask = pictures.get(whole(annotation, "image_id", where))
            name = classes.get(whole(annotation, "category_id", where))
            if mask is None or name is None:
                wanted = "image_id and category_id that the file lists"
                raise InputError(where, wanted=wanted, got=(annotation["image_id"], annotation["category_id"]))
            drawn = _draw(annotation.get("segmentation"), mask.shape, f"{where}.segmentation")
            mask[drawn] = id_of(name, labelset, f"{where}.category_id")
    return masks
