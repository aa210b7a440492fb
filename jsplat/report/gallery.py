"""Pictures for a page: photos with masks blended over them, and turntables, as HTML with the pixels inside."""

import base64
import dataclasses
import html
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.report.figures import legend
from jsplat.report.findings import METHODS

COLUMNS = {"truth": "Truth"} | {key: name for key, (name, _, _) in METHODS.items()}


@dataclasses.dataclass(frozen=True)
class PictureRow:
    """One photo with masks of it.

    Attributes:
        title: whose head and from where ("id07, unseen, yaw -63").
        photo: sRGB.
        masks: class ids or IGNORE by column: "truth" or a key of METHODS; any may be missing.
        voters: the same of voters beside the teacher, by their names; of a label for several classes the first one.
    """

    title: str
    photo: UInt8[np.ndarray, "h w 3"]
    masks: dict[str, UInt8[np.ndarray, "h w"]]
    voters: dict[str, UInt8[np.ndarray, "h w"]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        unknown = [column for column in self.masks if column not in COLUMNS]
        if unknown:
            raise InputError(f"PictureRow {self.title}: masks", wanted=f"columns among {list(COLUMNS)}", got=unknown)


@dataclasses.dataclass(frozen=True)
class Turntable:
    """Renders on a circle around one head: colours, and class ids."""

    title: str
    images: UInt8[np.ndarray, "v h w 3"]
    labels: UInt8[np.ndarray, "v h w"]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the page shows; any part may be empty."""

    labelset: LabelSet
    rows: Sequence[PictureRow] = ()
    turntables: Sequence[Turntable] = ()
    variants: Sequence[Turntable] = ()


def _image(picture: np.ndarray, alt: str, limit: int) -> str:
    scale = limit / max(picture.shape[:2])
    if scale < 1:
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
    h, w = picture.shape[:2]
    source = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" width={w} height={h} src="data:image/jpeg;base64,{source}">'


def overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "..."],  # `h w`, checked inside, with a message
    labelset: LabelSet,
) -> UInt8[np.ndarray, "h w 3"]:
    """Label colours over 35 % of the photo; background stays the photo, IGNORE has its own colour."""
    if photo.shape[:2] != mask.shape:
        raise InputError("overlay: mask", wanted=f"the photo's size {photo.shape[:2]}", got=mask.shape)
    mixed = 0.35 * photo + 0.65 * labelset.colorize(mask)
    return np.where((mask > 0)[..., None], np.round(mixed), photo).astype(np.uint8)


def _right(mask: np.ndarray, truth: np.ndarray) -> str:
    counted = ((truth > 0) | (mask > 0)) & (truth != IGNORE)
    return f"{100 * np.mean(mask[counted] == truth[counted]):.0f} % right" if counted.any() else ""


def _gallery_row(row: PictureRow, columns: tuple[str, ...], labelset: LabelSet) -> str:
    cells = [f"<tr><td>{_image(row.photo, 'photo', 320)}<small>{html.escape(row.title)}</small></td>"]
    for column in columns:
        mask, truth = row.masks[column], row.masks.get("truth")
        picture = _image(overlay(row.photo, mask, labelset), COLUMNS[column], 320)
        note = _right(mask, truth) if truth is not None and column != "truth" else ""
        cells.append(f"<td>{picture}<small>{note}</small></td>")
    for name, mask in row.voters.items():
        cells.append(f"<td>{_image(overlay(row.photo, mask, labelset), name, 320)}</td>")
    return "".join(cells)


def gallery(pictures: Pictures) -> str:
    """The rows of masks beside their photos, with a legend, as HTML."""
    if not pictures.rows:
        return ""
    tables = []

    def columns_of(row: PictureRow) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(c for c in COLUMNS if c in row.masks), tuple(row.voters)

    # People with other columns (nobody fitted the unseen ones) get a table of their own instead of gaps.
    for (columns, voters), rows in itertools.groupby(pictures.rows, columns_of):
        head = "<th>Photo" + "".join(f"<th>{COLUMNS[c]}" for c in columns)
        head += "".join(f"<th>Voter: {html.escape(name)}" for name in voters)
        body = "".join(_gallery_row(row, columns, pictures.labelset) for row in rows)
        count = 1 + len(columns) + len(voters)
        width = f"style='width:{min(100, 100 * count / 7):.0f}%;min-width:{104 * count}px'"
        tables.append(f"<div class=scroll><table class=gallery {width}><tr>{head}{body}</table></div>")
    used = np.unique(
        np.concatenate(
            [m.ravel() for row in pictures.rows for m in (*row.masks.values(), *row.voters.values())] or [np.zeros(0)]
        )
    )
    names, colors = pictures.labelset.names, pictures.labelset.colors
    key = legend([(names[i], f"rgb{colors[i]}") for i in used.astype(int) if 0 < i < len(names)])
    note = "“right”: share of the pixels that are foreground in truth or mask and carry the true class."
    if any(row.voters for row in pictures.rows):
        note += " Voters: what further voters say; a label that means several classes is shown as the first of them."
    return f"<h2>Masks</h2>{''.join(tables)}{key}<p class=note>Left and right (l_, r_) are the person's own. {note}</p>"


def turntables(pictures: Pictures) -> str:
    """A strip per turntable, as HTML."""
    note = "<h2>Turntable</h2><p class=note>Colours above labels, rendered from one geometry.</p>"
    return _strips(pictures.turntables, pictures.labelset, note)


def variants(pictures: Pictures) -> str:
    """Some of the people made from people, as HTML."""
    note = "<h2>Variants</h2><p class=note>People made from the captured ones, for the student to learn from.</p>"
    return _strips(pictures.variants, pictures.labelset, note)


def _strips(turns: Sequence[Turntable], labelset: LabelSet, heading: str) -> str:
    strips = []
    for turn in turns:
        rows = [np.concatenate(list(x), 1) for x in (turn.images, labelset.colorize(turn.labels))]
        strip = _image(np.concatenate(rows, 0), f"renders of {turn.title}", 4096)
        caption = f"<figcaption>{html.escape(turn.title)}</figcaption>"
        strips.append(f"<figure><div class='scroll strip'>{strip}</div>{caption}</figure>")
    return heading + "".join(strips) if strips else ""
