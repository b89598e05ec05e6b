"""What a probe sees of a video: appearance, how it changes, place, motion and sound, each over some time.

A frame's features say what is there, not what becomes of it: an object that approaches looks like one that retreats.
So beside smoothed features there are their derivatives in time, at two scales, whose signs tell the two apart. All are
Gaussian filters (Koenderink, "Scale-time", 1988), linear in the features: a probe's weights can be applied first and
the few values that come out be filtered. Times are seconds: how often frames are labelled changes nothing.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from learning.dataset import READ, FrameFeatures
from progress import UNTOLD, Progress

REACH = 4.0  # standard deviations of a filter; what lies beyond weighs nothing
LEAST_SIGMA = 0.5  # frames: a derivative needs neighbours


class Filter(NamedTuple):
    """A Gaussian in time.

    Attributes:
        sigma: seconds.
        order: 0 smooths; 1 gives the derivative, times sigma, so that all scales have values of the same size.
    """

    sigma: float
    order: int = 0

    def __call__(self, values: np.ndarray, frame_rate: float) -> np.ndarray:
        """Filters [num_frames, ...] over time; the first and the last frame are repeated beyond the ends."""
        sigma = self.sigma * frame_rate
        if self.order:
            sigma = max(sigma, LEAST_SIGMA)
        elif sigma < LEAST_SIGMA / 2:
            return values
        filtered = gaussian_filter1d(values, sigma, axis=0, order=self.order, mode="nearest", truncate=REACH)
        return filtered * sigma if self.order else filtered


# By the name of a block of a sequence's layout: what is brief and what lasts for seconds, and changes of a third of a
# second and of a whole one.
FILTERS = {
    "appearance": (Filter(0.08), Filter(1.6), Filter(0.16, order=1), Filter(0.4, order=1)),
    "cells": (Filter(0.08), Filter(1.6)),
    "motion": (Filter(0.04), Filter(0.16)),
    "sound": (Filter(0.04), Filter(0.16)),
}
SIGNED_ROOTS = ("appearance", "motion")  # cells and sound come compressed


class Part(NamedTuple):
    """What a block reads of one signal.

    Attributes:
        signal: a block of the layout.
        filters: indices of its `FILTERS`.
        mean_subtracted: whether the video's own mean is subtracted. With a fixed camera the mean is the state that
            fills a video; where scenes differ, it hides what they have in common. A derivative's mean is 0 anyway.
    """

    signal: str
    filters: tuple[int, ...]
    mean_subtracted: bool = False


LOOKS, CHANGE, PLACE = Part("appearance", (0, 1)), Part("appearance", (2, 3)), Part("cells", (0, 1))
MOTION, SOUND = Part("motion", (0, 1)), Part("sound", (0, 1))
LOOKS_SUBTRACTED = Part("appearance", (0,), mean_subtracted=True)
MOTION_SUBTRACTED = MOTION._replace(mean_subtracted=True)
# What each ridge regression sees: parts beside each other. What a video lacks is left out.
BLOCKS = {
    "appearance": (LOOKS,),
    "appearance, mean subtracted": (LOOKS_SUBTRACTED,),
    "change": (CHANGE,),
    "place": (PLACE,),
    "motion": (MOTION,),
    "motion, mean subtracted": (MOTION_SUBTRACTED,),
    "sound": (SOUND,),
    "motion, change and appearance, mean subtracted": (LOOKS_SUBTRACTED, CHANGE, MOTION_SUBTRACTED),
}
# Of the ridge, in squared lengths of a mean row; few dimensions need less.
PENALTIES = {"motion": 0.3, "motion, mean subtracted": 0.3, "sound": 0.3}
PENALTY = 2.0  # of all others
FACTORS = (1.0, 0.25, 4.0)  # of a penalty, to choose from where enough videos show a label; the first is the usual one
PRIORS = {"appearance, mean subtracted": 4.0}  # it counts so many times as much beforehand: most labels are things
SCALED = ("motion", "sound")  # of which each number counts in its own deviation: they have different units


def columns(layout: dict[str, int]) -> dict[str, slice]:
    """Where in a row each block of the layout stands."""
    ends = np.cumsum(list(layout.values()))
    return {name: slice(int(end) - width, int(end)) for (name, width), end in zip(layout.items(), ends, strict=True)}


def read(sequence: FrameFeatures, layout: dict[str, int], frames: slice) -> np.ndarray:
    """Some frames, [num_frames, width] float32; appearance and motion by the square root, with the sign kept,
    which tames the few values that are large in one scene (Tukey)."""
    values = np.array(sequence[frames], np.float32)
    for name, where in columns(layout).items():
        if name in SIGNED_ROOTS:
            part = values[:, where]
            values[:, where] = np.copysign(np.sqrt(np.abs(part)), part)
    return values


def rows_of(
    sequence: FrameFeatures,
    frames: np.ndarray,
    layout: dict[str, int],
    frame_rate: float,
    progress: Progress = UNTOLD,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Some frames of a video, filtered; reads the video once, in pieces, and tells `progress` the share that is read.

    Returns:
        signal -> [num_filters, num_rows, width of the signal], and the mean of all frames, [width].

    Raises:
        ValueError: features that aren't finite.
    """
    num_frames, where = sequence.shape[0], columns(layout)
    rows = {name: np.empty((len(FILTERS[name]), len(frames), width), np.float32) for name, width in layout.items()}
    reach = int(REACH * max(one.sigma for name in layout for one in FILTERS[name]) * frame_rate + 2)
    total = np.zeros(sum(layout.values()))
    for start in range(0, num_frames, READ):
        end = min(start + READ, num_frames)
        low, high = max(0, start - reach), min(num_frames, end + reach)
        values = read(sequence, layout, slice(low, high))
        total += values[start - low : end - low].sum(axis=0, dtype=np.float64)
        progress(end / num_frames)
        first, last = np.searchsorted(frames, (start, end))
        if first == last:
            continue
        for name in layout:
            for number, one in enumerate(FILTERS[name]):
                rows[name][number, first:last] = (
                    _matrix(one, frames[first:last] - low, high - low, frame_rate) @ values[:, where[name]]
                )
    if not np.isfinite(total).all():
        raise ValueError("features contain NaN or infinity")
    return rows, (total / num_frames).astype(np.float32)


def _matrix(one: Filter, frames: np.ndarray, length: int, frame_rate: float) -> np.ndarray:
    """The filter as a matrix [num_rows, length], which takes values [length, …] to the filtered ones of these
    frames."""
    reach = int(REACH * max(one.sigma * frame_rate, 1.0) + 1)
    impulse = np.zeros(2 * reach + 1, np.float32)
    impulse[reach] = 1
    weights = one(impulse, frame_rate)[::-1]
    matrix = np.zeros((len(frames), length), np.float32)
    near = np.clip(frames[:, None] + np.arange(-reach, reach + 1), 0, length - 1)
    np.add.at(matrix, (np.arange(len(frames))[:, None], near), weights)
    return matrix
