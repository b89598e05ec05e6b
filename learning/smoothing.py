"""Smoothing of predicted probabilities over time, by how long a label's events last.

A prediction that flickers for a few frames is right about most frames and wrong about the number of events. A median
filter removes what is shorter than half its window and leaves the edges of longer events where they are.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import median_filter

from learning.events import segments

SHORT_EVENT_PERCENTILE = 10  # of the annotated durations: the very shortest may be a slip


def event_durations(labels: Sequence[np.ndarray]) -> np.ndarray:
    """How long a short event of each label lasts.

    Args:
        labels: one [num_frames, num_labels] of {0, 1} per video, at least one.

    Returns:
        [num_labels] float32 frames; 0 for a label without an event.
    """
    durations: list[list[int]] = [[] for _ in range(labels[0].shape[1])]
    for video in labels:
        for column, found in zip(video.T, durations, strict=True):
            found.extend(end - start for start, end in segments(column > 0))
    return np.array([np.percentile(d, SHORT_EVENT_PERCENTILE) if d else 0 for d in durations], dtype=np.float32)


def smooth(probs: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Probabilities [num_frames, num_labels] after each label's median filter of so many frames, [num_labels]."""
    smoothed = probs.copy()
    for column, window in enumerate(windows):
        if window > 1:
            smoothed[:, column] = median_filter(probs[:, column], size=int(window), mode="nearest")
    return smoothed
