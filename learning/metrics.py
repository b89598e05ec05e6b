"""Score predictions: F1 by frame and by segment, and calibration.

Counted here rather than by scikit-learn: its multi-label functions take a single column for a binary problem, and it
has no segment measure, which needs the same ratios of counts. The tests compare the two.

Counts are arrays [3, num_labels] of matched, true and predicted items, which add up over videos. Ratios of counts are
never undefined. A label with no true and no predicted item scores 1 (nothing to find, nothing found) and stays out of
the macro mean; otherwise a precision without predictions and a recall without true items is 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from learning.events import segments


def count_frames(truth: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Counts frames.

    Args:
        truth, predicted: [num_frames, num_labels], booleans or 0 and 1.

    Raises:
        ValueError: shapes that don't fit, no frames, or values other than 0 and 1 (probabilities, say).
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.ndim != 2 or truth.shape != predicted.shape or not truth.size:
        shapes = f"{truth.shape}, {predicted.shape}"
        raise ValueError(f"truth and predicted must be [num_frames, num_labels], not empty: {shapes}")
    if not all(((labels == 0) | (labels == 1)).all() for labels in (truth, predicted)):
        raise ValueError("labels must be 0 or 1; apply a threshold to probabilities first")
    truth, predicted = truth > 0, predicted > 0
    return np.array([(truth & predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0)])


def count_segments(truth: np.ndarray, predicted: np.ndarray, iou: float = 0.5) -> np.ndarray:
    """Counts segments, for the segmental F1@IoU of Lea et al. 2017.

    A segment is a run of frames. True and predicted segments of a label are matched one to one where the length of
    their intersection over that of their union reaches `iou`; the rest are misses and false alarms. Unlike frame F1, it
    punishes a prediction that flickers and counts a brief event like a long one.

    Source: Lea, Flynn, Vidal, Reiter, Hager, "Temporal Convolutional Networks for Action Segmentation and Detection",
    CVPR 2017. They match each prediction with the segment it overlaps best, which is the same from an IoU of 0.5 on.

    Args:
        truth, predicted: of one video, [num_frames, num_labels] bool.
        iou: in (0, 1].
    """
    pairs = [(segments(true), segments(found)) for true, found in zip(truth.T, predicted.T, strict=True)]
    return np.array([(_matches(true, found, iou), len(true), len(found)) for true, found in pairs]).T


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of counts [3, …], which may be weighted."""
    hits, true, predicted = counts
    return np.where(true + predicted > 0, 2 * hits / np.maximum(true + predicted, 1e-9), 1.0)


def macro_f1(counts: np.ndarray) -> float:
    """The mean F1 of the labels with true or predicted items; 1 where none has."""
    occurs = counts[1] + counts[2] > 0
    return float(f1_of(counts)[occurs].mean()) if occurs.any() else 1.0


def summary(counts: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Makes scores of counts.

    Returns:
        per_label: label -> {precision, recall, f1, support}; support is the number of true items.
        macro_f1: as of `macro_f1`.
    """
    hits, true, predicted = counts
    occurs = true + predicted > 0
    columns = {
        "precision": np.where(occurs, hits / np.maximum(predicted, 1), 1.0),
        "recall": np.where(occurs, hits / np.maximum(true, 1), 1.0),
        "f1": f1_of(counts),
        "support": true,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    per_label = {label: dict(zip(columns, row, strict=True)) for label, row in zip(label_names, rows, strict=True)}
    return {"per_label": per_label, "macro_f1": macro_f1(counts)}


def held_out_metrics(
    labels: np.ndarray, probs: np.ndarray, weights: np.ndarray, thresholds: np.ndarray
) -> dict[str, float]:
    """Scores the held-out predictions of sampled frames.

    Args:
        labels, probs: [num_rows, num_labels]; labels in {0, 1}, probs in [0, 1].
        weights: [num_rows], how many frames each row stands for.
        thresholds: [num_labels], the probabilities from which on a label is on.

    Returns:
        loss (log loss), f1_score (macro, of the rows), accuracy.
    """
    weights = weights[:, None] / weights.sum()
    likely = np.where(labels > 0, probs, 1 - probs).clip(1e-6)
    found = probs >= thresholds
    return {
        "loss": float(-(weights * np.log(likely)).sum(axis=0).mean()),
        "f1_score": macro_f1(count_frames(labels, found)),
        "accuracy": float((weights * (found == (labels > 0))).sum(axis=0).mean()),
    }


class ReliabilityCurve(NamedTuple):
    """Predicted probability and observed frequency in bins of equal width; NaN where a bin is empty."""

    mean_probability: np.ndarray  # [bins]
    observed_frequency: np.ndarray  # [bins]
    count: np.ndarray  # [bins]
    expected_calibration_error: float  # mean distance of the two, weighted by count


def reliability_curve(truth: ArrayLike, probs: ArrayLike, bins: int = 10) -> ReliabilityCurve:
    """Compares predicted probabilities with observed frequencies.

    Each frame and label is a case of its own. Most are easy negatives near 0, which make the error over all look small:
    to judge regions, pass the cases at or above the threshold.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, for the bins (an upper
    edge belongs to its bin) and the error, applied to the probability of the label.

    Args:
        truth: booleans or 0 and 1, of any shape, at least one.
        probs: the same shape, in [0, 1].
    """
    truth, probs = np.ravel(truth), np.ravel(probs)
    bin_of_case = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probs)
    count = np.bincount(bin_of_case, minlength=bins)
    divisor = np.where(count, count, np.nan)
    mean_probability = np.bincount(bin_of_case, weights=probs, minlength=bins) / divisor
    observed_frequency = np.bincount(bin_of_case, weights=truth, minlength=bins) / divisor
    error = np.nansum(np.abs(mean_probability - observed_frequency) * count) / len(truth)
    return ReliabilityCurve(mean_probability, observed_frequency, count, float(error))


def _matches(true: list[tuple[int, int]], predicted: list[tuple[int, int]], iou: float) -> int:
    """The number of pairs in the largest one-to-one matching of two ordered lists of disjoint segments."""
    # One sweep finds it. Overlapping pairs never cross, so that matching the first two, where they fit, costs at most
    # one other pair. Where they don't fit, the one that ends first overlaps nothing after the other.
    hits = i = j = 0
    while i < len(true) and j < len(predicted):
        (true_start, true_end), (predicted_start, predicted_end) = true[i], predicted[j]
        overlap = min(true_end, predicted_end) - max(true_start, predicted_start)
        union = (true_end - true_start) + (predicted_end - predicted_start) - overlap
        if overlap > 0 and overlap >= iou * union:
            hits, i, j = hits + 1, i + 1, j + 1
        elif true_end <= predicted_end:
            i += 1
        else:
            j += 1
    return hits
