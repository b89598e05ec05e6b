"""A linear readout of every label from frame features, in closed form, and its scores on videos it has not seen.

Ridge regression of the labels on normalised features. From a handful of videos it generalises better than a
network of 1280 inputs trained by gradient descent, costs one matrix product and one Cholesky factorisation, and
forgets what is left out. A network on top must not learn from scores on the videos that the readout was fitted
to, which are better than they will be: so each video's scores come from a readout fitted to the others
(cross-fitting; Wolpert, "Stacked generalization", 1992).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PENALTY = 2.0  # of the ridge, in squared lengths of a mean frame; 0.25 to 3 do about as well, 10 and more worse
MAX_FOLDS = 10  # beyond it a readout of nine tenths of the videos is as good as one of all but one
# Scores on the only video with a label are seen ones, and so too high by about this factor.
SEEN_SCORE_FACTOR = 0.4


class Readout(NamedTuple):
    """A fitted readout.

    Attributes:
        weight: [num_labels, feature_dim]; a video's scores are `normalised(video) @ weight.T`.
        held_out_scores: one [num_frames, num_labels] per video, as a readout without that video gives them.
    """

    weight: Tensor
    held_out_scores: list[np.ndarray]


def normalised(video: np.ndarray) -> np.ndarray:
    """Features [num_frames, feature_dim] with their square root taken and their mean over time subtracted.

    The root tames the few channels that fire strongly in one scene (Tukey's ladder of powers); the mean is the
    scene, and without it what was learnt in one scene holds in the next.
    """
    rooted = np.sign(video) * np.sqrt(np.abs(video))
    return rooted - rooted.mean(axis=0)


def fit_readout(videos: list[np.ndarray], labels: list[np.ndarray], weights: list[float]) -> Readout:
    """Fit the readout to all videos, and to all but each fold for the held-out scores.

    Args:
        videos: features [num_frames, feature_dim] of each; the same video may be there twice (several annotators).
            They are normalised one at a time, so that hundreds of memory-mapped ones need no memory of their own.
        labels: {0, 1}, [num_frames, num_labels] of each.
        weights: a positive number for each.
    """
    folds = _folds(videos)
    num_folds = max(folds) + 1
    feature_dim, num_labels = videos[0].shape[1], labels[0].shape[1]
    gram = torch.zeros(num_folds, feature_dim, feature_dim)
    moment = torch.zeros(num_folds, feature_dim, num_labels)
    examples = torch.zeros(num_folds, num_labels, dtype=torch.int)
    for fold, video, target, weight in zip(folds, videos, labels, weights, strict=True):
        features, truth = torch.from_numpy(normalised(video)), torch.from_numpy(target)
        gram[fold].addmm_(features.T, features, alpha=weight)
        # Centred features make the labels' own mean irrelevant: there is no intercept to fit.
        moment[fold].addmm_(features.T, truth, alpha=weight)
        examples[fold] += truth.any(dim=0)
    total_gram, total_moment = gram.sum(dim=0), moment.sum(dim=0)
    num_frames = sum(weight * len(video) for video, weight in zip(videos, weights, strict=True))
    penalty = PENALTY * max(total_gram.trace().item() / num_frames, torch.finfo().tiny)
    weight = _solve(total_gram, total_moment, penalty)
    without = [_solve(total_gram - gram[f], total_moment - moment[f], penalty) for f in range(num_folds)]
    seen_elsewhere = [(examples.sum(dim=0) - examples[f] > 0) for f in range(num_folds)]
    used = [
        torch.where(seen_elsewhere[f][:, None], without[f], weight * SEEN_SCORE_FACTOR).numpy()
        for f in range(num_folds)
    ]
    return Readout(weight, [normalised(video) @ used[fold].T for fold, video in zip(folds, videos, strict=True)])


def _folds(videos: list[np.ndarray]) -> list[int]:
    """A fold for each video; the same features share a fold, or a readout would know the video it is tried on."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(hash(video.tobytes()), len(numbers)) % MAX_FOLDS for video in videos]


def _solve(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    """Ridge weights [num_labels, feature_dim]."""
    penalised = gram + penalty * torch.eye(len(gram))
    return torch.cholesky_solve(moment, torch.linalg.cholesky(penalised)).T.contiguous()
