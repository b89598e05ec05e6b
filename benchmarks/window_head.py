"""A baseline of the published kind that is nearest to ours: a head on windows of frozen image features, as CBAS has it.

Written from a description of CBAS's head, for several labels at once. Features are smoothed by a moving average; they
and their first and second differences each pass a bottleneck with layer normalisation. On a window of 31 frames, a
linear branch reads the middle frame, a bidirectional LSTM with attention reads the frames around it, and a gate mixes
the two. Trained anew on all annotations. What the description leaves open (sizes, the number of steps, dropout, the
weight of rare labels) was chosen on scenarios of the tuning, for the best macro-F1.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 31  # frames; the middle one is classified
HALF = WINDOW // 2
ATTENDED = 11  # frames of the window's middle that the attention weighs
SMOOTHING = 11  # frames of the moving average
BOTTLENECK, HIDDEN = 32, 32
CHUNKS, CHUNK = 8, 16  # windows of a batch: so many runs of so many neighbours, whose bottlenecks are computed once
STEPS, STEPS_PER_VIDEO = 180, 5
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 2e-3, 0.05, 0.6
MAX_POSITIVE_WEIGHT = 4.0
NOTHING = 1e-3  # deviation of a constant input


class WindowHead(nn.Module):
    """The head with its training.

    Args:
        input_size: dim of a frame's features.
        output_size: number of labels.
        seed: of the initial weights, the batches and dropout.
    """

    def __init__(self, input_size: int, output_size: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.register_buffer("mean", torch.zeros(3, input_size))
        self.register_buffer("deviation", torch.ones(3, input_size))
        self.bottlenecks = nn.ModuleList(nn.Linear(input_size, BOTTLENECK) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(BOTTLENECK) for _ in range(3))
        self.dropout = nn.Dropout(DROPOUT)
        width = 3 * BOTTLENECK
        self.linear = nn.Linear(width, output_size)
        self.lstm = nn.LSTM(width, HIDDEN, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * HIDDEN, 1)
        self.recurrent = nn.Linear(2 * HIDDEN, output_size)
        self.gate = nn.Linear(width, output_size)
        self.thresholds = np.full(output_size, 0.5)

    def forward(self, derivatives: Tensor) -> Tensor:
        """Logits [runs, length - 30, num_labels] of the middles of all windows of [runs, length, 3, input_size]."""
        kept = self.dropout(torch.ones(len(derivatives), 1, *derivatives.shape[2:]))  # drops an input in a whole run
        derivatives = derivatives * kept if self.training else derivatives
        parts = [
            norm(bottleneck(derivatives[..., order, :]))
            for order, (bottleneck, norm) in enumerate(zip(self.bottlenecks, self.norms, strict=True))
        ]
        frames = torch.cat(parts, dim=-1)
        middles = self.dropout(frames[:, HALF : frames.shape[1] - HALF])
        windows = frames.unfold(1, WINDOW, 1).flatten(0, 1).transpose(1, 2)
        states = self.lstm(windows)[0][:, HALF - ATTENDED // 2 : HALF + ATTENDED // 2 + 1]
        weights = torch.softmax(self.attention(states), dim=1)
        summary = self.dropout((weights * states).sum(dim=1)).unflatten(0, middles.shape[:2])
        gate = torch.sigmoid(self.gate(middles))
        return gate * self.linear(middles) + (1 - gate) * self.recurrent(summary)

    def fit(self, sequences: list[np.ndarray], labels: list[np.ndarray]) -> None:
        """Train on all videos: features [num_frames, input_size] and {0, 1} [num_frames, num_labels] of each."""
        videos = [derivatives(torch.tensor(sequence)) for sequence in sequences]
        truths = [torch.tensor(target).float() for target in labels]
        seen = torch.cat(videos)
        self.mean.copy_(seen.mean(dim=0))
        self.deviation.copy_(seen.std(dim=0).clamp(min=NOTHING))
        share = torch.cat(truths).mean(dim=0)
        positive_weight = ((1 - share) / share.clamp(min=1e-6)).sqrt().clamp(1, MAX_POSITIVE_WEIGHT)
        padded = [padding(self.standard(video)) for video in videos]
        steps = STEPS + STEPS_PER_VIDEO * len(videos)
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        self.train()
        for _ in range(steps):
            numbers = self.rng.integers(len(videos), size=CHUNKS)
            starts = [int(self.rng.integers(max(1, len(videos[number]) - CHUNK + 1))) for number in numbers]
            runs = [
                padded[number][start : start + CHUNK + 2 * HALF] for number, start in zip(numbers, starts, strict=True)
            ]
            target = [truths[number][start : start + CHUNK] for number, start in zip(numbers, starts, strict=True)]
            logits = self(torch.stack(runs))
            loss = functional.binary_cross_entropy_with_logits(logits, torch.stack(target), pos_weight=positive_weight)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        self.thresholds = best_thresholds(
            np.concatenate([self.predict(sequence) for sequence in sequences]), np.concatenate(labels)
        )

    @torch.no_grad()
    def predict(self, sequence: np.ndarray) -> np.ndarray:
        """Probabilities [num_frames, num_labels] of features [num_frames, input_size]."""
        self.eval()
        return torch.sigmoid(self(padding(self.standard(derivatives(torch.tensor(sequence))))[None]))[0].numpy()

    def standard(self, video: Tensor) -> Tensor:
        """Derivatives [num_frames, 3, input_size] with the mean and deviation of the training frames taken out."""
        return (video - self.mean) / self.deviation


def derivatives(sequence: Tensor) -> Tensor:
    """Smoothed features, and their first and second differences: [num_frames, 3, input_size]."""
    width = SMOOTHING // 2
    padded = torch.cat([sequence[:1].expand(width, -1), sequence, sequence[-1:].expand(width, -1)])
    smooth = padded.unfold(0, SMOOTHING, 1).mean(dim=-1)
    first = torch.diff(smooth, dim=0, prepend=smooth[:1])
    return torch.stack([smooth, first, torch.diff(first, dim=0, prepend=first[:1])], dim=1)


def padding(video: Tensor) -> Tensor:
    """The video with its first and last frame repeated, so that each frame is the middle of a window."""
    return torch.cat([video[:1].expand(HALF, -1, -1), video, video[-1:].expand(HALF, -1, -1)])


def best_thresholds(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each label the threshold of the best F1 on the training frames."""
    candidates = np.linspace(0.1, 0.9, 17)
    found = probs[None] >= candidates[:, None, None]
    hits = (found & (truth > 0)).sum(axis=1)
    f1 = 2 * hits / np.maximum(found.sum(axis=1) + truth.sum(axis=0), 1)
    # Among equals the one nearest to a half.
    return candidates[(f1 - 1e-6 * np.abs(candidates - 0.5)[:, None]).argmax(axis=0)]
