"""How many more videos a learning curve asks for.

The error of a classifier falls about as a power of the number of its examples (Figueroa, Zeng-Treitler, Kandula, Ngo,
"Predicting sample size required for classification performance", BMC Medical Informatics and Decision Making 12, 2012).
Their curve also has a floor, which a dozen tests can't tell from a slow fall; so it is left out here, and what is said
holds if the curve goes on as it has. The uncertainty is that of the bootstrap (Efron 1979): tests are drawn with
replacement, and the curve is fitted to each draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# With fewer tests any curve fits.
MIN_TESTS = 6
RESAMPLES = 400
EXPONENTS = np.linspace(0, 2, 81)
# Beyond so many times the videos that there are, nothing is said.
REACH = 10
LEVEL = 95


class Forecast(NamedTuple):
    """How many videos a score takes.

    Attributes:
        videos: the estimate, from the first video on; infinity where the curve doesn't reach the score.
        low, high: the 95 % interval; `high` is infinity where it isn't bounded.
    """

    videos: float
    low: float
    high: float


def videos_for(score: float, counts: Sequence[int], scores: Sequence[float], seed: int = 0) -> Forecast | None:
    """Estimates the number of videos at which a learning curve reaches a score.

    Args:
        score: below 1.
        counts: the number of videos that were learnt before each test, at least 1.
        scores: of the tests, in [0, 1].
        seed: of the draws.

    Returns:
        None with fewer than MIN_TESTS tests, or where all had the same number of videos.
    """
    if len(counts) < MIN_TESTS or len(set(counts)) < 2:
        return None
    videos, errors = np.log(np.asarray(counts, float)), 1 - np.asarray(scores, float)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    drawn = np.concatenate([np.arange(len(counts))[None], drawn])
    needed = _needed(1 - score, videos[drawn], errors[drawn])
    cut = (100 - LEVEL) / 2
    # By order, not between two draws: where one is infinite there is nothing between.
    low, high = np.percentile(needed[1:], (cut, 100 - cut), method="nearest")
    limit = REACH * max(counts)
    estimate, low, high = (float(value) if value <= limit else float("inf") for value in (needed[0], low, high))
    return Forecast(estimate, low, high)


def _needed(error: float, videos: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Fits error = factor × videos^-exponent to each row by least squares, and solves it for the number of videos.

    Args:
        error: above 0.
        videos: their logarithms, [num_fits, num_tests].
        errors: [num_fits, num_tests].
    """
    shapes = np.exp(-EXPONENTS[:, None, None] * videos)  # [num_exponents, num_fits, num_tests]
    factors = np.clip((shapes * errors).sum(axis=2) / (shapes * shapes).sum(axis=2), 0, 1)
    losses = ((factors[..., None] * shapes - errors) ** 2).sum(axis=2)
    best = losses.argmin(axis=0)
    exponent, factor = EXPONENTS[best], factors[best, np.arange(len(best))]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = np.exp(np.log(factor / error) / exponent)
    return np.where(factor <= error, 1.0, np.where(exponent > 0, needed, np.inf))
