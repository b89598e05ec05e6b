"""`Mode`: how a control tag's labels are predicted, and whether annotations teach it anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from features.cache import VideoFeatures
from learning.evaluation import Evaluation
from ml_backend.base import Ranked
from progress import UNTOLD, Progress
from utils.neural_nets import MultiLabelLSTM


class Mode(ABC):
    """Predicts a control tag's labels. What isn't abstract is of a mode that learns nothing."""

    @abstractmethod
    def ready(self) -> MultiLabelLSTM | None:
        """Returns the classifier to predict by, None of a mode that has none.

        Raises:
            NotReady: there is none yet for the present config and encoder.
            Loading: the encoder is being loaded.
        """

    @property
    @abstractmethod
    def version(self) -> str:
        """A name for everything that the predictions depend on. It changes with each training."""

    @abstractmethod
    def probabilities(
        self,
        features: VideoFeatures,
        frame_rate: float,
        classifier: MultiLabelLSTM | None,
        task: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities [num_rows, num_labels] of a video by a classifier of `ready`, 0 or 1 in annotated rows; and
        these rows, [num_rows] bool."""

    def version_of(self, classifier: MultiLabelLSTM | None) -> str:
        """The version of a classifier of `ready`."""
        return self.version

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        """Trains on the project's annotations, as `TrainedMode.fit`; None where nothing is learnt."""
        return None

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether `fit` on these annotated tasks has nothing to extract first. Damaged features may count as intact."""
        return True

    def needs_training(self) -> bool:
        """Whether the stored model doesn't fit the present config or encoder, and must be trained again."""
        return False

    def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
        """Orders extracted tasks without annotations, as `LabelStudioMLBase.rank`; empty without an opinion."""
        return []

    def held_out(
        self, tasks: list[dict[str, Any]], folds: list[set[int]], progress: Progress = UNTOLD
    ) -> Evaluation | None:
        """Cross-validation: the videos of each fold are predicted by a temporary classifier trained on the others.

        Args:
            tasks: every annotated task of the project, at least two.
            folds: sets of ids of tasks that are held out together.
            progress: called with the share done, in [0, 1].

        Returns:
            None where nothing is learnt.

        Raises:
            InvalidAnnotation: a fold leaves no annotated video to train on.
        """
        return None

    def earlier(self, version: int) -> Callable[[], None]:
        """Finds the model that was the present one after a training. Returns a function that makes it the present one
        again.

        Raises:
            InvalidRequest: there is none any more, or it doesn't fit the present config or encoder.
        """
        return lambda: None

    def forget(self) -> None:
        """Removes what was learnt."""
        return None
