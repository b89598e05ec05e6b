"""Events as CSV, one in each row. Times are in seconds; frames are counted from 1, both ends included."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import TextIO

from errors import InvalidRequest
from utils.cells import from_cell, to_cell
from video.timeline import SECONDS_DIGITS, Event, Observation, Timeline

COLUMNS = (
    "video",
    "task",
    "source",
    "label",
    "start_seconds",
    "stop_seconds",
    "start_frame",  # Label Studio's
    "stop_frame",
    "start_file_frame",  # the file's own
    "stop_file_frame",
    "score",
)
REQUIRED = ("label", "start_seconds", "stop_seconds")


def write(timelines: Sequence[Timeline], file: TextIO) -> None:
    """Writes timelines, one row for each event."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for timeline in timelines:
        observation = timeline.observation
        for event in observation.events:
            writer.writerow(
                (
                    to_cell(observation.video),
                    "" if observation.task is None else observation.task,
                    to_cell(observation.source),
                    to_cell(event.label),
                    round(event.start, SECONDS_DIGITS),
                    round(event.stop, SECONDS_DIGITS),
                    *timeline.clock.frames(event),
                    *timeline.clock.file_frames(event),
                    "" if event.score is None else event.score,
                )
            )


def read(file: TextIO) -> list[Observation]:
    """Reads events. Those of one video, task and source make one observation.

    Only the columns `label`, `start_seconds` and `stop_seconds` are required, so that tables of other programs can be
    read. Frames are ignored, since seconds mean the same under every frame rate.

    Raises:
        InvalidRequest: a column is missing or a row can't be read; the message names it.
    """
    reader = csv.DictReader(file)
    missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise InvalidRequest(f"The table has no column {', '.join(missing)}; it needs {', '.join(REQUIRED)}.")
    found: dict[tuple[str, str, str], list[Event]] = {}
    for row in reader:
        key = (from_cell(row.get("video") or ""), row.get("task") or "", from_cell(row.get("source") or ""))
        found.setdefault(key, []).append(_event(row, reader.line_num))
    try:
        return [
            Observation(video, source, events, int(task) if task else None)
            for (video, task, source), events in found.items()
        ]
    except ValueError as error:
        raise InvalidRequest(f"The id of a task isn't a whole number: {error}") from error


def _event(row: dict[str, str], line: int) -> Event:
    try:
        start, stop = float(row["start_seconds"]), float(row["stop_seconds"])
        score = float(row["score"]) if row.get("score") else None
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"Line {line}: start_seconds, stop_seconds and score must be numbers ({error})."
        ) from error
    if not 0 <= start <= stop < float("inf"):
        raise InvalidRequest(f"Line {line}: start_seconds must be at least 0, and not after stop_seconds.")
    if not row["label"]:
        raise InvalidRequest(f"Line {line}: the label is missing.")
    return Event(from_cell(row["label"]), start, stop, score)
