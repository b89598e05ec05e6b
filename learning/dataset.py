"""What a project has annotated: examples, and the frames of them that a model is fitted to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from learning.events import segments

FRAME_RATE = 25.0  # frames per second where nobody says another
READ = 256  # frames that are read at once
# Frames that a model is fitted to, whatever the videos' number and length: the cost grows with the cube. All of them
# where there are no more. Else half are spread evenly over what was annotated, a quarter over the frames that have a
# label and a quarter over those around its boundaries, alike for each label.
ROWS = 1000
BOUNDARY_SECONDS = 0.4

Progress = Callable[[float], None]


class Features(Protocol):
    """A video's features, [num_frames, width], of which slices are read: an array will do.

    It may know `content`, a hash of the video, and `layout`, its blocks' names and widths.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, frames: slice) -> np.ndarray: ...


class Example(NamedTuple):
    """One annotation of a video, in labeling frames.

    Attributes:
        task_id: the video's task.
        features: [num_frames, width].
        labels: [num_frames, num_labels], 0 or 1.
        weight: share of its task: the annotations of one task share a weight of 1.
        mask: [num_frames] bool, the frames that were annotated; None for all. Others count for nothing.
        frame_rate: labeling frames per second.
    """

    task_id: int
    features: Features
    labels: np.ndarray
    weight: float = 1.0
    mask: np.ndarray | None = None
    frame_rate: float = FRAME_RATE

    @property
    def reviewed(self) -> np.ndarray:
        """The mask, [num_frames] bool, also where there is none."""
        return np.ones(len(self.labels), bool) if self.mask is None else self.mask

    def annotated(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The runs of annotated frames among rows [num_frames, …]."""
        for start, end in segments(self.reviewed):
            yield rows[start:end]


def content_of(features: Features) -> str:
    """What tells a video from any other: the hash of its file, or else of all its features."""
    known = getattr(features, "content", None)
    if known:
        return str(known)
    digest = hashlib.blake2b(str(tuple(features.shape)).encode(), digest_size=16)
    for start in range(0, features.shape[0], READ):
        digest.update(np.ascontiguousarray(features[start : start + READ], np.float32).tobytes())
    return digest.hexdigest()


def num_videos(examples: Sequence[Example]) -> int:
    """Videos among the examples by task; several annotations of one count once."""
    return len({example.task_id for example in examples})


class Dataset:
    """Examples that a model is fitted to.

    Args:
        examples: of at least one frame that counts; a video may be there several times.

    Attributes:
        contents: of each example.
        numbers: of each example's video: those of equal content have one number.

    Raises:
        ValueError: labels other than 0 and 1, another number of frames than the features', a weight that isn't
            positive, no frame that counts.
    """

    def __init__(self, examples: Sequence[Example], num_labels: int) -> None:
        self.examples = [_checked(example, num_labels) for example in examples]
        self.num_labels = num_labels
        if not any(example.reviewed.any() for example in self.examples):
            raise ValueError("no frame counts: each is masked")
        self.contents = [content_of(example.features) for example in self.examples]
        known: dict[str, int] = {}
        self.numbers = np.array([known.setdefault(content, len(known)) for content in self.contents])
        self.num_videos = len(known)

    @cached_property
    def shown(self) -> np.ndarray:
        """[num_videos, num_labels] bool: which video has a frame with which label."""
        shown = np.zeros((self.num_videos, self.num_labels), bool)
        for number, example in zip(self.numbers, self.examples, strict=True):
            shown[number] |= example.labels[example.reviewed].any(axis=0)
        return shown

    def durations(self) -> list[list[float]]:
        """Of each label, how many seconds its events last."""
        durations: list[list[float]] = [[] for _ in range(self.num_labels)]
        for example in self.examples:
            for run in example.annotated(example.labels > 0):
                for column, found in zip(run.T, durations, strict=True):
                    found.extend((end - start) / example.frame_rate for start, end in segments(column))
        return durations

    def sample(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The frames to fit to: of each example their indices, ascending, and how many frames each stands for.

        Systematic sampling with unequal probabilities (Madow 1949): a frame stands for the reciprocal of its own.
        """
        totals = sum(np.concatenate([group.sum(axis=0) for group in _groups(example)]) for example in self.examples)
        budget = np.array([0.5] + 2 * self.num_labels * [0.25 / self.num_labels]) * ROWS
        share = np.divide(budget, totals, out=np.zeros(len(totals)), where=totals > 0)
        if totals[0] <= ROWS:
            share[0] = 1.0
        sampled, passed = [], 0.5  # the first frame is taken when half of a frame has passed
        for example in self.examples:
            probability = np.minimum(np.concatenate(_groups(example), axis=1) @ share, 1.0)
            steps = passed + np.cumsum(probability)
            before = np.concatenate([[passed], steps[:-1]])
            frames = np.flatnonzero((np.floor(steps + 1e-9) > np.floor(before + 1e-9)) & (probability > 0))
            passed = steps[-1] % 1.0
            sampled.append((frames, 1 / probability[frames]))
        return sampled


def _groups(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bool arrays: frames that count, [num_frames, 1], those with a label and those around its boundaries, [num_frames,
    num_labels]."""
    near = np.zeros(example.labels.shape, bool)
    reach = max(1, round(BOUNDARY_SECONDS * example.frame_rate))
    for frame, column in np.argwhere(np.diff(example.labels > 0, axis=0)):
        near[max(0, frame + 1 - reach) : frame + 1 + reach, column] = True
    counts = example.reviewed[:, None]
    return counts, counts & (example.labels > 0), counts & near


def _checked(example: Example, num_labels: int) -> Example:
    labels = np.asarray(example.labels)
    num_frames = example.features.shape[0]
    if num_frames == 0 or labels.shape != (num_frames, num_labels):
        raise ValueError(f"labels {list(labels.shape)} don't fit {num_frames} frames, {num_labels} labels")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not 0 < example.weight < np.inf:
        raise ValueError(f"the weight of a sequence must be a positive number, not {example.weight}")
    if not 0 < example.frame_rate < np.inf:
        raise ValueError(f"the frame rate must be a positive number, not {example.frame_rate}")
    mask = None if example.mask is None else np.asarray(example.mask, bool)
    if mask is not None and mask.shape != (num_frames,):
        raise ValueError(f"a mask of {list(mask.shape)} doesn't fit {num_frames} frames")
    return example._replace(labels=labels.astype(np.uint8), mask=mask)
