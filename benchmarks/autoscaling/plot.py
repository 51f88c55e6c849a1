"""Steps over time as SVG: panels one below the other, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 30, 26
COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c")
INK, FAINT, PAPER = "#333", "#ccc", "#fff"


@dataclass(frozen=True, slots=True)
class Line:
    """A name and its values at the moments that all lines share."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """A title and the lines below it; its axis begins at zero."""

    title: str
    lines: Sequence[Line]


def svg(times: Sequence[float], panels: Sequence[Panel], x_unit: str) -> str:
    """The picture. ``times`` are seconds, ascending; every value holds until the next."""
    most = nice(max(times, default=1.0))
    height = PANEL * len(panels) + BOTTOM
    parts = [f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>']
    for number, panel in enumerate(panels):
        parts += _panel(panel, times, most, number * PANEL)
    parts.append(_text(WIDTH - RIGHT, height - 6, x_unit, "end"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11">{"".join(parts)}</svg>\n'
    )


def _panel(panel: Panel, times: Sequence[float], x_most: float, above: float) -> list[str]:
    y_most = nice(max((value for line in panel.lines for value in line.values), default=1.0))
    bottom = above + PANEL - BOTTOM + 8

    def x(value: float) -> float:
        return LEFT + value / x_most * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - value / y_most * (bottom - above - TOP)

    parts = [_text(LEFT, above + 16, panel.title, "start")]
    for k in range(5):
        value = y_most * k / 4
        rule = f"M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"
        parts.append(f'<path d="{rule}" stroke="{FAINT}" stroke-width="0.5"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, f"{value:g}", "end"))
        parts.append(_text(x(x_most * k / 4), bottom + 14, f"{x_most * k / 4:g}", "middle"))
    key = WIDTH - RIGHT
    for number, line in reversed(list(enumerate(panel.lines))):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_text(key, above + 16, line.name, "end", colour))
        key -= 8 * len(line.name) + 16
        path = ""
        for at, value in zip(times, line.values, strict=True):
            path += f"H{x(at):.1f}V{y(value):.1f}" if path else f"M{x(at):.1f} {y(value):.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def nice(most: float) -> float:
    """The next number whose quarters can be read."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
    return next(step * power for step in steps if step * power >= most * 0.9999)
