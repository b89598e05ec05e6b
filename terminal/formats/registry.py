"""The exchange formats by name.

A new format is a module with a function `write`, and `read` if it can be imported, an entry in `FORMATS`, and an
example in tests/data/formats/, whose README says who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from terminal.formats import boris, elan, event_csv, fiftyone, frame_csv, nwb, rttm, sleap, textgrid
from terminal.formats.libraries import Library
from video.timeline import Observation, Timeline


class Format(NamedTuple):
    """An exchange format.

    Attributes:
        description: a few words for `--help`.
        suffix: the suffix of its files.
        write: writes timelines to an open file.
        read: reads observations from an open file, and raises InvalidRequest; None for export only.
        needs: the library that writes and reads it, where it isn't installed with the backend.
        binary: its files are opened as binary files, else as text in UTF-8.
        one_video: a file holds the timelines of one video.
        without_suffix: its files name videos without the suffix, or name none: then the file has the video's name.
    """

    description: str
    suffix: str
    write: Callable[[Sequence[Timeline], Any], None]
    read: Callable[[Any], list[Observation]] | None = None
    needs: Library | None = None
    binary: bool = False
    one_video: bool = False
    without_suffix: bool = False


FORMATS: dict[str, Format] = {
    "events": Format("a table of events", ".csv", event_csv.write, event_csv.read),
    "frames": Format("a table of frames", ".csv", frame_csv.write),
    "boris": Format("a BORIS project", ".boris", boris.write, boris.read),
    "fiftyone": Format("FiftyOne's temporal detections", ".json", fiftyone.write),
    "elan": Format("ELAN's annotations, a file a video", ".eaf", elan.write, elan.read, binary=True, one_video=True),
    "textgrid": Format(
        "Praat's TextGrids, a file a video",
        ".TextGrid",
        textgrid.write,
        textgrid.read,
        binary=True,
        one_video=True,
        without_suffix=True,
    ),
    "rttm": Format("RTTM, as scorers of diarization read it", ".rttm", rttm.write, rttm.read, without_suffix=True),
    "sleap": Format("SLEAP's labels with events", ".slp", sleap.write, sleap.read, sleap.SLEAP_IO, binary=True),
    "nwb": Format("NWB, a file a video", ".nwb", nwb.write, nwb.read, nwb.PYNWB, binary=True, one_video=True),
}
