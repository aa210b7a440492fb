"""Pieces of a self-contained HTML page: tables and hand-drawn SVG charts. No scripts, nothing from the network."""

import html
import math
from collections.abc import Mapping, Sequence

CSS = """
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#161614;--soft:#5c5b57;--line:#e2e1dc;
--teacher:#d9772b;--plain:#9cc0ee;--fair:#6ba3a8;--ours:#2467c4;--bound:#8f8d86;--good:#1f7a3d;--bad:#b3261e;
--c0:#2467c4;--c1:#d9772b;--c2:#2a9163;--c3:#a34fb5;--c4:#b8952a;--c5:#c2486f;--c6:#3f9bb0;--c7:#77756e}
@media(prefers-color-scheme:dark){:root{--page:#131312;--card:#1c1c1a;--ink:#f1f0ec;--soft:#aaa89f;--line:#34332f;
--teacher:#e08a45;--plain:#3f6696;--fair:#4f8288;--ours:#5b9df0;--bound:#8f8d86;--good:#5cc282;--bad:#f08a80;
--c0:#5b9df0;--c1:#e08a45;--c2:#4fbd8b;--c3:#c07bd0;--c4:#d0b04c;--c5:#e0708f;--c6:#63bccf;--c7:#a19f97}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px}
h2{font-size:21px;margin:48px 0 12px}h3{font-size:16px;margin:24px 0 8px}
p{margin:0 0 12px;max-width:78ch}.sub,.note,small,figcaption,caption{color:var(--soft);font-size:13.5px;max-width:100ch}
.lead{font-size:18px;margin:20px 0 8px}ul.lead{font-size:16px;margin:8px 0 24px;max-width:84ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;
font-size:13.5px;color:var(--soft)}
.tile b{display:block;font-size:26px;line-height:1.3;color:var(--ink);font-weight:650}.tile b small{font-weight:400}
.met{color:var(--good)}.missed{color:var(--bad);font-weight:650}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:6px 12px;margin:8px 0}
table{border-collapse:collapse;font-size:14px;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
tr:last-child td,tr:last-child th{border-bottom:0}th:first-child,td:first-child{text-align:left}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}tr.ours td{font-weight:650}
.gallery td,.gallery th{text-align:left;padding:5px;vertical-align:top;border:0}
.gallery th{white-space:normal;vertical-align:bottom}.gallery{table-layout:fixed}

.gallery img{width:100%;max-width:180px;height:auto;display:block;border-radius:6px}
.gallery small{display:block;white-space:normal;line-height:1.35;margin-top:3px}
.strip img{height:230px;width:auto;display:block}figure{margin:8px 0 16px}
.legend{max-width:none;font-size:13.5px}.legend span{display:inline-block;margin-right:14px;white-space:nowrap}
i.chip{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px;border:1px solid var(--line)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(340px,100%),1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;min-width:0}
.card h3{margin:0 0 6px}
svg{display:block;max-width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--soft)}
.scroll svg{min-width:720px}
svg .value{fill:var(--ink);font-weight:600}svg .grid{stroke:var(--line)}svg .mark{stroke:var(--ink);stroke-width:1.3}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0;font-size:14px}
dt{font-weight:650}dd{margin:0}
details{margin:12px 0}pre{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:12px;font-size:12.5px}ul{padding-left:20px;margin:0}
.meter{display:inline-block;height:9px;border-radius:3px;background:var(--ours);vertical-align:1px}
"""


def chip(color: str) -> str:
    """A small square of a CSS colour."""
    return f'<i class=chip style="background:{color}"></i>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A line of (name, CSS colour)."""
    return "<p class=legend>" + "".join(f"<span>{chip(c)}{html.escape(n)}</span>" for n, c in entries) + "</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> str:
    """A table that scrolls sideways where it must; cells are HTML, `strong` are the rows to stress."""
    top = "".join(f"<th>{cell}" for cell in head)
    body = "".join(
        f"<tr{' class=ours' if i in strong else ''}>" + "".join(f"<td>{cell}" for cell in row)
        for i, row in enumerate(rows)
    )
    return f"<div class=scroll><table><thead><tr>{top}</thead><tbody>{body}</table></div>"


def meter(fraction: float | int) -> str:
    """A bar within a table cell, `fraction` of the longest in [0, 1]."""
    return f'<span class=meter style="width:{140 * min(max(fraction, 0), 1):.0f}px"></span>'


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {box} role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'


def _text(x: float | int, y: float | int, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{html.escape(text)}</text>'


def bars(
    title: str,
    groups: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | int | None]]],
    intervals: dict[tuple[int, int], tuple[float, float]],
) -> str:
    """Grouped bars of shares in [0, 1], shown in %.

    Args:
        title: what is shown, for screen readers.
        groups: names along the x axis.
        series: (name, CSS colour, a value per group); None leaves a gap.
        intervals: (series index, group index) to the ends of a whisker.
    """
    width, left, top, high = 1060, 40, 22, 230
    step = (width - left) / max(len(groups), 1)
    thick = min(0.8 * step / max(len(series), 1), 34)
    parts = []
    for tick in (0, 25, 50, 75, 100):
        y = top + high * (1 - tick / 100)
        parts.append(
            f'<line class=grid x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(left - 8, y + 4, str(tick), "end")
        )
    for g, group in enumerate(groups):
        middle = left + (g + 0.5) * step
        parts.append(_text(middle, top + high + 20, group))
        for s, (name, color, values) in enumerate(series):
            value = values[g]
            if value is None:
                continue
            x, tall = middle + (s - len(series) / 2) * thick, high * value
            hint = html.escape(f"{name}, {group}: {100 * value:.1f} %")
            box = f'x="{x + 1:.1f}" y="{top + high - tall:.1f}" width="{thick - 2:.1f}" height="{tall:.1f}" rx=2'
            parts.append(f'<rect {box} style="fill:{color}"><title>{hint}</title></rect>')
            peak = value
            if (s, g) in intervals:
                low, peak = intervals[s, g]
                ends = f'y1="{top + high * (1 - low):.1f}" y2="{top + high * (1 - peak):.1f}"'
                parts.append(f'<line class=mark x1="{x + thick / 2:.1f}" x2="{x + thick / 2:.1f}" {ends}/>')
            parts.append(
                _text(
                    x + thick / 2,
                    top + high * (1 - max(peak, value)) - 4,
                    f"{100 * value:.0f}",
                    extra="class=value font-size=11",
                )
            )
    return _svg(width, top + high + 30, title, parts)


def _ticks(low: float | int, high: float | int) -> list[float | int]:
    raw = (high - low) / 3
    size = 10 ** math.floor(math.log10(raw))
    step = min((m * size for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def lines(
    title: str,
    x: Sequence[float | int],
    series: Mapping[str, Sequence[float | int]],
    colors: Sequence[str],
    log: bool | None = None,
) -> str:
    """A line chart; what is not finite is left out.

    Args:
        title: what is shown, for screen readers.
        x: ascending, the same for all series.
        series: name -> a value for each x.
        colors: CSS colours of the series, repeated.
        log: both axes logarithmic, or neither; if None, y alone where its values span more than a factor of 50.
    """
    width, high, left, top = 380, 170, 50, 8
    finite = [v for values in series.values() for v in values if math.isfinite(v)]
    if not finite or len(x) < 2:
        return "<p class=note>Fewer than two finite values.</p>"
    low, peak = min(finite), max(finite)
    logarithmic = (low > 0 and peak > 50 * low) if log is None else log
    along = math.log10 if log else float
    if logarithmic:
        low, peak = math.log10(low), math.log10(peak)
    if peak - low < 1e-12 * max(abs(peak), 1):
        low, peak = low - 0.5, peak + 0.5

    def place(a: float | int, b: float | int) -> tuple[float, float]:
        b = math.log10(b) if logarithmic else b
        fraction = (along(a) - along(x[0])) / (along(x[-1]) - along(x[0]))
        return left + fraction * (width - left - 10), top + high * (1 - (b - low) / (peak - low))

    parts = []
    ticks = [10.0**e for e in range(math.ceil(low), math.floor(peak) + 1)] if logarithmic else _ticks(low, peak)
    if len(ticks) < 2 and logarithmic:
        ticks = [10.0**low, 10.0**peak]
    for tick in ticks:
        y = place(x[0], tick)[1]
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(left - 6, y + 4, f"{tick:.3g}", "end")
        )
    parts += [
        _text(left, top + high + 18, f"{x[0]:.6g}", "start"),
        _text(width - 10, top + high + 18, f"{x[-1]:.6g}", "end"),
    ]
    for i, (name, values) in enumerate(series.items()):
        points = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in zip(x, values) if math.isfinite(b))
        style = f"fill:none;stroke:{colors[i % len(colors)]};stroke-width:1.8;stroke-linejoin:round"
        parts.append(f'<polyline points="{points}" style="{style}"><title>{html.escape(name)}</title></polyline>')
    return _svg(width, top + high + 26, title, parts)


def line_file(
    title: str,
    x_name: str,
    series: Mapping[str, Sequence[tuple[float | int, float | int]]],
    colors: Sequence[str],
    log: bool | None = None,
) -> str:
    """An SVG file of its own: `lines` of points (x, y), with title and legend, on white.

    Raises:
        ValueError: fewer than two different x.
    """
    x = sorted({point[0] for own in series.values() for point in own})
    if len(x) < 2:
        raise ValueError(f"line_file {title!r}: wanted points at two or more x, got {x}")
    values = {name: [dict(own).get(a, math.nan) for a in x] for name, own in series.items()}
    top, style = 28 + 16 * len(series), "text{fill:#5c5b57;font:12px sans-serif}.grid{stroke:#e2e1dc}"
    chart, paint = lines(title, x, values, colors, log), 'style="fill:{}"'
    names = [_text(12, 34 + 16 * i, n, "start", paint.format(colors[i % len(colors)])) for i, n in enumerate(series)]
    parts = [f'<rect width="380" height="{top + 226}" fill="#fff"/>', _text(190, 18, title), *names]
    parts += [chart.replace("<svg ", f'<svg y="{top}" ', 1), _text(190, top + 218, x_name)]
    opened = f'<svg xmlns="http://www.w3.org/2000/svg" width="380" height="{top + 226}"><style>{style}</style>'
    return "\n".join([opened, *parts, "</svg>"]) + "\n"


def heatmap(title: str, names: Sequence[str], rows: Sequence[Sequence[float | int | None]]) -> str:
    """A square table of shares in [0, 1], darker = more; rows of None are blank."""
    cell, left, top = 25, 78, 82
    size = cell * len(names)
    parts = []
    for i, name in enumerate(names):
        x = left + (i + 0.5) * cell
        parts.append(_text(left - 6, top + (i + 0.5) * cell + 4, name, "end"))
        parts.append(_text(x + 4, top - 6, name, "start", f'transform="rotate(-90 {x + 4:.1f} {top - 6})"'))
        for j, fraction in enumerate(rows[i]):
            if fraction is None:
                continue
            box = f'x="{left + j * cell + 0.5}" y="{top + i * cell + 0.5}" width="{cell - 1}" height="{cell - 1}" rx=2'
            hint = html.escape(f"true {name}, predicted {names[j]}: {100 * fraction:.1f} %")
            style = f"fill:var(--ours);fill-opacity:{0.06 + 0.94 * fraction:.3f}"
            parts.append(f'<rect {box} style="{style}"><title>{hint}</title></rect>')
            if fraction >= 0.045:
                ink = "#fff" if fraction > 0.5 else "var(--ink)"
                place = (left + (j + 0.5) * cell, top + (i + 0.5) * cell + 3.5)
                parts.append(
                    _text(*place, f"{100 * fraction:.0f}", extra=f'font-size=10 style="fill:{ink};pointer-events:none"')
                )
    return _svg(left + size + 4, top + size + 4, title, parts)


def timings(stages: Mapping[str, float | int]) -> str:
    """One horizontal bar per stage, seconds."""
    left, thick, width = 190, 24, 1060
    longest = max(stages.values(), default=0.0) or 1.0
    parts = []
    for i, (name, seconds) in enumerate(stages.items()):
        y, long = i * thick, (width - left - 90) * seconds / longest
        parts.append(_text(left - 8, y + 16, name, "end"))
        box = f'x="{left}" y="{y + 4}" width="{max(long, 1):.1f}" height="{thick - 8}" rx=3'
        parts.append(f'<rect {box} style="fill:var(--ours)"/>')
        parts.append(_text(left + long + 8, y + 16, f"{seconds:.1f} s", "start"))
    return _svg(width, thick * len(stages) + 4, "seconds per stage", parts)
