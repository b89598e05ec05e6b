"""What was drawn on the videos of a training, so that the model agrees with it.

A model that generalises contradicts its own annotations here and there, and an annotator who opens an annotated video
again sees that as an error. To learn them by heart would cost on the next video; to look them up costs nothing there.
"""

import json
from collections import defaultdict
from collections.abc import Sequence as ListOf

import numpy as np
import torch
from torch import Tensor, nn

from learning.events import segments
from learning.readout import content_key
from learning.temporal import Sequence

# Of the annotation, beside the model's own probability: below every threshold that a model may learn where nothing was
# drawn, and above where something was.
WEIGHT = 0.8


class Memory(nn.Module):
    """Annotations by their video's content."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: dict[int, list[dict]] = {}

    def take(
        self,
        videos: ListOf[Sequence],
        labels: ListOf[np.ndarray],
        weights: ListOf[float],
        masks: ListOf[np.ndarray],
    ) -> None:
        """Remembers these instead of all before.

        Args:
            videos: features [num_frames, numbers] of each; one may be there twice (several annotators).
            labels: {0, 1}, [num_frames, num_labels] of each.
            weights: a positive number for each.
            masks: [num_frames] bool for each, True where a frame was annotated.
        """
        drawn = defaultdict(list)
        for video, target, weight, mask in zip(videos, labels, weights, masks, strict=True):
            ranges = [segments(column > 0) for column in target.T]
            entry = {"weight": weight, "frames": len(target), "ranges": ranges, "reviewed": segments(mask)}
            drawn[content_key(video)].append(entry)
        self._drawn = dict(drawn)

    def recall(self, video: Sequence, probs: np.ndarray) -> np.ndarray:
        """The probabilities [num_frames, num_labels], drawn to the annotation where the video has one."""
        entries = self._drawn.get(content_key(video), ())
        drawn, weight = np.zeros_like(probs), np.zeros((len(probs), 1), probs.dtype)
        for entry in entries:
            if entry["frames"] != len(probs):
                continue
            reviewed = np.zeros((len(probs), 1), probs.dtype)
            for start, end in entry["reviewed"]:
                reviewed[start:end] = entry["weight"]
            weight += reviewed
            for column, ranges in enumerate(entry["ranges"]):
                for start, end in ranges:
                    drawn[start:end, column] += reviewed[start:end, 0]
        known = weight > 0
        share = WEIGHT * known
        return (1 - share) * probs + share * drawn / np.where(known, weight, 1)

    # Kept as one tensor of bytes, so that a classifier's file holds it like its weights.

    def get_extra_state(self) -> Tensor:
        text = json.dumps([[key, entries] for key, entries in self._drawn.items()])
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self._drawn = dict(json.loads(state.numpy().tobytes()))
