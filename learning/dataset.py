"""The annotated examples of a project, and the choice of videos and frames that a model is fitted to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from learning.events import segments

FRAME_RATE = 25.0  # frames per second, by default
READ = 256  # frames of one reading
# About so many frames are fitted, since the cost grows with their cube. If there are more, half are spread evenly over
# the annotated frames, a quarter over the frames with a label, and a quarter over those around its boundaries; each
# label gets the same part.
ROWS = 1000
BOUNDARY_SECONDS = 0.4
# About so many videos are fitted. If there are more, a quarter are those annotated last, a quarter are spread evenly
# over all, and half over those that show a label; each label gets the same part.
MAX_VIDEOS = 300


class FrameFeatures(Protocol):
    """A video's features, [num_frames, dim], that are read in slices, such as an array.

    They may have `content`, a hash of the video, and `layout`, block -> dim.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, frames: slice) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Example:
    """One annotation of a video, in labeling frames.

    Attributes:
        task_id: the video's task.
        features: [num_frames, dim].
        labels: [num_frames, num_labels] bool; given as 0 and 1.
        weight: the annotations of one task have a weight of 1 together.
        reviewed: [num_frames] bool, the annotated frames; given as None for all. The others are left out.
        frame_rate: labeling frames per second.
        stands_for: the number of the project's videos that this one stands for, as of `choose_videos`.
        annotation: the annotation's id, None where it has none.

    Raises:
        ValueError: labels other than 0 and 1, lengths that don't fit, or a weight or frame rate that isn't positive.
    """

    task_id: int
    features: FrameFeatures
    labels: np.ndarray
    weight: float = 1.0
    reviewed: np.ndarray | None = None
    frame_rate: float = FRAME_RATE
    stands_for: float = 1.0
    annotation: int | None = None

    def __post_init__(self) -> None:
        labels, num_frames = np.asarray(self.labels), self.features.shape[0]
        reviewed = np.ones(num_frames, bool) if self.reviewed is None else np.asarray(self.reviewed, bool)
        if num_frames == 0 or labels.ndim != 2 or not num_frames == len(labels) == len(reviewed):
            shapes = f"labels {list(labels.shape)} of {list(reviewed.shape)} annotated frames"
            raise ValueError(f"{shapes} don't fit {num_frames} frames of features")
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError("labels must be 0 or 1")
        for name in ("weight", "frame_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"the {name} of a sequence must be a positive number, not {getattr(self, name)}")
        object.__setattr__(self, "labels", labels.astype(bool))
        object.__setattr__(self, "reviewed", reviewed)

    @cached_property
    def content(self) -> str:
        """Identifies the video: the hash of its file, or else of all its features."""
        known = getattr(self.features, "content", None)
        if known:
            return str(known)
        digest = hashlib.blake2b(str(tuple(self.features.shape)).encode(), digest_size=16)
        for start in range(0, self.features.shape[0], READ):
            digest.update(np.ascontiguousarray(self.features[start : start + READ], np.float32).tobytes())
        return digest.hexdigest()

    def annotated(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the runs of annotated frames of rows [num_frames, …]."""
        for start, end in segments(self.reviewed):
            yield rows[start:end]


def num_videos(examples: Sequence[Example]) -> int:
    """The number of videos of examples, by task; several annotations of one count once."""
    return len({example.task_id for example in examples})


class Dataset:
    """The examples that a model is fitted to.

    Args:
        examples: with at least one annotated frame; several may be of one video.

    Attributes:
        numbers: the index of each example's video, which follows from its content.

    Raises:
        ValueError: another number of labels, or no annotated frame.
    """

    def __init__(self, examples: Sequence[Example], num_labels: int) -> None:
        if any(example.labels.shape[1] != num_labels for example in examples):
            raise ValueError(f"an example hasn't labels of {num_labels} columns")
        self.examples = examples
        self.num_labels = num_labels
        if not any(example.reviewed.any() for example in examples):
            raise ValueError("no frame is annotated")
        known: dict[str, int] = {}
        self.numbers = np.array([known.setdefault(one.content, len(known)) for one in examples])
        self.num_videos = len(known)

    @cached_property
    def shown(self) -> np.ndarray:
        """Which video has a frame with which label, [num_videos, num_labels] bool."""
        shown = np.zeros((self.num_videos, self.num_labels), bool)
        for number, example in zip(self.numbers, self.examples, strict=True):
            shown[number] |= example.labels[example.reviewed].any(axis=0)
        return shown

    def typical_runs(self) -> list[float]:
        """For each label the median seconds of its events or of its gaps, whichever is less, where there are any."""

        def seconds(column: int, on: bool) -> list[float]:
            rows = ((e, run == on) for e in self.examples for run in e.annotated(e.labels[:, column]))
            return [(end - start) / e.frame_rate for e, run in rows for start, end in segments(run)]

        return [
            min(float(np.median(found)) for on in (True, False) if (found := seconds(column, on)))
            for column in range(self.num_labels)
        ]

    def sample(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Chooses the frames to fit: for each example their indices, ascending, and the number of frames that each
        stands for. It is multiplied by the number of videos that the example stands for.
        """
        totals = sum(_groups(example).sum(axis=0) for example in self.examples)
        share = _shares(totals, ROWS * np.array([0.5] + 2 * self.num_labels * [0.25 / self.num_labels]), ROWS)
        sampled, passed = [], 0.5  # the first frame is taken when half of a frame has passed
        for example in self.examples:
            frames, stands_for, passed = _systematic(_groups(example) @ share, passed)
            sampled.append((frames, example.stands_for * stands_for))
        return sampled


def choose_videos(shown: np.ndarray, order: np.ndarray, limit: int = MAX_VIDEOS) -> tuple[np.ndarray, np.ndarray]:
    """Chooses about `limit` videos to fit.

    Args:
        shown: [num_videos, num_labels] bool, which video shows which label.
        order: [num_videos], greater for a video that was annotated later.
        limit: up to this number, all videos are chosen.

    Returns:
        Their indices, ascending, and the number of videos that each stands for.
    """
    last = np.zeros(len(shown), bool)
    last[np.argsort(order, kind="stable")[-limit // 4 :]] = True
    groups = np.column_stack([~last, shown & ~last[:, None]])
    num_labels = max(shown.shape[1], 1)
    share = _shares(groups.sum(axis=0), limit * np.array([0.25] + shown.shape[1] * [0.5 / num_labels]), limit * 3 // 4)
    return _systematic(np.where(last, 1.0, groups @ share), 0.5)[:2]


def _shares(totals: np.ndarray, budget: np.ndarray, limit: int) -> np.ndarray:
    """The probability that each of several overlapping groups gives to its members, so that a group's budget of them is
    taken. The first group holds all; all of them are taken if there are no more than `limit`."""
    share = np.divide(budget, totals, out=np.zeros(len(totals)), where=totals > 0)
    if totals[0] <= limit:
        share[0] = 1.0
    return share


def _systematic(probability: np.ndarray, passed: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Systematic sampling with unequal probabilities (Madow, "On the theory of systematic sampling, II", 1949).

    Args:
        probability: [num_members], that one is taken; what is above 1 counts as 1.
        passed: in [0, 1), how much of one passed since the last was taken.

    Returns:
        The indices of those taken, how many members each stands for (the reciprocal of its probability), and what
        passed after the last.
    """
    probability = np.minimum(probability, 1.0)
    steps = passed + np.cumsum(probability)
    before = np.concatenate([[passed], steps[:-1]])
    taken = np.flatnonzero((np.floor(steps + 1e-9) > np.floor(before + 1e-9)) & (probability > 0))
    return taken, 1 / probability[taken], float(steps[-1] % 1.0)


def _groups(example: Example) -> np.ndarray:
    """[num_frames, 1 + 2 * num_labels] bool: the annotated frames, those with each label and those around its
    boundaries."""
    near = np.zeros(example.labels.shape, bool)
    reach = max(1, round(BOUNDARY_SECONDS * example.frame_rate))
    for frame, column in np.argwhere(np.diff(example.labels, axis=0)):
        near[max(0, frame + 1 - reach) : frame + 1 + reach, column] = True
    every = np.ones((len(near), 1), bool)
    return np.concatenate([every, example.labels, near], axis=1) & example.reviewed[:, None]
