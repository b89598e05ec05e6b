"""Labelled intervals of a video in seconds, and the video's frames in time.

>>> event = Event("Ball", start=0.4, stop=1.2)
>>> event.frames(frame_rate=25)
(11, 30)
>>> Event.of_frames("Ball", 11, 30, frame_rate=25) == event
True
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utils.converter import REGION_TYPE, Region, region_ranges, usable_regions

# Microseconds: a thousand times finer than any labeling frame.
SECONDS_DIGITS = 6


@dataclass(frozen=True)
class Event:
    """An interval of a label.

    Attributes:
        label: the label.
        start: seconds at which its first frame begins.
        stop: seconds at which its last frame ends; equal to `start` for an instant.
        score: mean probability, None where a person marked the interval.
    """

    label: str
    start: float
    stop: float
    score: float | None = None

    @classmethod
    def of_frames(cls, label: str, first: int, last: int, frame_rate: float, score: float | None = None) -> Event:
        """Makes the event of labeling frames `first` to `last`, counted from 1, both included."""
        start, stop = (round(frame / frame_rate, SECONDS_DIGITS) for frame in (first - 1, last))
        return cls(label, start, stop, score)

    def frames(self, frame_rate: float) -> tuple[int, int]:
        """The first and the last labeling frame whose middle lies in the interval, counted from 1. If no middle lies in
        it, both are the frame at `start`."""
        first, last = math.ceil(self.start * frame_rate + 0.5), math.ceil(self.stop * frame_rate + 0.5) - 1
        return (first, last) if first <= last else (math.floor(self.start * frame_rate) + 1,) * 2


@dataclass(frozen=True)
class Observation:
    """The events that one source found in one video.

    Attributes:
        video: path or URL.
        source: who or what found them, such as `annotation 12` or a model version.
        events: in order of time, however they are given.
        task: Label Studio's id of the task, None where there is none.
    """

    video: str
    source: str
    events: Sequence[Event]
    task: int | None = None

    def __post_init__(self) -> None:
        in_order = sorted(self.events, key=lambda event: (event.start, event.stop, event.label))
        object.__setattr__(self, "events", tuple(in_order))


@dataclass(frozen=True)
class Clock:
    """The times of a video's labeling frames and of the file's own frames.

    Attributes:
        frame_rate: labeling frames per second.
        shown: [num_frames] index, from 0, of the file's frame that is shown at each labeling frame.
        file_rate: average frames per second of the file; 0 where unknown.
        duration: seconds.
    """

    frame_rate: float
    shown: np.ndarray
    file_rate: float
    duration: float

    @property
    def num_frames(self) -> int:
        """The number of labeling frames."""
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
    """An observation of a video with known frames.

    Attributes:
        observation: the events.
        clock: the frames.
        labels: all labels of the control tag, also those that don't occur.
        probabilities: [num_frames, len(labels)] in [0, 1], None where a person marked the events.
        reviewed: the events that mark what was annotated, None where all of the video was.
    """

    observation: Observation
    clock: Clock
    labels: tuple[str, ...]
    probabilities: np.ndarray | None = None
    reviewed: tuple[Event, ...] | None = None

    def marks(self) -> np.ndarray:
        """Booleans [num_frames, len(labels)]: which labels each labeling frame has."""
        return self._marks(self.observation.events, self.labels)

    def annotated(self) -> np.ndarray:
        """Booleans [num_frames]: which labeling frames were annotated."""
        if self.reviewed is None:
            return np.ones(self.clock.num_frames, dtype=bool)
        return self._marks(self.reviewed, tuple({event.label for event in self.reviewed})).any(axis=1)

    def _marks(self, events: Iterable[Event], labels: tuple[str, ...]) -> np.ndarray:
        marks = np.zeros((self.clock.num_frames, len(labels)), dtype=bool)
        for event in events:
            first, last = event.frames(self.clock.frame_rate)  # beyond the video's end there is nothing to mark
            marks[first - 1 : last, labels.index(event.label)] = True
        return marks


@dataclass(frozen=True)
class Recording:
    """The video of a control tag in one task, as far as it is known without its frames.

    Attributes:
        name: the control tag's name.
        media: the video's path or URL, as in the task's data.
        frame_rate: labeling frames per second.
        duration: seconds, None where it isn't known.
        labels: all labels of the control tag, in the order of the labeling config.
        reviewed_label: the label that marks what was annotated, None where all of an annotated video was.
    """

    name: str
    media: str
    frame_rate: float
    duration: float | None
    labels: tuple[str, ...]
    reviewed_label: str | None = None

    def observed(self, regions: Iterable[Region], source: str, task: int | None) -> Observation:
        """Makes the observation of an annotation's regions, without labels that the config no longer has."""
        events = events_of_regions(regions, self.frame_rate, self.name)
        return Observation(self.media, source, [event for event in events if event.label in self.labels], task)

    def reviewed(self, regions: Iterable[Region]) -> tuple[tuple[float, float], ...] | None:
        """The intervals (start, stop) in seconds that an annotation marks as annotated; None for the whole video, of
        unknown duration."""
        if self.reviewed_label is not None:
            events = events_of_regions(regions, self.frame_rate, self.name)
            return tuple((event.start, event.stop) for event in events if event.label == self.reviewed_label)
        return None if self.duration is None else ((0.0, self.duration),)


@dataclass(frozen=True)
class Track:
    """The timeline of a control tag in one task.

    Attributes:
        name: the control tag's name.
        media: the video's path or URL, as in the task's data.
        clock: the video's frames.
        colours: label -> CSS colour, of all labels in the order of the labeling config.
        prediction: the predicted timeline, None where there is none yet.
        reason: why there is no prediction.
        reviewed_label: the label that marks what was annotated, None where all of an annotated video was.
    """

    name: str
    media: str
    clock: Clock
    colours: dict[str, str]
    prediction: Timeline | None
    reason: str | None = None
    reviewed_label: str | None = None

    def annotated(self, regions: Iterable[Region], source: str, task: int | None) -> Timeline:
        """Makes the timeline of an annotation's regions on this track, without labels that the config no longer has."""
        events = events_of_regions(regions, self.clock.frame_rate, self.name)
        known = [event for event in events if event.label in self.colours]
        reviewed = tuple(event for event in events if event.label == self.reviewed_label)
        return Timeline(
            Observation(self.media, source, known, task),
            self.clock,
            tuple(self.colours),
            reviewed=None if self.reviewed_label is None else reviewed,
        )


def events_of_regions(regions: Iterable[Region], frame_rate: float, from_name: str | None = None) -> list[Event]:
    """Makes events of the timeline regions of an annotation or prediction.

    Args:
        regions: Label Studio's `result`. Results of other types and malformed regions are left out.
        frame_rate: labeling frames per second.
        from_name: takes only the regions of this control tag.
    """
    return [
        Event.of_frames(label, first, last, frame_rate, region.get("score"))
        for region in usable_regions(regions, from_name)[0]
        for label, first, last in region_ranges(region)
    ]


def without_overlaps(events: Iterable[Event], shortest: float = 0.0) -> tuple[Event, ...]:
    """Joins overlapping events of one label, for formats whose rows hold one event at a time.

    Args:
        events: the events. A joined event has no score.
        shortest: seconds that each event lasts at least.

    Returns:
        The events in order of time.
    """
    last: dict[str, int] = {}  # label -> index of its latest event
    joined: list[Event] = []
    for event in sorted(events, key=lambda event: event.start):
        event = replace(event, stop=max(event.stop, event.start + shortest))
        before = last.get(event.label)
        if before is not None and event.start < joined[before].stop:
            joined[before] = Event(event.label, joined[before].start, max(joined[before].stop, event.stop))
        else:
            last[event.label] = len(joined)
            joined.append(event)
    return tuple(joined)


def regions_of_events(events: Iterable[Event], frame_rate: float, from_name: str, to_name: str) -> list[dict[str, Any]]:
    """Makes Label Studio's regions of events, one for each event."""
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
