"""From probabilities to labels: thresholds, smoothing and the score of a timeline, from held-out predictions.

The frame F1 of calibrated probabilities is best at a threshold of half the best F1 to expect of them (Lipton, Elkan,
Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014): what is found half of the time
anyway is worth a guess, what is found always is not.

A prediction that flickers for a few frames is right about most frames and wrong about the number of events. A median
filter removes what is shorter than half its window and leaves the edges of longer events where they are; and an event
has to be surer somewhere than at its edges (hysteresis; Canny, "A Computational Approach to Edge Detection", 1986).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from learning.events import segments

SHORT_EVENT_PERCENTILE = 10  # of the annotated durations: the very shortest may be a slip
WINDOW = 0.5  # of the median filter, in lengths of a label's short events
PEAK, EDGE = 1.3, 0.9  # thresholds that an event reaches somewhere, and everywhere
# Share of the F1 that probabilities promise which held-out predictions usually have; counts as so many videos.
PRIOR_SHARE, PRIOR_VIDEOS = 0.8, 2


class Decisions(nn.Module):
    """What was decided by label; a part of the classifier's file.

    Attributes:
        thresholds: [num_labels].
        windows: [num_labels], seconds of the median filter.
        kept_promise: share of the promised F1 that held-out predictions had, at most 1.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.full((num_labels,), 0.5))
        self.register_buffer("windows", torch.zeros(num_labels))
        self.register_buffer("kept_promise", torch.tensor(PRIOR_SHARE))

    def take(self, decided: dict[str, Tensor]) -> None:
        """Takes over what `decide` found."""
        self.load_state_dict(decided)

    def smooth(self, probs: np.ndarray, frame_rate: float) -> np.ndarray:
        """Probabilities [num_frames, num_labels] after each label's median filter."""
        smoothed = probs.copy()
        for column, seconds in enumerate(self.windows.tolist()):
            window = int(seconds * frame_rate) // 2 * 2 + 1
            if window > 1:
                smoothed[:, column] = median_filter(probs[:, column], size=window, mode="nearest")
        return smoothed

    def labels(self, probs: np.ndarray) -> np.ndarray:
        """The labels that probabilities say, both [num_frames, num_labels]; bool."""
        thresholds = self.thresholds.numpy()
        labels = probs >= EDGE * thresholds
        for column, probabilities, threshold in zip(labels.T, probs.T, thresholds, strict=True):
            for start, end in segments(column):
                column[start:end] = probabilities[start:end].max() >= PEAK * threshold
        return labels

    def expected_f1(self, probs: np.ndarray) -> float:
        """The macro-F1 by frame to expect of a prediction, in [0, 1].

        What the probabilities promise (with their thresholds, over the labels that are predicted or likely anywhere),
        times the share of it that held-out annotated videos had: the score that an annotator sees at a prediction, and
        low where an annotation teaches much.

        Args:
            probs: [num_frames, num_labels].
        """
        return float(self.kept_promise) * promised_f1(probs, self.thresholds.numpy())


def promised_f1(probs: np.ndarray, thresholds: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The macro-F1 that calibrated probabilities [num_frames, num_labels] let expect of the labels above thresholds.

    Of a label: 2 * expected hits / (predicted frames + expected frames). A label of which less than one frame is
    expected, and none predicted, counts for nothing; where that is all of them, the timeline is empty and rightly so
    with the probability that no label is there. `weights` [num_frames] says how many frames each stands for.
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
    probs: np.ndarray, labels: np.ndarray, weights: np.ndarray, numbers: np.ndarray, durations: Sequence[list[float]]
) -> dict[str, Tensor]:
    """Thresholds, windows and the share of kept promises, as of `Decisions`.

    Args:
        probs: held-out and calibrated, [num_rows, num_labels].
        labels: {0, 1}, of the same shape.
        weights: [num_rows], how many frames each row stands for.
        numbers: [num_rows], of their videos.
        durations: of each label, the seconds of its events.
    """
    thresholds = np.array([best_expected_f1(column, weights) / 2 for column in probs.T])
    windows = [WINDOW * np.percentile(found, SHORT_EVENT_PERCENTILE) if found else 0.0 for found in durations]
    true, promised = [], []
    for number in np.unique(numbers):
        own = numbers == number
        found, truth, frames = probs[own] >= thresholds, labels[own] > 0, weights[own][:, None]
        items = (frames * found).sum(axis=0) + (frames * truth).sum(axis=0)
        f1 = 2 * (frames * (found & truth)).sum(axis=0) / np.maximum(items, 1e-9)
        true.append(f1[items > 0].mean() if (items > 0).any() else 1.0)
        promised.append(promised_f1(probs[own], thresholds, weights[own]))
    usual = PRIOR_VIDEOS * np.mean(promised)
    kept = min(1.0, (sum(true) + PRIOR_SHARE * usual) / max(sum(promised) + usual, 1e-9))
    return {
        "thresholds": torch.tensor(thresholds, dtype=torch.float32),
        "windows": torch.tensor(windows, dtype=torch.float32),
        "kept_promise": torch.tensor(float(kept)),
    }


def best_expected_f1(probs: np.ndarray, weights: np.ndarray) -> float:
    """The best F1 to expect of a label's calibrated probabilities [num_rows] at any threshold; 1 where it has none."""
    order = np.argsort(-probs)
    probs, weights = probs[order], weights[order]
    expected = weights @ probs
    if expected <= 0:
        return 1.0
    return float((2 * np.cumsum(weights * probs) / (np.cumsum(weights) + expected)).max())
