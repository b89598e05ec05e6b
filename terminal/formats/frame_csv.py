"""Labeling frames as CSV, one in each row, with a column of 0 and 1 for each label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import TextIO

from utils.cells import to_cell
from video.timeline import SECONDS_DIGITS, Timeline

COLUMNS = ("video", "task", "source", "frame", "seconds", "file_frame")
PROBABILITY_DIGITS = 4


def write(timelines: Sequence[Timeline], file: TextIO) -> None:
    """Writes timelines, one row for each labeling frame.

    `seconds` is the frame's beginning. `file_frame` is the file's own frame that is shown, counted from 1. Where a
    timeline has probabilities, a column `probability of LABEL` follows for each label.
    """
    labels = list(dict.fromkeys(label for timeline in timelines for label in timeline.labels))
    with_probabilities = any(timeline.probabilities is not None for timeline in timelines)
    writer = csv.writer(file)
    writer.writerow(
        (*COLUMNS, *map(to_cell, labels), *(f"probability of {label}" for label in labels if with_probabilities))
    )
    for timeline in timelines:
        observation, marks = timeline.observation, timeline.marks().astype(int)
        columns = [timeline.labels.index(label) if label in timeline.labels else None for label in labels]
        for index, shown in enumerate(timeline.clock.shown):
            row = [
                to_cell(observation.video),
                "" if observation.task is None else observation.task,
                to_cell(observation.source),
                index + 1,
                round(index / timeline.clock.frame_rate, SECONDS_DIGITS),
                shown + 1,
                *("" if column is None else marks[index, column] for column in columns),
            ]
            if with_probabilities:
                row += [_probability(timeline, index, column) for column in columns]
            writer.writerow(row)


def _probability(timeline: Timeline, index: int, column: int | None) -> float | str:
    if timeline.probabilities is None or column is None:
        return ""
    return round(float(timeline.probabilities[index, column]), PROBABILITY_DIGITS)
