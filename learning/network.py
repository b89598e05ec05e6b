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
from torch.optim.adam import adam

from learning.dataset import Dataset
from learning.probe import Fit
from progress import Progress

# Annotated videos from which on these layers are trained: with ten and twenty they cost more on things that move than
# they brought elsewhere (benchmarks/fewshot.md).
NETWORK_VIDEOS = 30
NETWORK_FRAMES = 1000  # of each video that they learn from, and
NETWORK_MAX_VIDEOS = 100  # so many videos, spread over all
LAYER_SIZE = 128  # dim between the probe's scores and the LSTM
MAX_LAYERS = 8  # of the LSTM
DROPOUT_RATE = 0.2
STEPS, BATCH_SIZE = 120, 32  # batches of windows; the training has converged then
LEARNING_RATE = 1e-2  # of the first step
LEAST_GAIN = 0.25  # of the log loss, as a share
CERTAIN = 9.2  # bounds log-odds


def cut_windows(values: ArrayLike, size: int, overlap: int = 2) -> np.ndarray:
    """Cuts values [num_frames, dim] into windows [num_windows, size, dim] float32. Neighbours share `overlap` frames;
    the last one is padded with zeros."""
    values = np.asarray(values, np.float32)
    step = max(size - overlap, 1)
    starts = np.arange(0, max(len(values) - size, 0) + step, step)
    padded = np.pad(values, ((0, max(starts[-1] + size - len(values), 0)), (0, 0)))
    return padded[starts[:, None] + np.arange(size)]


class ScoredVideo(NamedTuple):
    """A video's held-out scores.

    Attributes:
        scores, labels: [num_frames, num_labels].
        weights: [num_frames, 1], 0 where it wasn't annotated.
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class SeededDropout(nn.Module):
    """Dropout with a generator of its own: training neither reads nor disturbs the process's random state."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= DROPOUT_RATE
        return values * kept / (1 - DROPOUT_RATE)


def train_and_gate(network: nn.Module, data: Dataset, fit: Fit, epochs: int, progress: Progress) -> int:
    """Trains a network on half of the videos and finds its gate by the others; where it opens, it is trained again on
    all.

    Args:
        network: a `MultiLabelLSTM`.
        data: the annotated videos.
        fit: the probes of them.
        epochs: at most so many passes over the videos.
        progress: told the share done, in [0, 1].

    Returns:
        How many passes there were.
    """
    mine, others = scored_halves(data, fit, progress.part(0.0, 0.4))
    passes = train(network, mine, epochs, progress.part(0.4, 0.7))
    network.gate.copy_(best_gate(network, others))
    return train(network, mine + others, epochs, progress.part(0.7, 1.0)) if network.gate.any() else passes


def scored_halves(data: Dataset, fit: Fit, progress: Progress) -> tuple[list[ScoredVideo], list[ScoredVideo]]:
    """Scores two halves of the videos by probes that have not seen them; of more than `NETWORK_MAX_VIDEOS`, so many."""
    step = -(-data.num_videos // NETWORK_MAX_VIDEOS)
    halves: tuple[list[ScoredVideo], list[ScoredVideo]] = ([], [])
    chosen = [pair for pair in zip(data.examples, data.numbers, strict=True) if pair[1] % step == 0]
    for _, (example, number) in progress.over(chosen):
        frames = slice(0, min(NETWORK_FRAMES, example.features.shape[0]))
        scores = fit.without[number % len(fit.without)].scores(example.features[frames], example.frame_rate)
        weights = np.float32(example.weight) * example.reviewed[frames, None]
        halves[number // step % 2].append(ScoredVideo(scores, example.labels[frames].astype(np.float32), weights))
    return halves


def train(network: nn.Module, videos: Sequence[ScoredVideo], epochs: int, progress: Progress) -> int:
    """Trains the parameters of a network anew, by Adam (Kingma and Ba, ICLR 2015). Returns the number of passes."""
    network.initialise()
    network.train()
    generator = network.dropout.generator.manual_seed(network.seed)
    scores, labels, weights = (
        torch.from_numpy(np.concatenate([cut_windows(one, network.sequence_size) for one in values]))
        for values in zip(*videos, strict=True)
    )
    parameters = list(network.parameters())
    means, squares = ([torch.zeros_like(one) for one in parameters] for _ in range(2))
    counts = [torch.tensor(0.0) for _ in parameters]
    batches = -(-len(scores) // BATCH_SIZE)
    steps = min(STEPS, epochs * batches)
    for step in range(1, steps + 1):
        batch = torch.randint(len(scores), (BATCH_SIZE,), generator=generator)
        losses = _losses(network.read(scores[batch]), labels[batch], weights[batch])
        gradients = list(torch.autograd.grad(losses.mean(), parameters))
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        # Not the class, whose first use imports 870 modules, PyTorch's compiler among them: 1.1 processor seconds
        # before a training that takes no longer.
        options = {"lr": rate, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        with torch.no_grad():
            adam(parameters, gradients, means, squares, [], counts, **options, amsgrad=False, maximize=False)
        progress(step / steps)
    network.eval()
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
