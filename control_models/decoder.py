"""`LabelDecoder`: turn probabilities into labels by a control tag's attributes."""

from __future__ import annotations

import math

import numpy as np

from control_models.parameters import TimelineLabelsParameters
from learning.events import drop_short, merge_gaps
from utils.neural_nets import MultiLabelLSTM


class LabelDecoder:
    """Decides which labels are on in each frame.

    Args:
        parameters: the tag's: exclusive labels, shortest event, longest gap.
        threshold: a frame has a label from this probability on; None: as its classifier decides.
    """

    def __init__(self, parameters: TimelineLabelsParameters, threshold: float | None) -> None:
        self._parameters = parameters
        self._threshold = threshold

    def labels(
        self,
        probs: np.ndarray,
        frame_rate: float,
        classifier: MultiLabelLSTM | None = None,
        annotated: np.ndarray | None = None,
    ) -> np.ndarray:
        """As of `Decoder`. Each label's probabilities are independent of the others'; a classifier's are calibrated."""
        if classifier is None:
            labels = self._allowed(probs >= self._threshold, probs)
        else:
            labels = classifier.labels(probs, frame_rate, self._threshold, self._parameters.model_exclusive)
        # Before short events are dropped, those that only a gap parts are one.
        labels = merge_gaps(labels, math.floor(self._parameters.model_merge_gap * frame_rate))
        labels = drop_short(labels, math.ceil(self._parameters.model_min_duration * frame_rate))
        if annotated is not None:
            labels[annotated] = self._allowed(probs > 0, probs)[annotated]
        return labels

    def _allowed(self, labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """All labels; where they are exclusive, only the most probable one of each frame."""
        if not self._parameters.model_exclusive or not labels.size:
            return labels
        return labels & (np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None])
