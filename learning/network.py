"""Train the layers of `MultiLabelLSTM` behind the probe, which correct its scores by their context, and find the labels
that they help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from learning.dataset import Dataset
from learning.probe import Fit
from progress import Progress

# Annotated videos from which on these layers are trained: with ten and twenty they cost more on things that move than
# they brought elsewhere (benchmarks/fewshot.md).
NETWORK_VIDEOS = 30
NETWORK_FRAMES = 1000  # of each video that they learn from, and
NETWORK_MAX_VIDEOS = 100  # so many videos, spread over all
STEPS, BATCH_SIZE = 120, 32  # batches of windows; the training has converged then
LEAST_GAIN = 0.25  # of the log loss, as a share
CERTAIN = 9.2  # bounds log-odds
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Windows(NamedTuple):
    """A sequence cut for training.

    Attributes:
        sequence: [num_windows, sequence_size, dim] float32, zeros where padded.
        labels: [num_windows, sequence_size, num_labels] float32, or None where no labels were given.
        mask: [num_windows, sequence_size] bool, True for a real frame, False for padding.
    """

    sequence: np.ndarray
    labels: np.ndarray | None
    mask: np.ndarray


def cut_windows(sequence: ArrayLike, size: int, labels: ArrayLike | None = None, overlap: int = 2) -> Windows:
    """Cuts a sequence into windows of `size` frames; the last one is padded.

    Args:
        sequence: [num_frames, dim], of features or of scores.
        size: frames of a window.
        labels: [num_frames, num_labels], or None.
        overlap: frames that neighbouring windows share.
    """
    sequence = np.asarray(sequence, dtype=np.float32)
    step = size - overlap if size > overlap else 1
    starts = np.arange(0, max(len(sequence) - size, 0) + step, step)
    index = starts[:, None] + np.arange(size)
    mask = index < len(sequence)
    index = np.minimum(index, len(sequence) - 1)
    label_windows = None
    if labels is not None:
        label_windows = np.asarray(labels, dtype=np.float32)[index] * mask[..., None]
    return Windows(sequence[index] * mask[..., None], label_windows, mask)


class ScoredVideo(NamedTuple):
    """A video's held-out scores.

    Attributes:
        scores, labels: [num_frames, num_labels].
        weights: [num_frames, 1], 0 where it wasn't annotated.
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def scored_halves(
    data: Dataset, fit: Fit, layout: dict[str, int], progress: Progress
) -> tuple[list[ScoredVideo], list[ScoredVideo]]:
    """Scores two halves of the videos by probes that have not seen them.

    Args:
        data: the annotated videos; of more than `NETWORK_MAX_VIDEOS`, so many are read.
        fit: the probes.
        layout: of the features.
        progress: told the share of the videos that was read.
    """
    step = -(-data.num_videos // NETWORK_MAX_VIDEOS)
    halves: tuple[list[ScoredVideo], list[ScoredVideo]] = ([], [])
    chosen = [pair for pair in zip(data.examples, data.numbers, strict=True) if pair[1] % step == 0]
    for _, (example, number) in progress.over(chosen):
        frames = slice(0, min(NETWORK_FRAMES, example.features.shape[0]))
        scores = fit.without[number % len(fit.without)].scores(example.features[frames], layout, example.frame_rate)
        weights = np.float32(example.weight) * example.reviewed[frames, None]
        halves[number // step % 2].append(ScoredVideo(scores, example.labels[frames].astype(np.float32), weights))
    return halves


class SeededDropout(nn.Module):
    """Dropout with a generator of its own: training neither reads nor disturbs the process's random state."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator = torch.Generator()

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= self.rate
        return values * kept / (1 - self.rate)


def train(
    network: nn.Module,
    videos: Sequence[ScoredVideo],
    size: int,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    generator: torch.Generator,
    progress: Progress,
) -> int:
    """Trains the parameters of a network, in place, by Adam with decoupled weight decay (Loshchilov and Hutter, ICLR
    2019). Not torch.optim's, whose first use imports 870 modules, PyTorch's compiler among them: 1.1 processor seconds
    before a training that takes no longer.

    Args:
        network: its `read` takes scores [batch, size, num_labels] to logits of the same shape.
        videos: what it learns from.
        size: frames of a window.
        epochs: at most so many passes over the windows.
        generator: of the order of windows.
        progress: told the share done, in [0, 1].

    Returns:
        How many passes there were.
    """
    scores, labels, weights = (
        torch.from_numpy(np.concatenate([cut_windows(one, size).sequence for one in values]))
        for values in zip(*videos, strict=True)
    )
    moments = [(one, torch.zeros_like(one), torch.zeros_like(one)) for one in network.parameters()]
    batches = -(-len(scores) // BATCH_SIZE)
    steps = min(STEPS, epochs * batches)
    for step in range(1, steps + 1):
        batch = torch.randint(len(scores), (BATCH_SIZE,), generator=generator)
        losses = _losses(network.read(scores[batch]), labels[batch], weights[batch])
        gradients = torch.autograd.grad(losses.mean(), [one for one, *_ in moments])
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        with torch.no_grad():
            for (parameter, mean, square), gradient in zip(moments, gradients, strict=True):
                mean.lerp_(gradient, 1 - BETAS[0])
                square.lerp_(gradient.square(), 1 - BETAS[1])
                deviation = (square / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
                parameter.mul_(1 - rate * weight_decay)
                parameter.addcdiv_(mean / (1 - BETAS[0] ** step), deviation, value=-rate)
        progress(step / steps)
    return -(-steps // batches)


@torch.inference_mode()
def best_gate(network: nn.Module, videos: Sequence[ScoredVideo]) -> Tensor:
    """Whether what a network adds helps each label, by the log loss on videos that it wasn't trained on.

    Args:
        network: its `read` and its `calibrated` take scores [1, num_frames, num_labels] to logits, with and without
            what it adds.
        videos: the others.

    Returns:
        [num_labels], 1 where the loss falls by `LEAST_GAIN` or more, else 0.
    """
    before, after = torch.zeros(2, videos[0].labels.shape[1])
    for video in videos:  # whole ones, as they are predicted
        scores, labels, weights = (torch.from_numpy(values)[None] for values in video)
        before += _losses(network.calibrated(scores), labels, weights).sum(dim=(0, 1))
        after += _losses(network.read(scores), labels, weights).sum(dim=(0, 1))
    return (after < (1 - LEAST_GAIN) * before).float()


def _losses(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    bounded = logits.clamp(-CERTAIN, CERTAIN)
    return functional.binary_cross_entropy_with_logits(bounded, labels, weight=weights, reduction="none")
