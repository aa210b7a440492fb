"""CVAT's "Segmentation mask 1.1": class colours in labelmap.txt, coloured masks, and a list of the pictures.

labelmap.txt has a line `name:r,g,b:parts:actions` per class; SegmentationClass holds the classes, SegmentationObject
one colour of Pascal VOC's table per object; ImageSets/Segmentation/default.txt the names without ending. CVAT takes
black for background.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int16, UInt8

from jsplat.captures import label_png
from jsplat.captures.pictures import encode_png
from jsplat.errors import InputError
from jsplat.exchange.colors import distinct
from jsplat.exchange.shapes import IGNORE_NAME, Budget, id_of, present
from jsplat.exchange.store import Bundle, stem
from jsplat.files.foreign import text_of, with_slashes
from jsplat.labelsets.labelset import IGNORE, LabelSet

MAP, _LIST, _CLASSES, _OBJECTS = (
    "labelmap.txt",
    "ImageSets/Segmentation/default.txt",
    "SegmentationClass/",
    "SegmentationObject/",
)


def _voc() -> UInt8[np.ndarray, "256 3"]:
    """Pascal VOC's colours: the bits of the number go in turn to red, green and blue, highest first."""
    number, color = np.arange(256)[:, None], np.zeros((256, 3), int)
    for bit in range(8):
        color |= (number >> (3 * bit + np.arange(3)) & 1) << (7 - bit)
    return color.astype(np.uint8)


def write(masks: Mapping[str, UInt8[np.ndarray, "h w"]], labelset: LabelSet) -> dict[str, bytes]:
    """Files of the format. Every class of a picture is one object.

    Raises:
        InputError: a class name that labelmap.txt cannot hold.
    """
    odd = [n for n in labelset.names if any(c in n for c in ":#,\r\n") or n != n.strip()]
    if odd:
        hint = "`--format indexed`, labelme or coco take them"
        raise InputError("export to cvat: class names", wanted="no colon, comma, hash or line end", got=odd, hint=hint)
    table = distinct(labelset, (0, 0, 0)).table
    names = [*enumerate(labelset.names), (IGNORE, IGNORE_NAME)]
    lines = ["# label:color_rgb:parts:actions"] + [f"{n}:{','.join(map(str, table[i]))}::" for i, n in names]
    files = {MAP: ("\n".join(lines) + "\n").encode(), _LIST: ("\n".join(masks) + "\n").encode()}
    for name, mask in masks.items():
        number = np.zeros(256, np.uint8)
        number[present(mask)] = 1 + np.arange(len(present(mask)))
        files |= {f"{_CLASSES}{name}.png": encode_png(table[mask])}
        files |= {f"{_OBJECTS}{name}.png": encode_png(_voc()[number[mask]])}
    return files


def _packed(r, g, b):
    return r << 16 | g << 8 | b


def _labelmap(data: bytes, where: str, labelset: LabelSet) -> tuple[list[int], Int16[np.ndarray, " colors"]]:
    """Ids in the order of the lines, and the id of every colour there can be, -1 for none."""
    order, id_of_color = [], np.full(1 << 24, -1, np.int16)
    for number, line in enumerate(text_of(data, where).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        at, fields = f"{where}: line {number}", line.split(":")
        colors = fields[1].split(",") if len(fields) > 1 else []
        if len(colors) != 3 or not all(c.isascii() and c.isdigit() and len(c) <= 3 and int(c) < 256 for c in colors):
            raise InputError(at, wanted="name:r,g,b:parts:actions", got=repr(line[:100]))
        r, g, b = (int(c) for c in colors)
        name = fields[0]
        order.append(0 if name == "background" and name not in labelset.names else id_of(name, labelset, at))
        if id_of_color[_packed(r, g, b)] not in (-1, order[-1]):
            raise InputError(at, wanted="a colour of its own", got=f"{r},{g},{b} again")
        id_of_color[_packed(r, g, b)] = order[-1]
    return order, id_of_color


def read(bundle: Bundle, labelset: LabelSet) -> tuple[dict[str, UInt8[np.ndarray, "h w"]], set[str]]:
    """Masks of the files, by colour, or by line of labelmap.txt where the masks are grey; and the files that belong."""
    files = bundle.files
    maps = [n for n in files if n == MAP or n.endswith(f"/{MAP}")]
    if len(maps) != 1:
        raise InputError("cvat masks", wanted=f"one {MAP}", got=", ".join(maps) or "no such file")
    root = maps[0].removesuffix(MAP)
    order, id_of_color = _labelmap(files[root + MAP], root + MAP, labelset)
    inside = [n for n in files if n.startswith(root + _CLASSES) and n.lower().endswith(".png")]
    names = {stem(n)[len(root + _CLASSES) :]: n for n in inside}
    if root + _LIST in files:
        listed = with_slashes(text_of(files[root + _LIST], root + _LIST)).splitlines()
        missing = [n for n in (line.strip() for line in listed) if n and n not in names]
        if missing:
            raise InputError(
                root + _LIST,
                wanted=f"a mask in {_CLASSES} for every name",
                got=f"none for {missing[0]!r}",
                hint="export the whole task again as Segmentation mask 1.1, or take the name out of the list",
            )
    masks, budget = {}, Budget()
    for name, file in sorted(names.items()):
        stored = label_png.read(files[file], file)
        if isinstance(stored, label_png.Indices) and stored.palette is None:
            lines = stored.ids
            if lines.max() >= len(order):
                raise InputError(file, wanted=f"numbers below the {len(order)} lines of {MAP}", got=lines.max())
            masks[name] = np.asarray(order, np.uint8)[lines]
        else:
            masks[name] = _by_color(label_png.colors_of(stored, file), id_of_color, file)
        budget.take(masks[name].size, file)
    lists = {n for n in files if n.startswith(f"{root}ImageSets/")}
    return masks, {root + MAP, *lists, *inside, *bundle.named_like(masks)}


def _by_color(
    rgb: UInt8[np.ndarray, "h w 3"], id_of_color: Int16[np.ndarray, " colors"], where: str
) -> UInt8[np.ndarray, "h w"]:
    ids = id_of_color[_packed(*rgb.transpose(2, 0, 1).astype(np.int32))]
    if ids.min() < 0:
        wanted, hint = f"colours that {MAP} lists", "save masks without smoothing, as PNG"
        raise InputError(where, wanted=wanted, got=rgb[ids < 0][0].tolist(), hint=hint)
    return ids.astype(np.uint8)
