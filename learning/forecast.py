"""Estimate the number of videos at which a learning curve reaches a score.

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

# With fewer tests any curve fits; more than so many are averaged in groups, so that a fit takes no longer.
MIN_TESTS, MAX_TESTS = 6, 40
RESAMPLES = 1000
EXPONENTS = np.linspace(0, 2, 41)
# Beyond so many times the videos that there are, nothing is said.
REACH = 10
# The bootstrap over a handful of tests is too sure of itself: 83 % of its intervals of 95 % held the truth, and 89 % of
# those of 99 % (benchmarks/outlook.md).
LEVEL = 99


class Forecast(NamedTuple):
    """How many videos a score takes.

    Attributes:
        videos: the estimate, from the first video on; infinity where the curve doesn't reach the score.
        low, high: the bootstrap's interval of LEVEL %; `high` is infinity where it isn't bounded.
    """

    videos: float
    low: float
    high: float


def videos_for(score: float, counts: Sequence[int], scores: Sequence[float]) -> Forecast | None:
    """Estimates the number of videos at which a learning curve reaches a score.

    Args:
        score: below 1.
        counts: the number of videos that were learnt before each test, at least 1.
        scores: of the tests, in [0, 1].

    Returns:
        None with fewer than MIN_TESTS tests, or where all had the same number of videos.
    """
    if len(counts) < MIN_TESTS or len(set(counts)) < 2:
        return None
    groups = np.array_split(np.argsort(counts, kind="stable"), min(len(counts), MAX_TESTS))
    videos, errors = np.array(
        [(np.log(np.mean(np.take(counts, group))), 1 - np.mean(np.take(scores, group))) for group in groups]
    ).T
    drawn = np.random.default_rng(0).integers(len(groups), size=(RESAMPLES, len(groups)))
    drawn = np.concatenate([np.arange(len(groups))[None], drawn])
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
    least = np.full(len(videos), np.inf)
    exponent, factor = np.zeros(len(videos)), np.zeros(len(videos))
    for one in EXPONENTS:
        shape = np.exp(-one * videos)
        best = np.clip((shape * errors).sum(axis=1) / (shape * shape).sum(axis=1), 0, 1)
        loss = ((best[:, None] * shape - errors) ** 2).sum(axis=1)
        better = loss < least
        least, exponent, factor = (np.where(better, *pair) for pair in ((loss, least), (one, exponent), (best, factor)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = np.exp(np.log(factor / error) / exponent)
    return np.where(factor <= error, 1.0, np.where(exponent > 0, needed, np.inf))
