"""Make labels of probabilities: thresholds, a price of each event, and the score of a timeline.

The F1 by frame of calibrated probabilities is best at a threshold of half the best expected F1 (Lipton, Elkan,
Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014).

A prediction that flickers for a few frames is right about most frames, but wrong about the number of events. So each
event has a price: a frame with the label gains log(probability / threshold), and the labels are those with the largest
sum of gains less prices (Viterbi's path of two states; Potts, "Some Generalized Order-Disorder Transformations", 1952).
Where labels exclude each other, it is one path of all of them, and a change costs less the oftener it was annotated.
"""

import numpy as np
import torch
from torch import Tensor, nn

from learning.dataset import FRAME_RATE, Dataset
from learning.exclusive import best_states, learn_transitions
from learning.metrics import macro_f1
from learning.probe import HeldOut

# Of an event: the gain in each frame of a typical run that pays for it. Of a label that n videos show, n / (n + 1) of
# that: how high its probabilities are in others isn't known.
PRICE = 0.1
LEAST_PROBABILITY = 1e-3  # bounds probabilities, so that one frame can't outweigh a hundred others
# The usual ratio of the true F1 of held-out predictions to the expected F1; it counts as so many videos.
PRIOR_RATIO, PRIOR_VIDEOS = 0.8, 2


class Decisions(nn.Module):
    """The decisions of each label; a part of the classifier's file.

    Attributes:
        thresholds: [num_labels].
        prices: [num_labels], of an event, in seconds of gain.
        transitions: [num_labels + 1, num_labels + 1], as of `learn_transitions`.
        calibration_ratio: the true F1 of held-out predictions over their expected F1, at most 1.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.full((num_labels,), 0.5))
        self.register_buffer("prices", torch.zeros(num_labels))
        self.register_buffer("transitions", torch.ones(num_labels + 1, num_labels + 1))
        self.register_buffer("calibration_ratio", torch.tensor(PRIOR_RATIO))

    def labels(
        self,
        probs: np.ndarray,
        frame_rate: float = FRAME_RATE,
        threshold: float | None = None,
        exclusive: bool = False,
    ) -> np.ndarray:
        """Makes labels of probabilities.

        Args:
            probs: [num_frames, num_labels].
            frame_rate: frames per second.
            threshold: of every label; None: each has its own.
            exclusive: whether a frame has one label at most.

        Returns:
            [num_frames, num_labels] bool.
        """
        thresholds = self.thresholds.numpy() if threshold is None else threshold
        gains = np.log(np.maximum(probs, LEAST_PROBABILITY) / np.maximum(thresholds, LEAST_PROBABILITY))
        gains += 1e-6  # a probability at the threshold is enough
        prices = frame_rate * self.prices.numpy() / 2  # half at an event's start and half at its end
        if not exclusive:
            costs = prices[:, None, None] * (1 - np.eye(2))
            return best_states(np.stack([np.zeros(gains.shape), gains], axis=2), costs) > 0
        prices = np.append(0, prices)
        costs = prices[:, None] + prices - np.log(self.transitions.numpy().clip(1e-9))
        np.fill_diagonal(costs, 0)
        return best_states(np.pad(gains, ((0, 0), (1, 0)))[:, None], costs[None]) == np.arange(1, len(costs))

    @property
    def shortest(self) -> np.ndarray:
        """[num_labels]: seconds that even a certain event must last."""
        return self.prices.numpy() / -np.log(self.thresholds.numpy().clip(LEAST_PROBABILITY, 0.99))

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
    and less than one expected frame is left out. Where nothing is predicted, the result is the probability that no
    frame has a label, since the empty timeline is right then; all frames of a label count as one for that.

    Args:
        probs: [num_frames, num_labels].
        thresholds: [num_labels].
        weights: [num_frames], the number of frames that each stands for; None is 1 for each.
    """
    frames = np.ones((len(probs), 1)) if weights is None else weights[:, None]
    predicted = probs >= thresholds
    if not predicted.any():
        return float(np.prod(1 - probs.max(axis=0, initial=0)))
    expected = (frames * probs).sum(axis=0)
    counts = predicted.any(axis=0) | (expected >= 1)
    hits = (frames * probs * predicted).sum(axis=0)
    return float((2 * hits / np.maximum((frames * predicted).sum(axis=0) + expected, 1e-9))[counts].mean())


def decide(probs: np.ndarray, unseen: np.ndarray, held_out: HeldOut, data: Dataset) -> dict[str, Tensor]:
    """Finds the state of `Decisions`.

    Args:
        probs, unseen: [num_rows, num_labels], calibrated, of the rows of `held_out`.
        held_out: what was predicted.
        data: the videos.
    """
    thresholds = np.array([best_expected_f1(column, held_out.weights) / 2 for column in probs.T])
    shown = data.shown.sum(axis=0)
    true, expected = [], []
    for video in np.unique(held_out.numbers):
        own = held_out.numbers == video
        found, truth, frames = unseen[own] >= thresholds, held_out.labels[own] > 0, held_out.weights[own]
        true.append(macro_f1(np.array([frames @ rows for rows in (found & truth, truth, found)])))
        expected.append(expected_f1(unseen[own], thresholds, frames))
    usual = PRIOR_VIDEOS * np.mean(expected)
    ratio = min(1.0, (sum(true) + PRIOR_RATIO * usual) / max(sum(expected) + usual, 1e-9))
    return {
        "thresholds": torch.tensor(thresholds, dtype=torch.float32),
        "prices": torch.tensor(PRICE * shown / (shown + 1) * data.typical_runs(), dtype=torch.float32),
        "transitions": torch.tensor(learn_transitions(data), dtype=torch.float32),
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
