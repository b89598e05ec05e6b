"""Draw a study: the ethogram and actograms of its videos, and its transitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from ml_backend.dashboard.colours import UNKNOWN_COLOUR
from ml_backend.dashboard.timelines import clock_time
from study.budget import Observed, joined
from study.tables import grouped
from study.transitions import transitions
from video.task_data import file_name

# A page with more rows is slow, and nobody compares them all.
MAX_DRAWN = 60
# Of a config's thousands of labels the pairs would be millions of cells.
MAX_LABELS = 50
BINS = 60
LABEL_HEIGHT, ACTOGRAM_HEIGHT = 9, 20  # pixels
# A video of unknown length is drawn up to its last event.
UNITS = 1000  # of a drawing's width; finer than a screen's pixels


class Lane(NamedTuple):
    """A video's row.

    Attributes:
        name: short, for people who see the plot.
        drawing: SVG, which says in words what it shows.
    """

    name: str
    drawing: Markup


class Actogram(NamedTuple):
    """How much of each bin of time a label takes, a row for each video.

    Attributes:
        label: the label.
        colour: CSS.
        lanes: the rows.
    """

    label: str
    colour: str
    lanes: list[Lane]


class Step(NamedTuple):
    """A cell of the matrix of transitions.

    Attributes:
        count: how often the column's label began next after the row's.
        share: of all that began next after the row's, 0 where nothing did.
        drawing: SVG, a square as dark as the share is large.
    """

    count: float
    share: float
    drawing: Markup


class Plots(NamedTuple):
    """The plots of a control tag's annotations or predictions.

    Attributes:
        kind, control: what they show.
        legend: label and colour.
        end: the end of the time axis, in words.
        bin_seconds: the length of an actogram's bins.
        ethogram: a lane of each video.
        actograms: one of each label.
        steps: for each label, a cell for each label that may follow.
        left_out: how many videos aren't drawn.
        labels_left_out: how many labels aren't.
    """

    kind: str
    control: str
    legend: list[tuple[str, str]]
    end: str
    bin_seconds: float
    ethogram: list[Lane]
    actograms: list[Actogram]
    steps: list[tuple[str, list[Step]]]
    left_out: int
    labels_left_out: int


def plots(observed: Sequence[Observed], colours: dict[str, dict[str, str]]) -> list[Plots]:
    """The plots of observations, by kind and control tag.

    Args:
        observed: in order of tasks.
        colours: control tag -> label -> CSS colour.
    """
    found = []
    for (kind, control, _), group in grouped(observed, by_subject=False):
        labels = _most_frequent(group)
        shades = {label: colours.get(control, {}).get(label, UNKNOWN_COLOUR) for label in labels}
        group.sort(key=lambda one: one.subject)
        drawn = _named(group[:MAX_DRAWN])
        end = max([_end(one) for _, one in drawn] + [1e-6])
        found.append(
            Plots(
                kind,
                control,
                list(shades.items()),
                clock_time(end),
                end / BINS,
                [Lane(name, _ethogram(one, name, shades, end)) for name, one in drawn],
                [
                    Actogram(
                        label,
                        colour,
                        [Lane(name, _actogram(one, name, label, colour, end)) for name, one in drawn],
                    )
                    for label, colour in shades.items()
                ],
                _steps(group, labels),
                len(group) - len(drawn),
                len(group[0].labels) - len(labels),
            )
        )
    return found


def _end(one: Observed) -> float:
    return max([stop for _, stop in one.spans or ()] + [event.stop for event in one.observation.events] + [0.0])


def _named(drawn: Sequence[Observed]) -> list[tuple[str, Observed]]:
    """Videos with their names, and with the source where a task has several."""
    several = Counter(one.observation.task for one in drawn)
    named = []
    for one in drawn:
        file = file_name(one.observation.video)
        source = f", {one.observation.source}" if several[one.observation.task] > 1 else ""
        named.append((f"{one.subject}: {file}{source}" if one.subject else f"{file}{source}", one))
    return named


def _spans(one: Observed, end: float) -> list[tuple[float, float]]:
    return [(0.0, end)] if one.spans is None else joined(one.spans)


def _rect(start: float, stop: float, end: float, y: float, height: float, attributes: str) -> str:
    x, width = UNITS * start / end, UNITS * (stop - start) / end
    return f'<rect x="{x:.1f}" width="{max(width, 0.5):.1f}" y="{y:.3g}" height="{height:.3g}" {attributes}/>'


def _svg(words: str, height: int, rows: int, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg width="100%" height="{height}" viewBox="0 0 {UNITS} {rows}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}</svg>'
    )


def _ethogram(one: Observed, name: str, colours: dict[str, str], end: float) -> Markup:
    parts = [_rect(start, stop, end, 0, len(colours), 'class="empty"') for start, stop in _spans(one, _end(one))]
    words = []
    for row, (label, colour) in enumerate(colours.items()):
        bouts = one.bouts(label)
        parts += [_rect(start, stop, end, row + 0.1, 0.8, f'color="{escape(colour)}"') for start, stop in bouts]
        if bouts:
            total = sum(stop - start for start, stop in bouts)
            words.append(f"{label} {len(bouts)} times, {total:.1f} s, from {clock_time(bouts[0][0])} on")
    said = f"{name}: {'; '.join(words) or 'nothing'}"
    return _svg(said, LABEL_HEIGHT * len(colours), len(colours), parts)


def _actogram(one: Observed, name: str, label: str, colour: str, end: float) -> Markup:
    edges = np.linspace(0, end, BINS + 1)
    spans = _spans(one, _end(one))
    taken, seen = _per_bin(one.bouts(label), edges), _per_bin(spans, edges)
    parts = [_rect(start, stop, end, 0.96, 0.04, 'class="empty"') for start, stop in spans]
    shares = np.divide(taken, seen, out=np.zeros(BINS), where=seen > 0)
    if taken.any():
        corners = zip(np.repeat(edges, 2)[1:-1] * UNITS / end, 1 - np.repeat(shares, 2), strict=True)
        points = " ".join(f"{x:.1f},{y:.3g}" for x, y in corners)
        parts.append(f'<polygon color="{escape(colour)}" points="0,1 {points} {UNITS},1"/>')
    observed = sum(stop - start for start, stop in spans)
    said = f"{name}: {label} takes {taken.sum() / observed:.0%} of {clock_time(observed)}" if observed else name
    return _svg(said, ACTOGRAM_HEIGHT, 1, parts)


def _per_bin(intervals: Sequence[tuple[float, float]], edges: np.ndarray) -> np.ndarray:
    """The seconds that intervals take of each bin, [len(edges) - 1]."""
    seconds = np.zeros(len(edges) - 1)
    for start, stop in intervals:
        seconds += np.clip(np.minimum(stop, edges[1:]) - np.maximum(start, edges[:-1]), 0, None)
    return seconds


def _most_frequent(group: Sequence[Observed]) -> list[str]:
    """The labels with the most events, MAX_LABELS at most, in the config's order."""
    labels = group[0].labels
    if len(labels) <= MAX_LABELS:
        return list(labels)
    counts = Counter(event.label for one in group for event in one.observation.events)
    chosen = set(sorted(labels, key=lambda label: -counts[label])[:MAX_LABELS])
    return [label for label in labels if label in chosen]


def _steps(group: Sequence[Observed], labels: Sequence[str]) -> list[tuple[str, list[Step]]]:
    counts = transitions(group, labels)
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = float(row.sum())
        rows.append(
            (label, [Step(float(one), float(one) / total if total else None, _square(one, total)) for one in row])
        )
    return rows


def _square(count: float, total: float) -> Markup:
    share = count / total if total else 0.0
    return Markup(
        '<svg class="heat" width="18" height="18" viewBox="0 0 1 1" aria-hidden="true"><rect class="empty" width="1" '
        f'height="1"/><rect class="full" width="1" height="1" opacity="{share:.2f}"/></svg>'
    )
