"""What a run found, as report.json for programs and as one self-contained report.html for people."""

import dataclasses
import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jsplat.errors import InputError
from jsplat.files.atomic import as_json
from jsplat.files.ownership import write_kept
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.statistics import FEWEST
from jsplat.report import differences_section, seeds_section, vote_section
from jsplat.report.figures import CSS, bars, chip, heatmap, legend, lines, meter, table, timings
from jsplat.report.findings import (
    BASELINES,
    BINS,
    DEFAULT_GOALS,
    GOALS,
    GROUPS,
    METHODS,
    ORACLE_ROW,
    SIDE,
    TEACHER_ROW,
    TEST,
    VOTED,
    Goals,
    ablation_gaps,
    findings,
    get,
    goal_text,
    met,
    of_people,
    percent,
)
from jsplat.report.gallery import Pictures, gallery, turntables, variants
from jsplat.report.headline import edits_text, headline
from jsplat.report.study_section import section

CHARTS = {
    "fitted": ("teacher", "vote_plain", "plain_sharpened", "refined", "oracle"),
    "unseen": ("teacher", "control", "student", "truth_student"),
    TEST: ("teacher", "control", "student", "truth_student"),
}

FILES = ("report.json", "report.html")


def write_report(folder: Path, report: dict, pictures: Pictures, curves: dict, goals: Goals = DEFAULT_GOALS) -> None:
    """Writes report.json (`report` plus "goals" and "findings") and report.html, each whole or not at all.

    Args:
        report: as described in docs/how_it_works.md; any part may be missing, the page then says so.
        curves: {title: {"step": x values (optional), series name: y values}}, one small chart per title.

    Raises:
        InputError: somebody else wrote or changed a file of these names; a value of `report` is no finite number,
            string, bool, None, list, tuple or dict of such.
    """
    data = {key: _plain(value, f"report.{key}") for key, value in report.items()}
    data |= {"goals": dataclasses.asdict(goals), "findings": findings(data)}
    page = _page(data, pictures, curves, goals).encode()
    for name, content in zip(FILES, (as_json(data), page)):
        write_kept(folder / name, content)


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InputError(where, wanted="a finite number, text, list or dict", got=repr(value))


def _missing(data: dict, pictures: Pictures, curves: dict) -> list[str]:
    scored = {(m, g) for m in METHODS for g in GROUPS if get(data, m, g, "bins", "all", "n")}
    if not scored:
        lines = ["No scores: the run had no true labels to compare with."]
    else:
        absent = [g for g in GROUPS if not any(s[1] == g for s in scored)]
        lines = [f"No scores on {GROUPS[g].lower()}." for g in absent if g != TEST]
        lines += ["No test set was given (`--test`)."] if TEST in absent else []
        absent = [METHODS[m][0] for m in METHODS if m not in BASELINES and not any(s[0] == m for s in scored)]
        lines += [f"Not scored: {', '.join(absent)}."] if absent else []
    parts = {
        "pictures of masks": pictures.rows,
        "turntable": pictures.turntables,
        "curves": curves,
        "ablation of votes": data.get("ablation"),
        "PSNR and SSIM of the fit": data.get("fit"),
        "stage timings": data.get("stages"),
    }
    absent = [name for name, part in parts.items() if not part]
    return lines + ([f"Not in this report: {', '.join(absent)}."] if absent else [])


def _color(method: str) -> str:
    return f"var(--{METHODS[method][1]})"


def _tiles(data: dict, goals: Goals) -> str:
    tiles = []
    for key, (name, unit, _) in GOALS.items():
        value, verdict = data["findings"][key], "not scored"
        if value is not None:
            verdict = "<span class=met>met</span>" if met(key, value, goals) else "<span class=missed>missed</span>"
        shown = percent(value) + (f" <small>{unit}</small>" if value is not None else "")
        tiles.append(f"<div class=tile><b>{shown}</b>{name}<br>{goal_text(key, goals)}: {verdict}</div>")
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _scores(data: dict, group: str) -> str:
    present = [m for m in METHODS if get(data, m, group, "bins", "all", "n")]
    if not present:
        return ""
    strong = [i for i, m in enumerate(present) if METHODS[m][1] == "ours"]

    def value(method: str, bin_: str, key: str) -> str:
        return percent(get(data, method, group, "bins", bin_, key))

    bins = [b for b in BINS if get(data, present[0], group, "bins", b, "n")]
    counts = [get(data, present[0], group, "bins", b, "n") for b in bins]
    head = ["", *(f"{html.escape(b)}<br><small>n = {n}</small>" for b, n in zip(bins, counts))]
    count = get(data, "people", group, "scored")
    title = GROUPS[group] if count is None else f"{GROUPS[group]}: {count}"
    parts = [f"<h2>{title}</h2><h3>F1 by head pose, in %</h3>"]
    shown = [m for m in CHARTS[group] if m in present]
    series = [(METHODS[m][0], _color(m), [get(data, m, group, "bins", b, "f1") for b in bins]) for m in shown]
    found = {(s, g): get(data, m, group, "ci", b) for s, m in enumerate(shown) for g, b in enumerate(bins)}
    whiskers = {place: (ci[0], ci[1]) for place, ci in found.items() if ci}
    if shown:
        chart = bars(f"F1 by head pose, {GROUPS[group]}", bins, series, whiskers)
        parts.append(f"{legend([(n, c) for n, c, _ in series])}<div class=scroll>{chart}</div>")
    rows = [[METHODS[m][0], *(value(m, b, "f1") for b in bins)] for m in present]
    parts.append(table(head, rows, strong))
    more = {
        "f1_core": "F1 core",
        "f1_merged": "F1, left<br>= right",
        "miou": "mIoU",
        "miou_fg": "mIoU without<br>background",
        "miou_per_image": "mIoU per<br>picture",
        "boundary_iou": "boundary<br>IoU",
        "boundary_iou_standard": "boundary<br>IoU, wide",
    }
    for bin_, title in (("side", f"More scores of {SIDE}"), ("all", "More scores of all views")):
        if bin_ not in bins:
            continue
        head = ["", "F1", "95 %<br>interval", *more.values()]
        rows = []
        for method in present:
            ci = get(data, method, group, "ci", bin_)
            interval = f"{percent(ci[0])} to {percent(ci[1])}" if ci else "—"
            rows.append(
                [METHODS[method][0], value(method, bin_, "f1"), interval, *(value(method, bin_, k) for k in more)]
            )
        parts.append(f"<details><summary>{title}, in %</summary>{table(head, rows, strong)}</details>")
    return "".join(parts)


def _agreement(data: dict) -> str:
    groups = [g for g in GROUPS if any(get(data, m, g, "agreement") is not None for m in METHODS)]
    rows = [
        [METHODS[m][0], *(percent(get(data, m, g, "agreement")) for g in groups)]
        for m in METHODS
        if any(get(data, m, g, "agreement") is not None for g in groups)
    ]
    if not rows:
        return ""
    note = "Share of foreground points seen in two neighbouring views that carry one label in both, in %."
    names = [GROUPS[g] for g in groups]
    return f"<h2>Agreement across views</h2><p class=note>{note}</p>{table(['', *names], rows)}"


def _classes(data: dict, labelset: LabelSet) -> str:
    every = [(g, m) for g in GROUPS for m in CHARTS[g] if get(data, m, g, "classes_side") or get(data, m, g, "classes")]
    if not every:
        return ""
    colors = dict(zip(labelset.names, labelset.colors))
    parts = []
    for key, title, opened in (("classes_side", SIDE, " open"), ("classes", "all views", "")):
        columns = every if key == "classes" else [(g, m) for g, m in every if g != TEST]
        head = ["", *(f"{METHODS[m][0]}<br><small>{of_people(data, g, f'{g} people')}</small>" for g, m in columns)]
        tables = [get(data, m, g, key) or {} for g, m in columns]
        names = [
            n for n in dict.fromkeys(n for t in tables for n in t) if any(get(t, n, "f1") is not None for t in tables)
        ]
        rows = [
            [
                chip(f"rgb{colors.get(n, (128, 128, 128))}") + html.escape(n),
                *(percent(get(t, n, "iou")) for t in tables),
            ]
            for n in names
        ]
        if rows:
            title = title[0].upper() + title[1:]
            parts.append(f"<details{opened}><summary>{title}</summary>{table(head, rows)}</details>")
    return "<h2>IoU by class, in %</h2>" + "".join(parts)


def _ablation(data: dict) -> str:
    votes = {name: row for name, row in (data.get("ablation") or {}).items() if isinstance(row, dict)}
    if not votes:
        return ""
    keys = list(dict.fromkeys(key for row in votes.values() for key, v in row.items() if isinstance(v, float | int)))
    gaps = ablation_gaps(votes)
    real = [row.get("f1_side") or 0.0 for name, row in votes.items() if name not in (TEACHER_ROW, ORACLE_ROW)]
    best = max(real, default=0.0)
    head = [
        "Vote",
        *(html.escape(k.replace("_", " ").replace("f1", "F1")) for k in keys),
        "gap closed, side",
        "F1 side",
    ]
    rows = []
    for name, row in votes.items():
        f1 = row.get("f1_side")
        bar = f"<div style='text-align:left'>{meter(f1)}</div>" if f1 is not None else ""
        rows.append([html.escape(name), *(percent(row.get(k)) for k in keys), percent(gaps[name], 0), bar])
    strong = [i for i, row in enumerate(votes.values()) if row.get("f1_side") == best]
    people = sum(of["scored"] for group, of in (data.get("people") or {}).items() if group in VOTED)
    note = f"The same masks on the same geometry, fused in other ways; all {people or ''} people with labels, in %."
    return f"<h2>Which vote?</h2><p class=note>{note}</p>{table(head, rows, strong)}"


def _voters(data: dict) -> str:
    voters = data.get("voters") or []
    if not voters:
        return ""
    lines = [
        f"<dt>{html.escape(v['name'])}<dd>{v['pictures']} pictures of {v['people']} people; lacks"
        f" {v['lacks_pictures']} pictures of theirs, and {len(v['lacks_people'])} people"
        f" {html.escape(', '.join(v['lacks_people'][:8]))}"
        for v in voters
        if "people" in v
    ]
    names = dict.fromkeys(name for v in voters for name in v["believed"])
    rows = [[html.escape(n), *(_right(v, n) for v in voters)] for n in names]
    note = (
        "How often each voter says what it ought to where the consensus of all is a class, in %; a dash where none of"
        " its labels means the class. A label for several classes is named: between those the voter says nothing."
    )
    shown = table(["", *(html.escape(v["name"]) for v in voters)], rows)
    return f"<h2>Who voted</h2><dl>{''.join(lines)}</dl><p class=note>{note}</p>{shown}"


def _right(voter: dict, name: str) -> str:
    shared = [label for label, of in voter.get("labels", {}).items() if name in of and len(of) > 1]
    right = percent(voter["believed"].get(name))
    return f"{right} as {html.escape(' or '.join(shared))}" if shared else right


def _confusions(data: dict) -> str:
    group = "unseen" if get(data, "student", "unseen", "confusion", "side") else "fitted"
    cards = []
    for method in ("teacher", "refined" if group == "fitted" and not get(data, "student", "fitted") else "student"):
        counts, classes = get(data, method, group, "confusion", "side"), get(data, method, group, "classes")
        if not counts or not classes:
            continue
        matrix = np.asarray(counts, float)
        kept = np.flatnonzero(matrix.sum(1) > 0)
        rows = (matrix[kept] / matrix[kept].sum(1, keepdims=True))[:, kept]
        chart = heatmap(f"confusions of {method}", [list(classes)[i] for i in kept], rows.tolist())
        cards.append(
            f"<div class=card><h3>{METHODS[method][0]}, {of_people(data, group, f'{group} people')}</h3>{chart}</div>"
        )
    note = f"{SIDE[0].upper() + SIDE[1:]}. A row is a true class, in % of its pixels; a column what it was taken for."
    return (
        f"<h2>What is mistaken for what</h2><p class=note>{note}</p><div class=cards>{''.join(cards)}</div>"
        if cards
        else ""
    )


def _fit(data: dict, curves: dict) -> str:
    shown = []
    for key, name, unit in (("psnr", "PSNR of the fit", " dB"), ("ssim", "SSIM of the fit", "")):
        value = get(data, "fit", key)
        if value is not None:
            shown.append(f"<div class=tile><b>{value:.{2 if unit else 3}f}{unit}</b>{name}</div>")
    colors = [f"var(--c{i})" for i in range(8)]
    cards = []
    for title, series in curves.items():
        values = {str(k): [float(v) for v in vs] for k, vs in series.items() if k != "step"}
        steps = [float(s) for s in series.get("step", range(max(map(len, values.values()), default=0)))]
        names = legend([(n, colors[i % 8]) for i, n in enumerate(values)]) if len(values) > 1 else ""
        cards.append(f"<div class=card><h3>{html.escape(title)}</h3>{lines(title, steps, values, colors)}{names}</div>")
    tiles = f"<div class=tiles>{''.join(shown)}</div><p></p>" if shown else ""
    if failed := get(data, "failed"):
        whys = "".join(f"<dt>{html.escape(name)}<dd>{html.escape(why)}" for name, why in failed.items())
        tiles += f"<p class=note><b>Left out of everything, because they failed:</b></p><dl class=note>{whys}</dl>"
    return f"<h2>Fit and training</h2>{tiles}<div class=cards>{''.join(cards)}</div>" if shown or cards else ""


def _left_out(data: dict) -> str:
    views = get(data, "views", "left_out") or {}
    rows = "".join(
        f"<dt>{html.escape(name)}<dd>{', '.join(f'{yaw:.0f}° / {pitch:.0f}°' for yaw, pitch in poses)}"
        for name, poses in views.items()
        if poses
    )
    note = "Novel views (yaw / pitch) that no photograph supports were neither labelled nor trained on."
    return f"<h3>Left out</h3><p class=note>{note}</p><dl>{rows}</dl>" if rows else ""


def _edits(data: dict) -> str:
    text = edits_text(data)
    return "" if text is None else f"<h2>What a person's edits would bring</h2><p class=note>{html.escape(text)}</p>"


def _provenance(data: dict) -> str:
    facts = [(k, data[k]) for k in ("commit", "device", "seed") if data.get(k) is not None]
    facts += list((data.get("versions") or {}).items())
    rows = "".join(f"<dt>{html.escape(str(k))}<dd>{html.escape(str(v))}" for k, v in facts)
    stages = data.get("stages") or {}
    parts = []
    if stages:
        counts = (data.get("taken_over") or {}).items()
        taken = [f"{name} {of} of {total}" for name, (of, total) in counts if of]
        more = f" Taken over from earlier runs, people: {', '.join(taken)}." if taken else ""
        note = f"<p class=note>{sum(stages.values()) / 60:.1f} minutes in all.{html.escape(more)}</p>"
        parts.append(f"<h2>Time</h2>{note}<div class=scroll>{timings(stages)}</div>")
    if facts:
        parts.append(f"<h2>Made with</h2><dl>{rows}</dl>")
    if data.get("config"):
        config = html.escape(json.dumps(data["config"], indent=1))
        parts.append(f"<details><summary>The whole configuration</summary><pre>{config}</pre></details>")
    return "".join(parts)


def _page(data: dict, pictures: Pictures, curves: dict, goals: Goals) -> str:
    descriptions = {method: what for method, (_, _, what) in METHODS.items()}
    if voters := data.get("voters"):
        all_voters = f"the masks of all voters ({', '.join(html.escape(v['name']) for v in voters)})"
        descriptions["refined"] = descriptions["refined"].replace("the teacher's masks", all_voters)
    shown = {m: what for m, what in descriptions.items() if m not in BASELINES or m in data}
    terms = "".join(f"<dt>{chip(_color(m))}{METHODS[m][0]}<dd>{what}" for m, what in shown.items())
    missing = _missing(data, pictures, curves)
    absent = f"<h2>What is missing</h2><ul>{''.join(f'<li>{html.escape(m)}' for m in missing)}</ul>" if missing else ""
    reading = (
        "F1 is the mean over the foreground classes that occur in the truth, from one confusion matrix over all"
        " pictures of a pose bin; 100 % is perfect. Bins are |yaw| in degrees; steep: |pitch| at least 30°; side: |yaw|"
        " at least 60°. Thin marks on bars are 95 % intervals over people, where there are at least"
        f" {FEWEST}. Core classes leave out accessories that few people wear."
    )
    verdict, *sentences = (html.escape(sentence) for sentence in headline(data, goals))
    notes = "".join(f"<li>{html.escape(note)}" for note in data.get("notes") or ())
    notes = f"<ul class=note>{notes}</ul>" if notes else ""
    found = "".join(f"<li>{sentence}" for sentence in sentences)
    lead = f"<p class=lead><b>{verdict}</b></p><ul class=lead>{found}</ul>{notes}"
    body = (
        "<h1>Label refinement report</h1><p class=sub>Face-part masks made consistent across views by one 3D"
        f" Gaussian model per head, and the parser they teach.</p>{lead}{_tiles(data, goals)}"
        f"<h2>How to read this</h2><dl>{terms}</dl><p></p><p class=note>{reading}</p>{absent}"
        f"{gallery(pictures)}{turntables(pictures)}{variants(pictures)}{_left_out(data)}"
        f"{_scores(data, 'fitted')}{_scores(data, 'unseen')}{_scores(data, TEST)}{seeds_section.section(data)}"
        f"{differences_section.section(data)}{_agreement(data)}"
        f"{vote_section.section(data.get('vote'), pictures.labelset)}{section(data.get('study'))}"
        f"{_ablation(data)}{_voters(data)}{_edits(data)}"
        f"{_classes(data, pictures.labelset)}{_confusions(data)}{_fit(data, curves)}{_provenance(data)}"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Label refinement report</title><style>{CSS}</style><main>{body}</main></html>\n"
    )
