"""Make probabilities of a probe's scores, for each label.

A logistic regression (Platt, "Probabilistic Outputs for Support Vector Machines", 1999) on held-out scores. These are
of a few videos, in each of which a label is a bit fainter or stronger than in the others; frames of one video don't
show that. So the regression sees the scores with what the next video may add to them: a normal deviate for the frames
with the label and one for those without, as large as the videos' own means differ.
"""

import numpy as np

STEPS = 100  # of Newton's method, at most; it converges in ten
TOLERANCE = 1e-10  # of the loss, relative
PENALTY = 1e-3  # on the slope, in standard deviations of the scores; keeps it finite for separable labels
# The prior of how much videos differ, as a share of the distance between frames with and without the label; it counts
# as much as one video.
USUAL_SPREAD = 0.3
QUANTILES = np.array([-1.28, -0.52, 0.0, 0.52, 1.28])  # the normal distribution in five equal parts


def calibrate(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fits the regression of each label on its own scores.

    Args:
        scores: held-out, [num_rows, num_labels].
        labels: {0, 1}, of the same shape.
        weights: [num_rows], how many frames each row stands for.
        numbers: [num_rows], of their videos.

    Returns:
        slope and offset, [num_labels] float32: logit = slope * score + offset.
    """
    fitted = []
    for x, y in zip(scores.T.astype(np.float64), labels.T > 0, strict=True):
        if y.any() and not y.all():
            apart = max(_mean(x, weights * y) - _mean(x, weights * ~y), 1e-6)
            spread = np.where(y, *(_spread(x, weights * side, numbers, apart) for side in (y, ~y)))
            x = np.concatenate([x + deviate * spread for deviate in QUANTILES])
        repeats = len(x) // len(y)
        slope, offset = logistic(x, np.tile(y, repeats), np.tile(weights, repeats))
        if slope < 0:  # scores that are lower with the label than without say nothing
            slope, offset = logistic(np.zeros(len(y)), y, weights)
        fitted.append((slope, offset))
    slope, offset = np.array(fitted, np.float32).T
    return slope, offset


def _mean(x: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ x / weights.sum())


def _spread(x: np.ndarray, weights: np.ndarray, numbers: np.ndarray, apart: float) -> float:
    """The standard deviation of the next video's mean from that of these videos."""
    size = np.bincount(numbers, weights)
    means = np.bincount(numbers, weights * x)[size > 0] / size[size > 0]
    squares = ((means - _mean(x, weights)) ** 2).sum() + (USUAL_SPREAD * apart) ** 2
    return float(np.sqrt(squares / len(means) * (1 + 1 / len(means))))


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Fits slope and offset of a weighted logistic regression of y on x, both [num_cases], by damped Newton steps."""
    weights = weights / weights.sum()
    centre = float(weights @ x)
    deviation = max(float(np.sqrt(weights @ (x - centre) ** 2)), 1e-9)
    inputs = np.stack([(x - centre) / deviation, np.ones_like(x)], axis=1)
    share = float(np.clip(weights @ y, 1e-6, 1 - 1e-6))
    penalty = np.array([PENALTY / len(x), 1e-12])

    def loss(b: np.ndarray) -> float:
        logits = inputs @ b
        return float(weights @ (np.logaddexp(0, logits) - y * logits) + penalty @ b**2 / 2)

    found = np.array([0.0, np.log(share / (1 - share))])
    least = loss(found)
    for _ in range(STEPS):
        probs = 1 / (1 + np.exp(-np.clip(inputs @ found, -500, 500)))
        gradient = inputs.T @ (weights * (probs - y)) + penalty * found
        curvature = (inputs * (weights * probs * (1 - probs))[:, None]).T @ inputs + np.diag(penalty)
        step, length = np.linalg.solve(curvature, gradient), 1.0
        while loss(found - length * step) > least - 1e-4 * length * float(gradient @ step) and length > 1e-9:
            length /= 2
        found = found - length * step
        before, least = least, loss(found)
        if before - least <= TOLERANCE * max(least, 1e-12):
            break
    return found[0] / deviation, found[1] - found[0] * centre / deviation
