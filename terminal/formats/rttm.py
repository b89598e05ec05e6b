"""RTTM (Rich Transcription Time Marked), the format of speaker diarization, whose scorers compare two files of it.

NIST defines it in the evaluation plan of RT-09, appendix A: a line for each event, of ten fields between spaces:

    SPEAKER kick 1 0.400000 0.800000 <NA> <NA> Ball%20touch 0.750000 <NA>

The fields are the type, the file without folder and suffix, the channel, the start and the duration in seconds, two
that don't apply, the label as the speaker, the confidence (a prediction's score), and the look-ahead time. Spaces
in names are percent-encoded, since a field can hold none. A field for the source doesn't exist: where a video has
several timelines, a comment names that of the lines below it, and scorers join them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TextIO
from urllib.parse import unquote

from errors import InvalidRequest
from terminal.formats.names import stems
from video.timeline import SECONDS_DIGITS, Event, Observation, Timeline

SPEAKER = "SPEAKER"
NOT_APPLICABLE = "<NA>"
COMMENT, SOURCE = ";;", ";;source:"
MIN_FIELDS = 8  # up to the label; files of other programs end before the look-ahead time, or before the confidence


def write(timelines: Sequence[Timeline], file: TextIO) -> None:
    """Writes timelines, one line for each event."""
    names = stems(timeline.observation.video for timeline in timelines)
    counts = Counter(timeline.observation.video for timeline in timelines)
    for timeline in timelines:
        observation = timeline.observation
        if counts[observation.video] > 1:
            file.write(f"{SOURCE}{_field(observation.source)}\n")
        for event in observation.events:
            times = f"{event.start:.{SECONDS_DIGITS}f} {event.stop - event.start:.{SECONDS_DIGITS}f}"
            score = NOT_APPLICABLE if event.score is None else f"{event.score:.6f}"
            file.write(
                f"{SPEAKER} {_field(names[observation.video])} 1 {times} {NOT_APPLICABLE} {NOT_APPLICABLE} "
                f"{_field(event.label)} {score} {NOT_APPLICABLE}\n"
            )


def _field(text: str) -> str:
    """A text with its spaces percent-encoded, which `unquote` reverses."""
    return re.sub(r"[%\s]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def read(file: TextIO) -> list[Observation]:
    """Reads the SPEAKER lines. Those of one file and source make one observation, whose video has no suffix.

    Raises:
        InvalidRequest: a line can't be read; the message names it.
    """
    found: dict[tuple[str, str], list[Event]] = {}
    source = ""
    for number, line in enumerate(file, start=1):
        if line.startswith(SOURCE):
            source = unquote(line.removeprefix(SOURCE).strip())
        fields = line.split()
        if not fields or line.startswith(COMMENT) or fields[0] != SPEAKER:
            continue
        found.setdefault((_name(fields, number), source), []).append(_event(fields, number))
    if not found:
        raise InvalidRequest(f"No line begins with {SPEAKER}, as RTTM's lines of events do.")
    return [Observation(video, source, events) for (video, source), events in found.items()]


def _name(fields: list[str], line: int) -> str:
    if len(fields) < MIN_FIELDS:
        raise InvalidRequest(f"Line {line} has {len(fields)} fields; a {SPEAKER} line of RTTM has ten.")
    return unquote(fields[1])


def _event(fields: list[str], line: int) -> Event:
    confidence = fields[8] if len(fields) > 8 else NOT_APPLICABLE
    try:
        start, duration = float(fields[3]), float(fields[4])
        score = None if confidence == NOT_APPLICABLE else float(confidence)
    except ValueError as error:
        raise InvalidRequest(f"Line {line}: start, duration and confidence must be numbers ({error}).") from error
    if not (0 <= start < math.inf and 0 <= duration < math.inf and math.isfinite(score or 0)):
        raise InvalidRequest(f"Line {line}: start and duration must be at least 0, and the confidence a number.")
    return Event(unquote(fields[7]), round(start, SECONDS_DIGITS), round(start + duration, SECONDS_DIGITS), score)
