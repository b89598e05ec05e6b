"""How far annotators of the same videos agree, by label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from learning.evaluation import kappa_of_sums
from study.budget import Observed, joined

RESAMPLES = 1000


class Disagreement(NamedTuple):
    """A label on which two annotations of a task differ.

    Attributes:
        task: its id.
        control, label: the control tag and the label.
        shared: of the time that either of two annotators marked, the share that both marked; the mean of all pairs.
        drawn: the label's intervals in each annotation, in order of annotations, as of `Observed.drawn`.
    """

    task: int
    control: str
    label: str
    shared: float
    drawn: list[list[list[float]]]


class Agreement(NamedTuple):
    """How far annotators agree on a label.

    Attributes:
        control, label: the control tag and the label.
        tasks: the number of tasks with several annotations.
        kappa: Cohen's kappa over the time of all pairs of annotations of one task (Cohen, "A Coefficient of Agreement
            for Nominal Scales", 1960); None where nobody marked the label, or everybody all of the time.
        low, high: its 95 % bootstrap interval over tasks (Efron 1979, percentiles), of the resamples that have a kappa.
    """

    control: str
    label: str
    tasks: int
    kappa: float | None
    low: float | None
    high: float | None


def several(observed: Sequence[Observed]) -> dict[tuple[int | None, str], list[Observed]]:
    """(task, control tag) -> its annotations, of those that have several."""
    groups: dict[tuple[int | None, str], list[Observed]] = defaultdict(list)
    for one in observed:
        groups[one.observation.task, one.control].append(one)
    return {key: group for key, group in groups.items() if len(group) > 1}


def agreements(observed: Sequence[Observed]) -> list[Agreement]:
    """The agreement on each label of each control tag; empty where no task has several annotations."""
    random = np.random.default_rng(0)
    sums: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for (_, control), group in several(observed).items():
        for label in group[0].labels:
            sums[control, label].append(np.sum([_sums(*pair, label) for pair in combinations(group, 2)], axis=0))
    found = []
    for (control, label), tasks in sums.items():
        rows = np.array(tasks)
        if not rows[:, 0].sum():
            continue
        drawn = rows[random.integers(len(rows), size=(RESAMPLES, len(rows)))].sum(axis=1)
        kappas = [kappa for one in drawn if one[0] and (kappa := kappa_of_sums(*one)) is not None]
        low, high = np.percentile(kappas, (2.5, 97.5)).tolist() if kappas else (None, None)
        found.append(Agreement(control, label, len(rows), kappa_of_sums(*rows.sum(axis=0)), low, high))
    return found


def disagreements(observed: Sequence[Observed]) -> list[Disagreement]:
    """The labels of tasks on which annotations differ, the largest difference first."""
    found = []
    for (task, control), group in several(observed).items():
        for label in group[0].labels:
            shares = []
            for pair in combinations(group, 2):
                _, first, second, both = _sums(*pair, label)
                either = first + second - both
                shares.append(both / either if either else 1.0)
            shared = float(np.mean(shares))
            if shared < 1 and task is not None:
                drawn = [[list(bout) for bout in one.drawn(label)] for one in group]
                found.append(Disagreement(task, control, label, shared, drawn))
    return sorted(found, key=lambda one: one.shared)


def _sums(first: Observed, second: Observed, label: str) -> np.ndarray:
    """Seconds that both observed, and of these the seconds that the first, the second and both marked. Where a video's
    length isn't known, it is taken to end with its last event."""
    end = max((event.stop for one in (first, second) for event in one.observation.events), default=0.0)
    common = _common(*(joined([(0.0, end)] if one.spans is None else one.spans) for one in (first, second)))
    one, other = (_common(joined(observed.bouts(label)), common) for observed in (first, second))
    return np.array([_length(common), _length(one), _length(other), _length(_common(one, other))])


def _common(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The intersection of two lists of disjoint intervals, each in order of time."""
    found = []
    place, other = 0, 0
    while place < len(first) and other < len(second):
        start, stop = max(first[place][0], second[other][0]), min(first[place][1], second[other][1])
        if start < stop:
            found.append((start, stop))
        if first[place][1] < second[other][1]:
            place += 1
        else:
            other += 1
    return found


def _length(intervals: Sequence[tuple[float, float]]) -> float:
    return sum(stop - start for start, stop in intervals)
