"""From a readout's scores to probabilities, by label.

Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
"""

from collections.abc import Sequence as ListOf

import numpy as np

STEPS = 25  # of Newton's method; it has converged long before
LONGEST_STEP = 3.0  # keeps a label that is told apart without an error from running away
PENALTY = 1e-2  # on the slope, in frames: likewise
LEAST_SHARE = 1e-3  # of frames with a label


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
