"""What the vote changed and how sure it is, which needs no truth, as a section of the report."""

import html

from jsplat.labelsets.labelset import LabelSet
from jsplat.report.figures import chip, table
from jsplat.report.findings import BINS, SIDE, get, percent


def section(vote: dict | None, labelset: LabelSet) -> str:
    """The HTML section of `jsplat.metrics.changes.Changes.found`; empty where there is nothing."""
    if not vote or not vote["people"]:
        return ""
    bins = [b for b in BINS if get(vote, "bins", b, "n")]
    head = ["", *(f"{html.escape(b)}<br><small>n = {vote['bins'][b]['n']}</small>" for b in bins)]
    rows = [
        ["Foreground that changed", *(percent(vote["bins"][b]["changed"]) for b in bins)],
        ["Confidence of the refined", *(percent(vote["bins"][b]["confidence"]) for b in bins)],
    ]
    people = "1 person" if vote["people"] == 1 else f"{vote['people']} people"
    note = (
        f"The teacher's masks against the refined ones, {people}, in %. Changed: share of the pixels that are"
        " foreground in either and whose class differs. Confidence: how far the first class leads, where the refined"
        " masks are foreground. Neither says which of the two is right."
    )
    parts = [f"<h2>What the vote changed</h2><p class=note>{note}</p>{table(head, rows)}"]
    closed = "" if vote["classes_side"] else " open"  # one of the two tables is open
    for key, title, opened in (("classes_side", SIDE, " open"), ("classes", "all views", closed)):
        if classes := _classes(vote[key], labelset):
            parts.append(f"<details{opened}><summary>{title[0].upper() + title[1:]}</summary>{classes}</details>")
    return "".join(parts)


def _classes(found: dict, labelset: LabelSet) -> str:
    colors = dict(zip(labelset.names, labelset.colors))
    head = ["Class", "area<br>before", "area<br>after", "kept", "lost mostly to", "won mostly from", "confidence"]
    rows = [
        [
            chip(f"rgb{colors.get(name, (128, 128, 128))}") + html.escape(name),
            percent(of["before"], 2),
            percent(of["after"], 2),
            percent(of["kept"]),
            _other(of["to"]),
            _other(of["from"]),
            percent(of["confidence"]),
        ]
        for name, of in found.items()
    ]
    return table(head, rows) if rows else ""


def _other(most: list | None) -> str:
    return "—" if most is None else f"{html.escape(most[0])} <small>{percent(most[1], 0)} %</small>"
