"""What `bench.captures_needed` found: a chart for each thing that was varied, and the text beside them."""

from bench.tables import COLOURS, markdown
from jsplat.report.figures import line_file

VIEWS, PEOPLE, EDITS = "needed_views.svg", "needed_people.svg", "needed_edits.svg"


def _series(rows: list[dict], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], round(100 * row[y], 1)) for row in rows]


def charts(measured: dict, report: dict) -> dict[str, str]:
    """File name -> SVG.

    Args:
        report: of the run whose captures were varied: its teacher and a student of nobody stand beside the students.
    """
    fitted, unseen = (measured["counts"][group] for group in ("fitted", "unseen"))
    masks = {
        f"refined, {fitted} people who taught": _series(measured["views"], "views", "refined fitted"),
        f"refined, {unseen} unseen people": _series(measured["views"], "views", "refined unseen"),
        f"oracle, {unseen} unseen people": _series(measured["views"], "views", "oracle unseen"),
    }
    alone, teacher = (
        round(100 * report[method]["unseen"]["bins"]["side"]["f1"], 1) for method in ("synthetic_student", "teacher")
    )
    taught = _series(measured["people"], "people", "student unseen")
    students = {
        f"student, {unseen} unseen people (0: procedural people alone)": [(0, alone), *taught],
        f"teacher, {unseen} unseen people": [(0, teacher), (taught[-1][0], teacher)],
    }
    edits = {f"refined, {unseen} unseen people": _series(measured["edits"], "edits", "miou")}
    return {
        VIEWS: line_file("Side F1 of masks, %", "views of a person", masks, COLOURS, log=False),
        PEOPLE: line_file("Side F1 of the student, %", "people it learnt from", students, COLOURS, log=False),
        EDITS: line_file("Side mIoU of masks, %", "corrected views of a person", edits, COLOURS, log=False),
    }


def images(plots: str) -> str:
    """The charts, as a page links them in the folder `plots`."""
    told = {
        VIEWS: "side F1 of masks by the views of a person",
        PEOPLE: "side F1 of the student by the people it learnt from",
        EDITS: "side mIoU of masks by the corrected views of a person",
    }
    return " ".join(f'<img src="{plots}/{name}" alt="{text}" width="32%">' for name, text in told.items())


def tables(measured: dict) -> str:
    """The same numbers."""
    parts = [f"Measured on {measured['device']}, commit {measured['commit']}."]
    for name in ("views", "people", "edits"):
        keys = [key for key in measured[name][0] if key not in (name, "each")]
        rows = [[f"{row[name]}", *(f"{100 * row[key]:.1f}" for key in keys)] for row in measured[name]]
        parts.append(markdown([name, *(f"{key}, %" for key in keys)], rows))
    return "\n\n".join(parts)
