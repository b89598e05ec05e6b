"""A linear readout of every label from frame features, in closed form, and its scores on videos it has not seen.

Ridge regression generalises better from a handful of videos than a network of 1280 inputs trained by gradient descent,
costs one factorisation, and forgets what is left out. What helps differs from project to project and from label to
label: where a camera stands still, a video's own mean is the very state that fills it; where scenes differ, it must be
taken out. Some labels are how a thing looks, others how it moves or changes. So a readout is a mixture of ridge
regressions on different *views* (which parts, with how much of the mean), and each label's weights follow from how well
each view predicts it on videos that were left out.

A network on top must not learn from scores on the videos that the readout was fitted to, which are better than they
will be: so each video's scores come from readouts fitted to the others (cross-fitting; Wolpert, "Stacked
generalization", 1992).
"""

import hashlib
from collections.abc import Sequence as ListOf
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learning.temporal import FEATURE_FILTERS, MOTION_FILTERS, Sequence, blocks, rows_of

MAX_ROWS = 1500  # frames that readouts are fitted to: neighbours say the same, and the cost grows with the cube
MAX_FOLDS = 10  # beyond it a readout of nine tenths of the videos is as good as one of all but one
PARTS = 4  # of the only video that shows a label, each with as many of its frames
# What a readout that has seen other parts of a video says of it is this many times what it says of another video.
SEEN_SCORE_FACTOR = 0.4
# A view's share is its correlation with the label on held-out videos to this power: between the best view alone
# (infinite), which a handful of videos often get wrong, and the mean of all (0), which dilutes it.
SHARPNESS = 8
SHRINKAGE = 0.3  # of a label's correlations towards the mean of the project's labels: the same often tells them all
# How many times as much as any other view the first one, appearance, counts beforehand: most labels are things.
APPEARANCE_PRIOR = 10.0
KEY_FRAMES = 8  # that tell two videos apart
LEAST_CORRELATION = 0.01
LEAST_MOTION = 1e-3  # deviation of a motion number; smaller ones are noise
NOTHING = 1e-6


class View(NamedTuple):
    """Which parts a ridge regression sees, and how.

    Attributes:
        appearance, change, motion: weights of the parts; 0 leaves one out.
        centring: how much of a video's own mean is subtracted, in [0, 1].
        penalty: of the ridge, in squared lengths of a mean row.
    """

    appearance: float = 0.0
    change: float = 0.0
    motion: float = 0.0
    centring: float = 0.0
    penalty: float = 2.0


VIEWS = (
    View(appearance=1, centring=1),
    View(appearance=1, centring=0.5),
    View(appearance=1, centring=0),
    View(motion=1, centring=1, penalty=0.3),
    View(motion=1, centring=0, penalty=0.3),
    View(change=1),
    View(appearance=1, motion=0.7, centring=1),
    View(appearance=1, motion=0.7, centring=0),
    View(appearance=1, change=0.7, centring=1),
    View(appearance=1, change=0.7, centring=0),
    View(change=1, motion=1),
)


class Weights(NamedTuple):
    """A readout: a video's scores are `scores(sequence, weights)`.

    Attributes:
        features: [num_labels, len(FEATURE_FILTERS), feature_dim], for each filter.
        motion: [num_labels, len(MOTION_FILTERS), motion_size].
        mean: [num_labels, feature_dim + motion_size], that the video's mean is multiplied by.
        bias: [num_labels].
    """

    features: Tensor
    motion: Tensor
    mean: Tensor
    bias: Tensor


class Fit(NamedTuple):
    """A fitted readout.

    Attributes:
        weights: of the readout of all videos.
        held_out_scores: one [num_frames, num_labels] per video, as readouts without that video give them.
        numbers: of the videos; the same video (annotated twice) has one number.
        shares: [num_labels, number of views], of each view in a label's mixture.
        views: these views.
    """

    weights: Weights
    held_out_scores: list[np.ndarray]
    numbers: list[int]
    shares: Tensor
    views: list[View]


def scores(sequence: Sequence, weights: Weights) -> np.ndarray:
    """Scores [num_frames, num_labels] of a video: around 0 where a label is off, 1 where it is on."""
    num_labels, _, feature_dim = weights.features.shape
    by_feature = weights.features.flatten(0, 1).numpy().T  # the weights first: then there is little to filter
    by_motion = weights.motion.flatten(0, 1).numpy().T
    raw = np.empty((sequence.shape[0], by_feature.shape[1] + by_motion.shape[1]), np.float32)
    total, start = np.zeros(sequence.shape[1]), 0
    for block in blocks(sequence):
        end = start + len(block)
        raw[start:end, : by_feature.shape[1]] = block[:, :feature_dim] @ by_feature
        raw[start:end, by_feature.shape[1] :] = block[:, feature_dim:] @ by_motion
        total += block.sum(axis=0, dtype=np.float64)
        start = end
    mean = (total / max(start, 1)).astype(np.float32)
    result = np.tile(weights.bias.numpy() + weights.mean.numpy() @ mean, (start, 1))
    by_filter = np.split(raw, [by_feature.shape[1]], axis=1)
    for filters, part in zip((FEATURE_FILTERS, MOTION_FILTERS), by_filter, strict=True):
        part = part.reshape(start, num_labels, len(filters))
        for number, one in enumerate(filters):
            result += one(part[:, :, number])
    return result


def fit_readout(
    videos: ListOf[Sequence],
    labels: ListOf[np.ndarray],
    weights: ListOf[float],
    masks: ListOf[np.ndarray | None],
    motion_size: int,
) -> Fit:
    """Fit the readout to all videos, and to all but each fold for the held-out scores.

    Args:
        videos: features [num_frames, feature_dim + motion_size] of each; the same video may be there twice (several
            annotators). They are read in blocks, twice.
        labels: {0, 1}, [num_frames, num_labels] of each.
        weights: a positive number for each.
        masks: [num_frames] bool for each, False where a frame counts for nothing; None where all count.
        motion_size: how many of the numbers are motion.
    """
    data = _Data(videos, labels, weights, masks, motion_size)
    # Without motion, what would mix it in is there already.
    views = [view for view in VIEWS if motion_size or not view.motion]
    fits = [_ViewFit(view, data) for view in views]
    shares = _shares(data, fits)
    everything, without = _mixture(data, fits, shares)
    held_out = []
    for number, video in enumerate(videos):
        own = [(fold, one) for fold, one in zip(data.folds, without, strict=True) if number in fold.frames]
        held_out.append(_held_out_scores(video, number, labels[number].shape[1], own))
    if data.several_videos:  # of one alone, nothing says how high scores are in a video where a label is off
        for values in held_out:
            values[:, data.shown_once] *= SEEN_SCORE_FACTOR
    return Fit(everything, held_out, data.numbers, shares, views)


def _held_out_scores(video: Sequence, number: int, num_labels: int, own: list[tuple["_Fold", Weights]]) -> np.ndarray:
    """[num_frames, num_labels]: each label's by the readouts without its frames; the video is read once."""
    result = np.zeros((video.shape[0], num_labels), np.float32)
    if own:  # or none of its frames counts
        columns = scores(video, Weights(*map(torch.cat, zip(*(weights for _, weights in own), strict=True))))
        edges = np.cumsum([len(fold.labels) for fold, _ in own])[:-1]
        for (fold, _), part in zip(own, np.split(columns, edges, axis=1), strict=True):
            frames = fold.frames[number]
            result[frames, fold.labels] = part[frames]
    return result


def content_key(video: Sequence) -> int:
    """Tells videos apart: a hash of the length and of some frames."""
    num_frames = video.shape[0]
    step = max(1, num_frames // KEY_FRAMES)
    frames = [np.asarray(video[i : i + 1], np.float16).tobytes() for i in range(0, num_frames, step)]
    return int.from_bytes(hashlib.blake2b(b"".join(frames) + str(num_frames).encode(), digest_size=7).digest(), "big")


class _Fold(NamedTuple):
    """What is left out at once.

    Attributes:
        rows: of `_Data`.
        frames: video -> its frames that are left out.
        labels: numbers of those whose held-out scores it gives; of two folds with a frame the later one counts.
        seen_elsewhere: bool, whether other frames show each of these.
    """

    rows: Tensor
    frames: dict[int, slice]
    labels: list[int]
    seen_elsewhere: Tensor


class _Data:
    """The frames that are fitted to, filtered, with their labels and folds."""

    def __init__(
        self,
        videos: ListOf[Sequence],
        labels: ListOf[np.ndarray],
        weights: ListOf[float],
        masks: ListOf[np.ndarray | None],
        motion_size: int,
    ) -> None:
        counted = [
            np.arange(len(target)) if mask is None else np.flatnonzero(mask)
            for target, mask in zip(labels, masks, strict=True)
        ]
        stride = max(1, -(-sum(map(len, counted)) // MAX_ROWS))
        frames = [indices[len(indices) % stride // 2 :: stride] for indices in counted]
        rows = [rows_of(video, index, motion_size) for video, index in zip(videos, frames, strict=True)]
        if not all(np.isfinite(row.mean).all() for row in rows):
            raise ValueError("features contain NaN or infinity")
        self.features = np.concatenate([row.features for row in rows], axis=1)
        self.motion = np.concatenate([row.motion for row in rows], axis=1)
        sizes = [len(index) for index in frames]
        self.means = np.repeat(np.stack([row.mean for row in rows]), sizes, axis=0)
        self.truth = torch.from_numpy(
            np.concatenate([target[index] for target, index in zip(labels, frames, strict=True)]).astype(np.float32)
        )
        self.weight = torch.from_numpy(np.repeat(np.float32(weights), sizes) / np.float32(np.mean(weights)))
        self.feature_dim, self.motion_size = self.features.shape[2], motion_size
        known: dict[int, int] = {}
        self.numbers = [known.setdefault(content_key(video), len(known)) for video in videos]
        self.number_of_row, self.frame_of_row = np.repeat(self.numbers, sizes), np.concatenate(frames)
        truth = self.truth.numpy() > 0
        shown = np.stack([truth[self.number_of_row == number].any(axis=0) for number in range(len(known))])
        self.shown_once = shown.sum(axis=0) == 1  # [num_labels]
        self.folds: list[_Fold] = []
        self.several_videos = len(known) > 1
        if self.several_videos:
            for fold in range(min(len(known), MAX_FOLDS)):
                self._leave_out(list(range(fold, len(known), MAX_FOLDS)), list(range(len(self.shown_once))))
        # Without its only video, nothing is known of a label: parts of that video tell at least what it rests on.
        for label in np.flatnonzero(self.shown_once):
            number = int(shown[:, label].argmax())
            positive = np.sort(self.frame_of_row[(self.number_of_row == number) & truth[:, label]])
            cuts = [int(part[0]) for part in np.array_split(positive, PARTS)[1:] if len(part)]
            for first, end in pairwise([0, *cuts, None]):
                self._leave_out([number], [int(label)], first, end)

    def _leave_out(self, numbers: list[int], labels: list[int], first: int = 0, end: int | None = None) -> None:
        """Adds a fold: these videos, of a single one perhaps a part."""
        inside = (self.frame_of_row >= first) & (self.frame_of_row < (np.inf if end is None else end))
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.number_of_row, numbers) & inside))
        if len(rows):
            frames = {video: slice(first, end) for video, number in enumerate(self.numbers) if number in numbers}
            seen_elsewhere = (self.truth.sum(dim=0) > self.truth[rows].sum(dim=0))[labels]
            self.folds.append(_Fold(rows, frames, labels, seen_elsewhere))


class _Part(NamedTuple):
    """A part of a view's rows.

    Attributes:
        kind: "features" or "motion".
        number: of the filter.
        mean: [dim], over all rows.
        scale: [dim].
        centring: how much of a video's own mean is subtracted.
    """

    kind: str
    number: int
    mean: np.ndarray
    scale: np.ndarray
    centring: float


class _ViewFit:
    """A view's ridge regression in its dual form, and its predictions of each fold by the other folds."""

    def __init__(self, view: View, data: _Data) -> None:
        self.parts: list[_Part] = []
        columns = []
        for kind, number, weight, centring in (
            ("features", 0, view.appearance, view.centring),
            ("features", 1, view.change, 0.0),  # a derivative's mean is nothing
            ("features", 2, view.change, 0.0),
            ("motion", 0, view.motion / 2, view.centring),
            ("motion", 1, view.motion, view.centring),
        ):
            if weight and (kind == "features" or data.motion_size):
                part, block = _scaled(data, kind, number, weight, centring)
                self.parts.append(part)
                columns.append(block)
        root = data.weight.sqrt()[:, None]
        self.rows = torch.from_numpy(np.concatenate(columns, axis=1)) * root
        self.mean = (data.truth * data.weight[:, None]).sum(dim=0) / data.weight.sum()
        kernel = self.rows @ self.rows.T
        kernel.diagonal().add_(view.penalty * max(kernel.trace().item() / len(kernel), NOTHING))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
        dual = inverse @ ((data.truth - self.mean) * root)
        self.held_out = data.truth.clone()  # [num_rows, num_labels]
        without = []
        for rows, _, labels, _ in data.folds:
            own = torch.linalg.solve(inverse[rows][:, rows], dual[rows][:, labels])  # what the others get wrong
            self.held_out[rows[:, None], labels] = data.truth[rows][:, labels] - own / root[rows]
            without.append(dual[:, labels] - inverse[:, rows] @ own)
        self.weights = self.rows.T @ dual  # [numbers of all parts, num_labels]
        self.weights_without = [self.rows.T @ part for part in without]  # [numbers of all parts, labels of the fold]


def _scaled(data: _Data, kind: str, number: int, weight: float, centring: float) -> tuple[_Part, np.ndarray]:
    """A part's rows [num_rows, dim]: centred, and of the mean length `weight`."""
    if kind == "features":
        values, own, unit = data.features[number], data.means[:, : data.feature_dim], np.float32(1)
    else:
        values, own = data.motion[number], data.means[:, data.feature_dim :]
        unit = 1 / (values.std(axis=0) + LEAST_MOTION)  # differences, and speeds: of different units
    mean = values.mean(axis=0)
    block = (values - mean - centring * (own - mean)) * unit
    factor = np.float32(weight / max(float(np.sqrt((block**2).sum(axis=1).mean())), NOTHING))
    return _Part(kind, number, mean, np.broadcast_to(unit * factor, mean.shape), centring), block * factor


def _shares(data: _Data, fits: list[_ViewFit]) -> Tensor:
    """[num_labels, num_views]: the views' shares in each label's mixture."""
    known = _known(data)
    correlation = torch.stack([_correlation(fit.held_out, data.truth, known) for fit in fits], dim=1)
    measured = data.truth.any(dim=0)
    if measured.any():
        correlation = (1 - SHRINKAGE) * correlation + SHRINKAGE * correlation[measured].mean(dim=0)
    sharpened = correlation.clamp(min=LEAST_CORRELATION) ** SHARPNESS
    # A single video can't say how much of it the label usually fills, on which taking out all of its mean relies.
    if data.several_videos:
        sharpened[:, 0] *= APPEARANCE_PRIOR
    return sharpened / sharpened.sum(dim=1, keepdim=True)


def _known(data: _Data) -> Tensor:
    """[num_rows, num_labels] bool: whether the other folds have an example of the label."""
    known = torch.zeros(data.truth.shape, dtype=torch.bool)
    for fold in data.folds:
        known[fold.rows[:, None], fold.labels] = fold.seen_elsewhere
    return known


def _correlation(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Pearson's, of each column."""
    count = mask.sum(dim=0).clamp(min=1)
    x, y = predicted * mask, truth * mask
    x, y = (x - x.sum(dim=0) / count) * mask, (y - y.sum(dim=0) / count) * mask
    return (x * y).sum(dim=0) / ((x * x).sum(dim=0) * (y * y).sum(dim=0)).clamp(min=NOTHING).sqrt()


def _mixture(data: _Data, fits: list[_ViewFit], shares: Tensor) -> tuple[Weights, list[Weights]]:
    """The views' mixture as one readout, of all videos and of all but each fold.

    Each view's scores count in units of their own deviation; the mixture is brought to the labels' scale by a
    regression of the labels on it.
    """
    known = _known(data)
    gains, offset = torch.zeros_like(shares), torch.zeros(len(shares))
    mixed = torch.zeros_like(data.truth)
    for view, fit in enumerate(fits):
        gains[:, view] = shares[:, view] / fit.held_out.std(dim=0).clamp(min=NOTHING)
        centre = fit.held_out.mean(dim=0)
        mixed += gains[:, view] * (fit.held_out - centre)
        offset += gains[:, view] * (fit.mean - centre)
    count = known.sum(dim=0).clamp(min=1)
    x, y = mixed * known, data.truth * known
    x_mean, y_mean = x.sum(dim=0) / count, y.sum(dim=0) / count
    centred = (x - x_mean) * known
    slope = (centred * y).sum(dim=0) / (centred**2).sum(dim=0).clamp(min=NOTHING)
    # Where nothing was held out to measure it by, the mean of the views' scores, which are at the labels' scale.
    unmeasured = (slope <= 0) | ~known.any(dim=0)
    slope = torch.where(unmeasured, 1 / gains.sum(dim=1), slope)
    x_mean = torch.where(unmeasured, torch.zeros(()), x_mean)
    y_mean = torch.where(unmeasured, data.truth.mean(dim=0), y_mean)
    gains = gains * slope[:, None]
    bias = y_mean + slope * (offset - x_mean)
    everything = [fit.weights for fit in fits]
    without = []
    for number, fold in enumerate(data.folds):
        own = [
            torch.where(fold.seen_elsewhere, fit.weights_without[number], fit.weights[:, fold.labels]) for fit in fits
        ]
        without.append(_collected(data, fits, own, gains[fold.labels], bias[fold.labels]))
    return _collected(data, fits, everything, gains, bias), without


def _collected(data: _Data, fits: list[_ViewFit], weights: list[Tensor], gains: Tensor, bias: Tensor) -> Weights:
    """One readout of all views' weights, each [numbers of its parts, num_labels]."""
    num_labels = len(gains)
    features = torch.zeros(num_labels, len(FEATURE_FILTERS), data.feature_dim)
    motion = torch.zeros(num_labels, len(MOTION_FILTERS), data.motion_size)
    mean = torch.zeros(num_labels, data.feature_dim + data.motion_size)
    bias = bias.clone()
    for view, (fit, own) in enumerate(zip(fits, weights, strict=True)):
        start = 0
        for part in fit.parts:
            size = len(part.mean)
            scaled = gains[:, view, None] * own[start : start + size].T * torch.from_numpy(part.scale.copy())
            start += size
            target = features if part.kind == "features" else motion
            target[:, part.number] += scaled
            columns = slice(0, data.feature_dim) if part.kind == "features" else slice(data.feature_dim, None)
            mean[:, columns] -= part.centring * scaled
            bias -= (1 - part.centring) * (scaled @ torch.from_numpy(part.mean))
    return Weights(features, motion, mean, bias)
