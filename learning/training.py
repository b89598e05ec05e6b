"""How `MultiLabelLSTM`'s network learns to read the scores of its readout."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Progress = Callable[[int, dict[str, float]], None]

LEARNING_RATE = 1e-2  # at its highest; a new network
WARM_SHARE = 0.3  # of it, for one that goes on learning
WEIGHT_DECAY = 1e-5
WARM_UP = 0.1  # share of the training in which the learning rate rises
BATCH_SIZE = 32  # windows
# Batches until a new network has converged: more only teach it a few videos by heart.
MIN_STEPS, STEPS_PER_WINDOW, MAX_STEPS = 100, 1.3, 120
HURRY = 0.5  # share of the time from which on the clock steers the learning rate: before, equal data give equal models
COOL_DOWN_STEPS = 50  # after a threshold is met: stopped at a high learning rate, a network predicts badly
POSITIVE_WEIGHT_POWER = (
    0.25  # 0 swamps rare labels, 0.5 predicts too many: by F1 at probability 0.5, and by calibration
)
MAX_POSITIVE_WEIGHT = 100.0  # before the power: one frame in a hundred; a rarer label is hardly more than noise
SCORE_GAIN = 0.5  # scores are stretched by up to exp(±this): a label is fainter in one video than in another
# With so few videos, all windows join labels of different videos, and half of them are made up. With more, the
# share falls as 1 / number of videos, because then real windows say more: about labels that follow or resemble
# each other.
FEW_VIDEOS = 3


class FlatAdam:
    """Adam with decoupled weight decay (AdamW) on all parameters of a module as one vector.

    The network has few numbers in many small tensors, where torch.optim spends longer on its loop over them than
    on the arithmetic; and torch.optim imports PyTorch's compiler on first use, seconds before a training that
    takes no longer.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # the authors' and torch.optim's

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
        parameters = list(module.parameters())
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradients = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:  # each becomes a view into the vector
            end = start + parameter.numel()
            parameter.data = self.values[start:end].view_as(parameter)
            parameter.grad = self.gradients[start:end].view_as(parameter)
            start = end
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.weight_decay = weight_decay
        self.steps = 0

    def zero_grad(self) -> None:
        self.gradients.zero_()

    def step(self, learning_rate: float) -> None:
        self.steps += 1
        self.values.mul_(1 - learning_rate * self.weight_decay)
        self.mean.lerp_(self.gradients, 1 - self.BETA1)
        self.square.lerp_(self.gradients.square(), 1 - self.BETA2)
        deviation = (self.square / (1 - self.BETA2**self.steps)).sqrt_().add_(self.EPSILON)
        self.values.addcdiv_(self.mean, deviation, value=-learning_rate / (1 - self.BETA1**self.steps))


class Deadline:
    """When a training has to end: `seconds` after `started` (time.monotonic), or never."""

    def __init__(self, started: float, seconds: float | None) -> None:
        self._started = started
        self._seconds = math.inf if seconds is None else max(seconds, 1e-9)

    def share_passed(self) -> float:
        """The share of the time that has passed; 1 and more when it is over."""
        return (time.monotonic() - self._started) / self._seconds


def train_on_scores(
    network: nn.Module,
    scores: Tensor,
    truth: Tensor,
    weights: Tensor,
    *,
    num_videos: int,
    warm: bool,
    epochs: int,
    f1_threshold: float,
    accuracy_threshold: float,
    deadline: Deadline,
    progress: Progress | None,
    seed: int,
) -> dict[str, Any]:
    """Train the network on windows of scores, in place.

    From few videos, a network would learn by heart which label followed which in them. So labels' windows are
    dealt out independently of each other, scores are stretched at random, and made-up windows are mixed in
    (`made_up_windows`).

    Args:
        network: its `read` takes scores [batch, sequence_size, num_labels] to logits of the same shape; its
            `learning_rate` is the highest, its `weight_decay` the optimiser's.
        scores, truth: [num_windows, sequence_size, num_labels].
        weights: [num_windows, sequence_size], 0 for padding.
        warm: whether the network has been trained before.

    Returns:
        epoch, loss, f1_score, precision, recall, accuracy (of the last epoch's windows) and stopped; see
        `MultiLabelLSTM.partial_fit`.
    """
    rng = np.random.default_rng(seed)
    num_windows, sequence_size, num_labels = scores.shape
    columns = torch.arange(num_labels)
    positive = (truth * weights[..., None]).sum(dim=(0, 1)) / weights.sum()
    share_of_few = min(1.0, FEW_VIDEOS / num_videos)
    power = POSITIVE_WEIGHT_POWER * share_of_few
    positive_weight = ((1 - positive) / positive.clamp(min=1e-9)).clamp(1, MAX_POSITIVE_WEIGHT) ** power
    optimizer = FlatAdam(network, network.weight_decay)
    highest_rate = network.learning_rate * (WARM_SHARE if warm else 1)
    num_batches = math.ceil(num_windows / BATCH_SIZE)
    enough_steps = int(np.clip(STEPS_PER_WINDOW * num_windows, MIN_STEPS, MAX_STEPS))
    num_steps = max(1, min(epochs * num_batches, enough_steps))
    reason, last_step = "", num_steps
    for epoch in itertools.count(1):
        order = torch.from_numpy(_deal(rng, num_windows, num_labels, share_of_few))
        logits, trained = torch.zeros_like(truth), torch.zeros(truth.shape, dtype=torch.bool)
        losses = []
        for batch in order.split(BATCH_SIZE)[: last_step - optimizer.steps]:
            window_scores, window_truth = (values[batch, :, columns].transpose(1, 2) for values in (scores, truth))
            weight = weights[batch].transpose(1, 2)
            gain = rng.uniform(-SCORE_GAIN, SCORE_GAIN, (len(batch), 1, num_labels))
            window_scores = window_scores * torch.from_numpy(np.exp(gain)).float()
            made_up = rng.binomial(len(batch), share_of_few / 2)
            extra_scores, extra_truth = made_up_windows(rng, made_up, sequence_size, num_labels)
            optimizer.zero_grad()
            output = network.read(torch.cat([window_scores, extra_scores]))
            loss = functional.binary_cross_entropy_with_logits(
                output,
                torch.cat([window_truth, extra_truth]),
                torch.cat([weight, weight.mean().expand(extra_truth.shape)]),
                pos_weight=positive_weight,
                reduction="sum",
            ) / (weight.sum() * (1 + made_up / len(batch)))
            loss.backward()
            done = optimizer.steps / num_steps
            if deadline.share_passed() > HURRY:
                done = max(done, deadline.share_passed())
            cool_down = (last_step - optimizer.steps) / COOL_DOWN_STEPS if reason else 1.0
            optimizer.step(highest_rate * min(learning_rate_share(done), cool_down))
            logits[batch, :, columns] = output[: len(batch)].detach().transpose(1, 2)
            trained[batch, :, columns] = (weight > 0).transpose(1, 2)
            losses.append(loss.item())
            if deadline.share_passed() >= 1:
                break
        metrics = {"epoch": epoch, "loss": float(np.mean(losses))}
        metrics |= training_scores(logits > 0, truth > 0.5, trained)
        if progress is not None:
            progress(epoch, dict(metrics))
        if deadline.share_passed() >= 1:
            return metrics | {"stopped": "time_budget"}
        if optimizer.steps >= last_step:
            return metrics | {"stopped": reason or ("converged" if num_steps == enough_steps else "epochs")}
        if not reason and (metrics["f1_score"] >= f1_threshold or metrics["accuracy"] >= accuracy_threshold):
            reason = "f1_threshold" if metrics["f1_score"] >= f1_threshold else "accuracy_threshold"
            last_step = min(num_steps, max(MIN_STEPS, optimizer.steps + COOL_DOWN_STEPS))


def _deal(rng: np.random.Generator, num_windows: int, num_labels: int, share: float) -> np.ndarray:
    """Indices of windows, [num_windows, num_labels]: every label's once each, a share of the rows mixed."""
    order = np.repeat(rng.permutation(num_windows)[:, None], num_labels, axis=1)
    mixed = np.flatnonzero(rng.random(num_windows) < share)
    for column in range(num_labels):
        order[mixed, column] = rng.permutation(order[mixed, column])
    return order


def made_up_windows(rng: np.random.Generator, count: int, sequence_size: int, num_labels: int) -> tuple[Tensor, Tensor]:
    """Windows of scores as a readout gives them, and their truth, both [count, sequence_size, num_labels].

    Events of 5 to 70 frames raise a score by an unknown amount; in some it is centred over the video, as it is where
    features are, and it is disturbed by noise from frame to frame and by slower noise. The ranges hold what readouts of
    1 to 20 videos gave on other ones.
    """
    shape = (count, 1, num_labels)
    length = 4 * sequence_size  # the video around the window
    frames = np.arange(length)[None, :, None]
    truth = np.zeros((count, length, num_labels), bool)
    for _ in range(2):
        duration = np.exp(rng.uniform(np.log(5), np.log(70), shape))
        start = rng.uniform(-20, length, shape)
        truth |= (frames >= start) & (frames < start + duration) & (rng.random(shape) < 0.5)
    slow = np.repeat(rng.normal(size=(count, length // 8 + 1, num_labels)), 8, axis=1)[:, :length]
    centring = rng.random((count, 1, 1)) < 0.5
    scores = rng.uniform(0.1, 0.7, shape) * (truth - centring * truth.mean(axis=1, keepdims=True))
    scores += rng.uniform(0.02, 0.08, shape) * rng.normal(size=truth.shape) + rng.uniform(0, 0.16, shape) * slow
    middle = slice((length - sequence_size) // 2, (length + sequence_size) // 2)
    return torch.from_numpy(scores[:, middle]).float(), torch.from_numpy(truth[:, middle]).float()


def learning_rate_share(done: float) -> float:
    """Share of the highest learning rate after a share of the training: a linear rise, a cosine's fall."""
    return min(1.0, (done + 0.01) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def training_scores(predicted: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
    """Macro F1, precision and recall over the labels that occur or are predicted (1 where none is), and accuracy over
    frames and labels.

    Args:
        predicted, truth, mask: [..., num_labels] bool; what the mask leaves out (padding) doesn't count.
    """
    predicted, true = predicted & mask, truth & mask
    frames = tuple(range(truth.ndim - 1))
    both, num_predicted, num_true = (values.sum(dim=frames) for values in (predicted & true, predicted, true))
    occurs = num_predicted + num_true > 0

    def macro(hits: Tensor, cases: Tensor) -> float:
        return (hits / cases.clamp(min=1))[occurs].mean().item() if occurs.any() else 1.0

    return {
        "f1_score": macro(2 * both, num_predicted + num_true),
        "precision": macro(both, num_predicted),
        "recall": macro(both, num_true),
        "accuracy": ((predicted == true) & mask).sum().item() / max(1, int(mask.sum())),
    }
