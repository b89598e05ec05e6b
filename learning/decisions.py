"""Make labels of probabilities: thresholds, smoothing, hysteresis and the score of a timeline.

The F1 by frame of calibrated probabilities is best at a threshold of half the best expected F1 (Lipton, Elkan,
Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014).

A prediction that flickers for a few frames is right about most frames, but wrong about the number of events. A median
filter removes events that are shorter than half its window, and keeps the edges of longer ones. An event must also be
more probable somewhere than at its edges (hysteresis; Canny, "A Computational Approach to Edge Detection", 1986).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from learning.events import segments

SHORT_EVENT_PERCENTILE = 10  # of the annotated durations; the very shortest may be a mistake
WINDOW = 0.5  # of the median filter, as a multiple of the duration of a label's short events
# Of the threshold; an event reaches the first somewhere and the second everywhere. Both are 1 for a label that only one
# video shows: how high its probabilities are in others isn't known.
PEAK, EDGE = 1.3, 0.9
# The usual ratio of the true F1 of held-out predictions to the expected F1; it counts as so many videos.
PRIOR_RATIO, PRIOR_VIDEOS = 0.8, 2


class Decisions(nn.Module):
    """The decisions of each label; a part of the classifier's file.

    Attributes:
        thresholds: [num_labels].
        peaks, edges: [num_labels], probabilities that an event reaches somewhere and everywhere.
        windows: [num_labels], seconds of the median filter.
        calibration_ratio: the true F1 of held-out predictions over their expected F1, at most 1.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        for name in ("thresholds", "peaks", "edges"):
            self.register_buffer(name, torch.full((num_labels,), 0.5))
        self.register_buffer("windows", torch.zeros(num_labels))
        self.register_buffer("calibration_ratio", torch.tensor(PRIOR_RATIO))

    def take(self, decided: dict[str, Tensor]) -> None:
        """Takes over the values from `decide`."""
        self.load_state_dict(decided)

    def smooth(self, probs: np.ndarray, frame_rate: float) -> np.ndarray:
        """Applies each label's median filter to probabilities [num_frames, num_labels]."""
        smoothed = probs.copy()
        for column, seconds in enumerate(self.windows.tolist()):
            window = int(seconds * frame_rate) // 2 * 2 + 1
            if window > 1:
                smoothed[:, column] = median_filter(probs[:, column], size=window, mode="nearest")
        return smoothed

    def labels(self, probs: np.ndarray) -> np.ndarray:
        """Makes labels, bool, of probabilities, both [num_frames, num_labels]."""
        labels = probs >= self.edges.numpy()
        for column, probabilities, peak in zip(labels.T, probs.T, self.peaks.numpy(), strict=True):
            for start, end in segments(column):
                column[start:end] = probabilities[start:end].max() >= peak
        return labels

    def expected_f1(self, probs: np.ndarray) -> float:
        """The expected macro-F1 by frame of a prediction, in [0, 1], times the calibration ratio.

        It is the score that an annotator sees at a prediction, and low where an annotation teaches much.

        Args:
            probs: [num_frames, num_labels].
        """
        return float(self.calibration_ratio) * expected_f1(probs, self.thresholds.numpy())


def expected_f1(probs: np.ndarray, thresholds: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The expected macro-F1 of the labels that calibrated probabilities give at thresholds.

    The expected F1 of a label is 2 * expected hits / (predicted frames + expected frames). A label with no predicted
    and less than one expected frame is left out. If that leaves none, the result is the probability that no frame has
    a label, since the empty timeline is right then.

    Args:
        probs: [num_frames, num_labels].
        thresholds: [num_labels].
        weights: [num_frames], the number of frames that each stands for; None is 1 for each.
    """
    frames = np.ones((len(probs), 1)) if weights is None else weights[:, None]
    predicted = probs >= thresholds
    expected = (frames * probs).sum(axis=0)
    counts = predicted.any(axis=0) | (expected >= 1)
    if not counts.any():
        return float(np.prod(1 - probs.max(axis=0, initial=0)))
    hits = (frames * probs * predicted).sum(axis=0)
    return float((2 * hits / np.maximum((frames * predicted).sum(axis=0) + expected, 1e-9))[counts].mean())


def decide(
    probs: np.ndarray, labels: np.ndarray, weights: np.ndarray, videos: np.ndarray, durations: Sequence[list[float]]
) -> dict[str, Tensor]:
    """Finds the values of `Decisions`.

    Args:
        probs: held-out and calibrated, [num_rows, num_labels].
        labels: {0, 1}, of the same shape.
        weights: [num_rows], the number of frames that each row stands for.
        videos: [num_rows], the index of each row's video.
        durations: for each label the seconds of its events.
    """
    thresholds = np.array([best_expected_f1(column, weights) / 2 for column in probs.T])
    several = np.array([len(np.unique(videos[column > 0])) > 1 for column in labels.T])
    windows = [WINDOW * np.percentile(found, SHORT_EVENT_PERCENTILE) if found else 0.0 for found in durations]
    true, expected = [], []
    for video in np.unique(videos):
        own = videos == video
        found, truth, frames = probs[own] >= thresholds, labels[own] > 0, weights[own][:, None]
        items = (frames * found).sum(axis=0) + (frames * truth).sum(axis=0)
        f1 = 2 * (frames * (found & truth)).sum(axis=0) / np.maximum(items, 1e-9)
        true.append(f1[items > 0].mean() if (items > 0).any() else 1.0)
        expected.append(expected_f1(probs[own], thresholds, weights[own]))
    usual = PRIOR_VIDEOS * np.mean(expected)
    ratio = min(1.0, (sum(true) + PRIOR_RATIO * usual) / max(sum(expected) + usual, 1e-9))
    return {
        "thresholds": torch.tensor(thresholds, dtype=torch.float32),
        "peaks": torch.tensor(np.where(several, PEAK, 1) * thresholds, dtype=torch.float32),
        "edges": torch.tensor(np.where(several, EDGE, 1) * thresholds, dtype=torch.float32),
        "windows": torch.tensor(windows, dtype=torch.float32),
        "calibration_ratio": torch.tensor(float(ratio)),
    }


def best_expected_f1(probs: np.ndarray, weights: np.ndarray) -> float:
    """The best expected F1 of a label's calibrated probabilities [num_rows] at any threshold; 1 where all are 0."""
    order = np.argsort(-probs)
    probs, weights = probs[order], weights[order]
    expected = weights @ probs
    if expected <= 0:
        return 1.0
    return float((2 * np.cumsum(weights * probs) / (np.cumsum(weights) + expected)).max())
