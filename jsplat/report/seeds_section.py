"""How far one student's scores differ from seed to seed, as a section of the report."""

import html

from jsplat.report.figures import table
from jsplat.report.findings import GROUPS, METHODS

COLUMNS = {"side": "side", "side_core": "side, core", "frontal": "0-15", "frontal_core": "0-15, core"}


def section(data: dict) -> str:
    """The HTML section of report.json's "seeds"; empty where each student was trained once."""
    rows, counts = [], set()
    for method, groups in (data.get("seeds") or {}).items():
        for group, known in groups.items():
            counts.add(len(known["side"]))
            rows.append([METHODS[method][0], html.escape(GROUPS[group]), *(_spread(known[key]) for key in COLUMNS)])
    if not rows:
        return ""
    seeds = " or ".join(map(str, sorted(counts)))
    note = f"F1 in %: the mean of {seeds} seeds, and from the worst to the best of them."
    return f"<h2>From seed to seed</h2><p class=note>{note}</p>{table(['', '', *COLUMNS.values()], rows)}"


def _spread(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values):
        return "—"
    return f"{sum(known) / len(known):.1f}<br><small>{min(known):.1f} to {max(known):.1f}</small>"
