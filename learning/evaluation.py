"""Compare predictions of held-out videos with their annotations, for reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from learning.dataset import Example, num_videos
from learning.events import segments
from learning.metrics import count_frames, count_segments, f1_of, summary

KINDS = {"frames": count_frames, "segments": count_segments}
# Resamples of the bootstrap, enough for two digits of a 95 % interval.
RESAMPLES = 1000
# An onset further away than this from any true one belongs to another event.
MAX_BOUNDARY_ERROR_SECONDS = 2.0


class Case(NamedTuple):
    """An annotation of a video, and the video's prediction.

    Attributes:
        example: the annotation.
        probabilities: [num_frames, num_labels] in [0, 1].
        predicted: [num_frames, num_labels] bool.
    """

    example: Example
    probabilities: np.ndarray
    predicted: np.ndarray

    @property
    def runs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The labels and the prediction of each run of annotated frames, both [num_frames, num_labels] bool."""
        return list(zip(*(self.example.annotated(rows) for rows in (self.example.labels, self.predicted)), strict=True))


@dataclass(frozen=True)
class Evaluation:
    """The held-out videos of one control tag.

    Attributes:
        name: the control tag's.
        labels: in the order of the arrays' columns.
        colours: label -> CSS colour.
        cases: one for each annotation.
    """

    name: str
    labels: tuple[str, ...]
    colours: dict[str, str]
    cases: tuple[Case, ...]

    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """95 % bootstrap intervals over videos (Efron 1979, percentiles): "frames" and "segments" -> label -> (low,
        high). A video is drawn with all of its annotations."""
        by_task: dict[int, list[Case]] = defaultdict(list)
        for case in self.cases:
            by_task[case.example.task_id].append(case)
        drawn = np.random.default_rng(0).integers(len(by_task), size=(RESAMPLES, len(by_task)))
        intervals: dict[str, dict[str, tuple[float, float]]] = {}
        for kind, count in KINDS.items():
            counts = np.array([_counts(cases, count) for cases in by_task.values()])
            f1 = f1_of(np.moveaxis(counts[drawn].sum(axis=1), 1, 0))
            low_and_high = np.percentile(f1, (2.5, 97.5), axis=0).T.tolist()
            intervals[kind] = dict(zip(self.labels, map(tuple, low_and_high), strict=True))
        return intervals

    def boundary_errors(self, label: str) -> dict[str, list[int]]:
        """The errors of a label's "onset" and "offset" in labeling frames, below 0 for too early, for each true event
        that a predicted one overlaps."""
        column = self.labels.index(label)
        errors: dict[str, list[int]] = {"onset": [], "offset": []}
        for example, _, predicted in self.cases:
            limit = round(MAX_BOUNDARY_ERROR_SECONDS * example.frame_rate)
            found = segments(predicted[:, column] & example.reviewed)
            for start, end in segments(example.labels[:, column] & example.reviewed):
                overlapping = [one for one in found if one[0] < end and start < one[1]]
                if not overlapping:
                    continue
                best = max(overlapping, key=lambda one: min(one[1], end) - max(one[0], start))
                for kind, error in (("onset", best[0] - start), ("offset", best[1] - end)):
                    if abs(error) <= limit:
                        errors[kind].append(error)
        return errors

    def agreement(self) -> dict[str, float | None]:
        """Label -> Cohen's kappa between the annotators, over the frames of all pairs of annotations of one task; empty
        where no task has two. The ceiling of what a model can reach. None as of `kappa_of_sums`.

        Source: Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
        """
        pairs = [
            (one.labels[frames], other.labels[frames])
            for (one, *_), (other, *_) in combinations(self.cases, 2)
            if one.task_id == other.task_id
            for frames in [one.reviewed & other.reviewed]
        ]
        if not pairs:
            return {}
        first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
        sums = zip(first.sum(axis=0), second.sum(axis=0), (first & second).sum(axis=0), strict=True)
        return {label: kappa_of_sums(len(first), *one) for label, one in zip(self.labels, sums, strict=True)}


def score_cases(cases: Sequence[Case], labels: Sequence[str]) -> dict[str, Any]:
    """The scores over the annotated frames of all cases together: videos, the number of them, where several annotations
    of one count once; frames and segments, as of `summary`."""
    scores = {kind: summary(_counts(cases, count), labels) for kind, count in KINDS.items()}
    return {"videos": num_videos([case.example for case in cases]), **scores}


def _counts(cases: Sequence[Case], count: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    return np.sum([count(*run) for case in cases for run in case.runs], axis=0)


def kappa_of_sums(total: float, first: float, second: float, both: float) -> float | None:
    """Cohen's kappa of how much, of a total, the first, the second and both marked: 1 for full agreement, 0 for that of
    chance. None where it is undefined: both marked nothing, or everything, so that chance agrees fully."""
    observed = 1 - (first + second - 2 * both) / total
    by_chance = (first * second + (total - first) * (total - second)) / total**2
    return None if by_chance == 1 else float((observed - by_chance) / (1 - by_chance))
