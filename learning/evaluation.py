"""Compare predictions of held-out videos with their annotations, for reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from learning.dataset import FRAME_RATE
from learning.events import segments
from learning.metrics import frame_metrics, segment_f1

# Resamples of the bootstrap, enough for two digits of a 95 % interval.
RESAMPLES = 1000
# An onset further away than this from any true one belongs to another event.
MAX_BOUNDARY_ERROR_SECONDS = 2.0


KINDS = ("frames", "segments")


class Case(NamedTuple):
    """One annotation of a held-out video.

    Attributes:
        task_id: the video's task.
        truth: [num_frames, num_labels] booleans.
        probabilities: [num_frames, num_labels] in [0, 1].
        predicted: [num_frames, num_labels] booleans.
        reviewed: [num_frames] booleans, the frames that were annotated; None for all. Others count for nothing.
        annotation: the annotation's id, None where it has none.
        frame_rate: labeling frames per second.
    """

    task_id: int
    truth: np.ndarray
    probabilities: np.ndarray
    predicted: np.ndarray
    reviewed: np.ndarray | None = None
    annotation: int | None = None
    frame_rate: float = FRAME_RATE

    @property
    def marks(self) -> np.ndarray:
        """The annotated frames, [num_frames] bool, also where `reviewed` is None."""
        return np.ones(len(self.truth), bool) if self.reviewed is None else self.reviewed

    def counted(self, rows: np.ndarray) -> np.ndarray:
        """The rows of annotated frames, of rows [num_frames, …]."""
        return rows[self.marks]

    def runs(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the runs of annotated frames of rows [num_frames, …]."""
        for start, end in segments(self.marks):
            yield rows[start:end]


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

    @property
    def num_videos(self) -> int:
        """The number of videos; several annotations of one count once."""
        return len({case.task_id for case in self.cases})

    def score(self) -> dict[str, Any]:
        """The scores over all videos: videos, the number of them; frames, as of `frame_metrics`; segments, as of
        `segment_f1`."""
        return {"videos": self.num_videos, **score_cases(self.cases, self.labels)}

    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """95 % bootstrap intervals over videos (Efron 1979, percentiles): "frames" and "segments" -> label -> (low,
        high). A video is drawn with all of its annotations."""
        by_task: dict[int, list[Case]] = defaultdict(list)
        for case in self.cases:
            by_task[case.task_id].append(case)
        counts = {kind: np.array([_counts(cases, kind) for cases in by_task.values()]) for kind in KINDS}
        random = np.random.default_rng(0)
        drawn = random.integers(len(by_task), size=(RESAMPLES, len(by_task)))
        intervals: dict[str, dict[str, tuple[float, float]]] = {}
        for kind in KINDS:
            hits, true, predicted = np.moveaxis(counts[kind][drawn].sum(axis=1), 1, 0)
            items = true + predicted
            f1 = np.where(items > 0, 2 * hits / np.maximum(items, 1), 1.0)
            low, high = np.percentile(f1, (2.5, 97.5), axis=0)
            intervals[kind] = {label: (float(low[i]), float(high[i])) for i, label in enumerate(self.labels)}
        return intervals

    def boundary_errors(self, label: str) -> dict[str, list[int]]:
        """The errors of a label's "onset" and "offset" in labeling frames, below 0 for too early, for each true event
        that a predicted one overlaps."""
        column = self.labels.index(label)
        errors: dict[str, list[int]] = {"onset": [], "offset": []}
        for case in self.cases:
            limit = round(MAX_BOUNDARY_ERROR_SECONDS * case.frame_rate)
            found = segments(case.predicted[:, column] & case.marks)
            for start, end in segments(case.truth[:, column] & case.marks):
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
            (one.truth[frames], other.truth[frames])
            for one, other in combinations(self.cases, 2)
            if one.task_id == other.task_id
            for frames in [one.marks & other.marks]
        ]
        if not pairs:
            return {}
        first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        return {label: cohens_kappa(first[:, i], second[:, i]) for i, label in enumerate(self.labels)}


def score_cases(cases: Sequence[Case], labels: Sequence[str]) -> dict[str, Any]:
    """The scores of all cases together."""
    # A frame without labels between two videos, or parts of one, keeps their segments apart.
    gap = np.zeros((1, len(labels)), dtype=bool)
    truth = np.concatenate([part for case in cases for run in case.runs(case.truth) for part in (run, gap)])
    predicted = np.concatenate([part for case in cases for run in case.runs(case.predicted) for part in (run, gap)])
    return {"frames": frame_metrics(truth, predicted, labels), "segments": segment_f1(truth, predicted, labels)}


def _counts(cases: Sequence[Case], kind: str) -> np.ndarray:
    """The numbers of matched, true and predicted items, [3, num_labels]."""
    names = [str(column) for column in range(cases[0].truth.shape[1])]
    rows = score_cases(cases, names)[kind]["per_label"].values()
    true = [row["support"] for row in rows]
    hits = [row["recall"] * row["support"] for row in rows]
    if kind == "frames":
        predicted = np.concatenate([case.counted(case.predicted) for case in cases]).sum(axis=0)
    else:
        runs = [run for case in cases for run in case.runs(case.predicted)]
        predicted = [sum(len(segments(run[:, i])) for run in runs) for i in range(len(names))]
    return np.array([hits, true, predicted], dtype=float)


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Cohen's kappa of two arrays [n] of booleans; None as of `kappa_of_sums`."""
    return kappa_of_sums(len(first), first.sum(), second.sum(), (first & second).sum())


def kappa_of_sums(total: float, first: float, second: float, both: float) -> float | None:
    """Cohen's kappa of how much, of a total, the first, the second and both marked: 1 for full agreement, 0 for that of
    chance. None where it is undefined: both marked nothing, or everything, so that chance agrees fully."""
    observed = 1 - (first + second - 2 * both) / total
    by_chance = (first * second + (total - first) * (total - second)) / total**2
    return None if by_chance == 1 else float((observed - by_chance) / (1 - by_chance))
