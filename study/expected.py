"""The expected total time of a label by calibrated probabilities, and its standard deviation."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from learning.events import segments


class ExpectedTime(NamedTuple):
    """A total time.

    Attributes:
        seconds: the expected value.
        deviation: the standard deviation in seconds.
    """

    seconds: float
    deviation: float


def expected_time(probs: np.ndarray, frame_rate: float, memory: float) -> ExpectedTime:
    """The total time of a label in one video.

    The expected value is the sum of the probabilities. Whether one frame has the label says much about the next one, so
    the frames' variances p (1 - p) don't just add: the errors of two frames that are t seconds apart are taken to have
    the correlation exp(-t / memory), as the states of a two-state Markov process have.

    Args:
        probs: [num_frames] in [0, 1].
        frame_rate: frames per second.
        memory: seconds, such as of `memory_of`; 0 for independent frames, infinity for frames that are wrong together.
    """
    spread = np.sqrt(np.clip(probs * (1 - probs), 0, None).astype(float))
    decay = math.exp(-1 / (frame_rate * memory)) if memory > 0 else 0.0
    # For each frame t, the sum over the earlier ones of decay^(t - s) spread[s]. Not by scipy.signal: its import takes
    # half a second of every process of the backend.
    carried = list(accumulate(spread[:-1], lambda carry, value: decay * (carry + value), initial=0.0))
    variance = float(np.sum(spread**2) + 2 * np.dot(spread, carried[: len(spread)]))
    return ExpectedTime(float(np.sum(probs)) / frame_rate, math.sqrt(variance) / frame_rate)


def memory_of(marks: np.ndarray, frame_rate: float) -> float:
    """The memory in seconds of a label's marks [num_frames] bool: a two-state Markov process of mean bouts a and mean
    gaps b has the correlation exp(-t (1/a + 1/b)). Where a label fills a video or is missing from it, the video's
    length is taken for both.

    Source: Cox, Miller, "The Theory of Stochastic Processes", 1965, 4.2 (two-state process in continuous time).
    """
    bouts = segments(marks)
    edges = [0, *(edge for bout in bouts for edge in bout), len(marks)]
    lengths = [(stop - start) / frame_rate for start, stop in pairwise(edges) if stop > start]
    on = [(stop - start) / frame_rate for start, stop in bouts]
    off = sum(lengths) - sum(on)
    num_off = len(lengths) - len(on)
    if not on or not num_off:
        return len(marks) / frame_rate
    return 1 / (len(on) / sum(on) + num_off / off)
