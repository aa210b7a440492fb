"""What people drew on the heads of a run, and the votes on it, in a folder beside the run's stage `label`.

    edits/IDENTITY/VIEW.png   what a person said: indexed PNG in the classes' colours, UNTOUCHED where nothing was said
    edits/IDENTITY.npz        refined masks, confidence and table after the re-vote, as the label stage names them

What was drawn is kept. A vote on it holds for these drawings and for the label stage's result that it was made on, and
says which (`stamp`); whoever finds another makes it again from the drawings, or reads nothing.
"""

import functools
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jsplat.captures.capture import inside
from jsplat.captures.label_png import decode, encode
from jsplat.edit.head import UNTOUCHED, Head
from jsplat.errors import InputError
from jsplat.files.atomic import write_bytes
from jsplat.labelsets.labelset import IGNORE, LabelSet

FOLDER = "edits"
CLASSES, PICTURE = "classes", "picture"  # texts in a drawing: its classes' names, and what the photograph looks like
CELLS, ALIKE = 16, 4.0  # how coarsely that is kept, by rows and columns, and how many of 255 levels count as the same


def inside_run(folder: Path, name: str) -> Path:
    """A path below a folder, symbolic links followed; InputError for anything that leads out of it."""
    path = inside(folder, name, f"{folder}: {name!r}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder}: {name!r}", wanted="a path inside the folder", got=str(path.resolve()))
    return path


def edited_names(run: Path) -> set[str]:
    """Whom somebody drew on, whether the run has them still or not."""
    return {path.parent.name for path in (run / FOLDER).glob("*/[0-9]*.png")}


def read_layers(run: Path, name: str, labelset: LabelSet) -> dict[int, UInt8[np.ndarray, "..."]]:
    """What was said about a head, view by view, in the size it was drawn in and the ids of `labelset`.

    Raises:
        InputError: naming the file that is damaged or holds another class.
    """
    drawn = {}
    for path in sorted(inside_run(run / FOLDER, name).glob("[0-9]*.png")):
        read = decode(path.read_bytes(), str(path))
        drawn[int(path.stem)] = _renamed(read.ids, read.text.get(CLASSES, "").split(), labelset, str(path))
    return drawn


def _renamed(ids: np.ndarray, names: list[str], labelset: LabelSet, where: str) -> np.ndarray:
    """A drawing in another class set's ids, by the names of its classes."""
    if not names or tuple(names) == labelset.names:
        labelset.check(ids, where)
        return ids
    table = np.full(256, IGNORE, np.uint8)
    for i in np.unique(ids[ids != UNTOUCHED]):
        if i >= len(names) or names[i] not in labelset.names:
            got = names[i] if i < len(names) else int(i)
            raise InputError(where, wanted=f"classes among {', '.join(labelset.names)}", got=got)
        table[i] = labelset.names.index(names[i])
    return table[ids]


def check_pictures(run: Path, name: str, images: UInt8[np.ndarray, "v h w 3"]) -> None:
    """InputError, naming the drawing, where a head's views were counted otherwise when somebody drew on them."""
    now = None
    for path in sorted(inside_run(run / FOLDER, name).glob("[0-9]*.png")):
        text, view = decode(path.read_bytes(), str(path)).text.get(PICTURE, ""), int(path.stem)
        if not re.fullmatch(rf"[0-9a-f]{{{2 * CELLS**2}}}", text):  # older drawings do not say
            continue
        now = np.stack([_coarse(image) for image in images]).astype(int) if now is None else now
        apart = np.abs(now - np.frombuffer(bytes.fromhex(text), np.uint8)).mean(-1)
        if apart[view] > ALIKE and apart.argmin() != view:
            got = f"one on another photograph, to which view {apart.argmin()} is the most like"
            wanted, hint = "a drawing on the photograph that is this view now", "rename the drawing, or move it away"
            raise InputError(str(path), wanted=wanted, got=got, hint=hint)


def _coarse(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, " c"]:
    """The mean grey of `CELLS` by `CELLS` parts of a photograph: the same at any size of it."""
    grey, parts = image.mean(-1), np.ones(1)
    for axis, side in enumerate(grey.shape):
        edges = np.arange(CELLS + 1) * side // CELLS
        grey, parts = np.add.reduceat(grey, edges[:-1], axis), np.multiply.outer(parts, np.maximum(np.diff(edges), 1))
    return np.round(grey / parts[0]).astype(np.uint8).ravel()


def write_layer(
    run: Path,
    name: str,
    view: int,
    layer: UInt8[np.ndarray, "h w"],
    image: UInt8[np.ndarray, "h w 3"],
    labelset: LabelSet,
) -> None:
    """Keeps what a person says about a view, which shows `image`; UNTOUCHED everywhere takes it back."""
    path = inside_run(run / FOLDER, f"{name}/{view:03d}.png")
    if (layer == UNTOUCHED).all():
        path.unlink(missing_ok=True)
        return
    palette = np.concatenate([labelset.colors, np.full((256 - len(labelset), 3), 255)]).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {CLASSES: " ".join(labelset.names), PICTURE: _coarse(image).tobytes().hex()}
    write_bytes(path, encode(layer, palette, about))


def resized_layers(drawn: dict[int, np.ndarray], shape: tuple[int, ...], where: str) -> dict[int, np.ndarray]:
    """Drawings at the size of a head's masks (views, height, width): another size's by the nearest pixel.

    Raises:
        InputError: (`where`: whose) a drawing on a view that is not there, or of other proportions.
    """
    views, *size = shape
    for view, layer in drawn.items():
        high, wide = (one * other for one, other in zip(layer.shape, reversed(size)))
        if view >= views or abs(high - wide) > max(*layer.shape, *size):  # sides are rounded to whole pixels
            wanted = f"a drawing on one of {views} views of {size[1]}x{size[0]} pixels, or of these proportions"
            got, hint = f"{layer.shape[1]}x{layer.shape[0]}", "it may be another capture's: move it away to go on"
            raise InputError(f"{where}/{view:03d}.png", wanted=wanted, got=got, hint=hint)
    return {view: _nearest(layer, (size[0], size[1])) for view, layer in drawn.items()}


def _nearest(layer: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, layer.shape))
    return layer[np.ix_(rows.astype(int), columns.astype(int))]


def layers_of(run: Path, name: str, labelset: LabelSet) -> dict[int, UInt8[np.ndarray, "h w"]]:
    """What was said about a head of the label stage, at the size of its masks; InputError as of its parts."""
    drawn = read_layers(run, name, labelset)
    if not drawn:
        return {}
    with np.load(_labelled(run, name), allow_pickle=False) as known:
        return resized_layers(drawn, known["refined"].shape, str(run / FOLDER / name))


def label_stamp(run: Path, name: str) -> str:
    """Which result of the label stage a head has now: other for another geometry, table or size."""
    path = _labelled(run, name)
    about = path.stat()
    return _content(path, about.st_size, about.st_mtime_ns)


def stamp(base: str, layers: dict[int, np.ndarray]) -> str:
    """What a vote belongs to: a `label_stamp` and what was drawn; "" where nothing was."""
    return " ".join([base, *(f"{view}:{digest(layer)}" for view, layer in sorted(layers.items()))]) if layers else ""


def stamp_now(run: Path, name: str, layers: dict[int, np.ndarray]) -> str:
    """The stamp that a vote on these layers has to have."""
    return stamp(label_stamp(run, name), layers) if layers else ""


def voted_on(run: Path, name: str) -> str:
    """The stamp of the vote on disk; "" if there is none."""
    path = inside_run(run / FOLDER, f"{name}.npz")
    if not path.is_file():
        return ""
    try:
        with np.load(path, allow_pickle=False) as data:
            return str(data["stamp"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # damaged, or it does not say: to be voted on again
        return "unknown"


def vote_of(head: Head, base: str) -> dict[str, np.ndarray]:
    """A head's vote on its layers as it is kept; nothing where there are none.

    Args:
        base: `label_stamp` as it was before the head was read.
    """
    if not head.layers:
        return {}
    refined = np.stack([head.mask(v) for v in range(len(head.masks))])
    voted = {"refined": refined, "confidence": head.confidence.copy(), "rows_refined": head.probabilities.copy()}
    return voted | {"stamp": np.asarray(stamp(base, head.layers))}


def write_vote(run: Path, name: str, vote: dict[str, np.ndarray]) -> None:
    """Keeps what `vote_of` made; without a vote the label stage's masks stand."""
    path = inside_run(run / FOLDER, f"{name}.npz")
    if not vote:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vote)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def is_voted_on(run: Path, name: str, layers: dict[int, np.ndarray]) -> bool:
    """Whether the vote on disk is one on these layers and the label stage's result; without layers, that none is."""
    return voted_on(run, name) == stamp_now(run, name, layers)


def check_votes(run: Path, labelset: LabelSet) -> None:
    """InputError as of `check_vote` for anybody whom the label stage knows."""
    for name in sorted(edited_names(run)):
        if _labelled(run, name).is_file():
            check_vote(run, name, labelset)


def check_vote(run: Path, name: str, labelset: LabelSet) -> bool:
    """Whether something was drawn on a head; InputError, saying what to do, where no vote on it and its labels is."""
    layers = layers_of(run, name, labelset)
    if layers and not is_voted_on(run, name, layers):
        found, wanted = voted_on(run, name), stamp_now(run, name, layers)
        same = found.partition(" ")[0] == wanted.partition(" ")[0]
        got = "none" if not found else "one on other drawings" if same else "one on another geometry or label stage"
        hint = "the same `jsplat run` again makes it, and so does `jsplat edit` when opened"
        raise InputError(f"{run / FOLDER}: {name}", wanted="a vote on what was drawn", got=got, hint=hint)
    return bool(layers)


def voted_labels(run: Path, name: str, labelset: LabelSet) -> dict[str, np.ndarray]:
    """What the label stage names "refined", "confidence" and "rows_refined", after the edits; empty without edits.

    Raises:
        InputError: as of `check_vote`.
    """
    if not check_vote(run, name, labelset):
        return {}
    with np.load(run / FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return {key: data[key] for key in data.files if key != "stamp"}


def digest(layer: np.ndarray) -> str:
    """Of what is drawn."""
    return hashlib.sha256(layer.tobytes()).hexdigest()[:16]


def _labelled(run: Path, name: str) -> Path:
    return run / "label" / f"{name}.npz"


@functools.lru_cache(maxsize=10_000)
def _content(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
