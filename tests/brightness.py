"""An encoder without a network, for tests of what is done with features."""

import threading
from collections.abc import Callable

import numpy as np
import torch

from video.preprocessing import View
from video.reader import Frame


class BrightnessEncoder:
    """Stands in for a model: the features are the picture's mean brightness, so that they say which frame it is."""

    feature_dim = 316  # with all that stands beside, 1 kB a frame
    cell_dim = 276
    num_classes = 2
    region, batch_size = None, 16
    device = torch.device("cpu")

    def __init__(self, fingerprint: str = "brightness", work: Callable[[], None] = lambda: None) -> None:
        self.fingerprint = fingerprint
        self.num_encoded = 0
        self.largest_batch = 0
        self._work = work
        self._lock = threading.Lock()

    def preprocess(self, frames: list[Frame], view: View) -> torch.Tensor:
        return torch.tensor([frame.picture.to_ndarray(format="gray").mean() for frame in frames], dtype=torch.float32)

    def features(self, batch: torch.Tensor) -> np.ndarray:
        self._count(batch)
        return np.repeat(batch[:, None].numpy(), self.feature_dim, axis=1)

    def features_and_cells(self, batch: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features = self.features(batch)
        return features, features[:, : self.cell_dim] - 100

    def probabilities(self, batch: torch.Tensor) -> np.ndarray:
        self._count(batch)
        bright = (batch / 255)[:, None].numpy()
        return np.concatenate([bright, 1 - bright], axis=1)

    def _count(self, batch: torch.Tensor) -> None:
        self._work()
        with self._lock:
            self.num_encoded += len(batch)
            self.largest_batch = max(self.largest_batch, len(batch))
