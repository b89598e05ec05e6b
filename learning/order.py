"""Order videos by how much their annotation would teach.

With few annotations, those teach most that resemble many other videos and none that is annotated; a model of few
annotations is too often sure of what it hasn't seen, so its scores order no better than chance
(benchmarks/teaching.md). The order is the greedy solution of the facility location problem: each next video is the one
that brings the sum of all videos' distances to the nearest annotated or chosen video down most (Wei, Iyer, Bilmes,
"Submodularity in Data Subset Selection and Active Learning", ICML 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from learning.blocks import SIGNED_ROOTS, columns
from learning.dataset import FrameFeatures

SUMMARY_FRAMES = 32  # of a video, spread evenly
CHOSEN = 100  # videos whose order is found; nobody annotates more between two trainings
LEAST_SIZE = 1e-6  # of a block that differs between videos

Summary = list[np.ndarray]


def summary(sequence: FrameFeatures, layout: dict[str, int]) -> Summary:
    """A video in a few vectors: the mean and the standard deviation of each block over some of its frames.

    Args:
        sequence: [num_frames, dim], with at least one frame.
        layout: block -> its dimensions, in their order in a row.
    """
    step = max(1, sequence.shape[0] // SUMMARY_FRAMES)
    values = np.array(sequence[slice((sequence.shape[0] - 1) % step // 2, None, step)], np.float32)
    parts = []
    for name, where in columns(layout).items():
        block = values[:, where]
        if name in SIGNED_ROOTS:
            block = np.copysign(np.sqrt(np.abs(block)), block)
        parts += [block.mean(axis=0), block.std(axis=0)]
    return parts


def comparable(summaries: Sequence[Summary]) -> np.ndarray:
    """Summaries side by side, [num_videos, dim] float32: each of their vectors differs as much as the others do."""
    scaled = []
    for vectors in zip(*summaries, strict=True):
        rows = np.stack(vectors)
        rows = rows - rows.mean(axis=0)
        size = np.sqrt((rows**2).sum(axis=1).mean())
        if size > LEAST_SIZE:
            scaled.append(rows / size)
    return np.concatenate(scaled, axis=1) if scaled else np.zeros((len(summaries), 1), np.float32)


def distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances [num_ones, num_others] of rows [num_ones, dim] and [num_others, dim]."""
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * ones @ others.T
    return np.sqrt(np.maximum(squares, 0))


def teaching_order(
    features: np.ndarray,
    known: np.ndarray,
    weights: np.ndarray | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[int]:
    """Orders videos: those whose annotation would teach most come first.

    Args:
        features: [num_videos, dim], of videos without annotations.
        known: [num_known, dim], of annotated ones.
        weights: [num_videos], how much each counts; None: all the same.
        check: called now and then; what it raises ends the work.

    Returns:
        The indices of all videos. Behind the first `CHOSEN`, the farthest from these come first.
    """
    if not len(features):
        return []
    between = distances(features, features)
    farthest = between.max(axis=1) + 1e-6  # without an annotated video, any one is better than none
    nearest = distances(features, known).min(axis=1) if len(known) else farthest
    weights = np.ones(len(features)) if weights is None else weights
    order: list[int] = []
    left = np.ones(len(features), bool)
    for _ in range(min(CHOSEN, len(features))):
        check()
        gains = weights @ np.maximum(nearest[:, None] - between, 0)
        best = int(np.argmax(np.where(left, gains, -1)))
        order.append(best)
        left[best] = False
        nearest = np.minimum(nearest, between[:, best])
    rest = np.flatnonzero(left)
    return order + rest[np.argsort(-nearest[rest], kind="stable")].tolist()
