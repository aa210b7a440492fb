"""The auxiliary set: labelled pictures for training a parser, as arrays and as a folder."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jsplat.capture import Capture, capture_folders, read_capture, write_png
from jsplat.errors import InputError
from jsplat.folder import new_folder, write_bytes, write_json
from jsplat.labelset import LabelSet


@dataclasses.dataclass(frozen=True)
class AuxiliarySet:
    """Labelled pictures of any number of people, all of one size.

    Attributes:
        images: sRGB.
        labels: class ids, or IGNORE where nothing should be learnt.
        weights: how much a picture counts in the loss, >= 0.
        identity, yaw, pitch: whose head, and from where (degrees).
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
    """All labelled views of some captures as one set of photographs."""
    if not captures:
        raise InputError("captures", wanted="at least one", got="none")
    labels, labelset = [], captures[0].labelset
    for capture in captures:
        if capture.labels is None or labelset is None:
            raise InputError(f"capture {capture.identity}", wanted="labels to train on", got="none")
        if capture.labelset != labelset:
            names = None if capture.labelset is None else capture.labelset.names
            raise InputError(f"capture {capture.identity}", wanted="the label set of the others", got=names)
        labels.append(capture.labels)
    assert labelset is not None  # the first capture had one, or the loop has stopped
    counts = [len(c.images) for c in captures]
    return AuxiliarySet(
        images=np.concatenate([c.images for c in captures]),
        labels=np.concatenate(labels),
        weights=np.ones(sum(counts), np.float32),
        identity=tuple(c.identity for c, n in zip(captures, counts) for _ in range(n)),
        yaw=np.concatenate([c.yaw for c in captures]).astype(np.float32),
        pitch=np.concatenate([c.pitch for c in captures]).astype(np.float32),
        source=("photo",) * sum(counts),
        labelset=labelset,
    )


def concatenate(sets: list[AuxiliarySet]) -> AuxiliarySet:
    """Several sets as one."""
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
        lines = []
        for i in range(len(data)):
            write_png(folder / f"images/{i:05d}.png", data.images[i])
            write_png(folder / f"labels/{i:05d}.png", data.labels[i])
            row = {"image": f"images/{i:05d}.png", "label": f"labels/{i:05d}.png", "identity": data.identity[i]}
            row |= {"yaw": float(data.yaw[i]), "pitch": float(data.pitch[i])}
            lines.append(json.dumps(row | {"weight": float(data.weights[i]), "source": data.source[i]}))
        write_bytes(folder / "samples.jsonl", ("\n".join(lines) + "\n").encode())
        write_json(folder / "labelset.json", data.labelset.to_json())


def read_auxiliary(path: Path) -> AuxiliarySet:
    """Reads what `write_auxiliary` wrote."""
    try:
        labelset = LabelSet.from_json(json.loads((path / "labelset.json").read_text()))
        rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(str(path), wanted="an auxiliary set (labelset.json, samples.jsonl)", got=error) from error
    images, labels = [], []
    for i, row in enumerate(rows):
        image, label = cv2.imread(str(path / row["image"])), cv2.imread(str(path / row["label"]), cv2.IMREAD_UNCHANGED)
        if image is None or label is None or image.shape[:2] != label.shape:
            raise InputError(
                f"{path.name}/samples.jsonl: line {i + 1}", wanted="a picture and its labels, one size", got=row
            )
        labelset.check(label, row["label"])
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        labels.append(label)
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


def read_training_set(path: Path, size: int | None = None) -> AuxiliarySet:
    """Reads an auxiliary set, a capture, or a folder of captures: whatever `path` holds."""
    if (path / "samples.jsonl").is_file():
        return read_auxiliary(path)
    return from_captures([read_capture(p, size) for p in capture_folders(path)])
