"""Find places in annotations that are contradicted by models of other videos.

A label's interval is doubted where the held-out model decides otherwise than the annotation. Doubts are ranked by the
evidence that the model's calibrated probabilities give against the annotation, as of confident learning (Northcutt,
Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021), which ranks examples by
the held-out probability of their given label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from learning.evaluation import Case, Evaluation
from learning.events import segments
from study.budget import joined
from study.expected import memory_of
from video.timeline import SECONDS_DIGITS

# Probabilities nearer to 0 or 1 say no more: a model can't know better than one in so many.
FLOOR = 0.02
# An interval that was confirmed is the one that is doubted now if so much of their union is common.
SAME = 0.5

Intervals = list[list[float]]


class Part(NamedTuple):
    """An interval of one label in which a held-out model contradicts an annotation.

    Attributes:
        label: the label.
        start, stop: seconds.
        drawn: where the annotation has the label within the interval, in seconds: all of it, or nowhere.
        probability: the mean held-out probability of the label.
        evidence: the mean log-odds against the annotation, times the interval's length divided by the label's memory
            (`memory_of`), which is the number of independent errors.
    """

    label: str
    start: float
    stop: float
    drawn: Intervals
    probability: float
    evidence: float


class Doubt(NamedTuple):
    """A place in an annotation that a held-out model contradicts: parts that overlap or touch.

    Attributes:
        task, annotation: their ids.
        control: the control tag.
        parts: in order of time.
    """

    task: int
    annotation: int | None
    control: str
    parts: list[Part]

    @property
    def start(self) -> float:
        """Seconds at which it begins."""
        return min(part.start for part in self.parts)

    @property
    def stop(self) -> float:
        """Seconds at which it ends."""
        return max(part.stop for part in self.parts)

    @property
    def evidence(self) -> float:
        """How strongly the model contradicts."""
        return sum(max(part.evidence, 0.0) for part in self.parts)

    @property
    def key(self) -> str:
        """A short name, which changes with the annotation's id and the intervals."""
        named = repr((self.task, self.annotation, self.control, [part[:3] for part in self.parts]))
        return hashlib.blake2b(named.encode(), digest_size=4).hexdigest()

    def json(self) -> dict[str, Any]:
        """The doubt as JSON."""
        return self._asdict() | {"parts": [part._asdict() for part in self.parts]}

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> Doubt:
        """The doubt of `json`."""
        return cls(**stored | {"parts": [Part(**part) for part in stored["parts"]]})


def doubts(evaluation: Evaluation) -> list[Doubt]:
    """The places in which models that didn't see the videos contradict their annotations, the strongest first."""
    memories = [_memory(evaluation, column) for column in range(len(evaluation.labels))]
    found = [doubt for case in evaluation.cases for doubt in _of_case(evaluation, case, memories)]
    return sorted(found, key=lambda doubt: -doubt.evidence)


def _memory(evaluation: Evaluation, column: int) -> float:
    """Seconds over which a label's errors are correlated: the median of the videos'."""
    return float(np.median([memory_of(one.labels[:, column], one.frame_rate) for one, *_ in evaluation.cases]))


def _of_case(evaluation: Evaluation, case: Case, memories: Sequence[float]) -> list[Doubt]:
    places: list[list[Part]] = []
    for part in sorted(_parts(evaluation, case, memories), key=lambda part: part.start):
        if places and part.start <= max(one.stop for one in places[-1]):
            places[-1].append(part)
        else:
            places.append([part])
    return [Doubt(case.example.task_id, case.example.annotation, evaluation.name, parts) for parts in places]


def _parts(evaluation: Evaluation, case: Case, memories: Sequence[float]) -> list[Part]:
    truth, rate, reviewed = case.example.labels, case.example.frame_rate, case.example.reviewed[:, None]
    probs = np.clip(case.probabilities, FLOOR, 1 - FLOOR)
    odds = np.log(probs / (1 - probs))
    unlikely, missing = truth & ~case.predicted & reviewed, ~truth & case.predicted & reviewed
    found = []
    for against, wrong in ((-odds, unlikely), (odds, missing)):
        for column, label in enumerate(evaluation.labels):
            for start, stop in segments(wrong[:, column]):
                ends = [round(frame / rate, SECONDS_DIGITS) for frame in (start, stop)]
                probability = float(case.probabilities[start:stop, column].mean())
                evidence = float(against[start:stop, column].sum()) / (memories[column] * rate)
                found.append(Part(label, *ends, [ends] if wrong is unlikely else [], probability, evidence))
    return found


def drawn_within(bouts: Iterable[Sequence[float]], start: float, stop: float) -> Intervals:
    """The parts of a label's intervals that lie between two moments, in seconds."""
    return [
        [max(first, start), min(last, stop)]
        for first, last in joined((one[0], one[1]) for one in bouts)
        if first < stop and last > start
    ]


class Confirmed(Protocol):
    """A label's interval that somebody looked at and found right.

    Attributes:
        task_id, control: as of `Doubt`.
        label, start, stop: as of `Part`.
        drawn: where the annotation had the label then.
    """

    task_id: int
    control: str
    label: str
    start: float
    stop: float
    drawn: Any


def is_confirmed(doubt: Doubt, confirmed: Iterable[Confirmed]) -> bool:
    """Whether all parts of a doubt were found right, and the annotation is there as it was then."""
    known = [one for one in confirmed if (one.task_id, one.control) == (doubt.task, doubt.control)]
    return all(any(_is_same(part, one) for one in known) for part in doubt.parts)


def _is_same(part: Part, confirmed: Confirmed) -> bool:
    """Whether the two are about the same interval; another training's models doubt one with other ends."""
    start, stop = max(confirmed.start, part.start), min(confirmed.stop, part.stop)
    union = max(confirmed.stop, part.stop) - min(confirmed.start, part.start)
    if confirmed.label != part.label or stop <= start or stop - start < SAME * union:
        return False
    return drawn_within(confirmed.drawn, start, stop) == drawn_within(part.drawn, start, stop)
