"""`ControlModel`: the model of one control tag of a labeling config, bound to an encoder.

A model calls its parts, and none of these calls back:

- `Tag` (tag.py): labels and attributes, and the form of annotations and predictions;
- `Videos` (videos.py): the videos of tasks, and their features;
- `SimpleMode` (simple.py) or `TrainedMode` (trained.py): makes probabilities of features.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from label_studio_sdk.label_interface.control_tags import ControlTag

from control_models.mode import Mode
from control_models.simple import SimpleMode
from control_models.tag import Region, Tag
from control_models.trained import TrainedMode
from control_models.videos import Videos
from features.cache import VideoFeatures
from features.encoder import Encoder, get_encoder
from ml_backend.context import Context
from progress import UNTOLD, Progress
from utils.neural_nets import MultiLabelLSTM
from video.timeline import Recording, Track

if TYPE_CHECKING:
    from ml_backend.base import LabelStudioMLBase


class ControlPrediction(NamedTuple):
    """A control model's prediction of one task.

    Attributes:
        regions: Label Studio's regions.
        score: the expected F1, in [0, 1].
        version: the version that predicted, as of `Mode.version`.
        probabilities: [num_rows, num_labels], in the rows of `Tag`.
        annotated: [num_rows] bool, the rows that say what was drawn.
    """

    regions: list[Region]
    score: float
    version: str
    probabilities: np.ndarray
    annotated: np.ndarray


class ControlModel(ABC):
    """Predicts and learns the regions of one control tag.

    `model.py` makes one for each control tag of the config that a subclass serves. A subclass names its `Tag`, and adds
    what is special to it.

    Args:
        context: the project's settings, state, files and notes.
        control: the control tag.

    Attributes:
        from_name: the control tag's name.
        tag, encoder, videos, mode: see the module.

    Raises:
        InvalidConfig: the tag can't be used; the message names tag and attribute.
        EncoderError: the encoder can't be found, fetched or loaded.
        NotReady: the encoder is being fetched.
    """

    tag_type: ClassVar[type[Tag]]

    def __init__(self, context: Context, control: ControlTag) -> None:
        self.context = context
        self.tag = self.tag_type(control, context.settings.model_score_threshold)
        self.from_name = self.tag.from_name
        self.encoder = self.find_encoder()
        self.videos = Videos(context, self.tag, self.encoder)
        self.mode: Mode = (
            TrainedMode(context, self.tag, self.videos)
            if self.tag.parameters.model_trainable
            else SimpleMode(self.tag, self.encoder, context.in_request)
        )

    @classmethod
    def create(cls, mlbackend: LabelStudioMLBase, control: ControlTag) -> ControlModel:
        """Makes the control model of a control tag of a backend's labeling config. Errors as of the class."""
        return cls(mlbackend.context, control)

    @classmethod
    def is_control_matched(cls, control: ControlTag) -> bool:
        """Whether this class serves the control tag."""
        return cls.tag_type.is_matched(control)

    @property
    def has_timeline(self) -> bool:
        """Whether it labels moments and has a `track`, or the video as a whole."""
        return self.tag.has_timeline

    def find_encoder(self) -> Encoder:
        """The encoder that the config names, with its present file. Errors as of the class."""
        settings, parameters = self.context.settings, self.tag.parameters
        return get_encoder(
            parameters.model_path,
            model_root=settings.model_root,
            precision=settings.precision,
            allow_custom=settings.allow_custom_model_path,
            fallback=settings.model_fallback,
            wait=not self.context.in_request(),
            region=parameters.model_region,
            image_size=parameters.model_image_size,
        )

    # -- the heavy part of a prediction

    def media(self, task: dict[str, Any]) -> str:
        """The path or URL of the task's video. Raises MediaError where the task has none."""
        return self.tag.media(task)

    def is_extracted(self, task: dict[str, Any]) -> bool:
        """Whether `predict` is light work for this task."""
        return self.videos.cached(task) is not None

    def extract(self, task: dict[str, Any], progress: Progress = UNTOLD, others: Sequence[ControlModel] = ()) -> None:
        """Extracts the features of the task's video into the cache.

        Args:
            task: the task.
            progress: called with the share done, in [0, 1].
            others: control models of the same config; what they need of the same pictures is extracted in the same
                decoding.

        Raises:
            MediaError: the video can't be fetched or read.
        """
        features = self.videos.extracted(task, progress, [other.videos for other in others])
        self.context.notes.add((task.get("id"), text) for text in self.videos.remarks(task, features))

    def evict(self, task: dict[str, Any], others: Sequence[ControlModel] = ()) -> None:
        """Drops the features of the task's video, also those of other control tags, and its download."""
        self.videos.drop(task, [other.videos for other in others])

    # -- prediction

    def predict(self, task: dict[str, Any], recall: bool = True) -> ControlPrediction:
        """Predicts the control tag's regions in a task. `recall` as of `LabelStudioMLBase.tracks`.

        Raises:
            MediaError: the video can't be fetched or read.
            NotReady: no classifier is trained yet, or none for the present config or encoder.
        """
        return self._predict_file(self.videos.place(task), self.tag.frame_rate(task), task if recall else None)

    def _predict_file(
        self, path: str | Path, frame_rate: float, task: dict[str, Any] | None = None
    ) -> ControlPrediction:
        classifier = self.mode.ready()  # raises before a video is read in vain
        return self._predict(self.videos.of_file(path), frame_rate, classifier, task)

    def _predict(
        self,
        features: VideoFeatures,
        frame_rate: float,
        classifier: MultiLabelLSTM | None,
        task: dict[str, Any] | None,
    ) -> ControlPrediction:
        """Predicts a video by a classifier of `mode.ready`. On an annotated task, trainable mode predicts what was
        drawn."""
        probs, annotated = self.mode.probabilities(features, frame_rate, classifier, task)
        labels = self.tag.decide(probs, frame_rate, classifier, annotated)
        regions, score = self.tag.regions(probs, labels), self.tag.score(probs, classifier)
        return ControlPrediction(regions, score, self.mode.version_of(classifier), probs, annotated)

    def track(self, task: dict[str, Any], recall: bool = True) -> Track:
        """The track of an extracted task, also where the model can't predict yet. `recall` as of
        `LabelStudioMLBase.tracks`.

        Raises:
            MediaError: the video can't be fetched or read.
        """
        raise NotImplementedError(f"{self.from_name} has no timeline.")

    def recording(self, task: dict[str, Any]) -> Recording:
        """The task's video, without predicting. Its duration is known where its features are cached or, outside
        requests, where its file is here.

        Raises:
            MediaError: the task's data names no video.
        """
        raise NotImplementedError(f"{self.from_name} has no timeline.")

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        """Trains on the project's annotations, as `TrainedMode.fit`. Returns None in simple mode."""
        return self.mode.fit(event, data, **kwargs)
