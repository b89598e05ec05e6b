"""Train the layers of `MultiLabelLSTM` behind the probe, which correct its scores by their context, and find the labels
that they help."""

from __future__ import annotations

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
WARM_UP = 0.1  # share of the steps in which the learning rate rises
LEAST_GAIN = 0.4  # of the log loss, as a share: gains of a third on half of the videos did not last on new ones
CERTAIN = 1e-4  # bounds probabilities
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
        weights: [num_frames], 0 where it wasn't annotated.
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

    Returns:
        Each half's videos, without those that have no annotated frame.
    """
    halves: tuple[list[ScoredVideo], list[ScoredVideo]] = ([], [])
    chosen = list(zip(data.examples, data.numbers, strict=True))[:: -(-len(data.examples) // NETWORK_MAX_VIDEOS)]
    for _, (example, number) in progress.over(chosen):
        frames = slice(0, min(NETWORK_FRAMES, example.features.shape[0]))
        weights = example.reviewed[frames] * np.float32(example.weight)
        if weights.any():
            probe = fit.without[number % len(fit.without)]
            scores = probe.scores(example.features[frames], layout, example.frame_rate)
            halves[number % 2].append(ScoredVideo(scores, example.labels[frames].astype(np.float32), weights))
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


def initialise(layers: dict[nn.Module, int], layer_norm: nn.LayerNorm, seed: int) -> None:
    """Fills weights as torch.nn does: uniform within 1 / sqrt(fan in), the layer norm the identity.

    Args:
        layers: each with its fan in, in the order of drawing.
    """
    generator = torch.Generator().manual_seed(seed)
    nn.init.ones_(layer_norm.weight)
    nn.init.zeros_(layer_norm.bias)
    for layer, fan_in in layers.items():
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)


def train(
    network: nn.Module,
    scores: Tensor,
    truth: Tensor,
    weights: Tensor,
    learning_rate: float,
    weight_decay: float,
    max_steps: int,
    seed: int,
    progress: Progress,
) -> int:
    """Trains the layers that have parameters, in place.

    Args:
        network: its `read` takes scores [batch, sequence_size, num_labels] to logits of the same shape.
        scores, truth: [num_windows, sequence_size, num_labels]; held-out scores.
        weights: [num_windows, sequence_size], 0 for padding and what wasn't annotated; some frame's is above.
        progress: told the share done, in [0, 1].

    Returns:
        How many steps there were.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(network.parameters())
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in parameters]
    steps = min(STEPS, max_steps)
    for step in range(1, steps + 1):
        batch = torch.randint(len(scores), (BATCH_SIZE,), generator=generator)
        weight = weights[batch][..., None]
        loss = functional.binary_cross_entropy_with_logits(network.read(scores[batch]), truth[batch], reduction="none")
        loss = (loss * weight).sum() / weight.sum().clamp(min=1e-6) / truth.shape[-1]
        gradients = torch.autograd.grad(loss, parameters)
        done = step / steps
        rate = learning_rate * min(1.0, done / WARM_UP) * 0.5 * (1 + np.cos(np.pi * done))
        _adamw(parameters, gradients, moments, step, rate, weight_decay)
        progress(done)
    return steps


@torch.no_grad()
def _adamw(
    parameters: list[Tensor],
    gradients: tuple[Tensor, ...],
    moments: list[tuple[Tensor, Tensor]],
    step: int,
    rate: float,
    decay: float,
) -> None:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019). Not torch.optim's, whose first use imports
    870 modules, PyTorch's compiler among them: 1.1 processor seconds before a training that takes no longer."""
    for parameter, gradient, (mean, square) in zip(parameters, gradients, moments, strict=True):
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square(), 1 - BETAS[1])
        deviation = (square / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        parameter.mul_(1 - rate * decay).addcdiv_(mean / (1 - BETAS[0] ** step), deviation, value=-rate)


def best_gate(plain: Tensor, corrected: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Whether a correction of log-odds helps each label, by the log loss on videos that it wasn't trained on.

    Args:
        plain, corrected: logits, [..., num_labels].
        truth: {0, 1}, of the same shape.
        weights: [...], of the frames.

    Returns:
        [num_labels], 1 where the loss falls by `LEAST_GAIN` or more, else 0.
    """

    def loss(logits: Tensor) -> Tensor:
        bounded = logits.clamp(np.log(CERTAIN), -np.log(CERTAIN))
        losses = functional.binary_cross_entropy_with_logits(bounded, truth, reduction="none")
        return (losses * weights[..., None]).flatten(0, -2).sum(dim=0)

    return (loss(corrected) < (1 - LEAST_GAIN) * loss(plain)).float()
