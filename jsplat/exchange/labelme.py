"""labelme's JSON: one file per picture, shapes painted in their order.

A "mask" shape holds two points, the corners of its box with the last pixel included, and a PNG of the box in base64; a
circle its centre and a point on it; a rectangle two opposite corners, or as its descendants write it all four.
"""

import base64
import json
import posixpath
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

from jsplat.captures import label_png
from jsplat.captures.pictures import check_size, encode_png
from jsplat.errors import InputError
from jsplat.exchange.shapes import Budget, id_of, name_of, objects, polygon, present, text, whole
from jsplat.exchange.store import Bundle, stem
from jsplat.files.foreign import with_slashes
from jsplat.labelsets.labelset import LabelSet

_VERSION = "5.5.0"
# Shapes whose points are their outline; what labelme calls oriented_rectangle, X-AnyLabeling calls rotation.
_OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")


def _shape(mask: Bool[np.ndarray, "h w"], name: str) -> dict:
    y, x = np.nonzero(mask)
    top, left, bottom, right = int(y.min()), int(x.min()), int(y.max()), int(x.max())
    box = mask[top : bottom + 1, left : right + 1].astype(np.uint8)
    return {
        "label": name,
        "points": [[float(left), float(top)], [float(right), float(bottom)]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(encode_png(box)).decode(),
    }


def write(masks: Mapping[str, UInt8[np.ndarray, "h w"]], labelset: LabelSet) -> dict[str, bytes]:
    """Files of the format: a mask shape per class but the first, which is what is left."""
    files = {}
    for name, mask in masks.items():
        data = {
            "version": _VERSION,
            "flags": {},
            "shapes": [_shape(mask == i, name_of(i, labelset)) for i in present(mask)],
            "imagePath": f"{name.rsplit('/', 1)[-1]}.png",
            "imageData": None,
            "imageHeight": mask.shape[0],
            "imageWidth": mask.shape[1],
        }
        files[f"{name}.json"] = json.dumps(data).encode()
    return files


def _box(shape: dict, size: tuple[int, int], where: str) -> tuple[slice, slice]:
    corners = np.asarray(shape["points"], np.float64).round()
    (left, top), (right, bottom) = corners.astype(int).tolist()
    if not (0 <= left <= right < size[1] and 0 <= top <= bottom < size[0]):
        raise InputError(f"{where}.points", wanted=f"a box inside {size[1]}x{size[0]}", got=corners.tolist())
    return slice(top, bottom + 1), slice(left, right + 1)


def _draw(shape: dict, size: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if kind not in (*_OUTLINES, "mask", "circle", "rectangle"):
        wanted = f"a shape with an area: {', '.join(_OUTLINES)}, rectangle, circle or mask"
        hint = "draw it as a polygon, or delete the shape"
        raise InputError(f"{where}.shape_type", wanted=wanted, got=repr(kind)[:100], hint=hint)
    if kind in _OUTLINES or (kind == "rectangle" and isinstance(points, list) and len(points) == 4):
        return polygon(points, size, f"{where}.points")
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}.points", wanted="two points [x, y]", got=error) from error
    if corners.shape != (2, 2) or not np.isfinite(corners).all() or np.abs(corners).max() > 1e6:
        raise InputError(
            f"{where}.points", wanted="two points [x, y] near the picture", got=f"an array of {corners.shape}"
        )
    if kind == "circle":
        (x0, y0), (x1, y1) = corners
        y, x = np.ogrid[: size[0], : size[1]]
        return (x + 0.5 - x0) ** 2 + (y + 0.5 - y0) ** 2 < (x1 - x0) ** 2 + (y1 - y0) ** 2
    if kind == "rectangle":
        (x0, y0), (x1, y1) = corners
        return polygon([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], size, f"{where}.points")
    box, drawn, packed = _box(shape, size, where), np.zeros(size, bool), text(shape, "mask", where)
    try:
        data = base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise InputError(f"{where}.mask", wanted="base64", got=error) from error
    inner = label_png.decode(data, f"{where}.mask").ids > 0
    if inner.shape != drawn[box].shape:
        wanted = f"{drawn[box].shape[1]}x{drawn[box].shape[0]} pixels, as the points say"
        raise InputError(f"{where}.mask", wanted=wanted, got=f"{inner.shape[1]}x{inner.shape[0]}")
    drawn[box] = inner
    return drawn


def read(bundle: Bundle, labelset: LabelSet) -> tuple[dict[str, UInt8[np.ndarray, "h w"]], set[str]]:
    """Masks of the files, later shapes covering earlier ones, as labelme draws them; and the files that belong to them.

    The pictures that labelme keeps beside its JSON are no masks, whatever they are.
    """
    masks, budget, pictures = {}, Budget(), set()
    for file, data in sorted(bundle.documents.items()):
        h, w = whole(data, "imageHeight", file), whole(data, "imageWidth", file)
        check_size(w, h, f"{file}: imageWidth, imageHeight")
        budget.take(w * h, file)
        mask = np.zeros((h, w), np.uint8)
        for i, shape in enumerate(objects(data, "shapes", file)):
            where = f"{file}: shapes[{i}]"
            mask[_draw(shape, (h, w), where)] = id_of(text(shape, "label", where), labelset, f"{where}.label")
        if stem(file) in masks:
            raise InputError(file, wanted="a name of its own", got=f"{stem(file)} again")
        masks[stem(file)] = mask
        if isinstance(data.get("imagePath"), str):
            pictures.add(posixpath.normpath(posixpath.join(posixpath.dirname(file), with_slashes(data["imagePath"]))))
    labelled = {n for n in bundle.names if stem(n) in masks}
    return masks, {*bundle.documents, *labelled, *pictures}
