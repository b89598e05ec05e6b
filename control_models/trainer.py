"""`Trainer`: trains a project's classifier on its annotations, scores it, and says whether it may replace the present
one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from control_models.parameters import TimelineLabelsParameters
from features.motion import MOTION_SIZE
from features.sequence import FeatureSequence
from learning.events import segments
from learning.metrics import frame_metrics, segment_f1
from ml_backend.base import Progress
from utils.neural_nets import MultiLabelLSTM

# A candidate is worse beyond the noise of two trainings where it scores this much below the present model on all
# annotations: much on few videos, where a network's initial weights alone decide about 0.1.
PUBLISH_TOLERANCE = 0.02
PUBLISH_TOLERANCE_OF_ONE_VIDEO = 0.85  # in addition, divided by the number of videos
# Networks that are trained, from other initial weights, until one may be published: an annotation should count.
MAX_ATTEMPTS = 3
# A training's time: a fixed part that lets one video reach its thresholds, and a part for each video, up to what an
# annotator who submits every few minutes can wait for.
TRAINING_BASE_SECONDS = 60.0
TRAINING_SECONDS_PER_VIDEO = 3.0
TRAINING_MAX_SECONDS = 900.0


class Example(NamedTuple):
    """One annotation of a video, in labeling frames.

    Attributes:
        task_id: the video's task.
        features: [num_frames, feature_dim + motion_size].
        labels: [num_frames, num_labels], 0 or 1.
        weight: share of its task: the annotations of one task share a weight of 1.
        mask: [num_frames] bool, the frames that were annotated; None for all. Others count for nothing.
    """

    task_id: int
    features: FeatureSequence
    labels: np.ndarray
    weight: float
    mask: np.ndarray | None = None

    def annotated(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The runs of annotated frames among rows [num_frames, numbers]."""
        for start, end in segments(self.mask) if self.mask is not None else [(0, len(rows))]:
            yield rows[start:end]


def num_videos(examples: list[Example]) -> int:
    """Videos among the examples; several annotations of one count once."""
    return len({e.task_id for e in examples})


class Trainer:
    """Trains classifiers of one control tag.

    Args:
        parameters: the tag's: size of the network, thresholds, epochs.
        label_map: label -> its column.
        input_size: numbers per frame that the classifier reads, the last `MOTION_SIZE` of them motion.
        threshold: a frame has a label from this probability on; None: each label's own, which its classifier learnt.
    """

    def __init__(
        self,
        parameters: TimelineLabelsParameters,
        label_map: dict[str, int],
        input_size: int,
        threshold: float | None = None,
    ) -> None:
        self._parameters = parameters
        self._threshold = threshold
        self._label_map = label_map
        self._input_size = input_size

    def candidate(
        self, examples: list[Example], rival: MultiLabelLSTM | None, progress: Progress | None
    ) -> tuple[MultiLabelLSTM, dict[str, Any], str | None]:
        """Trains a classifier that is to replace its rival, if there is one.

        A new one each time: it scores better than one that goes on from the present weights (benchmarks), depends on
        the annotations alone and not on their order, and knows nothing of a deleted one.

        Args:
            examples: at least one.
            rival: the present classifier.
            progress: told the share of the epochs done, in [0, 1].

        Returns:
            The classifier; its metrics, those of `MultiLabelLSTM.partial_fit` and score (as of `score`, on the
            examples) and attempts; and why it must not replace its rival, None where it may.
        """
        rival_f1 = self.score(rival, examples)["frames"]["macro_f1"] if rival else 0.0
        tolerance = PUBLISH_TOLERANCE + PUBLISH_TOLERANCE_OF_ONE_VIDEO / num_videos(examples)
        for seed in range(MAX_ATTEMPTS):
            classifier = self._new_classifier(seed)
            metrics = self._train(classifier, examples, progress if seed == 0 else None)
            metrics |= {"score": self.score(classifier, examples), "attempts": seed + 1}
            f1 = metrics["score"]["frames"]["macro_f1"]
            if not np.isfinite(metrics["loss"]):
                reason = f"it diverged (loss {metrics['loss']})"
                metrics["loss"] = None  # JSON has no NaN
            elif f1 < rival_f1 - tolerance:
                reason = f"macro-F1 {f1:.3f} on the project's annotations is below the present model's {rival_f1:.3f}"
            else:
                return classifier, metrics, None
        return classifier, metrics, reason

    def score(self, classifier: MultiLabelLSTM, examples: list[Example]) -> dict[str, Any] | None:
        """A classifier's score on examples taken together; None without examples.

        Returns:
            videos, their number; frames, as of `frame_metrics`; segments, as of `segment_f1`.
        """
        if not examples:
            return None
        return self._metrics(
            examples, [self.labels(classifier, classifier.predict(e.features, recall=False)) for e in examples]
        )

    def labels(self, classifier: MultiLabelLSTM, probs: np.ndarray) -> np.ndarray:
        """The labels of a classifier's probabilities, [num_frames, num_labels] bool."""
        return probs >= (classifier.thresholds if self._threshold is None else self._threshold)

    def held_out(
        self, examples: list[Example], folds: list[set[int]], progress: Progress | None
    ) -> list[tuple[Example, np.ndarray, np.ndarray]]:
        """Cross-validation: the videos of each fold are predicted by a classifier trained on the other videos.

        Args:
            examples: of videos in and outside each fold.
            folds: task ids.
            progress: told the share of the folds done, in [0, 1].

        Returns:
            The folds' examples, and their probabilities and labels, [num_frames, num_labels].
        """
        predictions: list[tuple[Example, np.ndarray, np.ndarray]] = []
        for number, fold in enumerate(folds, start=1):
            classifier = self._new_classifier(seed=0)
            self._train(classifier, [e for e in examples if e.task_id not in fold], None)
            for e in (e for e in examples if e.task_id in fold):
                probs = classifier.predict(e.features)
                predictions.append((e, probs, self.labels(classifier, probs)))
            if progress:
                progress(number / len(folds))
        return predictions

    def _new_classifier(self, seed: int) -> MultiLabelLSTM:
        classifier = MultiLabelLSTM(
            input_size=self._input_size,
            output_size=len(self._label_map),
            sequence_size=self._parameters.model_classifier_sequence_size,
            hidden_size=self._parameters.model_classifier_hidden_size,
            num_layers=self._parameters.model_classifier_num_layers,
            motion_size=MOTION_SIZE,
            seed=seed,
        )
        classifier.set_label_map(self._label_map)
        return classifier

    def _train(self, classifier: MultiLabelLSTM, examples: list[Example], progress: Progress | None) -> dict[str, Any]:
        epochs = self._parameters.model_classifier_epochs

        def epoch_done(epoch: int, _metrics: dict[str, float]) -> None:
            if progress:
                progress(epoch / epochs)

        seconds = TRAINING_BASE_SECONDS + TRAINING_SECONDS_PER_VIDEO * num_videos(examples)
        return classifier.partial_fit(
            [e.features for e in examples],
            [e.labels for e in examples],
            weights=[e.weight for e in examples],
            masks=[e.mask for e in examples],
            epochs=epochs,
            f1_threshold=self._parameters.model_classifier_f1_threshold,
            accuracy_threshold=self._parameters.model_classifier_accuracy_threshold,
            time_budget=min(seconds, TRAINING_MAX_SECONDS),
            progress=epoch_done,
        )

    def _metrics(self, examples: list[Example], predicted_labels: list[np.ndarray]) -> dict[str, Any]:
        labels = list(self._label_map)
        # A frame without labels between two videos, or parts of one, keeps their segments apart.
        gap = np.zeros((1, len(labels)), dtype=bool)
        truth = np.concatenate([part for e in examples for run in e.annotated(e.labels > 0) for part in (run, gap)])
        predicted = np.concatenate(
            [
                part
                for e, found in zip(examples, predicted_labels, strict=True)
                for run in e.annotated(found)
                for part in (run, gap)
            ]
        )
        return {
            "videos": num_videos(examples),
            "frames": frame_metrics(truth, predicted, labels),
            "segments": segment_f1(truth, predicted, labels),
        }
