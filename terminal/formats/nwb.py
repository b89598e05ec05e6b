"""NWB (Neurodata Without Borders, https://www.nwb.org), written and read with pynwb, which is installed when wanted.

A file is a session with one video, an ImageSeries that names the video's file, and a table of TimeIntervals for each of
the video's timelines, with the columns `start_time`, `stop_time` (seconds), `label`, and for predictions `score`.
TimeIntervals are NWB's own type for what has a start and a stop, since version 2.0; no extension is needed. Label
Studio doesn't know when a video was taken, so `session_start_time` is the beginning of 1970.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

import numpy as np

from errors import InvalidRequest
from terminal.formats.libraries import Library, path_to_read, path_to_write
from terminal.formats.names import unused
from video.task_data import file_name
from video.timeline import SECONDS_DIGITS, Event, Observation, Timeline

if TYPE_CHECKING:
    import pynwb

PYNWB = Library("pynwb", "pynwb>=4.2,<5")
SUFFIX = ".nwb"
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
VIDEO = "video"


def write(timelines: Sequence[Timeline], file: BinaryIO) -> None:
    """Writes a session with the timelines of one video.

    Raises:
        InvalidRequest: pynwb isn't installed.
    """
    nwb = PYNWB.load()
    video, clock = timelines[0].observation.video, timelines[0].clock
    rate = float(clock.file_rate or clock.frame_rate)
    session = nwb.NWBFile(f"Labels of {file_name(video)}", str(uuid4()), UNKNOWN_TIME)
    session.add_acquisition(
        nwb.image.ImageSeries(
            name=VIDEO,
            description=file_name(video),
            unit="n.a.",
            format="external",
            external_file=[video],
            starting_frame=[0],
            starting_time=0.0,
            rate=rate,
            num_samples=max(1, round(clock.duration * rate)),
        )
    )
    taken: set[str] = set()
    for timeline in timelines:
        name = unused(timeline.observation.source.replace("/", "-").replace(":", "-"), taken)
        session.add_time_intervals(_table(nwb, name, timeline))
    with path_to_write(file, SUFFIX) as path, nwb.NWBHDF5IO(path, "w") as target:
        target.write(session)


def _table(nwb: Any, name: str, timeline: Timeline) -> pynwb.epoch.TimeIntervals:
    events = timeline.observation.events
    scores = np.array([math.nan if event.score is None else event.score for event in events])
    # A list tells pynwb the type of its content, and an empty one doesn't.
    names = [event.label for event in events] or np.empty(0, dtype="S1")
    columns = [
        ("start_time", "seconds from the video's start", np.array([event.start for event in events], dtype=float)),
        ("stop_time", "seconds from the video's start", np.array([event.stop for event in events], dtype=float)),
        ("label", "the label", names),
    ]
    if not np.isnan(scores).all():
        columns.append(("score", "the mean probability that the model gave the label", scores))
    made = [nwb.core.VectorData(name=name, description=words, data=data) for name, words, data in columns]
    labels = ", ".join(timeline.labels)
    return nwb.epoch.TimeIntervals(name=name, description=f"The labels are {labels}.", columns=made)


def read(file: BinaryIO) -> list[Observation]:
    """Reads the tables of TimeIntervals that have a column `label`. Each makes an observation.

    Raises:
        InvalidRequest: pynwb isn't installed, or the file can't be read; the message names the table.
    """
    nwb = PYNWB.load()
    with path_to_read(file, SUFFIX) as path:
        try:
            with nwb.NWBHDF5IO(path, "r") as opened:
                session = opened.read()
                video, start = _video(nwb, session)
                tables = {name: table.to_dataframe() for name, table in (session.intervals or {}).items()}
        except InvalidRequest:
            raise
        except Exception as error:  # pynwb and h5py raise many kinds for a damaged file
            raise InvalidRequest(f"This isn't a file of NWB, or it is damaged ({error}).") from error
    found = {name: table for name, table in tables.items() if "label" in table}
    if not found:
        there = ", ".join(f"{name!r} ({', '.join(map(str, table))})" for name, table in tables.items()) or "none"
        raise InvalidRequest(f"No table of time intervals has a column 'label'. There are: {there}.")
    return [Observation(video, name, list(_events(name, table, start))) for name, table in found.items()]


def _video(nwb: Any, session: pynwb.NWBFile) -> tuple[str, float]:
    """The video's file, and the session's second at which it begins."""
    series = [one for one in session.objects.values() if isinstance(one, nwb.image.ImageSeries)]
    for one in series:
        if one.external_file is not None and len(one.external_file):
            start = one.starting_time if one.timestamps is None else one.timestamps[0]
            return str(one.external_file[0]), float(start or 0)
    raise InvalidRequest("The file names no video: it has no ImageSeries with an external file.")


def _events(name: str, table: Any, start: float) -> Iterator[Event]:
    scores = table["score"] if "score" in table else [math.nan] * len(table)
    rows = zip(table["start_time"], table["stop_time"], table["label"], scores, strict=True)
    for number, (first, last, label, score) in enumerate(rows, start=1):
        begin, end = (round(float(time) - start, SECONDS_DIGITS) for time in (first, last))
        if not 0 <= begin <= end < math.inf:
            raise InvalidRequest(f"Table {name!r}, row {number}: {label!r} lasts from {begin:g} to {end:g} s.")
        yield Event(str(label), begin, end, None if math.isnan(score) else float(score))
