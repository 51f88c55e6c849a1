"""Plots as SVG text: outlines of histograms, lines and steps over time. No script, no style sheet
but the classes that the report defines: ``s0``, ``s1`` … colour the series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
BINS = 48
MOST_POINTS = 1500
SHOWN_SHARE = 99.5


@dataclass(frozen=True, slots=True)
class Series:
    """A name and its points; for histograms only ``xs``."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Axes:
    """From data to picture. Both axes begin at zero."""

    x_most: float
    y_most: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + value / self.x_most * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - value / self.y_most * (HEIGHT - TOP - BOTTOM)


def histogram(title: str, unit: str, series: Sequence[Series]) -> str:
    """Shares of the values per bin, each series as an outline, with the 50th, 95th and 99th
    percentile of the first marked. The longest half percent of values lies beyond the edge."""
    filled = [one for one in series if len(one.xs)]
    if not filled:
        return _nothing(title)
    most = max(float(np.percentile(one.xs, SHOWN_SHARE)) for one in filled) or 1.0
    edges = np.linspace(0, most, BINS + 1)
    shares = [np.histogram(one.xs, edges)[0] / max(1, len(one.xs)) * 100 for one in series]
    axes = Axes(_nice(most), _nice(max(float(share.max()) for share in shares) or 1.0))
    parts = []
    for number, (one, share) in enumerate(zip(series, shares, strict=True)):
        points = [(0.0, 0.0)]
        for k in range(BINS):
            points += [(float(edges[k]), float(share[k])), (float(edges[k + 1]), float(share[k]))]
        points.append((most, 0.0))
        path = _path(axes, points)
        parts.append(
            f'<path class="area s{number}" d="{path}"><title>{escape(one.name)}</title></path>'
        )
    for percent in (50, 95, 99):
        at = float(np.percentile(filled[0].xs, percent))
        if at <= axes.x_most:
            x = axes.x(at)
            parts.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                f'<text class="small" x="{x + 2:.1f}" y="{TOP + 8}">p{percent}</text>'
            )
    return _svg(title, axes, unit, "% of values", parts)


def over_time(title: str, y_unit: str, series: Sequence[Series], *, steps: bool) -> str:
    """Values over seconds since the first request, as lines or as steps."""
    points = [list(zip(one.xs, one.ys, strict=True)) for one in series]
    if not any(points):
        return _nothing(title)
    x_most = max(x for one in points for x, _ in one) or 1.0
    y_most = max(y for one in points for _, y in one) or 1.0
    axes = Axes(_nice(x_most), _nice(y_most))
    parts = []
    for number, (one, line) in enumerate(zip(series, points, strict=True)):
        line = thinned(line)
        if steps:
            line = [
                p
                for (x, y), (following, _) in zip(line, [*line[1:], line[-1]], strict=True)
                for p in ((x, y), (following, y))
            ]
        path = _path(axes, line)
        parts.append(
            f'<path class="line s{number}" d="{path}"><title>{escape(one.name)}</title></path>'
        )
    return _svg(title, axes, "seconds since the first request", y_unit, parts)


def legend(names: Sequence[str]) -> str:
    """Names beside their colours."""
    return "".join(
        f'<span class="key k{number}"></span>{escape(name)} ' for number, name in enumerate(names)
    )


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: of each stretch the highest, so that no peak is lost."""
    stride = math.ceil(len(points) / MOST_POINTS)
    if stride <= 1:
        return points
    return [
        max(points[start : start + stride], key=lambda point: point[1])
        for start in range(0, len(points), stride)
    ]


def _path(axes: Axes, points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)


def _svg(title: str, axes: Axes, x_unit: str, y_unit: str, parts: list[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(title)}">'
        f"{_grid(axes)}{''.join(parts)}"
        f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">'
        f"{escape(x_unit)}</text>"
        f'<text class="unit" x="4" y="{HEIGHT - 6}">{escape(y_unit)}</text></svg>'
    )


def _grid(axes: Axes) -> str:
    parts = []
    for k in range(5):
        value = axes.x_most * k / 4
        x = axes.x(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">'
            f"{value:.4g}</text>"
        )
        value = axes.y_most * k / 4
        y = axes.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:.4g}</text>"
        )
    return "".join(parts)


def _nice(most: float) -> float:
    """The next round number, so that quarters of it can be read."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(
        step * power
        for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
        if step * power >= most * 0.9999
    )


def _nothing(title: str) -> str:
    return f'<p class="nothing">{escape(title)}: nothing was measured</p>'
