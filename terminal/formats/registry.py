"""The formats by name. To add one: a module with `write`, and `read` where it can be imported, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from terminal.formats import boris, event_csv, fiftyone, frame_csv
from video.timeline import Observation, Timeline


class Format(NamedTuple):
    """One format.

    Attributes:
        description: what it is, in a few words.
        suffix: of its files.
        write: writes timelines to an open text file.
        read: reads observations from one; None where the format is for export only. Raises InvalidRequest.
    """

    description: str
    suffix: str
    write: Callable[[Sequence[Timeline], TextIO], None]
    read: Callable[[TextIO], list[Observation]] | None = None


FORMATS: dict[str, Format] = {
    "events": Format("a table of events", ".csv", event_csv.write, event_csv.read),
    "frames": Format("a table of frames", ".csv", frame_csv.write),
    "boris": Format("a BORIS project", ".boris", boris.write, boris.read),
    "fiftyone": Format("FiftyOne's temporal detections", ".json", fiftyone.write),
}
