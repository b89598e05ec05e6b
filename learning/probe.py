"""A linear probe of every label on frame features, in closed form, and its scores on videos that it has not seen.

Ridge regression generalises better from a handful of videos than a network of thousands of inputs trained by gradient
descent, costs one factorisation, and forgets what is left out. What helps differs from project to project and from
label to label: how a thing looks, where it is, how it moves or changes; with the video's own mean or without. So the
probe is a mixture of one regression for each of `BLOCKS`, and each label's weights follow from how well each predicts
it on videos that were left out. Another project's probe can be one of them.

What is said of the probe (calibration, thresholds) is learnt from such held-out scores too (cross-fitting; Wolpert,
"Stacked generalization", 1992).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from learning.blocks import BLOCKS, FILTERS, SCALED, Block, columns, read, rows_of
from learning.dataset import READ, Dataset, Features, Progress

MAX_FOLDS = 10  # beyond it a probe of nine tenths of the videos is as good as one of all but one
PARTS = 4  # of the only video that shows a label, each with as many of its frames
# What a probe that has seen other parts of a video says of it is this many times what it says of another video.
SEEN_SCORE_FACTOR = 0.4
# A block's share is its correlation with the label on held-out videos to this power: between the best block alone
# (infinite), which a handful of videos often get wrong, and the mean of all (0), which dilutes it.
SHARPNESS = 8
LEAST_CORRELATION = 0.01
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

    def scores(
        self, sequence: Features, layout: dict[str, int], frame_rate: float, progress: Progress | None = None
    ) -> np.ndarray:
        """Scores [num_frames, num_labels] of a video: around 0 where a label is off, 1 where it is on. The video is
        read once, in pieces; `progress` is told the share that was read."""
        where, total = columns(layout), np.zeros(len(self.mean))
        filtered: dict[str, list[np.ndarray]] = {name: [] for name in layout}
        flat = {
            name: weights.transpose(1, 0, 2).reshape(weights.shape[1], -1) for name, weights in self.weights.items()
        }
        for start in range(0, sequence.shape[0], READ):
            values = read(sequence, layout, start, start + READ)
            total += values.sum(axis=0, dtype=np.float64)
            for name in layout:  # the weights first: then there is little to filter
                filtered[name].append(values[:, where[name]] @ flat[name])
            if progress:
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
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    numbers: np.ndarray


class Fit(NamedTuple):
    """A fitted probe.

    Attributes:
        probe: of all videos.
        held_out: of the sampled frames.
        shares: [num_labels, len(BLOCKS) + 1], of each block in a label's mixture, and of the probe to start from.
        without: of each fold of videos, the probe of the others; a video's fold is its number modulo their count.
    """

    probe: Probe
    held_out: HeldOut
    shares: np.ndarray
    without: list[Probe]


class _Fold(NamedTuple):
    rows: np.ndarray  # that are left out
    labels: np.ndarray  # whose held-out scores it gives; of two folds with a row the later one counts


class _Part(NamedTuple):
    """What a block sees of one filter of one signal."""

    signal: str
    number: int  # of the filter
    rows: np.ndarray  # [num_rows, width of the signal], as the regression sees them
    mean: np.ndarray  # [width of the signal], over all rows
    scale: np.ndarray  # [width of the signal]: a number of these rows in one of the signal


class _Ridge(NamedTuple):
    """A block's regression in its dual form."""

    parts: list[_Part]
    dual: np.ndarray  # [num_rows, num_labels]
    dual_without: list[np.ndarray]  # of each fold, [num_rows, labels of the fold]
    held_out: np.ndarray  # [num_rows, num_labels]

    def fitted(self) -> np.ndarray:
        """What it adds to the labels' mean in the rows it was fitted to, [num_rows, num_labels]."""
        return sum(part.rows @ (part.rows.T @ self.dual) for part in self.parts)


class _Start(NamedTuple):
    """Another project's probe in the place of a block's regression: it has seen none of the rows."""

    held_out: np.ndarray  # [num_rows, num_labels]
    base: np.ndarray  # [num_labels], the labels' mean

    def fitted(self) -> np.ndarray:
        return self.held_out - self.base


def fit_probe(
    data: Dataset, layout: dict[str, int], progress: Progress, keep_without: int = 2, start: Probe | None = None
) -> Fit:
    """Fits the probe to the frames that `Dataset.sample` chooses, and to all but each fold of them.

    Args:
        data: what is annotated; each video is read once.
        layout: name -> width of each part of a row.
        progress: told the share done, in [0, 1].
        keep_without: `Fit.without` is made of so many videos or more.
        start: of another project, for the same layout and labels; 0 everywhere for a label that it doesn't know.

    Raises:
        ValueError: features that aren't finite.
    """
    rows = _Rows(data, layout, lambda share: progress(0.6 * share))
    folds = rows.folds()
    # Silent videos have numbers for their sound, too: zeros.
    silent = {name for name in layout if not rows.signals[name].any()}
    blocks = {}
    for name, block in BLOCKS.items():
        parts = tuple(part for part in block.parts if part[0] in layout and part[0] not in silent)
        if parts:
            blocks[name] = block._replace(parts=parts)
    ridges, kernels = [], _Kernels(rows)
    for block in blocks.values():
        ridges.append(_ridge(block, rows, kernels, folds))
        progress(0.6 + 0.4 * len(ridges) / len(blocks))
    known = np.zeros(rows.truth.shape, np.float32)  # how much each held-out prediction counts
    for fold in folds:
        known[np.ix_(fold.rows, fold.labels)] = rows.weight[fold.rows, None]
    experts: list[_Ridge | _Start] = [*ridges]
    priors = [block.prior for block in blocks.values()]
    if start is not None:
        experts.append(_Start(rows.scores(start), rows.base))
        priors.append(1.0)
    once = data.shown.sum(axis=0) == 1
    # A probe to start from has seen no part of the only video that shows a label.
    seen = np.ones((len(experts), data.num_labels), np.float32)
    seen[: len(ridges), once] = SEEN_SCORE_FACTOR
    shares = _shares(experts, seen, priors, rows.truth, known)
    gains, bias, scores = _mixture(experts, shares, rows, known)
    if data.num_videos > 1:  # of one alone, nothing says how high scores are in a video where a label is off
        own = shares[: len(ridges)].sum(axis=0)[once]
        scores[:, once] *= SEEN_SCORE_FACTOR * own + 1 - own

    def collected(duals: list[np.ndarray], labels: np.ndarray | slice) -> Probe:
        probe = _collected(blocks, ridges, duals, gains[: len(ridges), labels], bias[labels], layout)
        return probe if start is None else _added(probe, start, gains[-1], rows.base, labels)

    without = []
    if data.num_videos >= keep_without:
        for number, fold in enumerate(folds[: rows.num_video_folds]):
            without.append(collected([ridge.dual_without[number] for ridge in ridges], fold.labels))
    all_shares = np.zeros((data.num_labels, len(BLOCKS) + 1), np.float32)
    all_shares[:, [list(BLOCKS).index(name) for name in blocks]] = shares[: len(ridges)].T
    if start is not None:
        all_shares[:, -1] = shares[-1]
    return Fit(
        collected([ridge.dual for ridge in ridges], slice(None)),
        HeldOut(scores, rows.truth, rows.stands_for, rows.numbers),
        all_shares,
        without,
    )


class _Rows:
    """The sampled frames, filtered, with their labels."""

    def __init__(self, data: Dataset, layout: dict[str, int], progress: Progress) -> None:
        sampled = data.sample()
        parts, means = [], []
        for done, (example, (frames, _)) in enumerate(zip(data.examples, sampled, strict=True)):

            def read(share: float, done: int = done) -> None:
                progress((done + share) / len(sampled))

            part, mean = rows_of(example.features, frames, layout, example.frame_rate, read)
            parts.append(part)
            means.append(mean)
        sizes = [len(frames) for frames, _ in sampled]
        own = np.repeat(np.arange(len(sampled)), sizes)
        self.signals = {name: np.concatenate([part[name] for part in parts], axis=1) for name in layout}
        where = columns(layout)
        self.means = {name: np.stack(means)[own][:, where[name]] for name in layout}
        self.truth = np.concatenate(
            [example.labels[frames] for example, (frames, _) in zip(data.examples, sampled, strict=True)]
        ).astype(np.float32)
        annotator = np.array([example.weight for example in data.examples])[own]
        self.weight = (annotator / annotator.mean()).astype(np.float32)
        self.base = self.weight @ self.truth / self.weight.sum()  # [num_labels], of the truth
        self.stands_for = annotator * np.concatenate([weight for _, weight in sampled])
        self.numbers = data.numbers[own]
        self.frames = np.concatenate([frames for frames, _ in sampled])
        self.num_video_folds = min(data.num_videos, MAX_FOLDS) if data.num_videos > 1 else 0
        self._shown = data.shown

    def scores(self, probe: Probe) -> np.ndarray:
        """A probe's scores of the rows, [num_rows, num_labels]."""
        scores = np.tile(probe.bias, (len(self.truth), 1))
        mean = np.concatenate([self.means[name] for name in self.signals], axis=1)
        scores += mean @ probe.mean
        for name, weights in probe.weights.items():
            scores += np.einsum("frw,fwl->rl", self.signals[name], weights, optimize=True)
        return scores

    def folds(self) -> list[_Fold]:
        """What is left out in turn: videos; for a label that only one video shows, parts of it."""
        every = np.arange(self.truth.shape[1])
        folds = [
            _Fold(np.flatnonzero(self.numbers % self.num_video_folds == fold), every)
            for fold in range(self.num_video_folds)
        ]
        # Without its only video, nothing is known of a label: parts of that video tell at least what it rests on.
        for label in np.flatnonzero(self._shown.sum(axis=0) == 1):
            own = self.numbers == self._shown[:, label].argmax()
            positive = np.sort(self.frames[own & (self.truth[:, label] > 0)])
            cuts = [int(part[0]) for part in np.array_split(positive, PARTS)[1:] if len(part)]
            for first, end in pairwise([0, *cuts, np.inf]):
                rows = np.flatnonzero(own & (self.frames >= first) & (self.frames < end))
                if len(rows):
                    folds.append(_Fold(rows, np.array([label])))
        return folds


def _ridge(block: Block, rows: _Rows, kernels: _Kernels, folds: list[_Fold]) -> _Ridge:
    """Fits a block's regression, and predicts each fold by the others."""
    seen = [kernels.of(signal, numbers, block.centred) for signal, numbers in block.parts]
    parts = [part for some, _ in seen for part in some]
    kernel = sum(part for _, part in seen)
    root = np.sqrt(rows.weight)[:, None]
    size = max(float(np.trace(kernel)) / len(kernel), NOTHING)
    inverse = _inverse(kernel + block.penalty * size * np.eye(len(kernel), dtype=np.float32))
    dual = inverse @ ((rows.truth - rows.base) * root)
    held_out, without = np.repeat(rows.base[None], len(dual), axis=0), []
    for fold in folds:
        own = np.linalg.solve(inverse[np.ix_(fold.rows, fold.rows)], dual[np.ix_(fold.rows, fold.labels)])
        truth = rows.truth[np.ix_(fold.rows, fold.labels)]
        held_out[np.ix_(fold.rows, fold.labels)] = truth - own / root[fold.rows]
        without.append((dual[:, fold.labels] - inverse[:, fold.rows] @ own) * root)
    if size < LEAST_SIZE:  # equal in all rows, it tells nothing: of its predictions only rounding would be left
        held_out[:] = rows.base
    return _Ridge(parts, dual * root, without, held_out)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric positive definite one: half of the arithmetic of any other's."""
    factor, failed = lapack.spotrf(matrix.astype(np.float32), lower=True)
    lower, _ = lapack.spotri(factor, lower=True)
    if failed:
        raise ValueError("features contain NaN or infinity")
    return np.tril(lower) + np.tril(lower, -1).T


class _Kernels:
    """The parts of blocks, as regressions see them, and their kernels [num_rows, num_rows], each made once."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows
        self._known: dict[tuple[str, tuple[int, ...], bool], tuple[list[_Part], np.ndarray]] = {}

    def of(self, signal: str, numbers: tuple[int, ...], centred: bool) -> tuple[list[_Part], np.ndarray]:
        """The filters of a signal, together of the mean length 1."""
        centred = centred and not any(FILTERS[signal][number].order for number in numbers)  # a derivative's mean is 0
        key = (signal, numbers, centred)
        if key not in self._known:
            weight = self._rows.weight / self._rows.weight.sum()
            parts = [self._part(signal, number, centred, weight) for number in numbers]
            length = np.sqrt(max(sum(float(weight @ (part.rows**2).sum(axis=1)) for part in parts), NOTHING))
            parts = [part._replace(rows=part.rows / length, scale=part.scale / length) for part in parts]
            root = np.sqrt(self._rows.weight)[:, None]
            self._known[key] = parts, sum((part.rows * root) @ (part.rows * root).T for part in parts)
        return self._known[key]

    def _part(self, signal: str, number: int, centred: bool, weight: np.ndarray) -> _Part:
        seen = self._rows.signals[signal][number]
        if centred:  # a smoothed mean is the mean
            seen = seen - self._rows.means[signal]
        mean = weight @ seen
        seen = seen - mean
        scale = np.ones(len(mean), np.float32)
        if signal in SCALED:
            scale = (1 / (np.sqrt(weight @ seen**2) + LEAST_DEVIATION)).astype(np.float32)
            seen = seen * scale
        return _Part(signal, number, seen, mean, scale)


def _shares(
    experts: list[_Ridge | _Start], seen: np.ndarray, priors: list[float], truth: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """[num_experts, num_labels], each label's adding up to 1."""
    correlation = seen * np.stack([_correlation(expert.held_out, truth, known) for expert in experts])
    shares = np.maximum(correlation, LEAST_CORRELATION) ** SHARPNESS
    shares *= np.array(priors)[:, None]
    return shares / shares.sum(axis=0)


def _correlation(predicted: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pearson's of each column, by the weights `known`."""
    x, y = _centred(predicted, known), _centred(truth, known)
    return (x * y).sum(axis=0) / np.sqrt(np.maximum((x * x).sum(axis=0) * (y * y).sum(axis=0), NOTHING**2))


def _centred(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Columns less their weighted means, by the root of the weight: of products of them the weight remains."""
    mean = (values * known).sum(axis=0) / np.maximum(known.sum(axis=0), NOTHING)
    return (values - mean) * np.sqrt(known)


def _mixture(
    experts: list[_Ridge | _Start], shares: np.ndarray, rows: _Rows, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gains [num_experts, num_labels] and bias [num_labels] of the experts' predictions, and the held-out scores.

    Each expert counts in units of the deviation of its held-out predictions; the mixture is brought to the labels'
    scale by a regression of the labels on it.
    """
    count = np.maximum(known.sum(axis=0), NOTHING)
    base = rows.base
    deviation = np.stack([np.sqrt((_centred(e.held_out, known) ** 2).sum(axis=0) / count) for e in experts])
    gains = shares / np.maximum(deviation, NOTHING)
    mixed = sum(gain * (expert.held_out - base) for gain, expert in zip(gains, experts, strict=True))
    x, y = _centred(mixed, known), _centred(rows.truth, known)
    slope = (x * y).sum(axis=0) / np.maximum((x * x).sum(axis=0), NOTHING)
    # Where nothing was held out to measure it by, the mean of the predictions, which are at the labels' scale.
    measured = known.any(axis=0) & (slope > 0)
    slope = np.where(measured, slope, 1 / gains.sum(axis=0))
    offset = np.where(measured, ((rows.truth - slope * mixed) * known).sum(axis=0) / count, base)
    scores = slope * mixed + offset
    unmeasured = ~known.any(axis=0)
    if unmeasured.any():  # then the fitted scores are all there is
        fitted = base + sum(gain * expert.fitted() for gain, expert in zip(gains * slope, experts, strict=True))
        scores[:, unmeasured] = fitted[:, unmeasured]
    return (gains * slope).astype(np.float32), offset.astype(np.float32), scores.astype(np.float32)


def _collected(
    blocks: dict[str, Block],
    ridges: list[_Ridge],
    duals: list[np.ndarray],
    gains: np.ndarray,
    bias: np.ndarray,
    layout: dict[str, int],
) -> Probe:
    """One probe of all blocks' regressions."""
    num_labels, where = len(bias), columns(layout)
    weights = {n: np.zeros((len(FILTERS[n]), width, num_labels), np.float32) for n, width in layout.items()}
    mean = np.zeros((sum(layout.values()), num_labels), np.float32)
    bias = bias.copy()
    for block, ridge, dual, gain in zip(blocks.values(), ridges, duals, gains, strict=True):
        for part in ridge.parts:
            own = gain * ((part.rows.T @ dual) * part.scale[:, None])
            bias -= part.mean @ own
            weights[part.signal][part.number] += own
            if block.centred and not FILTERS[part.signal][part.number].order:
                mean[where[part.signal]] -= own
    return Probe(weights, mean, bias)


def _added(probe: Probe, start: Probe, gain: np.ndarray, base: np.ndarray, labels: np.ndarray | slice) -> Probe:
    """The probe with some labels' scores of another one in the mixture."""
    gain, base = gain[labels], base[labels]
    weights = {name: own + gain * start.weights[name][..., labels] for name, own in probe.weights.items()}
    mean = probe.mean + gain * start.mean[:, labels]
    return Probe(weights, mean, probe.bias + gain * (start.bias[labels] - base))
