"""Score predictions: F1 by frame and by segment, and calibration.

Counted here rather than by scikit-learn: its multi-label functions take a single column for a binary problem, and it
has no segment measure, which needs the same ratios of counts. The tests compare the two.

Ratios of counts are never undefined. A label with no true and no predicted item scores 1 (nothing to find, nothing
found) and stays out of the macro mean; otherwise a precision without predictions and a recall without true items is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from learning.events import check_probabilities, segments


def frame_metrics(truth: ArrayLike, predicted: ArrayLike, label_names: Sequence[str]) -> dict[str, Any]:
    """Compares labels frame by frame.

    Args:
        truth, predicted: [num_frames, num_labels], booleans or 0 and 1.
        label_names: one per column.

    Returns:
        per_label: label -> {precision, recall, f1, support}; support is the number of true frames.
        macro_f1: mean F1 of the labels that occur in `truth` or `predicted`; 1 where none does.
        accuracy: share of right entries among all frames and labels (1 - Hamming loss).

    Raises:
        ValueError: shapes that don't fit, no frames, or values other than 0 and 1 (probabilities, say).
    """
    truth, predicted = _label_arrays(truth, predicted)
    hits = (truth & predicted).sum(axis=0)
    summary = _summary(label_names, hits, truth.sum(axis=0), predicted.sum(axis=0))
    return {**summary, "accuracy": float((truth == predicted).mean())}


def held_out_metrics(
    labels: np.ndarray, probs: np.ndarray, weights: np.ndarray, thresholds: np.ndarray
) -> dict[str, float]:
    """Scores the held-out predictions of sampled frames.

    Args:
        labels, probs: [num_rows, num_labels]; labels in {0, 1}, probs in [0, 1].
        weights: [num_rows], how many frames each row stands for.
        thresholds: [num_labels], the probabilities from which on a label is on.

    Returns:
        loss (log loss), f1_score, precision, recall (macro, over the labels that occur), accuracy.
    """
    weights = weights[:, None] / weights.sum()
    likely = np.where(labels > 0, probs, 1 - probs).clip(1e-6)
    found = probs >= thresholds
    names = list(map(str, range(labels.shape[1])))
    per_label = frame_metrics(labels, found, names)
    rows = [row for name, row in per_label["per_label"].items() if labels[:, int(name)].any()]
    macro = {name: float(np.mean([row[name] for row in rows])) if rows else 1.0 for name in ("precision", "recall")}
    return {
        "loss": float(-(weights * np.log(likely)).sum(axis=0).mean()),
        "f1_score": per_label["macro_f1"],
        **macro,
        "accuracy": float((weights * (found == (labels > 0))).sum(axis=0).mean()),
    }


def segment_f1(truth: ArrayLike, predicted: ArrayLike, label_names: Sequence[str], iou: float = 0.5) -> dict[str, Any]:
    """Compares labels segment by segment: the segmental F1@IoU of Lea et al. 2017.

    A segment is a run of frames. True and predicted segments of a label are matched one to one where the length of
    their intersection over that of their union reaches `iou`; the rest are misses and false alarms. Unlike frame F1, it
    punishes a prediction that flickers and counts a brief event like a long one. To pool several videos, put a frame
    without labels between them.

    Source: Lea, Flynn, Vidal, Reiter, Hager, "Temporal Convolutional Networks for Action Segmentation and Detection",
    CVPR 2017. They match each prediction with the segment it overlaps best, which is the same from an IoU of 0.5 on.

    Args:
        truth, predicted: [num_frames, num_labels], booleans or 0 and 1.
        label_names: one per column.
        iou: in (0, 1].

    Returns:
        per_label: label -> {precision, recall, f1, support}; support is the number of true segments.
        macro_f1: mean F1 of the labels that occur in `truth` or `predicted`; 1 where none does.

    Raises:
        ValueError: as `frame_metrics`.
    """
    truth, predicted = _label_arrays(truth, predicted)
    true_segments = [segments(column) for column in truth.T]
    predicted_segments = [segments(column) for column in predicted.T]
    hits = [_matches(*pair, iou) for pair in zip(true_segments, predicted_segments, strict=True)]
    return _summary(label_names, hits, list(map(len, true_segments)), list(map(len, predicted_segments)))


@dataclass(frozen=True)
class ReliabilityCurve:
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
        truth: booleans or 0 and 1, of any shape.
        probs: the same shape, in [0, 1].

    Raises:
        ValueError: shapes that don't fit, no cases, values out of range.
    """
    truth, probs = _as_labels(truth).ravel(), np.asarray(probs, dtype=np.float64).ravel()
    if truth.shape != probs.shape or not truth.size:
        raise ValueError(
            f"truth and probs must have the same number of cases, at least one: {truth.size}, {probs.size}"
        )
    check_probabilities(probs)
    bin_of_case = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probs)
    count = np.bincount(bin_of_case, minlength=bins)
    divisor = np.where(count, count, np.nan)
    mean_probability = np.bincount(bin_of_case, weights=probs, minlength=bins) / divisor
    observed_frequency = np.bincount(bin_of_case, weights=truth, minlength=bins) / divisor
    error = np.nansum(np.abs(mean_probability - observed_frequency) * count) / truth.size
    return ReliabilityCurve(mean_probability, observed_frequency, count, float(error))


def _label_arrays(truth: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = _as_labels(truth), _as_labels(predicted)
    if truth.ndim != 2 or truth.shape != predicted.shape or not truth.size:
        raise ValueError(
            f"truth and predicted must be [num_frames, num_labels], not empty: {truth.shape}, {predicted.shape}"
        )
    return truth, predicted


def _as_labels(labels: ArrayLike) -> np.ndarray:
    labels = np.asarray(labels)
    if not np.all((labels == 0) | (labels == 1)):
        raise ValueError("labels must be 0 or 1; apply a threshold to probabilities first")
    return labels.astype(bool)


def _summary(label_names: Sequence[str], hits: ArrayLike, true: ArrayLike, predicted: ArrayLike) -> dict[str, Any]:
    """Makes scores of counts [num_labels] of matched, true and predicted items."""
    per_label = {}
    occurring = []
    for label, *counts in zip(label_names, *np.array([hits, true, predicted]).tolist(), strict=True):
        per_label[label] = _scores(*counts)
        if any(counts):
            occurring.append(per_label[label]["f1"])
    return {"per_label": per_label, "macro_f1": float(np.mean(occurring)) if occurring else 1.0}


def _scores(hits: int, true: int, predicted: int) -> dict[str, float]:
    if not true and not predicted:
        return {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 0}
    return {
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (true + predicted),
        "support": true,
    }


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
