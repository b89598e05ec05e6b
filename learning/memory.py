"""What was drawn on the videos of a training, so that the model agrees with it.

A model that generalises contradicts its own annotations here and there, and an annotator who opens an annotated video
again sees that as an error. To learn them by heart would cost on the next video; to look them up costs nothing there.
"""

import json
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from learning.dataset import Dataset
from learning.events import segments


class Memory(nn.Module):
    """Annotations by their video's content."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: dict[str, list[dict]] = {}

    def take(self, data: Dataset) -> None:
        """Remembers these instead of all before."""
        drawn = defaultdict(list)
        for example, content in zip(data.examples, data.contents, strict=True):
            ranges = [segments(column > 0) for column in example.labels.T]
            reviewed = segments(example.reviewed)
            entry = {"weight": example.weight, "frames": len(example.labels), "ranges": ranges, "reviewed": reviewed}
            drawn[content].append(entry)
        self._drawn = dict(drawn)

    @property
    def is_empty(self) -> bool:
        return not self._drawn

    def recall(self, content: str, probs: np.ndarray) -> np.ndarray:
        """The probabilities [num_frames, num_labels]; 0 or 1 where the video of that content was annotated, as at least
        half of its annotators drew it."""
        entries = [entry for entry in self._drawn.get(content, ()) if entry["frames"] == len(probs)]
        if not entries:
            return probs
        drawn, weight = np.zeros(probs.shape), np.zeros((len(probs), 1))
        for entry in entries:
            reviewed = np.zeros((len(probs), 1))
            for start, end in entry["reviewed"]:
                reviewed[start:end] = entry["weight"]
            weight += reviewed
            for column, ranges in enumerate(entry["ranges"]):
                for start, end in ranges:
                    drawn[start:end, column] += reviewed[start:end, 0]
        return np.where(weight > 0, 2 * drawn >= weight - 1e-9, probs).astype(probs.dtype)

    # Kept as one tensor of bytes, so that a classifier's file holds it like its weights.

    def get_extra_state(self) -> Tensor:
        return torch.frombuffer(bytearray(json.dumps(self._drawn).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self._drawn = json.loads(state.numpy().tobytes())
