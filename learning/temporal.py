"""What a readout sees of a video: appearance, how it changes, and motion, each over some frames of time.

A frame's features say what is there, not what becomes of it: an object that approaches looks like one that retreats. So
beside smoothed features there are their derivatives in time, at two scales, whose signs tell the two apart. All are
Gaussian filters (Koenderink, "Scale-time", 1988), linear in the features: a readout's weights can be applied first and
the few numbers that come out be filtered.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from scipy.ndimage import gaussian_filter1d

BLOCK = 256  # frames that are read at once
FILTER_REACH = 4.0  # standard deviations; what lies beyond weighs nothing


class Filter(NamedTuple):
    """A Gaussian in time.

    Attributes:
        sigma: labeling frames.
        order: 0 smooths; 1 gives the derivative, times sigma, so that all scales have numbers of the same size.
    """

    sigma: float
    order: int = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Filters [num_frames, ...] over time; the first and the last frame go on for ever."""
        filtered = gaussian_filter1d(
            values, self.sigma, axis=0, order=self.order, mode="nearest", truncate=FILTER_REACH
        )
        return filtered * self.sigma if self.order else filtered


# Frames at about 25 a second: changes of a third of a second and of a whole one.
APPEARANCE, QUICK_CHANGE, SLOW_CHANGE = Filter(2), Filter(4, order=1), Filter(10, order=1)
QUICK_MOTION, SLOW_MOTION = Filter(1), Filter(4)
FEATURE_FILTERS = (APPEARANCE, QUICK_CHANGE, SLOW_CHANGE)
MOTION_FILTERS = (QUICK_MOTION, SLOW_MOTION)
REACH = int(FILTER_REACH * max(f.sigma for f in FEATURE_FILTERS + MOTION_FILTERS) + 1)  # frames


class Sequence(Protocol):
    """A video's features, [num_frames, numbers], of which a slice may be read from disk: an array will do."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, frames: slice) -> np.ndarray: ...


def rooted(values: np.ndarray) -> np.ndarray:
    """The square root, with the sign kept, float32: it tames the few numbers that are large in one scene (Tukey)."""
    values = np.asarray(values, dtype=np.float32)
    return np.copysign(np.sqrt(np.abs(values)), values)


def blocks(sequence: Sequence) -> Iterator[np.ndarray]:
    """The whole sequence, rooted, in blocks of frames."""
    for start in range(0, sequence.shape[0], BLOCK):
        yield rooted(sequence[start : start + BLOCK])


class Rows(NamedTuple):
    """Some frames of a video, filtered.

    Attributes:
        features: [len(FEATURE_FILTERS), num_rows, feature_dim].
        motion: [len(MOTION_FILTERS), num_rows, motion_size].
        mean: [feature_dim + motion_size], of all of the video's rooted frames.
    """

    features: np.ndarray
    motion: np.ndarray
    mean: np.ndarray


def rows_of(sequence: Sequence, frames: np.ndarray, motion_size: int) -> Rows:
    """The filtered rows of a video at some frames, in ascending order; reads the video in blocks."""
    num_frames, numbers = sequence.shape
    feature_dim = numbers - motion_size
    features = np.empty((len(FEATURE_FILTERS), len(frames), feature_dim), np.float32)
    motion = np.empty((len(MOTION_FILTERS), len(frames), motion_size), np.float32)
    total = np.zeros(numbers)
    for start in range(0, num_frames, BLOCK):
        end = min(start + BLOCK, num_frames)
        low, high = max(0, start - REACH), min(num_frames, end + REACH)
        values = rooted(sequence[low:high])
        total += values[start - low : end - low].sum(axis=0, dtype=np.float64)
        first, last = np.searchsorted(frames, (start, end))
        wanted = frames[first:last] - low
        for filters, target, part in (
            (FEATURE_FILTERS, features, values[:, :feature_dim]),
            (MOTION_FILTERS, motion, values[:, feature_dim:]),
        ):
            for number, one in enumerate(filters):
                target[number, first:last] = _matrix(high - low, one)[wanted] @ part
    return Rows(features, motion, (total / max(num_frames, 1)).astype(np.float32))


@lru_cache(maxsize=64)
def _matrix(length: int, one: Filter) -> np.ndarray:
    """[length, length]: a filter as a matrix."""
    return one(np.eye(length, dtype=np.float32))
