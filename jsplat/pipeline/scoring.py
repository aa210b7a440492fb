"""From masks to report.json and report.html."""

import numpy as np

from jsplat.auxiliary import AuxiliarySet
from jsplat.capture import Capture
from jsplat.evaluate import agreement, score
from jsplat.labelset import LabelSet
from jsplat.labeltables import relabel, usual_choices
from jsplat.parser import Parser, predict_labels
from jsplat.pictures import PictureRow, Pictures, Turntable

MASK_METHODS = ("teacher", "vote_plain", "refined", "oracle")
SHOWN_YAWS = (0.0, 50.0, -75.0, 100.0)  # one picture row per person and yaw


def group_scores(
    captures: list[Capture], masks: dict[str, np.ndarray], depth: dict[str, np.ndarray], labelset: LabelSet
) -> dict:
    """Scores of one method on one group of people, in the shape report.json keeps."""
    across = [agreement(masks[c.identity], depth[c.identity], c.cameras) for c in captures]
    known = [a for a in across if a is not None]
    return scores(captures, masks, labelset) | {"agreement": float(np.mean(known)) if known else None}


def all_scores(
    groups: dict[str, list[Capture]],
    masks: dict[str, dict[str, np.ndarray]],
    depth: dict[str, np.ndarray],
    labelset: LabelSet,
) -> dict:
    """{method: {group: scores}} for every method and group that has masks and truth."""
    out: dict = {}
    for method, of in masks.items():
        for group, captures in groups.items():
            if captures and all(c.identity in of and c.labels is not None for c in captures):
                out.setdefault(method, {})[group] = group_scores(captures, of, depth, labelset)
    return out


def ablation_rows(captures: list[Capture], masks: dict[str, dict[str, np.ndarray]], labelset: LabelSet) -> dict:
    """F1 of every vote on the geometry, by pose."""
    rows = {}
    for vote, of in masks.items():
        bins = scores(captures, of, labelset)["bins"]
        rows[vote] = {
            "f1_frontal": bins["0-15"]["f1"],
            "f1_45_75": bins["45-75"]["f1"],
            "f1_75_105": bins["75-105"]["f1"],
            "f1_side": bins["side"]["f1"],
            "f1_core_side": bins["side"]["f1_core"],
        }
    return rows


def scores(captures: list[Capture], masks: dict[str, np.ndarray], labelset: LabelSet) -> dict:
    """`jsplat.evaluate.score` over all pictures of some people."""
    return score(
        np.concatenate([masks[c.identity] for c in captures]),
        np.concatenate([c.labels for c in captures if c.labels is not None]),
        np.concatenate([c.yaw for c in captures]),
        np.concatenate([c.pitch for c in captures]),
        tuple(c.identity for c in captures for _ in c.images),
        labelset,
    )


def set_scores(parser: Parser, data: AuxiliarySet) -> dict:
    """Scores of a parser on a labelled set, in the classes of that set."""
    seen = predict_labels(parser, data.images)
    if data.labelset != parser.labelset:
        seen = relabel(seen, parser.labelset, data.labelset, usual_choices(parser.labelset, data.labelset))
    return score(seen, data.labels, data.yaw, data.pitch, data.identity, data.labelset)


def pictures(
    groups: dict[str, list[Capture]],
    masks: dict[str, dict[str, np.ndarray]],
    novel: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    labelset: LabelSet,
) -> Pictures:
    """Photos with masks from a few directions, and turntables (yaw, images, labels) of each person."""
    rows = []
    for group, captures in groups.items():
        for capture in captures[:2]:
            level = np.abs(capture.pitch) + 0.0
            for wanted in SHOWN_YAWS:
                view = int(np.argmin(np.abs(capture.yaw - wanted) + level))
                shown = {name: of[capture.identity][view] for name, of in masks.items() if capture.identity in of}
                if capture.labels is not None:
                    shown = {"truth": capture.labels[view], **shown}
                title = f"{capture.identity}, {group}, yaw {capture.yaw[view]:.0f}°, pitch {capture.pitch[view]:.0f}°"
                rows.append(PictureRow(title, capture.images[view], shown))
    tables = [Turntable(name, images, labels) for name, (_, images, labels) in novel.items()]
    return Pictures(labelset, rows, tables)
