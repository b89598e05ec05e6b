"""The exchange formats by name.

A new format is a module with a function `write`, and `read` if it can be imported, an entry in `FORMATS`, and an
example in tests/data/formats/, whose README says who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from terminal.formats import boris, event_csv, fiftyone, frame_csv, rttm
from video.timeline import Observation, Timeline


class Format(NamedTuple):
    """An exchange format.

    Attributes:
        description: a few words for `--help`.
        suffix: the suffix of its files.
        write: writes timelines to an open text file.
        read: reads observations from an open text file, and raises InvalidRequest; None for export only.
        without_suffix: its files name videos without the suffix.
    """

    description: str
    suffix: str
    write: Callable[[Sequence[Timeline], TextIO], None]
    read: Callable[[TextIO], list[Observation]] | None = None
    without_suffix: bool = False


FORMATS: dict[str, Format] = {
    "events": Format("a table of events", ".csv", event_csv.write, event_csv.read),
    "frames": Format("a table of frames", ".csv", frame_csv.write),
    "boris": Format("a BORIS project", ".boris", boris.write, boris.read),
    "fiftyone": Format("FiftyOne's temporal detections", ".json", fiftyone.write),
    "rttm": Format("RTTM, as scorers of diarization read it", ".rttm", rttm.write, rttm.read, without_suffix=True),
}
