"""Line plots as SVG text, without a plotting library: log axes, one colour and marker a series."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 46
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700")

Points = Sequence[tuple[float, float]]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range, thinned to at most eight; the ends where there are none."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    if len(found) > 8:
        found = [t for t in found if math.isclose(math.log10(t) % 1, 0, abs_tol=1e-9)]
    return found if len(found) >= 2 else [low, high]


def _linear_ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9)))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 7)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def line_plot(
    title: str, x_name: str, y_name: str, series: Mapping[str, Points], log_y: bool = True, log_x: bool = True
) -> str:
    """An SVG document; every series needs a point.

    Raises:
        ValueError: nothing to plot.
    """
    points = [p for own in series.values() for p in own]
    if not points:
        raise ValueError(f"line_plot {title!r}: no points")
    spans = []
    for k, log in enumerate((log_x, log_y)):
        low, high = min(p[k] for p in points), max(p[k] for p in points)
        low, high = (
            (low / 1.15, high * 1.15) if log else (low - 0.05 * (high - low + 1), high + 0.05 * (high - low + 1))
        )
        spans.append((low, high, log))

    def place(value: float, axis: int) -> float:
        low, high, log = spans[axis]
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        if axis == 0:
            return LEFT + share * (WIDTH - LEFT - RIGHT)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>',
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text>",
    ]
    for tick in (_ticks if log_x else _linear_ticks)(*spans[0][:2]):
        x = place(tick, 0)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{_number(tick)}</text>')
    for tick in (_ticks if log_y else _linear_ticks)(*spans[1][:2]):
        y = place(tick, 1)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for k, (name, own) in enumerate(series.items()):
        colour = COLOURS[k % len(COLOURS)]
        at = [(place(x, 0), place(y, 1)) for x, y in sorted(own)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        parts.append(f'<text x="{LEFT + 8}" y="{TOP + 14 + 14 * k}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
