"""Choose the spans of a video whose annotation would teach most.

A frame teaches as much as its most probable labels are uncertain (least confidence; Lewis, Gale, "A Sequential
Algorithm for Training Text Classifiers", SIGIR 1994). Annotators watch spans rather than frames, so a
span counts by the mean of its frames: what it teaches for each frame that is watched.
"""

from __future__ import annotations

import numpy as np

SPAN_SECONDS = 2.0  # long enough to see what happens, and short enough to be watched several times
MAX_SPANS = 5  # of a video
MAX_SHARE = 0.5  # of a video's frames; who watches more of it can as well watch all
LEAST_UNCERTAINTY = 0.05  # of a span; below it there is nothing to ask


def uncertainty(probs: np.ndarray) -> np.ndarray:
    """The probability that a frame's most probable labels aren't all right, [num_frames], of probabilities
    [num_frames, num_labels] of labels that are independent."""
    return 1 - np.maximum(probs, 1 - probs).prod(axis=1, dtype=np.float64)


def questions(probs: np.ndarray, frame_rate: float) -> list[tuple[int, int]]:
    """Chooses spans to ask about, none where everything is certain.

    Args:
        probs: calibrated, [num_frames, num_labels]; 0 or 1 in annotated frames.
        frame_rate: labeling frames per second.

    Returns:
        (start, end) of each in frames, 0-based, the end excluded; in order of time. None overlaps another.
    """
    values = uncertainty(probs)
    length = min(max(1, round(SPAN_SECONDS * frame_rate)), len(values))
    count = min(MAX_SPANS, max(1, int(MAX_SHARE * len(values) / max(length, 1))))
    spans = best_spans(values, length, count)
    return sorted(span for span in spans if values[slice(*span)].mean() >= LEAST_UNCERTAINTY)


def best_spans(values: np.ndarray, length: int, count: int) -> list[tuple[int, int]]:
    """The spans of `length` frames with the highest means of values [num_frames], the best first, at most `count`. Each
    is the best of those that overlap none before it."""
    if not 0 < length <= len(values):
        return []
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[length:] - sums[:-length]) / length
    found: list[tuple[int, int]] = []
    while len(found) < count and np.isfinite(means).any():
        start = int(np.argmax(means))
        found.append((start, start + length))
        means[max(0, start - length + 1) : start + length] = -np.inf
    return found
