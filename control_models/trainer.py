"""`Trainer`: train a project's classifier on its annotations, score it, and compare it with the present one."""

from __future__ import annotations

from typing import Any

import numpy as np

from control_models.tag import Tag
from learning.dataset import Example, num_videos
from learning.evaluation import Case, score_cases
from learning.mistakes import Compared, mistakes
from progress import UNTOLD, Progress
from utils.neural_nets import MultiLabelLSTM

# A candidate is rejected if its macro-F1 on all annotations is so much below the present model's; smaller differences
# are within the noise of one annotation.
PUBLISH_TOLERANCE = 0.02
PUBLISH_TOLERANCE_OF_ONE_VIDEO = 0.85  # in addition, divided by the number of videos
RIVAL_SHARE, TRAINING_SHARE = 0.1, 0.8  # of the progress; the rest is the candidate's score


class Trainer:
    """Trains classifiers of one control tag.

    Args:
        tag: the control tag.
        start_from: the classifier of another project to start from, or None.
    """

    def __init__(self, tag: Tag, start_from: MultiLabelLSTM | None = None) -> None:
        self._tag = tag
        self._start_from = start_from

    def candidate(
        self, examples: list[Example], rival: MultiLabelLSTM | None, progress: Progress = UNTOLD
    ) -> tuple[MultiLabelLSTM, dict[str, Any], str | None]:
        """Trains a classifier to replace its rival, if there is one.

        Every classifier starts anew, so that it depends on the annotations only: not on their order, and not on deleted
        ones.

        Args:
            examples: at least one.
            rival: the present classifier.
            progress: called with the share done, in [0, 1].

        Returns:
            The classifier; its metrics (of `MultiLabelLSTM.fit`, and `score` on the examples); and why it must
            not replace its rival, None where it may.
        """
        training = RIVAL_SHARE if rival else 0.0
        rival_score = self.score(rival, examples, progress.part(0.0, training)) if rival else None
        classifier = self._new_classifier(examples)
        metrics = self._train(classifier, examples, progress.part(training, TRAINING_SHARE))
        try:
            score = self.score(classifier, examples, progress.part(TRAINING_SHARE, 1.0))
        except ValueError as error:  # probabilities that aren't finite
            return classifier, metrics | {"score": None, "loss": None}, f"it can't predict its own videos: {error}"
        metrics |= {"score": score}
        if not np.isfinite(metrics["loss"]):
            return classifier, metrics | {"loss": None}, f"it diverged (loss {metrics['loss']})"  # JSON has no NaN
        tolerance = PUBLISH_TOLERANCE + PUBLISH_TOLERANCE_OF_ONE_VIDEO / num_videos(examples)
        f1, rival_f1 = (one["frames"]["macro_f1"] if one else 0.0 for one in (score, rival_score))
        if f1 < rival_f1 - tolerance:
            reason = f"macro-F1 {f1:.3f} on the project's annotations is below the present model's {rival_f1:.3f}"
            return classifier, metrics, reason
        return classifier, metrics, None

    def score(
        self, classifier: MultiLabelLSTM, examples: list[Example], progress: Progress = UNTOLD
    ) -> dict[str, Any] | None:
        """Scores a classifier on the annotated frames of all examples together, as of `score_cases`; None without
        examples."""
        if not examples:
            return None
        return score_cases(self._predicted(classifier, examples, progress), self._tag.labels)

    def test(
        self, classifier: MultiLabelLSTM, examples: list[Example], progress: Progress = UNTOLD
    ) -> dict[str, Any] | None:
        """Scores a classifier on videos that are new to it; None without examples.

        Returns:
            As of `score`, and mistakes, as of `learning.mistakes`; a video that is labelled as a whole counts as one
            second.
        """
        if not examples:
            return None
        cases = self._predicted(classifier, examples, progress)
        runs = [
            Compared(*run, case.example.frame_rate if len(case.predicted) > 1 else 1.0)
            for case in cases
            for run in case.runs
        ]
        return score_cases(cases, self._tag.labels) | {"mistakes": mistakes(runs, self._tag.labels)}

    def _predicted(
        self, classifier: MultiLabelLSTM, examples: list[Example], progress: Progress = UNTOLD
    ) -> list[Case]:
        cases = []
        for part, e in progress.over(examples):
            probs = classifier.predict(e.features, e.frame_rate, progress=part)
            cases.append(Case(e, probs, self._tag.decide(probs, e.frame_rate, classifier)))
        return cases

    def held_out(self, examples: list[Example], folds: list[set[int]], progress: Progress = UNTOLD) -> list[Case]:
        """Cross-validation: the videos of each fold are predicted by a classifier trained on the other videos.

        Args:
            examples: of videos in and outside each fold. A video with the same content in another task is held out too.
            folds: sets of task ids.
            progress: called with the share done, in [0, 1].

        Raises:
            ValueError: a fold leaves nothing to train on.
        """
        cases: list[Case] = []
        for part, fold in progress.over(folds):
            hidden = {e.content for e in examples if e.task_id in fold}
            known = [e for e in examples if e.content not in hidden]
            if not any(e.reviewed.any() for e in known):
                raise ValueError("no other annotated video is left to train on")
            classifier = self._new_classifier(known)
            self._train(classifier, known, part.part(0.0, 0.9))
            cases += self._predicted(classifier, [e for e in examples if e.task_id in fold])
        return cases

    def _new_classifier(self, examples: list[Example]) -> MultiLabelLSTM:
        features = examples[0].features
        classifier = MultiLabelLSTM(
            input_size=features.shape[1],
            output_size=len(self._tag.labels),
            sequence_size=self._tag.parameters.model_classifier_sequence_size,
            hidden_size=self._tag.parameters.model_classifier_hidden_size,
            num_layers=self._tag.parameters.model_classifier_num_layers,
            layout=getattr(features, "layout", None),
        )
        classifier.set_label_map(self._tag.label_map)
        return classifier

    def _train(self, classifier: MultiLabelLSTM, examples: list[Example], progress: Progress) -> dict[str, Any]:
        return classifier.fit(
            examples,
            start_from=self._start_from,
            epochs=self._tag.parameters.model_classifier_epochs,
            f1_threshold=self._tag.parameters.model_classifier_f1_threshold,
            accuracy_threshold=self._tag.parameters.model_classifier_accuracy_threshold,
            progress=progress,
        )
