"""The timelines of a task's page: annotated and predicted intervals by label, and where the two differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from learning.events import segments
from ml_backend.dashboard.charts import probability_curve, spans
from video.timeline import Timeline, Track

# A page with more of them is slow, and nobody reads them all.
MAX_DISAGREEMENTS = 500


class Row(NamedTuple):
    """A label's row.

    Attributes:
        label: the label.
        colour: CSS.
        annotated: SVG of the annotated intervals, None where the task has no annotation.
        predicted: SVG of the predicted ones, None where there is no prediction.
        curve: SVG of the probability.
        summary: the intervals in words.
    """

    label: str
    colour: str
    annotated: Markup | None
    predicted: Markup | None
    curve: Markup | None
    summary: str


class Disagreement(NamedTuple):
    """An interval in which annotation and prediction differ.

    Attributes:
        seconds: where it begins.
        text: what differs, from when to when.
    """

    seconds: float
    text: str


def rows(track: Track, annotated: Timeline | None) -> list[Row]:
    """A row for each label of a track."""
    truth = annotated.marks() if annotated else None
    predicted = track.prediction.marks() if track.prediction else None
    made = []
    for column, (label, colour) in enumerate(track.colours.items()):
        drawn, words = {}, []
        for name, marks in (("annotated", truth), ("predicted", predicted)):
            found = segments(marks[:, column]) if marks is not None else []
            drawn[name] = spans(found, colour) if marks is not None else None
            if marks is not None:
                words.append(f"{name} {_ranges(found)}")
        curve = probability_curve(track.prediction.probabilities[:, column], colour) if track.prediction else None
        made.append(Row(label, colour, **drawn, curve=curve, summary=f"{label}: {'; '.join(words) or 'nothing yet'}"))
    return made


def _ranges(found: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{start + 1} to {end}" for start, end in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"in frames {shown}{more}" if found else "nowhere"


def disagreements(track: Track, annotated: Timeline | None) -> list[Disagreement]:
    """The annotated intervals in which annotation and prediction differ, in order of time."""
    if annotated is None or track.prediction is None:
        return []
    truth, predicted, rate = annotated.marks(), track.prediction.marks(), track.clock.frame_rate
    counted = annotated.annotated()
    found = []
    for column, label in enumerate(track.colours):
        for marks, words in (
            (counted & truth[:, column] & ~predicted[:, column], "annotated, not predicted"),
            (counted & ~truth[:, column] & predicted[:, column], "predicted, not annotated"),
        ):
            for start, end in segments(marks):
                when = f"{clock_time(start / rate)} to {clock_time(end / rate)}"
                found.append(Disagreement(round(start / rate, 3), f"{when} {label}: {words}"))
    return sorted(found)[:MAX_DISAGREEMENTS]


def clock_time(seconds: float) -> str:
    """Minutes, seconds and hundredths, such as 1:05.20."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def agreement(track: Track, annotated: Timeline | None) -> float | None:
    """The share of annotated frames × labels on which annotation and prediction agree, None where there are none."""
    if annotated is None or track.prediction is None or not annotated.annotated().any():
        return None
    return float(np.mean((annotated.marks() == track.prediction.marks())[annotated.annotated()]))


def facts(track: Track) -> list[tuple[str, Any]]:
    """The video's rates and length, as the page lists them."""
    clock = track.clock
    return [
        ("File", f"{clock.file_rate:.4g} frames a second" if clock.file_rate else "rate unknown"),
        ("Labeling", f"{clock.frame_rate:.4g} frames a second"),
        ("Length", f"{clock_time(clock.duration)}, {clock.num_frames} labeling frames"),
    ]
