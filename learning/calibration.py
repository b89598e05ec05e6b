"""From a readout's scores to probabilities, by label, and how much of a network's correction to believe.

Source of the former: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
"""

from collections.abc import Sequence as ListOf

import numpy as np

STEPS = 25  # of Newton's method; it has converged long before
LONGEST_STEP = 3.0  # keeps a label that is told apart without an error from running away
PENALTY = 1e-2  # on the slope, in frames: likewise
LEAST_SHARE = 1e-3  # of frames with a label
GATES = (0.0, 0.25, 0.5, 0.75, 1.0)
CERTAIN = 1e-4  # nothing is more improbable


def calibrate(
    scores: ListOf[np.ndarray], labels: ListOf[np.ndarray], masks: ListOf[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a logistic regression of each label on its own scores.

    Args:
        scores: held-out, [num_frames, num_labels] of each video.
        labels: {0, 1}, of the same shapes.
        masks: [num_frames] bool of each, the frames that count.

    Returns:
        slope and offset, [num_labels] float32: logit = slope * score + offset.
    """
    x = np.concatenate([values[mask] for values, mask in zip(scores, masks, strict=True)]).astype(np.float64)
    y = np.concatenate([target[mask] for target, mask in zip(labels, masks, strict=True)]).astype(np.float64)
    fitted = np.stack([_logistic(*columns) for columns in zip(x.T, y.T, strict=True)])
    return fitted[:, 0].astype(np.float32), fitted[:, 1].astype(np.float32)


def _logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inputs = np.stack([x, np.ones_like(x)], axis=1)
    share = np.clip(y.mean(), LEAST_SHARE, 1 - LEAST_SHARE)
    weights = np.array([0.0, np.log(share / (1 - share))])
    for _ in range(STEPS):
        probs = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (probs - y) + [PENALTY * weights[0], 0]
        curvature = (inputs * (probs * (1 - probs))[:, None]).T @ inputs + PENALTY * np.eye(2)
        weights -= np.clip(np.linalg.solve(curvature, gradient), -LONGEST_STEP, LONGEST_STEP)
    return weights


def best_gate(
    plain: ListOf[np.ndarray], corrected: ListOf[np.ndarray], labels: ListOf[np.ndarray], masks: ListOf[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """How much of a correction of log-odds helps each label, by the log loss of held-out probabilities.

    Args:
        plain: probabilities before the correction, [num_frames, num_labels] of each video.
        corrected: after it, by a network that hasn't seen the video.
        labels: {0, 1}, of the same shapes.
        masks: [num_frames] bool of each, the frames that count.

    Returns:
        gate, [num_labels] float32 in [0, 1], the least where several are equal; the gated probabilities of each video.
    """
    gated = [[_between(before, after, gate) for before, after in zip(plain, corrected, strict=True)] for gate in GATES]
    truth = np.concatenate([target[mask] for target, mask in zip(labels, masks, strict=True)])
    losses = [
        _log_loss(np.concatenate([probs[mask] for probs, mask in zip(videos, masks, strict=True)]), truth)
        for videos in gated
    ]
    best = np.argmin(losses, axis=0)
    chosen = [
        np.stack([gated[number][video][:, label] for label, number in enumerate(best)], axis=1)
        for video in range(len(plain))
    ]
    return np.float32(GATES)[best], chosen


def _between(before: np.ndarray, after: np.ndarray, gate: float) -> np.ndarray:
    """Probabilities whose log-odds lie so far between two; 0 stays 0."""
    low, high = (np.log(p / (1 - p)) for p in (np.clip(probs, CERTAIN, 1 - CERTAIN) for probs in (before, after)))
    return ((before > 0) / (1 + np.exp(-low - gate * (high - low)))).astype(np.float32)


def _log_loss(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[num_labels]: the mean over frames."""
    probs = np.clip(probs, CERTAIN, 1 - CERTAIN)
    return -np.where(truth > 0, np.log(probs), np.log(1 - probs)).mean(axis=0)
