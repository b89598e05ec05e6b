"""A linear probe of every label on frame features, in closed form, and its scores on videos that it has not seen.

Ridge regression generalises better from a handful of videos than a network of thousands of inputs trained by gradient
descent, costs one factorisation, and forgets what is left out. What helps differs from project to project and from
label to label: how a thing looks, where it is, how it moves or changes; with the video's own mean or without. So the
probe is a mixture of one regression for each of `BLOCKS`. A label's mixture weights follow from how well each of them
predicts it on videos that were left out. Another project's probe can be one of them.

What is said of the probe (calibration, thresholds) is learnt from such held-out scores too (cross-fitting; Wolpert,
"Stacked generalization", 1992).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from learning.blocks import (
    BLOCKS,
    FACTORS,
    FILTERS,
    PENALTIES,
    PENALTY,
    PRIORS,
    SCALED,
    Part,
    columns,
    read,
    rows_of,
)
from learning.dataset import READ, Dataset, FrameFeatures
from progress import UNTOLD, Progress

MAX_FOLDS = 10  # beyond it a probe of nine tenths of the videos is as good as one of all but one
PARTS = 4  # of the only video that shows a label, each with as many of its frames
# What a probe that has seen other parts of a video says of it is this many times what it says of another video.
SEEN_SCORE_FACTOR = 0.4
# A block's share is its correlation with the label on held-out videos to this power: between the best block alone
# (infinite), which a handful of videos often get wrong, and the mean of all (0), which dilutes it.
SHARPNESS = 12
LEAST_CORRELATION = 0.01
FEW = 2  # videos that show a label: too few to choose a penalty by
STARTED_FROM = "started from"  # the name of the probe to start from, beside those of `BLOCKS`
LEAST_DEVIATION = 1e-3  # of a number; smaller ones are noise
LEAST_SIZE = 0.01  # of a block's mean squared length, which is about 1 where its rows differ at all
NOTHING = 1e-6


class Probe(NamedTuple):
    """What takes features to scores.

    Attributes:
        weights: signal -> [num_filters, width of the signal, num_labels].
        mean: [width, num_labels], that the video's mean is multiplied by.
        bias: [num_labels].
    """

    weights: dict[str, np.ndarray]
    mean: np.ndarray
    bias: np.ndarray

    @property
    def layout(self) -> dict[str, int]:
        """Of the features: name -> width of each part of a row."""
        return {name: weights.shape[1] for name, weights in self.weights.items()}

    def scores(self, sequence: FrameFeatures, frame_rate: float, progress: Progress = UNTOLD) -> np.ndarray:
        """Scores [num_frames, num_labels] of a video: around 0 where a label is off, 1 where it is on. The video is
        read once, in pieces; `progress` is told the share that was read."""
        layout, total = self.layout, np.zeros(len(self.mean))
        where = columns(layout)
        filtered: dict[str, list[np.ndarray]] = {name: [] for name in layout}
        flat = {
            name: weights.transpose(1, 0, 2).reshape(weights.shape[1], -1) for name, weights in self.weights.items()
        }
        for start in range(0, sequence.shape[0], READ):
            values = read(sequence, layout, slice(start, start + READ))
            total += values.sum(axis=0, dtype=np.float64)
            for name in layout:  # the weights first: then there is little to filter
                filtered[name].append(values[:, where[name]] @ flat[name])
            progress(min(1.0, (start + READ) / sequence.shape[0]))
        result = self.bias + (total / sequence.shape[0]).astype(np.float32) @ self.mean
        result = np.tile(result.astype(np.float32), (sequence.shape[0], 1))
        for name, parts in filtered.items():
            values = np.concatenate(parts).reshape(len(result), len(FILTERS[name]), -1)
            for number, one in enumerate(FILTERS[name]):
                result += one(values[:, number], frame_rate)
        return result


class HeldOut(NamedTuple):
    """Scores of the sampled frames by probes that haven't seen their video.

    Attributes:
        scores, labels: [num_rows, num_labels]; labels in {0, 1}.
        weights: [num_rows], how many annotated frames each stands for.
        numbers: [num_rows], of their videos.
        unseen: [num_rows, num_labels], the scores that a new video would get: of these, F1 of labels at random is
            chance. For `scores`, the mean that is subtracted holds the video left out, so that they tell its share of a
            label. With them, calibration and thresholds of a handful of videos give better labels.
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    numbers: np.ndarray
    unseen: np.ndarray


class Fit(NamedTuple):
    """A fitted probe.

    Attributes:
        probe: of all videos.
        held_out: of the sampled frames.
        mixture_weights: [num_labels] of each block that the videos have, and of the probe to start from; those of a
            label add up to 1.
        without: of each fold of videos, the probe of the others; a video's fold is its number modulo their count.
    """

    probe: Probe
    held_out: HeldOut
    mixture_weights: dict[str, np.ndarray]
    without: list[Probe]


def fit_probe(
    data: Dataset, layout: dict[str, int], progress: Progress, keep_without: int = 2, start: Probe | None = None
) -> Fit:
    """Fits the probe to the frames that `Dataset.sample` chooses, and to all but each fold of them.

    Args:
        data: what is annotated; each video is read once.
        layout: name -> width of each part of a row.
        progress: told the share done, in [0, 1].
        keep_without: the number of videos from which on `Fit.without` is made.
        start: of another project, for the same layout and labels; 0 everywhere for a label that it doesn't know.

    Raises:
        ValueError: features that aren't finite.
    """
    rows = _Rows(data, layout, progress.part(0.0, 0.6))
    ridges: dict[str, _Ridge] = {}
    for done, (name, parts) in enumerate(BLOCKS.items(), start=1):
        seen = [rows.seen(part) for part in parts if part.signal in rows.signals]
        if seen:
            ridges[name] = _Ridge(seen, PENALTIES.get(name, PENALTY), rows)
        progress(0.6 + 0.4 * done / len(BLOCKS))
    held_out = {name: ridge.held_out for name, ridge in ridges.items()}
    if start is not None:  # in the place of a block's regression: it has seen none of the rows
        held_out[STARTED_FROM] = np.stack([rows.scores(start)] * 2)
    mixture_weights, gains, bias, (scores, unseen) = _mixture(held_out, rows)

    def mixed(number: int) -> Probe:
        probes = [ridge.probe(ridge.duals[number], layout) for ridge in ridges.values()]
        gained = list(zip(gains, probes if start is None else [*probes, start], strict=True))
        return Probe(
            {name: sum(gain * probe.weights[name] for gain, probe in gained) for name in layout},
            sum(gain * probe.mean for gain, probe in gained),
            bias + sum(gain * (probe.bias - rows.base) for gain, probe in gained),
        )

    return Fit(
        mixed(0),
        HeldOut(scores, rows.truth, rows.stands_for, rows.numbers, unseen),
        mixture_weights,
        [mixed(1 + fold) for fold in range(rows.num_video_folds)] if data.num_videos >= keep_without else [],
    )


class _Seen(NamedTuple):
    """A part of a block, as a regression sees it: of the mean length 1."""

    part: Part
    rows: np.ndarray  # [num_filters, num_rows, width of the signal]
    mean: np.ndarray  # [num_filters, width of the signal], that was taken out
    scale: np.ndarray  # [num_filters, width of the signal]: a number of these rows in one of the signal
    kernel: np.ndarray  # [num_rows, num_rows], weighted


class _Rows:
    """The sampled frames, filtered, with their labels, and what of them is left out in turn."""

    def __init__(self, data: Dataset, layout: dict[str, int], progress: Progress) -> None:
        sampled = data.sample()
        pairs = list(zip(data.examples, sampled, strict=True))
        videos = [
            rows_of(example.features, frames, layout, example.frame_rate, step)
            for step, (example, (frames, _)) in progress.over(pairs)
        ]
        own = np.repeat(np.arange(len(sampled)), [len(frames) for frames, _ in sampled])
        signals = {name: np.concatenate([filtered[name] for filtered, _ in videos], axis=1) for name in layout}
        # Silent videos have numbers for their sound, too: zeros.
        self.signals = {name: values for name, values in signals.items() if values.any()} or signals
        self.where = columns(layout)
        self.means = np.stack([mean for _, mean in videos])[own]
        self.truth = np.concatenate([example.labels[frames] for example, (frames, _) in pairs]).astype(np.float32)
        annotator = np.array([example.weight for example in data.examples])[own]
        self.weight = (annotator / annotator.mean()).astype(np.float32)
        self.base = self.weight @ self.truth / self.weight.sum()  # [num_labels], of the truth
        self.stands_for = annotator * np.concatenate([weight for _, weight in sampled])
        self.numbers = data.numbers[own]
        self.shown = data.shown
        self.num_video_folds = min(data.num_videos, MAX_FOLDS) if data.num_videos > 1 else 0
        self.folds = self._folds(np.concatenate([frames for frames, _ in sampled]))
        # [num_rows, num_labels]: how much a held-out prediction counts, 0 where there is none.
        self.known = np.zeros(self.truth.shape, np.float32)
        for left_out, labels in self.folds:
            self.known[np.ix_(left_out, labels)] = self.weight[left_out, None]
        self._seen: dict[Part, _Seen] = {}

    def _folds(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """What is left out in turn: videos; for a label that only one video shows, parts of it.

        Args:
            frames: [num_rows], the rows' frames.

        Returns:
            The rows and the labels whose held-out scores they give; of two folds with a row the later one counts.
        """
        every = np.arange(self.truth.shape[1])
        count = self.num_video_folds
        folds = [(np.flatnonzero(self.numbers % count == fold), every) for fold in range(count)]
        # Without its only video, nothing is known of a label: parts of that video tell at least what it rests on.
        for label in np.flatnonzero(self.shown.sum(axis=0) == 1):
            own = self.numbers == self.shown[:, label].argmax()
            positive = np.sort(frames[own & (self.truth[:, label] > 0)])
            cuts = [int(part[0]) for part in np.array_split(positive, PARTS)[1:] if len(part)]
            parts = [
                np.flatnonzero(own & (frames >= low) & (frames < end)) for low, end in pairwise([0, *cuts, np.inf])
            ]
            folds += [(rows, np.array([label])) for rows in parts if len(rows)]
        return folds

    def scores(self, probe: Probe) -> np.ndarray:
        """A probe's scores of the rows, [num_rows, num_labels]."""
        scores = probe.bias + self.means @ probe.mean
        for name, values in self.signals.items():
            scores += (values @ probe.weights[name]).sum(axis=0)
        return scores

    def correlation(self, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The correlation of held-out predictions [..., num_rows, num_labels] with the labels, and the predictions'
        deviation, both [..., num_labels]."""
        count = np.maximum(self.known.sum(axis=0), NOTHING)
        x, y = _without_mean(predictions, self.known), _without_mean(self.truth, self.known)
        deviation = np.sqrt((x * x).sum(axis=-2) / count)
        both = deviation * np.sqrt((y * y).sum(axis=0) / count)
        return (x * y).sum(axis=-2) / (count * np.maximum(both, NOTHING)), deviation

    def seen(self, part: Part) -> _Seen:
        """A part of a block, with its kernel; made once."""
        if part not in self._seen:
            weight, root = self.weight / self.weight.sum(), np.sqrt(self.weight)[:, None]
            rows = self.signals[part.signal][list(part.filters)]
            if part.mean_subtracted:  # a smoothed mean is the mean
                rows = rows - self.means[:, self.where[part.signal]]
            mean = weight @ rows
            rows = rows - mean[:, None]
            scale = np.ones_like(mean)
            if part.signal in SCALED:
                scale = 1 / (np.sqrt(weight @ rows**2) + LEAST_DEVIATION)
            scale /= np.sqrt(max(float((weight @ rows**2 * scale**2).sum()), NOTHING))
            rows *= scale[:, None]
            self._seen[part] = _Seen(part, rows, mean, scale, sum((one * root) @ (one * root).T for one in rows))
        return self._seen[part]


class _Ridge:
    """A block's regression, in its dual form.

    Of `FACTORS` of the penalty, the one counts whose held-out predictions have the highest correlation with the labels,
    in their mean; a label of few videos keeps the usual penalty.

    Attributes:
        held_out: [2, num_rows, num_labels], its predictions of each fold by the others: with the mean of all rows
            subtracted, and with that of the others, as of a new video.
        duals: [1 + num_video_folds, num_rows, num_labels], of all rows, then of all but each fold of videos.
    """

    def __init__(self, seen: list[_Seen], penalty: float, rows: _Rows) -> None:
        self._seen, self._rows = seen, rows
        kernel = sum(one.kernel for one in seen)
        size = max(float(np.trace(kernel)) / len(kernel), NOTHING)
        several = rows.shown.sum(axis=0) > FEW
        factors = FACTORS if several.any() else FACTORS[:1]
        solutions = [_solve(kernel, factor * penalty * size, rows) for factor in factors]
        self.held_out, self.duals = solutions[0]
        best = max(solutions, key=lambda solution: rows.correlation(solution[0][0])[0].mean())
        self.held_out[..., several] = best[0][..., several]
        self.duals[..., several] = best[1][..., several]
        if size < LEAST_SIZE:  # equal in all rows, it tells nothing: of its predictions only rounding would be left
            self.held_out[:] = rows.base

    def probe(self, dual: np.ndarray, layout: dict[str, int]) -> Probe:
        """The probe of one of `duals`, by its weights for each number of a row."""
        num_labels, bias = dual.shape[1], self._rows.base.copy()
        weights = {n: np.zeros((len(FILTERS[n]), width, num_labels), np.float32) for n, width in layout.items()}
        mean = np.zeros((sum(layout.values()), num_labels), np.float32)
        for part, rows, taken_out, scale, _ in self._seen:
            own = (rows.transpose(0, 2, 1) @ dual) * scale[..., None]
            bias -= np.einsum("fw,fwl->l", taken_out, own)
            weights[part.signal][list(part.filters)] += own
            if part.mean_subtracted:
                mean[self._rows.where[part.signal]] -= own.sum(axis=0)
        return Probe(weights, mean, bias)


def _solve(kernel: np.ndarray, penalty: float, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """The `held_out` and `duals` of a `_Ridge`, in closed form."""
    root = np.sqrt(rows.weight)[:, None]
    inverse = _inverse(kernel + penalty * np.eye(len(kernel), dtype=np.float32))
    dual = inverse @ ((rows.truth - rows.base) * root)
    held_out, duals = np.tile(rows.base, (2, len(dual), 1)), [dual * root]
    for number, (left_out, labels) in enumerate(rows.folds):
        cells = np.ix_(left_out, labels)
        block = inverse[np.ix_(left_out, left_out)]
        own = np.linalg.solve(block, dual[cells])
        held_out[0][cells] = rows.truth[cells] - own / root[left_out]
        others = rows.weight.sum() - rows.weight[left_out].sum()
        if others > NOTHING:  # the others' intercept is fitted, and the mean of all labels put in its place
            block = block - root[left_out] @ root[left_out].T / (penalty * rows.weight.sum())
            higher = rows.weight[left_out] @ (rows.truth[cells] - rows.base[labels]) / others
            unseen = rows.truth[cells] - np.linalg.solve(block, dual[cells]) / root[left_out]
            held_out[1][cells] = unseen + higher
        if number < rows.num_video_folds:
            duals.append((dual - inverse[:, left_out] @ own) * root)
    return held_out, np.stack(duals)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix, at half the cost of a general one's."""
    factor, failed = lapack.spotrf(matrix.astype(np.float32), lower=True)
    lower, _ = lapack.spotri(factor, lower=True)
    if failed:
        raise ValueError("features contain NaN or infinity")
    return np.tril(lower) + np.tril(lower, -1).T


def _mixture(
    held_out: dict[str, np.ndarray], rows: _Rows
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Mixes held-out predictions [2, num_rows, num_labels] of each block and of the probe to start from.

    Each counts in units of its deviation, by the label's mixture weights; a regression of the labels on the mixture
    brings it to their scale. One video says little of what predicts a label, so labels lend each other what they found:
    of the mixture weights of a label that n videos show, one n-th is that of all labels together.

    Returns:
        The mixture weights; what each prediction less the labels' mean is multiplied by, [num_predictions, num_labels];
        what is added to their sum, [num_labels]; and held-out scores, [2, num_rows, num_labels].
    """
    predictions = np.stack([values[0] for values in held_out.values()])
    correlation, deviation = rows.correlation(predictions)
    priors = np.array([PRIORS.get(name, 1.0) for name in held_out])
    strengths = np.maximum(correlation, LEAST_CORRELATION) ** SHARPNESS * priors[:, None]
    num_blocks = len(held_out) - (STARTED_FROM in held_out)
    blocks, start = strengths[:num_blocks], strengths[num_blocks:]
    videos = rows.shown.sum(axis=0)
    lent, pooled = 1 / np.maximum(videos, 1), blocks @ np.maximum(videos, NOTHING)
    mixture = (1 - lent) * blocks / blocks.sum(axis=0) + lent * (pooled / pooled.sum())[:, None]
    # A probe to start from has seen no part of the only video that shows a label.
    blocks = mixture * blocks.sum(axis=0) * np.where(videos == 1, SEEN_SCORE_FACTOR**SHARPNESS, 1)
    mixture_weights = np.concatenate([blocks, start])
    varies = deviation > NOTHING  # not where all rows are equal, nor a start's for labels that it doesn't know
    mixture_weights = np.where(varies | ~varies.any(axis=0), mixture_weights, 0)
    mixture_weights /= mixture_weights.sum(axis=0)
    gains = mixture_weights / np.maximum(deviation, NOTHING)
    mixed = (gains[:, None] * (predictions - rows.base)).sum(axis=0)
    x, y = _without_mean(mixed, rows.known), _without_mean(rows.truth, rows.known)
    slope = (x * y).sum(axis=0) / np.maximum((x * x).sum(axis=0), NOTHING)
    # Where nothing held out says that it helps, the mean of the predictions, which are at the labels' scale.
    helps = slope > 0
    gains = gains * np.where(helps, slope, 1 / gains.sum(axis=0))
    count = np.maximum(rows.known.sum(axis=0), NOTHING)
    bias = np.where(helps, ((rows.truth - slope * mixed) * rows.known).sum(axis=0) / count, rows.base)
    scores = bias + sum(gain * (values - rows.base) for gain, values in zip(gains, held_out.values(), strict=True))
    if len(rows.shown) > 1:  # of one video alone, nothing says how high scores are where a label is off
        own = mixture_weights[:num_blocks].sum(axis=0)
        scores = np.where(videos == 1, (SEEN_SCORE_FACTOR * own + 1 - own) * scores, scores)
    gains, bias, scores = (values.astype(np.float32) for values in (gains, bias, scores))
    return dict(zip(held_out, mixture_weights, strict=True)), gains, bias, scores


def _without_mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Columns of [..., num_rows, num_labels] less their weighted means, times the square root of the weight, so that
    their products are weighted."""
    mean = (values * known).sum(axis=-2, keepdims=True) / np.maximum(known.sum(axis=0), NOTHING)
    return (values - mean) * np.sqrt(known)
