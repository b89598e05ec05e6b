"""The published training recipe, as a baseline: a plain PyTorch loop over one annotation's windows.

Written from its description: windows of 16 frames with an overlap of 2, batches of 32 windows, Adam at 1e-3 with weight
decay 1e-5, binary cross-entropy, and after each epoch macro-F1 and accuracy of the whole training set, which stop the
training at 0.95 and 1.0. Weights go on from annotation to annotation; features are used as they come.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SEQUENCE_SIZE, OVERLAP, BATCH_SIZE = 16, 2, 32


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
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-5)

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
            sequences: features [num_frames, input_size] of each video (the recipe gives one; the cost benchmark many).
            labels: {0, 1}, [num_frames, num_labels] of each.
        """
        parts = [cut(torch.tensor(s), torch.tensor(t).float()) for s, t in zip(sequences, labels, strict=True)]
        dataset = TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)
        for epoch in range(1, epochs + 1):
            self.train()
            for windows, truth, mask in loader:
                self.optimizer.zero_grad()
                self.criterion(self(windows)[mask], truth[mask]).backward()
                self.optimizer.step()
            f1, accuracy = self.evaluate(loader)
            if f1 >= f1_threshold or accuracy >= accuracy_threshold:
                return epoch
        return epochs

    @torch.no_grad()
    def evaluate(self, loader: DataLoader) -> tuple[float, float]:
        """Macro-F1 and accuracy of the whole set: counts updated batch by batch, as torchmetrics does."""
        self.eval()
        counts = torch.zeros(4, self.output.out_features)
        for windows, truth, mask in loader:
            predicted, true = torch.sigmoid(self(windows)[mask]) > 0.5, truth[mask] > 0.5
            cells = (predicted & true, predicted & ~true, ~predicted & true, ~predicted & ~true)
            counts += torch.stack([cell.sum(dim=0) for cell in cells])
        hits, false, missed, _ = counts
        occurs = hits + false + missed > 0
        f1 = (2 * hits / (2 * hits + false + missed))[occurs].mean().item() if occurs.any() else 1.0
        return f1, ((counts[0] + counts[3]).sum() / counts.sum()).item()

    @torch.no_grad()
    def predict(self, sequence: np.ndarray) -> np.ndarray:
        """Probabilities [num_frames, num_labels]; where windows overlap, the later one's."""
        self.eval()
        windows, _, mask = cut(torch.tensor(sequence), torch.zeros(len(sequence), self.output.out_features))
        probs = torch.empty(len(sequence), self.output.out_features)
        for number, window in enumerate(torch.sigmoid(self(windows))):
            start = number * (SEQUENCE_SIZE - OVERLAP)
            probs[start : start + SEQUENCE_SIZE] = window[mask[number]]
        return probs.numpy()


def cut(sequence: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of features and labels, zero-padded, and which of their frames are real."""
    starts = range(0, max(len(sequence) - OVERLAP, 1), SEQUENCE_SIZE - OVERLAP)
    windows = [sequence[start : start + SEQUENCE_SIZE] for start in starts]
    targets = [labels[start : start + SEQUENCE_SIZE] for start in starts]
    mask = torch.stack([torch.arange(SEQUENCE_SIZE) < len(window) for window in windows])
    padded = [torch.stack([pad(part) for part in parts]) for parts in (windows, targets)]
    return padded[0], padded[1], mask


def pad(window: Tensor) -> Tensor:
    return nn.functional.pad(window, (0, 0, 0, SEQUENCE_SIZE - len(window)))
