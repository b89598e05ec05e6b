"""Find, join and drop runs of frames in arrays of labels."""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


def segments(mask: ArrayLike) -> list[tuple[int, int]]:
    """Finds the runs of True in `mask` [num_frames]: (start, end) indices, 0-based, the end excluded, in order."""
    steps = np.diff(np.asarray(mask, dtype=np.int8), prepend=0, append=0)
    edges = np.flatnonzero(steps).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def merge_gaps(labels: np.ndarray, frames: int, exclusive: bool = False) -> np.ndarray:
    """Fills each label's gaps of at most so many frames in labels [num_frames, num_labels] bool.

    What lies before its first event or behind its last one is no gap; nor, where labels are exclusive, what another
    label is in.
    """
    merged = labels.copy()
    for column in merged.T:
        events = segments(column)
        for (_, end), (start, _) in pairwise(events):
            if start - end <= frames and not (exclusive and labels[end:start].any()):
                column[end:start] = True
    return merged


def drop_short(labels: np.ndarray, frames: int) -> np.ndarray:
    """Removes events that are shorter than so many frames from labels [num_frames, num_labels] bool."""
    kept = labels.copy()
    for column in kept.T:
        for start, end in segments(column):
            if end - start < frames:
                column[start:end] = False
    return kept
