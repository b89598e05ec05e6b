"""What every exchange format carries: labelled intervals of a video, and how its frames lie in time.

>>> event = Event("Ball", start=0.4, stop=1.2)
>>> event.frames(frame_rate=25)
(11, 30)
>>> Event.of_frames("Ball", 11, 30, frame_rate=25) == event
True
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.converter import REGION_TYPE, Region, region_ranges, usable_regions
from video.labeling_frames import labeling_frames

# Microseconds: a thousand times finer than any labeling frame.
SECONDS_DIGITS = 6


@dataclass(frozen=True)
class Event:
    """A label's interval.

    Attributes:
        label: the label.
        start: seconds, where its first frame begins.
        stop: seconds, where its last frame ends; that of `start` for an instant.
        score: mean probability, None for what a person marked.
    """

    label: str
    start: float
    stop: float
    score: float | None = None

    @classmethod
    def of_frames(cls, label: str, first: int, last: int, frame_rate: float, score: float | None = None) -> Event:
        """The event of labeling frames `first` to `last`, counted from 1, both included."""
        start, stop = (round(frame / frame_rate, SECONDS_DIGITS) for frame in (first - 1, last))
        return cls(label, start, stop, score)

    def frames(self, frame_rate: float) -> tuple[int, int]:
        """The first and the last labeling frame whose middle lies in the interval, counted from 1; the frame at `start`
        where it holds no frame's middle."""
        first, last = math.ceil(self.start * frame_rate + 0.5), math.ceil(self.stop * frame_rate + 0.5) - 1
        return (first, last) if first <= last else (math.floor(self.start * frame_rate) + 1,) * 2


@dataclass(frozen=True)
class Observation:
    """What one source says of one video.

    Attributes:
        video: path or URL.
        source: who or what made it, such as `annotation 12` or a model version.
        events: in order of time.
        task: Label Studio's id of the task, None where there is none.
    """

    video: str
    source: str
    events: tuple[Event, ...]
    task: int | None = None


@dataclass(frozen=True)
class Clock:
    """How a video's labeling frames and the file's own frames lie in time.

    Attributes:
        frame_rate: labeling frames per second.
        shown: [num_frames] index (from 0) of the file's frame that is shown at each labeling frame.
        file_rate: frames per second of the file on average; 0 where unknown.
        duration: seconds.
    """

    frame_rate: float
    shown: np.ndarray
    file_rate: float
    duration: float

    @classmethod
    def of_times(
        cls, times: Sequence[float] | np.ndarray, duration: float, frame_rate: float, file_rate: float
    ) -> Clock:
        """The clock of a file whose frames are presented at `times` [num_file_frames], in seconds."""
        return cls(frame_rate, labeling_frames(times, duration, frame_rate), file_rate, duration)

    @property
    def num_frames(self) -> int:
        """Number of labeling frames."""
        return len(self.shown)

    def frames(self, event: Event) -> tuple[int, int]:
        """The event's first and last labeling frame, counted from 1, within the video."""
        first, last = event.frames(self.frame_rate)
        return min(max(first, 1), self.num_frames), min(max(last, 1), self.num_frames)

    def file_frames(self, event: Event) -> tuple[int, int]:
        """The first and last of the file's own frames that are shown during the event, counted from 1."""
        first, last = self.frames(event)
        return int(self.shown[first - 1]) + 1, int(self.shown[last - 1]) + 1


@dataclass(frozen=True)
class Timeline:
    """An observation of a video whose frames are known.

    Attributes:
        observation: the events.
        clock: the frames.
        labels: all labels that the observer looked for, also those that don't occur.
        probabilities: [num_frames, len(labels)] in [0, 1], None where a person marked the events.
    """

    observation: Observation
    clock: Clock
    labels: tuple[str, ...]
    probabilities: np.ndarray | None = None

    def marks(self) -> np.ndarray:
        """[num_frames, len(labels)] booleans: which labels are on at which labeling frame."""
        marks = np.zeros((self.clock.num_frames, len(self.labels)), dtype=bool)
        for event in self.observation.events:
            first, last = self.clock.frames(event)
            marks[first - 1 : last, self.labels.index(event.label)] = True
        return marks


@dataclass(frozen=True)
class Track:
    """What a control tag has to say of one task.

    Attributes:
        name: the control tag's.
        media: the video's path or URL, as the task's data has it.
        clock: the video's frames.
        colours: label -> CSS colour, of all labels in the order of the labeling config.
        prediction: the predicted timeline, None where there is none yet.
        reason: why there is none.
    """

    name: str
    media: str
    clock: Clock
    colours: dict[str, str]
    prediction: Timeline | None
    reason: str | None = None

    def annotated(self, regions: Iterable[Region], source: str, task: int | None) -> Timeline:
        """The timeline that an annotation's regions draw on this track; labels that the config lost are left out."""
        events = events_of_regions(regions, self.clock.frame_rate, self.name)
        known = tuple(event for event in events if event.label in self.colours)
        return Timeline(Observation(self.media, source, known, task), self.clock, tuple(self.colours))


def events_of_regions(regions: Iterable[Region], frame_rate: float, from_name: str | None = None) -> tuple[Event, ...]:
    """The events of an annotation's or prediction's timeline regions, in order of time.

    Args:
        regions: Label Studio's `result`; results of other types and malformed regions are left out.
        frame_rate: labeling frames per second.
        from_name: take only the regions of this control tag.
    """
    events = [
        Event.of_frames(label, first, last, frame_rate, region.get("score"))
        for region in usable_regions(regions, from_name)[0]
        for label, first, last in region_ranges(region)
    ]
    return tuple(sorted(events, key=lambda event: (event.start, event.stop, event.label)))


def regions_of_events(events: Iterable[Event], frame_rate: float, from_name: str, to_name: str) -> list[dict[str, Any]]:
    """Label Studio's regions of events, one an event."""
    regions = []
    for number, event in enumerate(events, start=1):
        first, last = event.frames(frame_rate)
        region = {
            "id": f"{from_name}-{number}",
            "type": REGION_TYPE,
            "from_name": from_name,
            "to_name": to_name,
            "value": {"ranges": [{"start": max(first, 1), "end": max(last, 1)}], "timelinelabels": [event.label]},
        }
        regions.append(region if event.score is None else region | {"score": event.score})
    return regions
