"""Praat's TextGrids (https://www.praat.org): a tier of intervals for each label, in Praat's long text format.

Intervals of a tier can't overlap, so overlapping events of one label become one; where nothing is labelled, Praat wants
intervals without text. A TextGrid names no video: the file has the video's name. Where a video has several timelines,
the tiers are named `LABEL @ SOURCE`. Scores are left out.
"""

from __future__ import annotations

import math
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from errors import InvalidRequest
from video.timeline import SECONDS_DIGITS, Event, Observation, Timeline, without_overlaps

SHORTEST = 0.001  # seconds; Praat's intervals last longer than nothing
OF_SOURCE = " @ "
# Praat reads values that stand alone, and takes all else for remarks: `xmin = 0`, `intervals [1]:`.
VALUE = re.compile(r'"((?:[^"]|"")*)"|!.*|(\S+)')
NUMBER = re.compile(r"[-+]?\d+\.?\d*([eE][-+]?\d+)?%?$|<\w+>$|--undefined--$")


def write(timelines: Sequence[Timeline], file: BinaryIO) -> None:
    """Writes a TextGrid with the timelines of one video, as text in UTF-8."""
    duration = max(timeline.clock.duration for timeline in timelines)
    rows: list[tuple[str, list[Event]]] = []
    for timeline in timelines:
        source = timeline.observation.source
        events = without_overlaps(timeline.observation.events, shortest=SHORTEST)
        duration = max([duration, *(event.stop for event in events)])  # the last frame may end after the video
        for label in timeline.labels:
            name = label if len(timelines) == 1 else f"{label}{OF_SOURCE}{source}"
            rows.append((name, [event for event in events if event.label == label]))
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", *_span(0, duration)]
    lines += ["tiers? <exists>", f"size = {len(rows)}", "item []:"]
    for number, (name, events) in enumerate(rows, start=1):
        intervals = list(_filled(events, duration))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_text(name)}"]
        lines += [f"        {line}" for line in _span(0, duration)] + [f"        intervals: size = {len(intervals)}"]
        for index, interval in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:"]
            lines += [f"            {line}" for line in _span(interval.start, interval.stop)]
            lines += [f"            text = {_text(interval.label)}"]
    file.write("\n".join([*lines, ""]).encode())


def _filled(events: Sequence[Event], duration: float) -> Iterator[Event]:
    """The events, and intervals without a label between them, from 0 to the end."""
    time = 0.0
    for event in events:
        if event.start > time:
            yield Event("", time, event.start)
        yield event
        time = event.stop
    if time < duration:
        yield Event("", time, duration)


def _span(start: float, stop: float) -> list[str]:
    return [
        f"xmin = {round(start, SECONDS_DIGITS):.{SECONDS_DIGITS}f}",
        f"xmax = {round(stop, SECONDS_DIGITS):.{SECONDS_DIGITS}f}",
    ]


def _text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def read(file: BinaryIO) -> list[Observation]:
    """Reads intervals and points that have a text, which is their label. A point is an instant.

    Praat's long and short text formats are read, in UTF-8 and in UTF-16. The observations' video is empty.

    Raises:
        InvalidRequest: the TextGrid can't be read; the message names the tier.
    """
    values = _values(_decoded(file.read()))
    try:
        if not next(values).startswith("ooTextFile") or next(values) != "TextGrid":
            raise InvalidRequest("This isn't a TextGrid in one of Praat's text formats.")
        next(values), next(values)  # the whole span
        num_tiers = int(next(values)) if next(values) == "<exists>" else 0
    except (StopIteration, ValueError) as error:
        raise InvalidRequest("This isn't a TextGrid in one of Praat's text formats.") from error
    found: dict[str, list[Event]] = {}
    for number in range(1, num_tiers + 1):
        try:
            name, events = _tier(values, f"Tier {number}")
        except (StopIteration, ValueError) as error:
            reason = "the file ends early" if isinstance(error, StopIteration) else f"{error}"
            raise InvalidRequest(f"Tier {number} can't be read: {reason}.") from error
        if events:
            found.setdefault(name.partition(OF_SOURCE)[2], []).extend(events)
    return [Observation("", source, events) for source, events in found.items()]


def _decoded(content: bytes) -> str:
    if content.startswith(b"ooBinaryFile"):
        raise InvalidRequest("This TextGrid is in Praat's binary format: save it as a text file in Praat.")
    wide = content.startswith((BOM_UTF16_BE, BOM_UTF16_LE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest("This isn't text in UTF-8 or UTF-16, as Praat's text files are.") from error


def _values(text: str) -> Iterator[str]:
    for match in VALUE.finditer(text):
        if match[1] is not None:
            yield match[1].replace('""', '"')
        elif match[2] and NUMBER.match(match[2]):
            yield match[2]


def _tier(values: Iterator[str], where: str) -> tuple[str, list[Event]]:
    """A tier's name, and its events. Raises StopIteration or ValueError where a value is missing or none."""
    kind, name = next(values), next(values)
    if kind not in ("IntervalTier", "TextTier"):
        raise ValueError(f"it is of the class {kind!r}")
    next(values), next(values)  # the tier's span
    events = []
    for _ in range(int(next(values))):
        start = float(next(values))
        stop = float(next(values)) if kind == "IntervalTier" else start
        label = next(values).strip()
        if not label:
            continue
        if not 0 <= start <= stop < math.inf:
            raise InvalidRequest(f"{where} ({name!r}): {label!r} lasts from {start:g} to {stop:g} s.")
        events.append(Event(label, round(start, SECONDS_DIGITS), round(stop, SECONDS_DIGITS)))
    return name, events
