"""Choose the spans of a video whose annotation would teach most.

A frame teaches as much as its labels are uncertain, by their entropy (uncertainty sampling; Settles, "Active Learning
Literature Survey", 2009, section 3.1). Annotators watch spans rather than frames, so a span counts by the mean of its
frames: what it teaches for each frame that is watched.
"""

from __future__ import annotations

import numpy as np

from learning.events import segments

SPAN_SECONDS = 2.0  # long enough to see what happens, and short enough to be watched several times
MAX_SPANS = 5  # of a video
MAX_SHARE = 0.5  # of a video's frames; who watches more of it can as well watch all
LEAST_ENTROPY = 0.1  # bits, the mean of a span; below it there is nothing to ask
TIE = 1e-9  # bits; a smaller difference is none


def entropy(probs: np.ndarray) -> np.ndarray:
    """The entropy of a frame's labels in bits, [num_frames], of probabilities [num_frames, num_labels] of labels that
    are independent."""
    certain = np.clip(probs.astype(np.float64), 1e-12, 1 - 1e-12)
    return -(certain * np.log2(certain) + (1 - certain) * np.log2(1 - certain)).sum(axis=1)


def chance_of_error(probs: np.ndarray) -> np.ndarray:
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
    values = entropy(probs)
    length = min(max(1, round(SPAN_SECONDS * frame_rate)), len(values))
    count = min(MAX_SPANS, max(1, int(MAX_SHARE * len(values) / max(length, 1))))
    spans = best_spans(values, length, count)
    return sorted(span for span in spans if values[slice(*span)].mean() >= LEAST_ENTROPY)


def best_spans(values: np.ndarray, length: int, count: int) -> list[tuple[int, int]]:
    """The spans of `length` frames with the highest means of values [num_frames], the best first, at most `count`.

    Each is the best of those that overlap none before it. Where several are as good, it is the middle of the longest
    run of them: a boundary lies in the middle of its span, and spans of a video that is all alike are spread over it.
    """
    if not 0 < length <= len(values):
        return []
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[length:] - sums[:-length]) / length
    found: list[tuple[int, int]] = []
    while len(found) < count and np.isfinite(means).any():
        first, end = max(segments(means >= means.max() - TIE), key=lambda run: run[1] - run[0])
        start = (first + end - 1) // 2
        found.append((start, start + length))
        means[max(0, start - length + 1) : start + length] = -np.inf
    return found
