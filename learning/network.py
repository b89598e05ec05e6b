"""Train `MultiLabelLSTM`'s layers behind the probe, which correct its scores by their context, and weigh them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learning.dataset import Progress

STEPS, BATCH_SIZE = 120, 32  # batches of windows; the training has converged then
WARM_UP = 0.1  # share of the steps in which the learning rate rises
LEAST_GAIN = 0.05  # of the log loss, as a share; less may be chance, on half of the videos
CERTAIN = 1e-4  # bounds probabilities
BETAS, EPSILON = (0.9, 0.999), 1e-8


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
        plain, corrected: logits, [num_windows, sequence_size, num_labels].
        truth: {0, 1}, of the same shape.
        weights: [num_windows, sequence_size].

    Returns:
        [num_labels], 1 where the loss falls by `LEAST_GAIN` or more, else 0.
    """

    def loss(logits: Tensor) -> Tensor:
        bounded = logits.clamp(np.log(CERTAIN), -np.log(CERTAIN))
        losses = functional.binary_cross_entropy_with_logits(bounded, truth, reduction="none")
        return (losses * weights[..., None]).sum(dim=(0, 1))

    return (loss(corrected) < (1 - LEAST_GAIN) * loss(plain)).float()
