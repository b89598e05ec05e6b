"""The time budget of a study: how often, how long and how soon each label occurs in what was observed.

>>> from video.timeline import Event, Observation
>>> events = (Event("Rest", 2.0, 5.0), Event("Rest", 8.0, 9.0))
>>> observed = Observed(Observation("a.mp4", "annotation 1", events), "annotations", "tl", ("Rest",), ((0.0, 10.0),))
>>> time_budget([observed], "Rest")
Budget(label='Rest', count=2.0, total=4.0, mean=2.0, deviation=1.4142135623730951, share=0.4, latency=2.0, rate=12.0)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from study.expected import ExpectedTime
from video.timeline import Observation

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Observed:
    """An observation, and what of the video was observed.

    Attributes:
        observation: its events, video and source.
        kind: "annotations" or "predictions".
        control: the control tag's name.
        labels: all labels of the control tag, also those that don't occur.
        spans: the observed intervals (start, stop) in seconds; None for the whole video, of unknown length.
        subject: whom or what the video shows, empty where that isn't asked.
        weight: 1 divided by the number of annotations of the video, so that a video counts once in totals.
        expected: label -> the expected total time by a prediction's probabilities; empty for annotations.
        reviewed: whether the annotator marked the spans as reviewed.
    """

    observation: Observation
    kind: str
    control: str
    labels: tuple[str, ...]
    spans: Spans | None
    subject: str = ""
    weight: float = 1.0
    expected: dict[str, ExpectedTime] = field(default_factory=dict)
    reviewed: bool = False

    @property
    def seconds(self) -> float | None:
        """The observed time, None where the video's length isn't known."""
        return None if self.spans is None else sum(stop - start for start, stop in joined(self.spans))

    def bouts(self, label: str) -> list[tuple[float, float]]:
        """The label's intervals (start, stop) in seconds within what was observed, in order of time. Events that
        overlap are one bout, those that only touch are two."""
        spans = ((-math.inf, math.inf),) if self.spans is None else joined(self.spans)
        parts = sorted(
            (max(event.start, start), min(event.stop, stop))
            for event in self.observation.events
            if event.label == label
            for start, stop in spans
            if event.start < stop and event.stop > start
        )
        return joined(parts, touching=False)

    def drawn(self, label: str) -> list[tuple[float, float]]:
        """As `bouts`, but also beyond the end of the video, so that it doesn't change when the length becomes known."""
        return (self if self.reviewed else replace(self, spans=None)).bouts(label)

    def observed_until(self, moment: float) -> float:
        """The observed seconds before a moment."""
        spans = ((0.0, math.inf),) if self.spans is None else joined(self.spans)
        return sum(min(stop, moment) - start for start, stop in spans if start < moment)


def joined(intervals: Iterable[tuple[float, float]], touching: bool = True) -> list[tuple[float, float]]:
    """Joins intervals (start, stop) that overlap, and those that touch where `touching`. Returns them in order."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(intervals):
        if found and (start < found[-1][1] or (touching and start == found[-1][1])):
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


class Budget(NamedTuple):
    """A label's time budget in one or several observations.

    Attributes:
        label: the label.
        count: the number of bouts.
        total: seconds of all bouts.
        mean, deviation: of the bouts' seconds, the deviation with n - 1; None where too few say it.
        share: of the observed time, in [0, 1]; None where no video's length is known.
        latency: observed seconds until the first bout, the mean of the videos that have one; None where none has.
        rate: bouts per observed minute; None as of `share`.
    """

    label: str
    count: float
    total: float
    mean: float | None
    deviation: float | None
    share: float | None
    latency: float | None
    rate: float | None


def time_budget(observed: Sequence[Observed], label: str) -> Budget:
    """The time budget of a label in observations of one kind, each counted with its weight. Share and rate are of the
    videos whose length is known."""
    bouts = [(stop - start, one.weight) for one in observed for start, stop in one.bouts(label)]
    timed = [one for one in observed if one.seconds is not None]
    seconds = sum((one.seconds or 0.0) * one.weight for one in timed)
    of_timed = [(stop - start, one.weight) for one in timed for start, stop in one.bouts(label)]
    firsts = [
        (one.observed_until(found[0][0]), one.weight) for one in observed for found in [one.bouts(label)] if found
    ]
    count = sum(weight for _, weight in bouts)
    mean = _mean(bouts)
    return Budget(
        label,
        count,
        sum(length * weight for length, weight in bouts),
        mean,
        _deviation(bouts, mean),
        sum(length * weight for length, weight in of_timed) / seconds if seconds else None,
        _mean(firsts),
        60 * sum(weight for _, weight in of_timed) / seconds if seconds else None,
    )


def _mean(values: Sequence[tuple[float, float]]) -> float | None:
    """The mean of (value, weight)."""
    weight = sum(weight for _, weight in values)
    return sum(value * one for value, one in values) / weight if weight else None


def _deviation(values: Sequence[tuple[float, float]], mean: float | None) -> float | None:
    """The standard deviation of (value, weight) around their mean, with n - 1."""
    weight = sum(weight for _, weight in values)
    if mean is None or weight <= 1:
        return None
    return math.sqrt(sum(one * (value - mean) ** 2 for value, one in values) / (weight - 1))


def expected_time(observed: Sequence[Observed], label: str) -> ExpectedTime | None:
    """The expected total time of a label in predictions; None where one has no probabilities. Errors in different
    videos count as independent."""
    parts = [one.expected.get(label) for one in observed]
    if not parts or None in parts:
        return None
    return ExpectedTime(
        sum(part.seconds for part in parts if part),
        math.sqrt(sum(part.deviation**2 for part in parts if part)),
    )
