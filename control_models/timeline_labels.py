"""`TimelineLabelsModel`: labels intervals of a video's timeline, by the encoder's own classes or by a trained
classifier."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.label_interface.control_tags import ControlTag

from control_models.base import ControlModel, ControlPrediction, Region
from control_models.decoder import LabelDecoder
from control_models.examples import choose_tasks, read_examples, recalled
from control_models.parameters import TimelineLabelsParameters, is_skipped
from control_models.published import PublishedClassifiers
from control_models.trainer import Trainer, num_videos
from errors import (
    InvalidAnnotation,
    InvalidConfig,
    InvalidRequest,
    InvalidTask,
    Loading,
    MediaError,
    NotReady,
    UnreadableVideo,
)
from exchange.timeline import Clock, Observation, Timeline, Track, events_of_regions
from features.cache import FeatureCache, VideoFeatures
from features.encoder import Encoder, get_encoder
from features.sequence import FeatureSequence
from learning.decisions import promised_f1
from learning.evaluation import Case, Evaluation
from ml_backend.base import LabelStudioMLBase, Progress
from utils.converter import convert_probs_to_timelinelabels
from utils.neural_nets import MultiLabelLSTM, UnusableClassifier
from video.labeling_frames import check_frame_rate, frame_rate, labeling_frames, rate_mismatch
from video.preprocessing import View

logger = logging.getLogger(__name__)

# Loading features is this share of a training's progress bar; the epochs are the rest.
LOADING_SHARE = 0.3
DEFAULT_THRESHOLD = 0.5  # of MODEL_SCORE_THRESHOLD
# A request waits so long for the encoder, so that a config that can't work is refused at once; Label Studio waits a
# second for a webhook's answer. Else the next one says so.
LOADING_PATIENCE = 0.5  # seconds
# Labeling frames times labels of one video: two days at 25 frames a second and 15 labels. Predicting takes a few times
# four bytes of each.
MAX_LABELED_VALUES = 2**26
DEFAULT_COLOUR = "#36b37e"  # of a label without the attribute background


class TimelineLabelsModel(ControlModel):
    """Serves `<TimelineLabels>` connected to a `<Video>`.

    With `model_trainable="false"` (simple mode) the encoder's class probabilities, mapped to labels, make the timeline.
    With "true" an LSTM on the encoder's features does, trained on the project's annotations.
    """

    control_type = "TimelineLabels"
    object_type = "Video"

    def __init__(self, backend: LabelStudioMLBase, control: ControlTag) -> None:
        super().__init__(backend, control)
        settings = backend.settings
        self.parameters = TimelineLabelsParameters.from_attributes(
            self.from_name, control.attr, settings.model_score_threshold
        )
        self._leave_out_reviewed_label()
        check_frame_rate(f'<{self.object_type} name="{self.to_name}"', self._frame_rate_attribute)
        self.label_map: dict[str, int] = {label: column for column, label in enumerate(self.labels)}
        self.encoder = self.find_encoder()
        self.view = View.WHOLE if self.parameters.model_trainable else View.CROP
        self.cache = FeatureCache(settings.cache_dir, int(settings.cache_size_limit))
        self._check_classes(LOADING_PATIENCE)

    def _leave_out_reviewed_label(self) -> None:
        reviewed = self.parameters.model_reviewed_label
        if reviewed is None:
            return
        if reviewed not in self.labels or len(self.labels) < 2:
            raise InvalidConfig(
                f'<{self.control_type} name="{self.from_name}" model_reviewed_label="{reviewed}">: it must be one of '
                f'the tag\'s labels, and not the only one: add <Label value="{reviewed}"/> beside those to learn.'
            )
        self.labels.remove(reviewed)

    def find_encoder(self) -> Encoder:
        """The encoder that the config names, as its file is now.

        Raises:
            EncoderError: it can't be had.
            NotReady: it is being fetched.
        """
        settings = self.backend.settings
        return get_encoder(
            self.parameters.model_path,
            model_root=settings.model_root,
            precision=settings.precision,
            allow_custom=settings.allow_custom_model_path,
            fallback=settings.model_fallback,
            wait=not self.backend.in_request,
            region=self.parameters.model_region,
            image_size=self.parameters.model_image_size,
        )

    @classmethod
    def is_control_matched(cls, control: ControlTag) -> bool:
        """Whether the tag is a `<TimelineLabels>` that isn't to be left alone."""
        return super().is_control_matched(control) and not is_skipped(control.name, control.attr)

    @property
    def trainer(self) -> Trainer:
        return Trainer(self.parameters, self.label_map, self._threshold)

    @property
    def _threshold(self) -> float | None:
        """The threshold that the config or the environment asks for; None where each label's own is learnt."""
        threshold = self.parameters.model_score_threshold
        asked = not self.parameters.model_trainable or {"model_score_threshold", "score_threshold"} & set(
            self.control.attr
        )
        return threshold if asked or self.backend.settings.model_score_threshold != DEFAULT_THRESHOLD else None

    # -- features

    def is_prepared(self, task: dict[str, Any]) -> bool:
        """Whether the video's features are cached."""
        return self.cached_features(task) is not None

    def prepare(
        self, task: dict[str, Any], progress: Progress | None = None, others: Sequence[ControlModel] = ()
    ) -> None:
        """Extracts the video's features into the cache, and in the same decoding what the others need of it.

        Raises:
            MediaError: the video can't be had or read.
        """
        features = self.prepared_features(task, progress, others)
        self.backend.note_all((task.get("id"), text) for text in self.remarks(task, features))

    def prepared_features(
        self, task: dict[str, Any], progress: Progress | None = None, others: Sequence[ControlModel] = ()
    ) -> VideoFeatures:
        """The video's features, extracted where they aren't cached. Arguments and errors are those of `prepare`."""
        self.labeling_frame_rate(task)  # raises where the task can't be used whatever the video holds
        path = self.place(task)
        views = {self.view} | {other.view for other in others if self._reads_the_same(other)}
        stride = self.parameters.model_frame_stride
        if any(self.cache.peek(self.encoder, path, view, stride) is None for view in views):
            path = self.get_path(task, lambda: progress(0.0) if progress else None)
        try:
            features = self.cache.get_views(self.encoder, path, views, stride, progress)[self.view]
        except MediaError as error:
            if isinstance(error, UnreadableVideo):  # no video: what was downloaded in its place isn't kept
                self.backend.remove_local_path(self.media(task), task.get("id"))
            # A download's own name is a hash; the user knows what the video is called in the task.
            name = self.media(task).partition("?")[0].rpartition("/")[2]
            raise type(error)(str(error).replace(path.name, name)) from error
        return features

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether the features that a training on the annotated tasks would read are in the cache; opens none."""
        if not self.parameters.model_trainable:
            return True
        stride = self.parameters.model_frame_stride
        chosen = choose_tasks(self, tasks).tasks
        return all(self.cache.has(self.encoder, self.place(task), self.view, stride) for task in chosen)

    def cached_features(self, task: dict[str, Any]) -> VideoFeatures | None:
        """The video's features, None where they would have to be fetched or extracted.

        Raises:
            MediaError: the video can't be had.
        """
        return self.cache.peek(self.encoder, self.place(task), self.view, self.parameters.model_frame_stride)

    def remarks(self, task: dict[str, Any], features: VideoFeatures) -> list[str]:
        """What the user should know of a task's video."""
        mismatch = rate_mismatch(features.frame_rate, self.labeling_frame_rate(task))
        return [text for text in (mismatch, _damage(features)) if text]

    def unprepare(self, task: dict[str, Any]) -> None:
        """Drops the video's features and its download from the cache."""
        self.cache.drop(self.encoder, self.place(task), self.view, self.parameters.model_frame_stride)
        self.backend.remove_local_path(self.media(task), task.get("id"))

    def _reads_the_same(self, other: ControlModel) -> bool:
        """Whether another control model reads the same pictures with the same encoder."""
        return (
            isinstance(other, TimelineLabelsModel)
            and other.to_name == self.to_name
            and other.encoder is self.encoder
            and other.parameters.model_frame_stride == self.parameters.model_frame_stride
        )

    def labeling_frame_rate(self, task: dict[str, Any]) -> float:
        """Frames per second of Label Studio's timeline for this task, by the rules of its front end."""
        return frame_rate(self._frame_rate_attribute, task.get("data", {}))

    @property
    def _frame_rate_attribute(self) -> str | None:
        attributes = self.object.attr
        return attributes.get("frameRate", attributes.get("framerate"))

    def labeling_index(self, task: dict[str, Any], features: VideoFeatures) -> np.ndarray:
        """For each labeling frame of a task the index of the video frame shown at its moment. Errors as of
        `labeling_frame_rate`."""
        return self._labeling_index(features, self.labeling_frame_rate(task))

    def _labeling_index(self, features: VideoFeatures, frame_rate: float) -> np.ndarray:
        values = features.duration * frame_rate * len(self.labels)
        if values > MAX_LABELED_VALUES:
            raise InvalidTask(
                f"The video lasts {features.duration:.0f} s, which at {frame_rate:g} labeling frames a second and "
                f"{len(self.labels)} labels are {values:.2g} values to predict; at most {MAX_LABELED_VALUES:.2g} are "
                "possible. Set frameRate to the video's frame rate, for example 25, or split the video."
            )
        return labeling_frames(features.times, features.duration, frame_rate)

    def _video_features(self, path: str | Path, frame_rate: float) -> tuple[VideoFeatures, np.ndarray]:
        """The video's features, and for each labeling frame the index of the video frame shown at its moment.

        Raises:
            NotReady: somebody waits for an answer, and the features aren't cached.
        """
        stride = self.parameters.model_frame_stride
        if self.backend.in_request:  # a worker decodes, never the web process
            features = self.cache.peek(self.encoder, path, self.view, stride)
            if features is None:
                raise NotReady("The video's features aren't cached any more, or its file changed: ask again.")
        else:
            features = self.cache.get(self.encoder, path, self.view, stride)
        return features, self._labeling_index(features, frame_rate)

    # -- prediction

    def predict(self, task: dict[str, Any]) -> ControlPrediction:
        """Predicts the timeline of a task's video.

        Raises:
            MediaError: the video can't be had or read.
            NotReady: no classifier is trained yet, or it must be trained again for the present config or encoder.
        """
        return self._decide(*self._probabilities(task), self.labeling_frame_rate(task))

    def predict_regions(self, video_path: str | Path) -> list[Region]:
        """The regions of a video file, at the frame rate that the config names. Errors as of `predict`."""
        frame_rate = self.labeling_frame_rate({})
        return self._decide(*self._timeline(video_path, frame_rate), frame_rate).regions

    def _probabilities(self, task: dict[str, Any]) -> tuple[np.ndarray, MultiLabelLSTM | None]:
        """As `_timeline` of a task's video, which says what was drawn on it where it is trained."""
        probs, classifier = self._timeline(self.place(task), self.labeling_frame_rate(task))
        if classifier is not None and self.backend.store is not None and task.get("id") is not None:
            for annotated in self.backend.store.annotated_tasks(self.backend.project_id, task["id"]):
                probs = recalled(self, annotated, probs)
        return probs, classifier

    def _timeline(self, path: str | Path, frame_rate: float) -> tuple[np.ndarray, MultiLabelLSTM | None]:
        """Label probabilities [num_labeling_frames, num_labels], and what made them; in simple mode None."""
        if not self.parameters.model_trainable:
            return self.create_timelines_simple(path, frame_rate), None
        classifier = self._ready_classifier()
        sequence = FeatureSequence(*self._video_features(path, frame_rate))
        return classifier.predict(sequence, frame_rate), classifier

    def _decide(self, probs: np.ndarray, classifier: MultiLabelLSTM | None, frame_rate: float) -> ControlPrediction:
        """The prediction of what `_probabilities` gave."""
        if classifier is None:
            threshold = self.parameters.model_score_threshold
            score, version = promised_f1(probs, np.full(len(self.labels), threshold)), self.version
        else:
            score, version = classifier.expected_f1(probs), _version(classifier)
        labels = LabelDecoder(self.parameters, self._threshold).labels(probs, frame_rate, classifier)
        regions = convert_probs_to_timelinelabels(
            probs, self.label_map, self.from_name, to_name=self.to_name, labels=labels
        )
        return ControlPrediction(regions, score, version)

    def track(self, task: dict[str, Any]) -> Track:
        """What the control tag says of a task whose features are cached, also where it can't predict yet.

        Raises:
            MediaError: the video can't be had or read.
        """
        path, labeling_rate = self.place(task), self.labeling_frame_rate(task)
        features, index = self._video_features(path, labeling_rate)
        clock = Clock(labeling_rate, index, features.frame_rate, features.duration)
        media, colours = self.media(task), self._colours()
        try:
            probs, classifier = self._probabilities(task)
        except NotReady as error:
            return Track(self.from_name, media, clock, colours, None, str(error))
        prediction = self._decide(probs, classifier, labeling_rate)
        events = events_of_regions(prediction.regions, clock.frame_rate)
        observation = Observation(media, f"{self.encoder.name}-{prediction.version}", events, task.get("id"))
        return Track(self.from_name, media, clock, colours, Timeline(observation, clock, tuple(self.labels), probs))

    def _colours(self) -> dict[str, str]:
        attributes = {label: tag.attr for label, tag in self.control.labels_attrs.items()}
        return {label: attributes[label].get("background") or DEFAULT_COLOUR for label in self.labels}

    def create_timelines_simple(self, video_path: str | Path, frame_rate: float) -> np.ndarray:
        """Label probabilities [num_labeling_frames, num_labels] from the encoder's classes."""
        features, index = self._video_features(video_path, frame_rate)
        probs = np.zeros((len(index), len(self.labels)), dtype=np.float32)
        for label, columns in self.class_columns.items():
            # The classes exclude each other, so the probability of any of them is their sum.
            probs[:, self.label_map[label]] = features.probs[:, columns].sum(axis=1)[index].clip(0, 1)
        return probs

    def create_timelines_trainable(self, video_path: str | Path, frame_rate: float) -> np.ndarray:
        """Label probabilities [num_labeling_frames, num_labels] from the trained classifier.

        Raises:
            NotReady: there is no classifier for the present config and encoder.
        """
        sequence = FeatureSequence(*self._video_features(video_path, frame_rate))
        return self._ready_classifier().predict(sequence, frame_rate)

    def check_ready(self) -> None:
        """Raises NotReady where there is no classifier for the present config and encoder, Loading where simple mode's
        encoder is being loaded."""
        if self.parameters.model_trainable:
            self._ready_classifier()
        elif not self._check_classes():
            raise Loading(f"The encoder {self.encoder.name} is being loaded.")

    def _ready_classifier(self) -> MultiLabelLSTM:
        classifier = self._classifier()
        if classifier is None:
            raise NotReady(
                f'"{self.from_name}" isn\'t trained yet: annotate a video and submit it. The first '
                "prediction follows the first training."
            )
        if not self._fits(classifier):
            raise NotReady(f'The labeling config or the encoder changed: "{self.from_name}" is being trained again.')
        return classifier

    def _check_classes(self, patience: float = 0.0) -> bool:
        """Checks simple mode's labels against the encoder's classes. False where a request would have to wait longer
        than `patience` seconds for the encoder, which is loaded in the background then.

        Raises:
            InvalidConfig: no label is a class.
            EncoderError: the encoder can't be loaded.
        """
        if self.parameters.model_trainable:
            return True
        if self.backend.in_request and not self.encoder.is_loaded(patience):
            return False
        _ = self.class_columns
        return True

    @cached_property
    def class_columns(self) -> dict[str, list[int]]:
        """Label -> columns of the encoder's class probabilities, in simple mode. Errors as of `_check_classes`."""
        names = self.encoder.class_names
        if not names:
            raise InvalidConfig(
                f'<{self.control_type} name="{self.from_name}"> maps classes to labels, but {self.encoder.name} '
                'has none: it isn\'t a classifier. Set model_trainable="true", or model_path to a classifier.'
            )
        column = {name: index for index, name in names.items()}
        classes = self.backend.build_label_map(self.from_name, names.values())
        if not classes:
            examples = ", ".join(list(names.values())[:5])
            raise InvalidConfig(
                f'No label of <{self.control_type} name="{self.from_name}"> is a class of {self.encoder.name} (such as '
                f'{examples}). Name the labels like classes, give them predicted_values="class,class", or set '
                'model_trainable="true" to train on your own labels.'
            )
        columns: dict[str, list[int]] = {}
        for name, label in classes.items():
            if label not in self.label_map:  # the one that marks reviewed frames
                continue
            columns.setdefault(label, []).append(column[name])
        return columns

    # -- the classifier's file

    def get_classifier_path(self, project_id: str) -> Path:
        """The file of a project's present classifier. Deleting it resets the model."""
        return self._published(project_id).path

    def _published(self, project_id: str | None = None) -> PublishedClassifiers:
        backend = self.backend
        return PublishedClassifiers(
            backend.settings.model_root,
            backend.store,
            backend.project_id if project_id is None else project_id,
            self.encoder.name,
            self.from_name,
        )

    def _classifier(self) -> MultiLabelLSTM | None:
        return self._published().present()

    def _requirements(self) -> dict[str, Any]:
        """What a classifier was made for. Another value of any of these starts a new one."""
        return {
            "encoder": self.encoder.fingerprint,
            "labels": self.labels,
            "reviewed_label": self.parameters.model_reviewed_label,
            "sequence_size": self.parameters.model_classifier_sequence_size,
            "hidden_size": self.parameters.model_classifier_hidden_size,
            "num_layers": self.parameters.model_classifier_num_layers,
            "frame_stride": self.parameters.model_frame_stride,
        }

    def _fits(self, classifier: MultiLabelLSTM) -> bool:
        return classifier.header.get("requirements") == self._requirements()

    def forget(self) -> None:
        """Removes all versions of the classifier."""
        self._published().forget()

    def needs_training(self) -> bool:
        """Whether the classifier is of another label set, encoder or size, or was never trained on the annotations that
        are there. One whose file was removed is a reset, and stays missing."""
        if not self.parameters.model_trainable:
            return False
        try:
            classifier = self._classifier()
        except UnusableClassifier:
            return True
        if classifier is None:
            return self.backend.has_annotations() and not self._published().ever()
        return not self._fits(classifier)

    def find_version(self, version: int) -> MultiLabelLSTM | None:
        """The classifier that was the present one after the training of that number; None in simple mode.

        Raises:
            InvalidRequest: there is none any more, or it doesn't fit the present config or encoder.
        """
        if not self.parameters.model_trainable:
            return None
        classifier = self._published().at(version)
        if not self._fits(classifier):
            raise InvalidRequest(
                f'Version {classifier.header["version"]} of "{self.from_name}" was made for another labeling config or '
                "encoder than the present one."
            )
        return classifier

    def go_back(self, classifier: MultiLabelLSTM) -> None:
        """Makes a classifier of `find_version` the present one."""
        self._published().go_back(classifier)

    @property
    def version(self) -> str:
        """`v7 (5 videos)` for the seventh training's classifier, learnt from five videos; `untrained` without one; in
        simple mode a hash of what it depends on. Errors as of `_check_classes`."""
        if not self.parameters.model_trainable:
            self._check_classes()
            labels = {label: tag.attr.get("predicted_values") for label, tag in self.control.labels_attrs.items()}
            state = [self.encoder.fingerprint, labels, self.parameters.model_dump()]
            return "simple-" + hashlib.sha256(json.dumps(state).encode()).hexdigest()[:8]
        try:
            return _version(self._classifier())
        except UnusableClassifier:
            return "unreadable"

    # -- training

    def fit(
        self,
        event: str,
        data: dict[str, Any],
        tasks: list[dict[str, Any]] | None = None,
        from_scratch: bool = False,
        progress: Progress | None = None,
        version: int = 1,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Trains the classifier on the project's annotations: first a test on the videos that it doesn't know, then the
        training.

        The present classifier predicts each video that it wasn't trained on before it learns from it, so its score is
        what an annotator saw ("prequential" evaluation: Dawid, "The Prequential Approach", JRSS A 147, 1984).

        Args:
            event: the webhook's action.
            data: the webhook's body; its `task` and `annotation` are the data where `tasks` is None.
            tasks: every annotated task of the project: `{"id", "data", "annotations": [{"id", "result"}]}`.
            from_scratch: forget the present classifier.
            progress: told the share done, in [0, 1].
            version: the number of the new classifier.

        Returns:
            None in simple mode, else the candidate's metrics (`Trainer.candidate`) and published, with
            version or reason; prequential, the present classifier's score on the videos that it didn't know (None where
            it knew all); tasks, the number of videos learnt from; unavailable, task id -> why its video was left out.

        Raises:
            InvalidAnnotation: there is no annotated video to train on.
            MediaError: no annotated video can be had.
        """
        if not self.parameters.model_trainable:
            return None
        if tasks is None:
            tasks = [{**data["task"], "annotations": [data["annotation"]]}]
        if not tasks:
            self.forget()
            return {"published": True, "tasks": 0}

        def loaded(share: float) -> None:
            if progress:
                progress(LOADING_SHARE * share)

        chosen = choose_tasks(self, tasks)
        examples, unavailable = read_examples(self, chosen.tasks, loaded, chosen.stands_for)
        present = None if from_scratch else self._present_classifier()
        prequential = (
            self.trainer.score(present, [e for e in examples if e.task_id not in present.header["tasks"]])
            if present
            else None
        )
        # A classifier that learnt from a deleted annotation is replaced in any case.
        comparable = present is not None and set(present.header["annotations"]) <= set(_annotation_ids(tasks))

        def trained(share: float) -> None:
            if progress:
                progress(LOADING_SHARE + (1 - LOADING_SHARE) * share)

        candidate, metrics, reason = self.trainer.candidate(examples, present if comparable else None, trained)
        metrics |= {"prequential": prequential, "unavailable": unavailable, "tasks": num_videos(examples)}
        if reason:
            logger.warning("%s: the training isn't published: %s", self._path.name, reason)
            return metrics | {"published": False, "reason": reason}
        header = {
            "version": version,
            "requirements": self._requirements(),
            "encoder": self.encoder.name,
            "tasks": sorted({e.task_id for e in examples}),
            "annotations": _annotation_ids(chosen.tasks),
            "metrics": metrics,
        }
        if not self._published().publish(candidate, header):
            return metrics | {"published": False, "reason": "a later training's model is the present one"}
        return metrics | {"published": True, "version": version}

    def held_out(
        self, tasks: list[dict[str, Any]], folds: list[set[int]], progress: Progress | None = None
    ) -> Evaluation | None:
        """Cross-validation: classifiers trained without the videos of a fold predict these, and are thrown away.

        Args:
            tasks: every annotated task of the project, at least two.
            folds: ids of the tasks that are held out together.
            progress: told the share done, in [0, 1].

        Returns:
            None in simple mode.

        Raises:
            InvalidAnnotation: a fold leaves no annotated video to train on.
        """
        if not self.parameters.model_trainable:
            return None
        examples = read_examples(self, tasks, None).examples
        try:
            predictions = self.trainer.held_out(examples, folds, progress)
        except ValueError as error:
            raise InvalidAnnotation(f"Annotate at least two different videos: {error}.") from error
        cases = [Case(e.task_id, e.labels > 0, probs, found, e.reviewed) for e, probs, found in predictions]
        rate = self.labeling_frame_rate(tasks[0])
        return Evaluation(self.from_name, tuple(self.labels), self._colours(), rate, tuple(cases))

    @property
    def _path(self) -> Path:
        return self.get_classifier_path(self.backend.project_id)

    def _present_classifier(self) -> MultiLabelLSTM | None:
        """The stored classifier where it was made for the present config and encoder, else None."""
        try:
            classifier = self._classifier()
        except UnusableClassifier as error:
            logger.warning("%s: a new classifier is started: %s", self._path.name, error)
            return None
        return classifier if classifier is not None and self._fits(classifier) else None


def _annotation_ids(tasks: list[dict[str, Any]]) -> list[int]:
    return sorted(annotation["id"] for task in tasks for annotation in task["annotations"])


def _version(classifier: MultiLabelLSTM | None) -> str:
    if classifier is None:
        return "untrained"
    videos = len(classifier.header["tasks"])
    return f"v{classifier.header['version']} ({videos} video{'s' * (videos != 1)})"


def _damage(features: VideoFeatures) -> str:
    parts = []
    if features.broken_frames:
        parts.append(f"{features.broken_frames} broken frames skipped")
    if features.truncated:
        parts.append("the file is cut off: only its readable part is used")
    return "; ".join(parts)
