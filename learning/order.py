"""Order videos by how much their annotation would teach.

Uncertainty alone comes to videos that are alike one after the other, so each video belongs to the cluster of what it
resembles most: an annotated video, or an example of those that resemble none. The clusters of which fewest are
annotated come first, and in each the least certain video.

The examples are the greedy solution of the facility location problem: each next one brings the sum of all videos'
distances to the nearest annotated video or example down most (Wei, Iyer, Bilmes, "Submodularity in Data Subset
Selection and Active Learning", ICML 2015). What other orders brought: benchmarks/teaching.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from learning.blocks import columns, read
from learning.dataset import FrameFeatures
from progress import UNTOLD, Progress

SUMMARY_FRAMES = 32  # of a video, spread evenly
# Examples of what isn't annotated: one of three videos, and at most as many as are annotated between two trainings.
MAX_EXAMPLES, SHARE_OF_EXAMPLES = 10, 1 / 3
LEAST_SIZE = 1e-6  # of a block that differs between videos

Summary = list[np.ndarray]


def summary(sequence: FrameFeatures, layout: dict[str, int]) -> Summary:
    """A video in a few vectors: the mean and the standard deviation of each block over some of its frames.

    Args:
        sequence: [num_frames, dim], with at least one frame.
        layout: block -> its dimensions, in their order in a row.
    """
    step = max(1, sequence.shape[0] // SUMMARY_FRAMES)
    values = read(sequence, layout, slice((sequence.shape[0] - 1) % step // 2, None, step))
    blocks = [values[:, where] for where in columns(layout).values()]
    return [vector for block in blocks for vector in (block.mean(axis=0), block.std(axis=0))]


def comparable(summaries: Sequence[Summary]) -> np.ndarray:
    """Summaries side by side, [num_videos, dim] float32, scaled so that each of their vectors varies equally between
    videos."""
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


def examples(
    features: np.ndarray,
    known: np.ndarray,
    count: int | None = None,
    weights: np.ndarray | None = None,
    progress: Progress = UNTOLD,
) -> list[int]:
    """Chooses videos that resemble many others and none that is annotated.

    Args:
        features: [num_videos, dim], of videos without annotations.
        known: [num_known, dim], of annotated ones.
        count: of videos to choose, at most; None: `MAX_EXAMPLES`, of few videos fewer.
        weights: [num_videos], how much each counts; None: all the same.
        progress: told the share done, in [0, 1].

    Returns:
        Their indices; those that resemble most come first.
    """
    if not len(features):
        return []
    if count is None:
        count = min(MAX_EXAMPLES, math.ceil(SHARE_OF_EXAMPLES * len(features)))
    between = distances(features, features)
    farthest = between.max(axis=1) + LEAST_SIZE  # without an annotated video, any one is better than none
    nearest = distances(features, known).min(axis=1) if len(known) else farthest
    weights = np.ones(len(features)) if weights is None else weights
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        gains = weights @ np.maximum(nearest[:, None] - between, 0)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        nearest = np.minimum(nearest, between[:, chosen[-1]])
        progress(len(chosen) / count)
    return chosen


def teaching_order(uncertainty: np.ndarray, clusters: np.ndarray, annotated: np.ndarray) -> list[int]:
    """Orders videos: those whose annotation would teach most come first.

    Args:
        uncertainty: [num_videos].
        clusters: [num_videos], the index of each video's cluster.
        annotated: [num_clusters], how many videos of each cluster are annotated.

    Returns:
        The indices of all videos. Each next one is of the cluster of which fewest are annotated or stand before it, and
        the least certain one of these.
    """
    order = np.argsort(-uncertainty, kind="stable")
    passed = annotated.astype(int)
    rounds = np.empty(len(uncertainty), int)
    for index in order:
        rounds[index] = passed[clusters[index]]
        passed[clusters[index]] += 1
    return order[np.argsort(rounds[order], kind="stable")].tolist()
