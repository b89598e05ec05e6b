"""From probabilities to labels: thresholds, smoothing and the score of a timeline, from held-out predictions.

The frame F1 of calibrated probabilities is best at a threshold of half the best F1 (Lipton, Elkan, Naryanaswamy,
"Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014): what is found half of the time anyway is worth
a guess, what is found always is not.
"""

from collections.abc import Sequence as ListOf

import numpy as np
import torch
from torch import Tensor, nn

from learning.metrics import frame_metrics, segment_f1
from learning.smoothing import event_durations, smooth

LEAST_THRESHOLD, GREATEST_THRESHOLD = 0.15, 0.5
# A label's best F1 is that of so many videos more, with this F1: what few videos show is too good, since each has been
# seen by the layers behind the readout, and what a single one shows was never held out.
USUAL_F1, USUAL_VIDEOS = 0.5, 2
CANDIDATES = np.linspace(0.02, 0.98, 49)  # thresholds that the best F1 is looked for at
# Windows of the median filter, in lengths of a label's short events. The first is the one of a tie, and of few videos.
WINDOW_LENGTHS = (0.5, 0.25, 0.75, 1.0, 1.5)
WINDOW_GAIN = 0.01  # of F1 by frame and by segment, that another window must bring
PRIOR_VIDEOS = 2  # that say what F1 is usual, until held-out ones do
PRIOR_SHARE = 0.8  # of the F1 that probabilities promise, that is usual


class Decisions(nn.Module):
    """What was decided by label; a part of the classifier's file.

    Attributes:
        thresholds: [num_labels].
        windows: [num_labels], frames of the median filter, odd; 1 leaves a label as it is.
        kept_promise: share of the promised F1 that held-out predictions had, at most 1.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.full((num_labels,), GREATEST_THRESHOLD))
        self.register_buffer("windows", torch.ones(num_labels, dtype=torch.int64))
        self.register_buffer("kept_promise", torch.tensor(PRIOR_SHARE))

    def take(self, decided: dict[str, Tensor]) -> None:
        """Takes over what `decide` found."""
        self.load_state_dict(decided)

    def expected_f1(self, probs: np.ndarray) -> float:
        """The macro-F1 by frame to expect of a prediction, in [0, 1].

        What the probabilities promise (with their thresholds, over the labels that are predicted or likely anywhere),
        times the share of it that held-out annotated videos had: the score that an annotator sees at a prediction, and
        low where an annotation teaches much.

        Args:
            probs: [num_frames, num_labels].
        """
        return float(self.kept_promise) * promised_f1(probs, self.thresholds.numpy())


def promised_f1(probs: np.ndarray, thresholds: np.ndarray) -> float:
    """The macro-F1 that calibrated probabilities [num_frames, num_labels] let expect of the labels above thresholds.

    Of a label: 2 * expected hits / (predicted frames + expected frames). A label of which less than one frame is
    expected, and none predicted, counts for nothing; where that is all of them, the timeline is empty and rightly so
    with the probability that no label is there.
    """
    predicted = probs >= thresholds
    expected = probs.sum(axis=0)
    counts = predicted.any(axis=0) | (expected >= 1)
    if not counts.any():
        return float(np.prod(1 - probs.max(axis=0, initial=0)))
    hits = (probs * predicted).sum(axis=0)
    return float((2 * hits / np.maximum(predicted.sum(axis=0) + expected, 1e-9))[counts].mean())


def decide(probs: ListOf[np.ndarray], labels: ListOf[np.ndarray], masks: ListOf[np.ndarray]) -> dict[str, Tensor]:
    """Thresholds, windows and the share of kept promises, as of `Decisions`.

    Args:
        probs: held-out probabilities [num_frames, num_labels] of each annotated video, not smoothed.
        labels: {0, 1}, of the same shapes.
        masks: [num_frames] bool of each, the frames that count.
    """
    truth = np.concatenate([target[mask] for target, mask in zip(labels, masks, strict=True)]) > 0
    known = np.concatenate([values[mask] for values, mask in zip(probs, masks, strict=True)])
    with_label = np.sum(
        [(target * mask[:, None]).any(axis=0) for target, mask in zip(labels, masks, strict=True)], axis=0
    )
    measured = np.maximum(with_label - 1, 0)
    f1 = (measured * _best_f1(known, truth) + USUAL_VIDEOS * USUAL_F1) / (measured + USUAL_VIDEOS)
    thresholds = np.clip(f1 / 2, LEAST_THRESHOLD, GREATEST_THRESHOLD)
    durations = event_durations([target * mask[:, None] for target, mask in zip(labels, masks, strict=True)])
    windows = _windows(probs, labels, masks, thresholds, durations)
    smoothed = [smooth(values, windows) for values in probs]
    true, promised = [], []
    for values, target, mask in zip(smoothed, labels, masks, strict=True):
        if mask.any():
            names = list(map(str, range(target.shape[1])))
            true.append(frame_metrics(target[mask] > 0, values[mask] >= thresholds, names)["macro_f1"])
            promised.append(promised_f1(values[mask], thresholds))
    usual = PRIOR_VIDEOS * np.mean(promised)
    kept = min(1.0, (sum(true) + PRIOR_SHARE * usual) / max(sum(promised) + usual, 1e-9))
    return {
        "thresholds": torch.from_numpy(thresholds.astype(np.float32)),
        "windows": torch.from_numpy(windows),
        "kept_promise": torch.tensor(float(kept)),
    }


def _best_f1(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[num_labels]: the F1 of each label at its best threshold; 1 for a label without an example."""
    found = np.stack([(probs >= candidate).sum(axis=0) for candidate in CANDIDATES])
    hits = np.stack([((probs >= candidate) & truth).sum(axis=0) for candidate in CANDIDATES])
    best = (2 * hits / np.maximum(found + truth.sum(axis=0), 1)).max(axis=0)
    return np.where(truth.any(axis=0), best, 1.0)


def _windows(
    probs: ListOf[np.ndarray],
    labels: ListOf[np.ndarray],
    masks: ListOf[np.ndarray],
    thresholds: np.ndarray,
    durations: np.ndarray,
) -> np.ndarray:
    """[num_labels]: frames of the median filter that gives each label the best F1, by frame and by segment."""
    names = list(map(str, range(len(durations))))
    best, windows = np.full(len(durations), -np.inf), np.ones(len(durations), np.int64)
    gap = np.zeros((1, len(durations)), bool)  # keeps two videos' segments apart
    truth = np.concatenate(
        [np.concatenate([target * mask[:, None] > 0, gap]) for target, mask in zip(labels, masks, strict=True)]
    )
    for length in WINDOW_LENGTHS:
        candidate = (length * durations).astype(np.int64) // 2 * 2 + 1
        found = np.concatenate(
            [
                np.concatenate([(smooth(values, candidate) >= thresholds) & mask[:, None], gap])
                for values, mask in zip(probs, masks, strict=True)
            ]
        )
        measures = (frame_metrics(truth, found, names), segment_f1(truth, found, names))
        f1 = np.mean([[measure["per_label"][name]["f1"] for name in names] for measure in measures], axis=0)
        better = f1 > best + WINDOW_GAIN
        best[better], windows[better] = f1[better], candidate[better]
    return windows
