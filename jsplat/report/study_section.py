"""What raters said in a perceptual study, as a section of the report; no section without answers."""

import html

from jsplat.report.figures import table
from jsplat.report.findings import METHODS, SIDE

_WHERE = {"all": "all views", "side": SIDE, "rest": "other views"}


def _name(method: str) -> str:
    return METHODS[method][0] if method in METHODS else html.escape(method.capitalize())


def section(study: dict | None) -> str:
    """The HTML section of a study's results (`jsplat.study.results`); empty where there are none."""
    if not study:
        return ""
    rows = []
    for pair in study["pairs"]:
        for key, where in _WHERE.items():
            votes = pair[key]
            if votes["a"] + votes["b"] + votes["same"] == 0:
                continue
            preferred = "—" if votes["share"] is None else f"{100 * votes['share']:.0f} %"
            ends = votes["interval"]
            interval = "—" if ends is None else f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f} %"
            counts = [str(votes[name]) for name in ("a", "same", "b")]
            rows.append([f"{_name(pair['a'])} or {_name(pair['b'])}, {where}", *counts, preferred, interval])
    head = ["", "first", "no<br>difference", "second", "first<br>preferred", "95 %<br>interval"]
    parts = [table(head, rows, [i for i, row in enumerate(rows) if "all views" in row[0]])]
    if study["ratings"]:
        rows = []
        for method, found in study["ratings"].items():
            ends = found["interval"]
            interval = "—" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
            rows.append([_name(method), str(found["n"]), f"{found['mean']:.2f}", interval])
        parts.append(table(["Single masks, 1 (bad) to 5", "n", "mean", "95 %<br>interval"], rows))
    dropped = len(study["dropped"])
    note = (
        f"Raters: {study['raters']}, who did not know which mask was whose. Dropped: {dropped}, who failed more than"
        f" {study['forgiven']} of {study['checks']} attention checks. The preferred share leaves out"
        " answers of no difference (Wilson intervals); answers count as independent of each other."
    )
    return f"<h2>What people see</h2><p class=note>{note}</p>{''.join(parts)}"
