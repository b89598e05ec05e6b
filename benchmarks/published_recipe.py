"""The published training recipe, as a baseline.

Written from its description: windows of 16 frames that start every 8, batches of 32 windows, Adam at 1e-4 with weight
decay 1e-5, binary cross-entropy, and after each epoch macro-F1 and accuracy of the whole training set, which stop the
training at 0.95 and 1.0. Features are used as they come; weights go on from call to call.
"""

import numpy as np
import torch
from torch import Tensor, nn

SEQUENCE_SIZE, STEP, BATCH_SIZE = 16, 8, 32


class PublishedRecipe(nn.Module):
    """The published network with its training loop."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 32, projection_size: int = 128) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(input_size, projection_size), nn.ReLU(), nn.LayerNorm(projection_size), nn.Dropout(0.2)
        )
        self.lstm = nn.LSTM(projection_size, hidden_size, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden_size, output_size)
        self.criterion = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-4, weight_decay=1e-5)

    def forward(self, windows: Tensor) -> Tensor:
        return self.output(self.lstm(self.projection(windows))[0])

    def fit(
        self,
        sequences: list[np.ndarray],
        labels: list[np.ndarray],
        epochs: int = 1000,
        f1_threshold: float = 0.95,
        accuracy_threshold: float = 1.0,
    ) -> int:
        """Train until a threshold is met; returns the number of epochs.

        Args:
            sequences: features [num_frames, input_size] of each video.
            labels: {0, 1}, [num_frames, num_labels] of each.
        """
        parts = [cut(torch.tensor(s), torch.tensor(t).float()) for s, t in zip(sequences, labels, strict=True)]
        data = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
        for epoch in range(1, epochs + 1):
            self.train()
            for batch in torch.randperm(len(data[0])).split(BATCH_SIZE):
                windows, truth, mask = (tensor[batch] for tensor in data)
                self.optimizer.zero_grad()
                self.criterion(self(windows)[mask], truth[mask]).backward()
                self.optimizer.step()
            f1, accuracy = self.evaluate(*data)
            if f1 >= f1_threshold or accuracy >= accuracy_threshold:
                return epoch
        return epochs

    @torch.no_grad()
    def evaluate(self, windows: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
        """Macro-F1 and accuracy of the whole training set."""
        self.eval()
        predicted = torch.cat([self(batch) for batch in windows.split(BATCH_SIZE)])[mask] > 0
        true = truth[mask] > 0.5
        hits = (predicted & true).sum(dim=0)
        items = predicted.sum(dim=0) + true.sum(dim=0)
        f1 = (2 * hits / items)[items > 0].mean().item() if items.any() else 1.0
        return f1, (predicted == true).float().mean().item()

    @torch.no_grad()
    def predict(self, sequence: np.ndarray) -> np.ndarray:
        """Probabilities [num_frames, num_labels]; where windows overlap, the later one's."""
        self.eval()
        windows, _, mask = cut(torch.tensor(sequence), torch.zeros(len(sequence), self.output.out_features))
        probs = torch.empty(len(sequence), self.output.out_features)
        for number, window in enumerate(torch.sigmoid(self(windows))):
            probs[number * STEP : number * STEP + SEQUENCE_SIZE] = window[mask[number]]
        return probs.numpy()


def cut(sequence: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of features, labels and whether a frame is real, the last one padded with zeros."""
    starts = range(0, max(len(sequence) - SEQUENCE_SIZE, 0) + STEP, STEP)
    padded = [torch.cat([tensor, torch.zeros(SEQUENCE_SIZE, tensor.shape[1])]) for tensor in (sequence, labels)]
    windows, truth = (torch.stack([tensor[start : start + SEQUENCE_SIZE] for start in starts]) for tensor in padded)
    index = torch.tensor(starts)[:, None] + torch.arange(SEQUENCE_SIZE)
    return windows, truth, index < len(sequence)
