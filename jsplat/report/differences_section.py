"""Differences of methods on the same people, with intervals, as a section of the report."""

import html

from jsplat.metrics.statistics import FEWEST
from jsplat.report.figures import table
from jsplat.report.findings import GROUPS, METHODS


def section(data: dict) -> str:
    """The HTML section of report.json's "differences"; empty where there are none."""
    found: dict[tuple[str, str, str], dict[str, dict]] = {}
    for row in data.get("differences") or []:
        found.setdefault((row["group"], row["a"], row["b"]), {})[row["bin"]] = row
    if not found:
        return ""
    bins = list(dict.fromkeys(name for rows in found.values() for name in rows))
    rows = []
    for (group, a, b), known in found.items():
        people = max(row["people"] for row in known.values())
        cells = [_points(known[name]) if name in known else "—" for name in bins]
        rows.append([f"{METHODS[a][0]} minus {METHODS[b][0]}", f"{html.escape(GROUPS[group])}: {people}", *cells])
    note = (
        "Points of F1, the same people in both, and below the 95 % interval over people (jackknife, Student's t; the"
        f" trained parsers as they are), none for fewer than {FEWEST}. Where an interval holds 0, other people like"
        " these may show the other sign."
    )
    head = ["", "", *map(html.escape, bins)]
    return f"<h2>Differences of methods</h2><p class=note>{note}</p>{table(head, rows)}"


def _points(row: dict) -> str:
    low_high = "" if row["interval"] is None else "{:+.1f} to {:+.1f}".format(*(100 * end for end in row["interval"]))
    return f"{100 * row['difference']:+.1f}" + (f"<br><small>{low_high}</small>" if low_high else "")
