"""The auxiliary set: labelled pictures for training a parser, as arrays and as a folder."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.captures.capture import Capture, inside
from jsplat.captures.pictures import read_image, read_labels, write_png
from jsplat.errors import InputError
from jsplat.files.atomic import new_folder, write_bytes, write_json
from jsplat.labelsets.labelset import IGNORE, LabelSet

KNOWN_CLASSES = "`--set dataset.labels=NAME` gives a public set the classes of a known table"
ONE_SIZE = "`--set size=PIXELS` (in Python `size=`) brings all to one size"


@dataclasses.dataclass(frozen=True)
class AuxiliarySet:
    """Labelled pictures of any number of people, all of one size.

    Attributes:
        images: sRGB.
        labels: class ids, or IGNORE where nothing should be learnt.
        weights: how much a picture counts in the loss, >= 0.
        identity, yaw, pitch: whose head, and from where (degrees; NaN where a public set does not say).
        source: "photo" or "render" per picture.
        labelset: what the ids mean.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    labels: UInt8[np.ndarray, "n h w"]
    weights: Float[np.ndarray, " n"]
    identity: tuple[str, ...]
    yaw: Float[np.ndarray, " n"]
    pitch: Float[np.ndarray, " n"]
    source: tuple[str, ...]
    labelset: LabelSet

    def __len__(self) -> int:
        return len(self.images)


def from_captures(captures: list[Capture]) -> AuxiliarySet:
    """All labelled views of some captures as one set of photographs, joined as by `concatenate`.

    Raises:
        InputError: no captures; one without labels, or with other classes or another longer side than the first.
    """
    if not captures:
        raise InputError("captures", wanted="at least one", got="none")
    labelset = captures[0].labelset
    for capture in captures:
        if capture.labels is None or labelset is None:
            hint = "a run gives captures labels, and `jsplat import-masks` those that somebody drew"
            raise InputError(f"capture {capture.identity}", wanted="labels to train on", got="none", hint=hint)
        if capture.labelset != labelset:
            names = "none" if capture.labelset is None else ", ".join(capture.labelset.names)
            wanted = f"the classes of the others ({', '.join(labelset.names)})"
            raise InputError(f"capture {capture.identity}", wanted=wanted, got=names)
        if max(capture.images.shape[1:3]) != max(captures[0].images.shape[1:3]):
            (h, w), got = captures[0].images.shape[1:3], f"{capture.images.shape[2]}x{capture.images.shape[1]}"
            wanted = f"a longer side as of the others, {w}x{h} pixels"
            raise InputError(f"capture {capture.identity}", wanted=wanted, got=got, hint=ONE_SIZE)
    return concatenate([_photographs(capture) for capture in captures])


def _photographs(capture: Capture) -> AuxiliarySet:
    assert capture.labels is not None
    assert capture.labelset is not None
    n = len(capture.images)
    return AuxiliarySet(
        images=capture.images,
        labels=capture.labels,
        weights=np.ones(n, np.float32),
        identity=(capture.identity,) * n,
        yaw=capture.yaw.astype(np.float32),
        pitch=capture.pitch.astype(np.float32),
        source=("photo",) * n,
        labelset=capture.labelset,
    )


def check_scorable(data: AuxiliarySet, what: str) -> None:
    """InputError, about `what`, for a set without foreground, in which nothing can be scored."""
    # One picture after the other: a mask of a whole set would need as much memory again.
    if not any(((labels > 0) & (labels != IGNORE)).any() for labels in data.labels):
        wanted = "a pixel of the foreground, whose classes are scored"
        raise InputError(what, wanted=wanted, got=f"{len(data)} pictures without")


def squared(data: AuxiliarySet) -> AuxiliarySet:
    """The pictures in the middle of squares of their longer side: around them the edge's colours, and IGNORE."""
    height, width = data.images.shape[1:3]
    side = max(height, width)
    if height == width:
        return data
    top, left = (side - height) // 2, (side - width) // 2
    around = ((0, 0), (top, side - height - top), (left, side - width - left))
    images = np.pad(data.images, (*around, (0, 0)), mode="edge")
    return dataclasses.replace(data, images=images, labels=np.pad(data.labels, around, constant_values=IGNORE))


def concatenate(sets: list[AuxiliarySet]) -> AuxiliarySet:
    """Several sets as one; where some are upright and some are not, all become squares (`squared`).

    Raises:
        InputError: no sets, longer sides or label sets that differ.
    """
    if not sets:
        raise InputError("concatenate: sets", wanted="at least one", got="none")
    if any(s.images.shape[1:] != sets[0].images.shape[1:] for s in sets):
        if len({max(s.images.shape[1:3]) for s in sets}) > 1:
            raise InputError("concatenate: sets", wanted="one longer side", got=[s.images.shape[1:3] for s in sets])
        sets = [squared(s) for s in sets]
    if any(s.labelset != sets[0].labelset for s in sets):
        raise InputError("concatenate: sets", wanted="one label set", got=[s.labelset.names for s in sets])
    arrays = {n: np.concatenate([getattr(s, n) for s in sets]) for n in ("images", "labels", "weights", "yaw", "pitch")}
    return AuxiliarySet(
        **arrays,
        identity=tuple(name for s in sets for name in s.identity),
        source=tuple(name for s in sets for name in s.source),
        labelset=sets[0].labelset,
    )


def write_auxiliary(path: Path, data: AuxiliarySet) -> None:
    """Writes images, labels, samples.jsonl and labelset.json, whole or not at all."""
    with new_folder(path) as folder:
        _write_index(folder, [_write_sample(folder, i, data, i) for i in range(len(data))], data.labelset)


def write_parts(path: Path, parts: Iterable[AuxiliarySet], photos: int) -> None:
    """`write_auxiliary` of several sets, of which one is in memory at a time: all photographs, then all renders.

    Args:
        photos: how many photographs the parts hold altogether.

    Raises:
        InputError: no parts, parts that do not fit together, or another number of photographs.
    """
    rows, first = {"photo": [], "render": []}, None
    with new_folder(path) as folder:
        for part in parts:
            (h, w), about = part.images.shape[1:3], (part.images.shape[1:3], part.labelset)
            first = first or about
            if about != first:
                got = f"{w}x{h} pixels, {part.labelset.names}"
                raise InputError(f"write_parts: {part.identity[0]}", wanted="size and classes of the others", got=got)
            for i, source in enumerate(part.source):
                number = len(rows[source]) + (photos if source == "render" else 0)
                rows[source].append(_write_sample(folder, number, part, i))
        if first is None or len(rows["photo"]) != photos:
            raise InputError("write_parts: parts", wanted=f"{photos} photographs", got=len(rows["photo"]))
        _write_index(folder, [*rows["photo"], *rows["render"]], first[1])


def _write_sample(folder: Path, number: int, data: AuxiliarySet, i: int) -> str:
    """Picture `i` of a set as files of that number; returns its line of samples.jsonl."""
    image, label = f"images/{number:05d}.png", f"labels/{number:05d}.png"
    write_png(folder / image, data.images[i])
    write_png(folder / label, data.labels[i])
    row = {"image": image, "label": label, "identity": data.identity[i]}
    row |= {"yaw": float(data.yaw[i]), "pitch": float(data.pitch[i])}
    return json.dumps(row | {"weight": float(data.weights[i]), "source": data.source[i]})


def _write_index(folder: Path, lines: list[str], labelset: LabelSet) -> None:
    write_bytes(folder / "samples.jsonl", ("\n".join(lines) + "\n").encode())
    write_json(folder / "labelset.json", labelset.to_json())


def read_auxiliary(path: Path, most: int | None = None) -> AuxiliarySet:
    """Reads what `write_auxiliary` wrote: all of it, or the first `most` pictures.

    Raises:
        InputError: naming the file, line and field that is wrong.
    """
    where = f"{path.name}/samples.jsonl"
    try:
        labelset = LabelSet.from_json(json.loads((path / "labelset.json").read_text("utf-8")))
        rows = [json.loads(line) for line in (path / "samples.jsonl").read_text("utf-8").splitlines()[:most]]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(str(path), wanted="an auxiliary set (labelset.json, samples.jsonl)", got=error) from error
    if not rows:
        raise InputError(where, wanted="at least one picture", got="none")
    images, labels = [], []
    for i, row in enumerate(rows):
        line = f"{where}: line {i + 1}"
        _check_row(row, line)
        images.append(read_image(inside(path, row["image"], f"{line}, image"), f"{line}, image"))
        if images[i].shape != images[0].shape:
            (h, w), got = images[0].shape[:2], f"{images[i].shape[1]}x{images[i].shape[0]}"
            raise InputError(f"{line}, image", wanted=f"{w}x{h} pixels, as the others", got=got)
        size = (images[i].shape[1], images[i].shape[0])
        labels.append(read_labels(inside(path, row["label"], f"{line}, label"), f"{line}, label", labelset, size))
    return AuxiliarySet(
        images=np.stack(images),
        labels=np.stack(labels),
        weights=np.asarray([r["weight"] for r in rows], np.float32),
        identity=tuple(r["identity"] for r in rows),
        yaw=np.asarray([r["yaw"] for r in rows], np.float32),
        pitch=np.asarray([r["pitch"] for r in rows], np.float32),
        source=tuple(r["source"] for r in rows),
        labelset=labelset,
    )


def _check_row(row: object, line: str) -> None:
    if not isinstance(row, dict):
        raise InputError(line, wanted="an object", got=repr(row))
    for key in ("yaw", "pitch", "weight"):
        value = row.get(key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
        if value is None or not number or (key == "weight" and value < 0):
            wanted = "a finite number" + (" >= 0" if key == "weight" else "")
            raise InputError(f"{line}, {key}", wanted=wanted, got=repr(value))
    if not isinstance(row.get("identity"), str):
        raise InputError(f"{line}, identity", wanted="a name", got=repr(row.get("identity")))
    if row.get("source") not in ("photo", "render"):
        raise InputError(f"{line}, source", wanted="photo or render", got=repr(row.get("source")))
    for key in ("image", "label"):
        if key not in row:
            raise InputError(f"{line}, {key}", wanted="a path inside the folder", got="none")
