"""Draw plots as SVG, for pages without scripts: curves with their intervals, and timelines.

The attribute `color` has a label's colour. The page's style sheet mixes it with the page's text colour, so that blue
can be seen on a dark page and yellow on a light one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 36, 16, 8, 26  # half of a tick's number stands beyond the axis
# A screen can't show more points than this.
MAX_POINTS = 1200


class Series(NamedTuple):
    """A curve.

    Attributes:
        name: for the legend.
        colour: CSS colour.
        x: positions.
        y: values in [0, 1].
        low, high: the ends of each value's interval, as many as y; None for no intervals.
    """

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def line_chart(title: str, series: Sequence[Series], x_label: str, diagonal: bool = False) -> Markup:
    """Draws curves of values in [0, 1].

    Args:
        title: for screen readers.
        series: the curves.
        x_label: the label of the x-axis.
        diagonal: whether to draw y = x, for curves over [0, 1].
    """
    x_max = 1.0 if diagonal else max([1.0, *(x for one in series for x in one.x)])

    def place(x: float, y: float) -> str:
        return f"{LEFT + x / x_max * (WIDTH - LEFT - RIGHT):.1f},{TOP + (1 - y) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in (0, 0.5, 1):
        x, y = place(0, value).split(",")
        parts.append(f'<line class="grid" x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(x_max):
        x, y = place(value, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM - 5}" text-anchor="end">{escape(x_label)}</text>')
    if diagonal:
        (x1, y1), (x2, y2) = place(0, 0).split(","), place(1, 1).split(",")
        parts.append(f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for one in series:
        colour = escape(one.colour)
        if one.low is not None and len(one.x) > 1:
            band = [place(*point) for point in zip(one.x, one.high, strict=True)]
            band += [place(*point) for point in zip(reversed(one.x), reversed(one.low), strict=True)]
            parts.append(f'<polygon points="{" ".join(band)}" color="{colour}" opacity="0.15"/>')
        points = [place(*point) for point in zip(one.x, one.y, strict=True)]
        parts.append(f'<polyline points="{" ".join(points)}" color="{colour}" stroke-width="2"/>')
        for point in points:
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" color="{colour}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))


def _ticks(x_max: float) -> list[float]:
    if x_max <= 1:
        return [0, 0.5, 1]
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if x_max / s <= 8)
    return [step * number for number in range(int(x_max / step) + 1)]


def bar_chart(title: str, x: Sequence[int], counts: Sequence[int], colour: str) -> Markup:
    """Draws bars of counts over consecutive whole numbers."""
    width, top, base = (WIDTH - LEFT - RIGHT) / len(x), max([1, *counts]), HEIGHT - BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top}</text>')
    for index, (value, count) in enumerate(zip(x, counts, strict=True)):
        left, height = LEFT + index * width, count / top * (base - TOP)
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{base - height:.1f}" width="{width - 2:.1f}" height="{height:.1f}" '
            f'color="{escape(colour)}"/>'
        )
        if value % 5 == 0:
            parts.append(f'<text x="{left + width / 2:.1f}" y="{base + 16}" text-anchor="middle">{value}</text>')
    parts.append("</svg>")
    return Markup("".join(parts))


def spans(marks: Sequence[tuple[int, int]], colour: str) -> Markup:
    """Draws a row of a timeline: intervals (start, end) in frames, counted from 0, the end excluded. One frame is one
    unit wide."""
    rects = (f'<rect x="{start}" width="{end - start}" y="0" height="1"/>' for start, end in marks)
    return Markup(f'<g color="{escape(colour)}">{"".join(rects)}</g>')


def probability_curve(values: np.ndarray, colour: str) -> Markup:
    """Draws the area below probabilities [num_frames]; for many frames, the minimum and maximum of each bin."""
    frames = np.arange(len(values))
    if len(values) > MAX_POINTS:
        edges = np.linspace(0, len(values), MAX_POINTS // 2 + 1).astype(int)
        bins = [(start, end) for start, end in pairwise(edges) if end > start]
        kept = sorted({start + int(pick(values[start:end])) for start, end in bins for pick in (np.argmin, np.argmax)})
        frames = np.array(kept)
    points = " ".join(f"{frame + 0.5:g},{1 - values[frame]:.3f}" for frame in frames)
    return Markup(f'<polygon color="{escape(colour)}" opacity="0.35" points="0,1 {points} {len(values)},1"/>')
